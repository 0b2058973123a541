//! Infinity's rerank API: `POST /infinity/rerank`, and `/rerank` where `dispatch` can tell. Its
//! documents come back as strings, vLLM's under the same path as objects.
//!
//! Source: infinity_emb 0.0.77 and its generated client infinity-client.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Dialect;
use super::fields::Usage;
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::{flag, whole};
use crate::rerank::{Answer, Ask, Queries};

/// What Infinity's client sends where its user names no model.
pub(super) const NO_MODEL: &str = "default/not-specified";

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": "What is the capital of France?",
    "documents": ["Berlin is in Germany.", "Paris is the capital of France."],
    "return_documents": true,
    "raw_scores": false,
}))]
pub(in crate::http) struct InfinityRequest {
    /// The served model's name or an alias of it; may be left out.
    #[schema(example = "default/not-specified")]
    model: Option<String>,
    /// The query.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The documents to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    documents: Vec<String>,
    /// Maximum number of results; all if left out, and with 0.
    #[serde(default, deserialize_with = "whole")]
    top_n: Option<usize>,
    /// Whether to return each document with its score.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
    /// Logits instead of scores.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    raw_scores: Option<bool>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct InfinityResponse {
    /// Always `rerank`.
    #[schema(example = "rerank")]
    object: &'static str,
    /// Best first; equal scores in the documents' order.
    results: Vec<InfinityResult>,
    /// The model that scored.
    model: String,
    usage: Usage,
    /// The request's id.
    id: String,
    /// When it was answered, in seconds since 1970.
    created: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct InfinityResult {
    /// Higher is better; between 0 and 1 unless the model or `raw_scores` says otherwise.
    #[schema(example = 0.98)]
    relevance_score: f32,
    /// The document's position in the request, from 0.
    index: usize,
    /// The document, if `return_documents` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    document: Option<String>,
}

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct Infinity;

impl Dialect for Infinity {
    type Request = InfinityRequest;
    type Ask = Ask;
    /// The documents, if they are to be returned.
    type Kept = Option<Arc<[String]>>;
    type Response = InfinityResponse;

    fn model<'r>(&self, request: &'r InfinityRequest) -> Option<&'r str> {
        request.model.as_deref().filter(|&name| name != NO_MODEL)
    }

    fn ask(
        &self,
        request: InfinityRequest,
        _: &Context,
    ) -> Result<(Ask, Option<Arc<[String]>>), ApiError> {
        let ask = Ask {
            model: request.model.filter(|name| name != NO_MODEL),
            queries: Queries::One(request.query),
            documents: request.documents.into(),
            top_n: request.top_n.filter(|&n| n > 0),
            raw_scores: request.raw_scores.unwrap_or(false),
            ..Ask::default()
        };
        let returned = request.return_documents.unwrap_or(false);
        let documents = returned.then(|| Arc::clone(&ask.documents));
        Ok((ask, documents))
    }

    fn answer(
        &self,
        answer: Answer,
        documents: Option<Arc<[String]>>,
        context: &Context,
    ) -> InfinityResponse {
        let results = answer.ranked.iter().map(|ranked| InfinityResult {
            relevance_score: ranked.score.get(),
            index: ranked.index,
            document: documents.as_ref().map(|all| all[ranked.index].clone()),
        });
        InfinityResponse {
            object: "rerank",
            results: results.collect(),
            model: answer.model.name.clone(),
            usage: Usage::of(answer.cost.tokens),
            id: context.id.clone(),
            created: context.time,
        }
    }
}
