//! The native dialect, `POST /v1/rerank` and `/v2/rerank`: one request and one answer that hold what
//! Cohere (v1, v2), Jina, Xinference, LiteLLM, vLLM, Azure AI and SiliconFlow ask and answer under these
//! paths. `dispatch` sends vLLM's and llama.cpp's own paths here too, `dashscope` those of its that are
//! alike.
//!
//! Besides, it has what no service has alike: several queries, cascades, the first stage's scores (`strategy`).
//!
//! Sources: the API references of Cohere ("Rerank", v1 and v2), Jina and SiliconFlow; vLLM,
//! "OpenAI-compatible server", Re-rank API; Xinference and LiteLLM, rerank.

mod explanation;
mod strategy;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Dialect;
use super::document::{DocumentInput, Returned, one_of, texts};
use super::fields::{TruncationSide, Usage, logits, priority, prompt_tokens, truncated, windows};
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::{flag, number, optional_object, optional_objects, whole};
use crate::rerank::{Answer, Ask, Joined};
use crate::scoring::FitOverrides;
use crate::types::Priority;
use explanation::ExplainedPart;
use strategy::{CombineInput, FusionInput, StageInput};

/// A request. Unknown fields are ignored; null is the same as absent, but for `fusion`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": "What is the capital of France?",
    "documents": ["Berlin is in Germany.", "Paris is the capital of France."],
    "return_documents": true,
}))]
pub(in crate::http) struct NativeRequest {
    /// The served model's name or an alias of it; may be left out. Not read with `cascade`.
    model: Option<String>,
    /// The query; required unless `queries` is sent.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: Option<String>,
    /// Several queries in place of `query`: each document is scored against every one of them.
    #[schema(min_items = 1, max_items = 16)]
    queries: Option<Vec<String>>,
    /// What a document's scores against `queries` make of it; `max` if left out.
    combine: Option<CombineInput>,
    /// The task, for models that take an instruction; others ignore it, and the answer's header
    /// `x-rerankd-ignored-fields` names it.
    instruction: Option<String>,
    /// The same under DashScope's name.
    instruct: Option<String>,
    /// The documents to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    documents: Option<Vec<DocumentInput>>,
    /// The same under TEI's name; send one of the two.
    texts: Option<Vec<DocumentInput>>,
    /// Maximum number of results; all if left out, and with 0, as in vLLM.
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
    /// out. With `false` it is an error if the windows that are read (`max_chunks_per_doc`, else the
    /// server's setting) don't reach its end.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    truncate: Option<bool>,
    /// Maximum number of windows read from a document that does not fit; of more, those that match the
    /// query's words best are read. The document's score is the best window's, unless the server is set
    /// otherwise. With 1 the document is cut. The server's setting if left out.
    #[schema(minimum = 1, maximum = 1024)]
    #[serde(default, deserialize_with = "whole")]
    max_chunks_per_doc: Option<usize>,
    /// Number of tokens that a window shares with the one before it (at most half a window); the
    /// server's setting if left out.
    #[serde(default, deserialize_with = "whole")]
    overlap_tokens: Option<usize>,
    /// Maximum number of tokens read from a document; with 0 all, as in vLLM.
    #[serde(default, deserialize_with = "whole")]
    max_tokens_per_doc: Option<usize>,
    /// Cuts each pair to this many tokens, special tokens included, and reads no further window of a document unless
    /// `max_chunks_per_doc` says so; -1 stands for the model's longest input. vLLM's; what sends it gets documents back, as from vLLM, unless
    /// `return_documents` is false.
    #[schema(minimum = -1)]
    #[serde(default, deserialize_with = "whole")]
    truncate_prompt_tokens: Option<i64>,
    /// Which end of a pair that is too long is cut; vLLM's.
    truncation_side: Option<TruncationSide>,
    /// Lowest score of a result, compared with the score that is shown; documents below it are left out.
    #[schema(example = 0.5)]
    #[serde(default, deserialize_with = "number")]
    #[schema(value_type = Option<f32>)]
    min_score: Option<f32>,
    /// The same under another name.
    #[serde(default, deserialize_with = "number")]
    #[schema(value_type = Option<f32>)]
    score_threshold: Option<f32>,
    /// How the model's scores are joined with those of the stage before rerankd; needs the first stage's
    /// scores or ranks. The server's setting if left out; with null they are not joined.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<FusionInput>)]
    fusion: Option<Option<FusionInput>>,
    /// The first stage's score of each document, higher is better; null where it gave none. Documents that
    /// are objects may hold theirs themselves: `first_stage_score`, or `first_stage_rank`, from 1.
    #[schema(example = json!([12.3, 9.8]))]
    first_stage_scores: Option<Vec<Option<f32>>>,
    /// Models that rank one after the other, each the best documents of the one before it.
    #[schema(min_items = 1, max_items = 4)]
    #[serde(default, deserialize_with = "optional_objects")]
    cascade: Option<Vec<StageInput>>,
    /// Time that a cascade should take, in milliseconds: later stages get no more documents than can be
    /// scored in it.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    max_latency_ms: Option<u64>,
    /// Whether to say of the best results which sentences and words their scores come from.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    explain: Option<bool>,
    /// The request's class: `interactive` or `batch`, or a number, where 0 and less are interactive and more is batch.
    /// Batch work is done once no interactive work waits, but for a small share.
    #[serde(default, deserialize_with = "priority")]
    #[schema(value_type = Option<i64>, example = 0)]
    priority: Option<Priority>,
    /// Xinference's, in which its clients send what they have no field for. What sends it gets
    /// `document: null` where no documents are asked for, as from Xinference.
    #[schema(value_type = Option<String>)]
    kwargs: Option<IgnoredAny>,
}

