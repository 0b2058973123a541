//! The native dialect, `POST /v1/rerank` and `/v2/rerank`: Cohere's shape (v2's request with v1's
//! `return_documents`), with the `usage` that Jina's clients need.
//!
//! Errors are problem details (RFC 9457), and carry `message` besides `detail`, since Cohere's
//! clients read the one and Jina's the other.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::{RerankRequest, Reranking};

use super::super::error::{ApiError, with_headers};
use super::super::extract::{DocumentInput, TextObject, flag, json};
use super::super::layers::{RequestId, Work, with_work};
use super::super::state::{AppState, Served};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(rerank))
        .routes(routes!(rerank_v2))
}

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
pub(in crate::http) struct NativeRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// What is searched for.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The documents to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]))]
    documents: Option<Vec<DocumentInput>>,
    /// The same under TEI's name; send one of the two.
    texts: Option<Vec<DocumentInput>>,
    /// How many of the best to return; all if left out.
    #[schema(minimum = 1)]
    top_n: Option<usize>,
    /// Whether to return each document with its score.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
    /// The same under TEI's name.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_text: Option<bool>,
    /// Logits instead of scores.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    raw_scores: Option<bool>,
    /// Whether to cut a pair that is longer than the model's input; the server's setting if left
    /// out. With `false` such a pair is an error.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    truncate: Option<bool>,
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
    /// The document, if `return_documents` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<TextObject>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    /// Tokens of all pairs, special tokens included.
    total_tokens: usize,
    prompt_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct Meta {
    api_version: ApiVersion,
    billed_units: BilledUnits,
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

/// An error as problem details (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Problem {
    /// Always `about:blank`: `code` tells errors apart.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    /// What was wrong and how to mend it.
    detail: String,
    /// The same, for clients that look here.
    message: String,
    /// Names the error for programs.
    #[schema(example = "invalid_field")]
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// The fields that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

#[derive(Debug, Serialize, ToSchema)]
struct FieldError {
    #[schema(example = "documents[3].text")]
    field: String,
    message: String,
}

/// Ranks documents by their relevance to a query.
#[utoipa::path(post, path = "/v1/rerank", tag = "rerank", request_body = NativeRequest, responses(
    (status = 200, description = "The ranking", body = NativeResponse),
    (status = 400, description = "Malformed JSON", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "Unknown model", body = Problem, content_type = "application/problem+json"),
    (status = 408, description = "The body did not arrive in time", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "Body too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 500, description = "Internal error", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Queue full, or loading; see Retry-After", body = Problem, content_type = "application/problem+json"),
    (status = 504, description = "Not answered in time", body = Problem, content_type = "application/problem+json"),
))]
pub(in crate::http) async fn rerank(State(state): State<AppState>, request: Request) -> Response {
    let id = RequestId::of(&request).cloned();
    match answer(&state, request, id.as_ref()).await {
        Ok(response) => response,
        Err(problem) => error(&problem, id.as_ref()),
    }
}

/// The same under the path of Cohere's second version.
#[utoipa::path(post, path = "/v2/rerank", tag = "rerank", request_body = NativeRequest, responses(
    (status = 200, description = "The ranking", body = NativeResponse),
    (status = "4XX", description = "As /v1/rerank", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "As /v1/rerank", body = Problem, content_type = "application/problem+json"),
))]
pub(in crate::http) async fn rerank_v2(state: State<AppState>, request: Request) -> Response {
    rerank(state, request).await
}

async fn answer(
    state: &AppState,
    request: Request,
    id: Option<&RequestId>,
) -> Result<Response, ApiError> {
    state.served()?;
    let body: NativeRequest = json(request, state.options()).await?;
    let served = state.model(body.model.as_deref())?;
    if body.top_n == Some(0) {
        return Err(ApiError::Invalid {
            field: "top_n".into(),
            detail: "it must be at least 1; leave it out to get all documents".into(),
        });
    }
    let documents = one_of(body.documents, body.texts, "documents", "texts")?;
    let request = RerankRequest {
        query: body.query,
        documents: documents.iter().map(|d| d.text().to_owned()).collect(),
        top_n: body.top_n,
        raw_scores: body.raw_scores.unwrap_or(false),
        truncation: Some(served.reranker.truncation(body.truncate)),
    };
    let reranking = served.reranker.rerank(&request).await?;
    let with_documents = body.return_documents.or(body.return_text).unwrap_or(false);
    let work = work_of(&reranking, &request.documents);
    let response = response(served, &reranking, with_documents.then_some(documents), id);
    Ok(with_work(Json(response).into_response(), work))
}

/// The documents, which come under one of two names.
pub(super) fn one_of(
    first: Option<Vec<DocumentInput>>,
    second: Option<Vec<DocumentInput>>,
    name: &str,
    other: &str,
) -> Result<Vec<DocumentInput>, ApiError> {
    first.or(second).ok_or_else(|| ApiError::Invalid {
        field: name.into(),
        detail: format!("it is missing (\"{other}\" is accepted too)"),
    })
}

pub(super) fn work_of(reranking: &Reranking, documents: &Arc<[String]>) -> Work {
    Work {
        timings: reranking.timings,
        documents: documents.len(),
        tokens: reranking.tokens,
    }
}

fn response(
    served: &Served,
    reranking: &Reranking,
    mut documents: Option<Vec<DocumentInput>>,
    id: Option<&RequestId>,
) -> NativeResponse {
    let document = |documents: &mut Vec<DocumentInput>, index: usize| {
        // Each document is returned once, so it can be moved out.
        let empty = DocumentInput::Text(String::new());
        match std::mem::replace(documents.get_mut(index)?, empty) {
            DocumentInput::Object(object) => Some(object),
            DocumentInput::Text(text) => Some(TextObject {
                text,
                other: serde_json::Map::new(),
            }),
        }
    };
    let results = reranking
        .ranked
        .iter()
        .map(|ranked| NativeResult {
            index: ranked.index,
            relevance_score: ranked.score.get(),
            document: documents.as_mut().and_then(|d| document(d, ranked.index)),
        })
        .collect();
    NativeResponse {
        id: id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        model: served.info.name.clone(),
        results,
        usage: Usage {
            total_tokens: reranking.tokens,
            prompt_tokens: reranking.tokens,
        },
        meta: Meta {
            api_version: ApiVersion { version: "2" },
            billed_units: BilledUnits { search_units: 1 },
        },
    }
}

/// An error in this dialect's shape.
pub(in crate::http) fn error(error: &ApiError, id: Option<&RequestId>) -> Response {
    let described = error.describe();
    let errors = described.field.map(|field| FieldError {
        field,
        message: described.detail.clone(),
    });
    let problem = Problem {
        kind: "about:blank",
        title: described.title,
        status: described.status.as_u16(),
        message: described.detail.clone(),
        detail: described.detail,
        code: described.code,
        request_id: id.map(|id| id.as_str().to_owned()),
        errors: errors.into_iter().collect(),
    };
    let mut response = Json(problem).into_response();
    let media_type = HeaderValue::from_static("application/problem+json");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    with_headers(described.status, response)
}
