//! The native dialect, `POST /v1/rerank` and `/v2/rerank`: one request and one answer that hold what
//! Cohere (v1, v2), Jina, Xinference, LiteLLM, vLLM, Azure AI and SiliconFlow ask and answer under these
//! paths. `dispatch` sends vLLM's and llama.cpp's own paths here too, `dashscope` those of its that are
//! alike.
//!
//! Sources: the API references of Cohere ("Rerank", v1 and v2), Jina and SiliconFlow; vLLM,
//! "OpenAI-compatible server", Re-rank API; Xinference and LiteLLM, rerank.

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::{Ask, Queries};
use crate::scoring::FitOverrides;
use crate::types::MAX_WINDOWS;

use super::super::error::ApiError;
use super::super::extract::{flag, json, whole};
use super::super::layers::{RequestId, with_work};
use super::super::state::{AppState, Call};
use super::document::{DocumentInput, Returned, one_of, texts};
use super::openai::Usage;
use super::problem;
use super::vllm::{TruncationSide, logits};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(rerank))
        .routes(routes!(rerank_v2))
}

/// A request. Unknown fields are ignored; null is the same as absent. `instruction` and `instruct`
/// are for models that take one; the families served today take none.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": "What is the capital of France?",
    "documents": ["Berlin is in Germany.", "Paris is the capital of France."],
    "return_documents": true,
}))]
pub(in crate::http) struct NativeRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// What is searched for.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The documents to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    documents: Option<Vec<DocumentInput>>,
    /// The same under TEI's name; send one of the two.
    texts: Option<Vec<DocumentInput>>,
    /// How many of the best to return; all if left out, and with 0, as in vLLM.
    #[serde(default, deserialize_with = "whole")]
    top_n: Option<usize>,
    /// Whether to return each document with its score.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
    /// The same under TEI's name.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_text: Option<bool>,
    /// Whether to return the number of tokens in `meta`, as Xinference does.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_len: Option<bool>,
    /// Logits instead of scores.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    raw_scores: Option<bool>,
    /// vLLM's: with `false` logits.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    use_activation: Option<bool>,
    /// An older name of `use_activation`.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    activation: Option<bool>,
    /// The oldest name of `use_activation`.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    softmax: Option<bool>,
    /// Which fields of documents that are objects are ranked, in this order; only `text` if left
    /// out.
    #[schema(example = json!(["text"]))]
    rank_fields: Option<Vec<String>>,
    /// Whether to cut a pair that is longer than the model's input; the server's setting if left
    /// out. With `false` such a pair is an error.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    truncate: Option<bool>,
    /// In how many windows of its tokens a document that is too long is read at most; of more,
    /// those that match the query's words best. Its score is the best window's, unless the server is
    /// set otherwise. With 1 it is cut. The server's setting if left out.
    #[schema(minimum = 1, maximum = 1024)]
    #[serde(default, deserialize_with = "whole")]
    max_chunks_per_doc: Option<usize>,
    /// Tokens that such a window has in common with the one before it (at most half a window); the
    /// server's setting if left out.
    #[serde(default, deserialize_with = "whole")]
    overlap_tokens: Option<usize>,
    /// How many tokens of a document are read; with 0 all, as in vLLM.
    #[serde(default, deserialize_with = "whole")]
    max_tokens_per_doc: Option<usize>,
    /// Cuts each pair to this many tokens, special tokens included; -1 stands for the model's
    /// longest input. vLLM's; what sends it gets documents back, as from vLLM, unless
    /// `return_documents` is false.
    #[schema(minimum = -1)]
    #[serde(default, deserialize_with = "whole")]
    truncate_prompt_tokens: Option<i64>,
    /// Which end of a pair that is too long is cut; vLLM's.
    truncation_side: Option<TruncationSide>,
    /// Xinference's, in which its clients send what they have no field for. What sends it gets
    /// `document: null` where no documents are asked for, as from Xinference.
    #[schema(value_type = Option<String>)]
    kwargs: Option<IgnoredAny>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct NativeResponse {
    /// The request's id.
    id: String,
    /// The model that scored.
    model: String,
    /// Best first; equal scores in the documents' order.
    results: Vec<NativeResult>,
    usage: Usage,
    meta: Meta,
}

#[derive(Debug, Serialize, ToSchema)]
struct NativeResult {
    /// The document's position in the request, from 0.
    index: usize,
    /// Higher is better; between 0 and 1 unless the model or `raw_scores` says otherwise.
    #[schema(example = 0.98)]
    relevance_score: f32,
    /// The document, if it was asked for: with all its fields, a string under `text`. Else it is left out,
    /// or null for Xinference's clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, required = false, example = json!({"text": "Paris is the capital of France."}))]
    document: Option<Option<Map<String, Value>>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Meta {
    api_version: ApiVersion,
    billed_units: BilledUnits,
    /// Of how many documents the model did not read all, since they are too long; left out if of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    truncated_documents: Option<usize>,
    /// If `return_len` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tokens: Option<Tokens>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ApiVersion {
    #[schema(example = "2")]
    version: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct BilledUnits {
    /// Always 1; Cohere's clients want it.
    search_units: u32,
}

#[derive(Debug, Serialize, ToSchema)]
struct Tokens {
    input_tokens: usize,
    output_tokens: usize,
}

/// Whose defaults hold where the request is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// Documents only if asked for.
    CohereV1,
    /// As v1, but only so much of a document is read.
    CohereV2,
    /// Documents unless refused.
    Vllm,
    /// Never documents.
    LlamaCpp,
}

/// Ranks documents by their relevance to a query: Cohere v1, Jina, Xinference, LiteLLM, vLLM, Azure
/// AI, SiliconFlow.
#[utoipa::path(post, path = "/v1/rerank", tag = "rerank", request_body = NativeRequest, responses(
    (status = 200, description = "The ranking", body = NativeResponse),
))]
pub(in crate::http) async fn rerank(call: Call, request: Request) -> Response {
    respond(&call, request, Variant::CohereV1).await
}