/// A field that is there: an object, or null.
fn said<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<FusionInput>>, D::Error> {
    optional_object(deserializer).map(Some)
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
    /// The last model of a cascade that scored the document; left out without a cascade.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    model: Option<String>,
    /// What the score comes from, with `explain` and for the first results only (10 unless the server is set
    /// otherwise): the document's sentences in its order. Joined, their texts are the text that was ranked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    explanation: Option<Vec<ExplainedPart>>,
    /// True if the model did not read all of the document, since it (or the query) is too long; else left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    truncated: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Meta {
    api_version: ApiVersion,
    billed_units: BilledUnits,
    /// The kind of the scores: `probability` (from 0 to 1), `logit`, `similarity` or `fused` (only their order means
    /// something).
    #[schema(example = "probability")]
    score_kind: &'static str,
    /// The models of a cascade, in its order; left out without a cascade.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stages: Option<Vec<StageUse>>,
    /// Number of documents that the model did not read whole, since they are too long; left out if 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    truncated_documents: Option<usize>,
    /// If `return_len` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tokens: Option<Tokens>,
}

/// A stage of a cascade.
#[derive(Debug, Serialize, ToSchema)]
struct StageUse {
    /// The stage's model.
    model: String,
    /// Number of documents that it scored.
    documents: usize,
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

/// The dialect, by the service whose defaults hold where a request is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Native {
    /// Documents only if asked for.
    CohereV1,
    /// As v1, but only so much of a document is read.
    CohereV2,
    /// Documents unless refused.
    Vllm,
    /// Never documents.
    LlamaCpp,
}

/// The part of a request that the response needs.
#[derive(Debug)]
pub(in crate::http) struct Kept {
    documents: Returned,
    /// Documents that are not returned are null.
    null_documents: bool,
    with_tokens: bool,
    is_cascade: bool,
    /// The field that tells what the first stage gave, if one does.
    first_stage_field: Option<&'static str>,
    instruction_field: &'static str,
}

impl Dialect for Native {
    type Request = NativeRequest;
    type Ask = Ask;
    type Kept = Kept;
    type Response = NativeResponse;

