//! NVIDIA NIM's ranking API: `POST /v1/ranking` and `/v1/retrieval/{model}/reranking`, which gives
//! logits.
//!
//! Source: NVIDIA NeMo Retriever Text Answer NIM, API reference.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Dialect;
use super::fields::{Usage, truncated};
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::{object, objects};
use crate::rerank::{Answer, Ask, Queries};

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": {"text": "What is the capital of France?"},
    "passages": [{"text": "Berlin is in Germany."}, {"text": "Paris is the capital of France."}],
    "truncate": "END",
}))]
pub(in crate::http) struct NimRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// The query.
    #[serde(deserialize_with = "object")]
    query: NimText,
    /// The passages to rank.
    #[serde(deserialize_with = "objects")]
    passages: Vec<NimText>,
    /// What to do with a pair that is longer than the model's input; the server's setting if left
    /// out.
    truncate: Option<NimTruncate>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct NimText {
    #[schema(example = "Paris is the capital of France.")]
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum NimTruncate {
    /// It is an error.
    None,
    /// Its end is cut.
    End,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct NimResponse {
    /// Best first; equal logits in the passages' order.
    rankings: Vec<NimRanking>,
    usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
struct NimRanking {
    /// The passage's position in the request, from 0.
    index: usize,
    /// Higher is better; not limited.
    #[schema(example = 4.1)]
    logit: f32,
}

/// The dialect. A model in the path comes before the body's.
#[derive(Debug)]
pub(in crate::http) struct Nim;

impl Dialect for Nim {
    type Request = NimRequest;
    type Ask = Ask;
    type Kept = ();
    type Response = NimResponse;

    fn model<'r>(&self, request: &'r NimRequest) -> Option<&'r str> {
        request.model.as_deref()
    }

    fn ask(&self, request: NimRequest, context: &Context) -> Result<(Ask, ()), ApiError> {
        let ask = Ask {
            model: context.model.clone().or(request.model),
            queries: Queries::One(request.query.text),
            documents: request.passages.into_iter().map(|p| p.text).collect(),
            raw_scores: true,
            fit: truncated(request.truncate.map(|t| t == NimTruncate::End)),
            ..Ask::default()
        };
        Ok((ask, ()))
    }

    fn answer(&self, answer: Answer, (): (), _: &Context) -> NimResponse {
        let rankings = answer.ranked.iter().map(|ranked| NimRanking {
            index: ranked.index,
            logit: ranked.score.get(),
        });
        NimResponse {
            rankings: rankings.collect(),
            usage: Usage::of(answer.cost.tokens),
        }
    }
}