/// Ranks documents by their relevance to a query: Cohere v2, LiteLLM, vLLM.
#[utoipa::path(post, path = "/v2/rerank", tag = "rerank", request_body = NativeRequest, responses(
    (status = 200, description = "The ranking", body = NativeResponse),
))]
pub(in crate::http) async fn rerank_v2(call: Call, request: Request) -> Response {
    respond(&call, request, Variant::CohereV2).await
}

pub(super) async fn respond(call: &Call, request: Request, variant: Variant) -> Response {
    let id = RequestId::of(&request).cloned();
    let answer = async {
        let body = json(request).await?;
        answer(call, body, variant, id.as_ref()).await
    };
    let answer = answer.await;
    answer.unwrap_or_else(|error| problem::error(&error, id.as_ref()))
}

pub(super) async fn answer(
    call: &Call,
    body: NativeRequest,
    variant: Variant,
    id: Option<&RequestId>,
) -> Result<Response, ApiError> {
    let served = call.model(body.model.as_deref())?;
    let fit = fit(&body, variant)?;
    let asked = body.return_documents.or(body.return_text);
    let with_documents = match variant {
        Variant::LlamaCpp => false,
        Variant::Vllm => asked.unwrap_or(true),
        _ => asked.unwrap_or(body.truncate_prompt_tokens.is_some()),
    };
    let documents = one_of(("documents", body.documents), [("texts", body.texts)])?;
    let request = Ask {
        model: Some(served.info().name.clone()),
        queries: Queries::One(body.query),
        documents: texts(&documents, body.rank_fields.as_deref(), "documents")?,
        top_n: body.top_n.filter(|&n| n > 0),
        raw_scores: logits(
            body.raw_scores,
            [body.use_activation, body.activation, body.softmax],
        ),
        fit,
        ..Ask::default()
    };
    let reranking = call.reranker().rerank(&request, &call.caller).await?;
    let mut documents = Returned::new(documents, with_documents);
    let results = reranking.ranked.iter().map(|ranked| NativeResult {
        index: ranked.index,
        relevance_score: ranked.score.get(),
        document: match documents.take(ranked.index) {
            None => body.kwargs.is_some().then_some(None),
            document => Some(document.map(DocumentInput::into_object)),
        },
    });
    let tokens = reranking.cost.tokens;
    let response = NativeResponse {
        id: id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        model: served.info().name.clone(),
        results: results.collect(),
        usage: Usage::of(tokens),
        meta: Meta {
            api_version: ApiVersion {
                version: if variant == Variant::CohereV1 {
                    "1"
                } else {
                    "2"
                },
            },
            billed_units: BilledUnits { search_units: 1 },
            truncated_documents: Some(reranking.cost.truncated).filter(|&n| n > 0),
            tokens: body.return_len.unwrap_or(false).then_some(Tokens {
                input_tokens: tokens,
                output_tokens: 0,
            }),
        },
    };
    let work = reranking.cost;
    Ok(with_work(Json(response).into_response(), work))
}

fn fit(body: &NativeRequest, variant: Variant) -> Result<FitOverrides, ApiError> {
    let mut fit = FitOverrides {
        truncate: body.truncate,
        ..FitOverrides::default()
    };
    windows(&mut fit, body.max_chunks_per_doc, body.overlap_tokens)?;
    // Cohere's second version reads 4,096 tokens of a document unless told otherwise.
    let usual = (variant == Variant::CohereV2).then_some(4096);
    fit.max_document_tokens = body.max_tokens_per_doc.or(usual).filter(|&n| n > 0);
    if let Some(tokens) = body.truncate_prompt_tokens {
        prompt_tokens(&mut fit, tokens)?;
    }
    if let Some(side) = body.truncation_side {
        fit.direction = Some(side.into());
    }
    Ok(fit)
}

/// Applies `max_chunks_per_doc` and `overlap_tokens`.
pub(super) fn windows(
    fit: &mut FitOverrides,
    max: Option<usize>,
    overlap: Option<usize>,
) -> Result<(), ApiError> {
    if let Some(max) = max {
        fit.max_windows = Some(at_least_1(max, "max_chunks_per_doc")?);
        if max > MAX_WINDOWS {
            return Err(ApiError::Invalid {
                field: "max_chunks_per_doc".into(),
                detail: format!("it must be at most {MAX_WINDOWS}"),
            });
        }
    }
    fit.overlap = overlap;
    Ok(())
}

/// Applies vLLM's `truncate_prompt_tokens`.
pub(super) fn prompt_tokens(fit: &mut FitOverrides, tokens: i64) -> Result<(), ApiError> {
    fit.truncate = Some(true);
    fit.max_tokens = match tokens {
        -1 => None,
        1.. => usize::try_from(tokens).ok(),
        _ => {
            return Err(ApiError::Invalid {
                field: "truncate_prompt_tokens".into(),
                detail: "it must be at least 1, or -1 for the model's longest input".into(),
            });
        }
    };
    Ok(())
}

/// A number that may not be 0.
pub(super) fn at_least_1(value: usize, field: &str) -> Result<usize, ApiError> {
    if value == 0 {
        return Err(ApiError::Invalid {
            field: field.into(),
            detail: "it must be at least 1; leave it out for the default".into(),
        });
    }
    Ok(value)
}