    fn model<'r>(&self, request: &'r NativeRequest) -> Option<&'r str> {
        request
            .model
            .as_deref()
            .filter(|_| request.cascade.is_none())
    }

    fn ask(&self, request: NativeRequest, _: &Context) -> Result<(Ask, Kept), ApiError> {
        let fit = self.fit(&request)?;
        let returned = request.return_documents.or(request.return_text);
        let returned = match self {
            Self::LlamaCpp => false,
            Self::Vllm => returned.unwrap_or(true),
            _ => returned.unwrap_or(request.truncate_prompt_tokens.is_some()),
        };
        let documents = ("documents", request.documents);
        let documents = one_of(documents, [("texts", request.texts)])?;
        let first_stage = strategy::first_stage(&documents, request.first_stage_scores)?;
        let (first_stage_field, first_stage) = first_stage.unzip();
        let fusion = strategy::joined(request.fusion)?;
        if matches!(fusion, Joined::By(_)) && first_stage.is_none() {
            return Err(strategy::no_evidence());
        }
        let cascade = strategy::cascade(request.cascade)?;
        let mut kept = Kept {
            documents: Returned::default(),
            null_documents: request.kwargs.is_some(),
            with_tokens: request.return_len.unwrap_or(false),
            is_cascade: !cascade.is_empty(),
            first_stage_field,
            instruction_field: match request.instruction {
                Some(_) => "instruction",
                None => "instruct",
            },
        };
        let ask = Ask {
            model: request.model.filter(|_| cascade.is_empty()),
            queries: strategy::queries(request.query, request.queries, request.combine)?,
            documents: texts(
                &documents,
                Some(&request.rank_fields.unwrap_or_default()),
                "documents",
            )?,
            instruction: request.instruction.or(request.instruct),
            fit,
            max_latency: strategy::max_latency(request.max_latency_ms, &cascade)?,
            cascade,
            first_stage,
            fusion,
            raw_scores: logits(
                request.raw_scores,
                [request.use_activation, request.activation, request.softmax],
            )?,
            min_score: strategy::min_score(request.min_score, request.score_threshold)?,
            top_n: request.top_n.filter(|&n| n > 0),
            explain: request.explain.unwrap_or(false),
            priority: request.priority,
        };
        kept.documents = Returned::new(documents, returned);
        Ok((ask, kept))
    }

    fn answer(&self, answer: Answer, mut kept: Kept, context: &Context) -> NativeResponse {
        let stages = &answer.stages;
        let mut explanations = answer.explanations.into_iter();
        let results = answer.ranked.iter().map(|ranked| NativeResult {
            index: ranked.index,
            relevance_score: ranked.score.get(),
            document: match kept.documents.take(ranked.index) {
                None => kept.null_documents.then_some(None),
                document => Some(document.map(DocumentInput::into_object)),
            },
            model: stages
                .get(ranked.stage)
                .filter(|_| kept.is_cascade)
                .map(|stage| stage.model.name.clone()),
            explanation: explanations.next().map(explanation::shown),
            truncated: Some(answer.truncated[ranked.index]).filter(|&is| is),
        });
        let tokens = answer.cost.tokens;
        NativeResponse {
            id: context.id.clone(),
            results: results.collect(),
            model: answer.model.name.clone(),
            usage: Usage::of(tokens),
            meta: Meta {
                api_version: ApiVersion {
                    version: match self {
                        Self::CohereV1 => "1",
                        _ => "2",
                    },
                },
                billed_units: BilledUnits { search_units: 1 },
                score_kind: answer.score_kind.name(),
                stages: kept.is_cascade.then(|| {
                    let stages = stages.iter().map(|stage| StageUse {
                        model: stage.model.name.clone(),
                        documents: stage.documents,
                    });
                    stages.collect()
                }),
                truncated_documents: Some(answer.cost.truncated).filter(|&n| n > 0),
                tokens: kept.with_tokens.then_some(Tokens {
                    input_tokens: tokens,
                    output_tokens: 0,
                }),
            },
        }
    }

    fn first_stage_field(&self, kept: &Kept) -> Option<&'static str> {
        kept.first_stage_field
    }

    fn instruction_field(&self, kept: &Kept) -> &'static str {
        kept.instruction_field
    }
}

impl Native {
    fn fit(self, request: &NativeRequest) -> Result<FitOverrides, ApiError> {
        let mut fit = truncated(request.truncate);
        windows(&mut fit, request.max_chunks_per_doc, request.overlap_tokens)?;
        // Cohere's second version reads 4,096 tokens of a document unless told otherwise.
        let usual = (self == Self::CohereV2).then_some(4096);
        fit.max_document_tokens = request.max_tokens_per_doc.or(usual).filter(|&n| n > 0);
        if let Some(tokens) = request.truncate_prompt_tokens {
            prompt_tokens(&mut fit, tokens)?;
        }
        fit.direction = request.truncation_side.map(Into::into);
        Ok(fit)
    }
}
