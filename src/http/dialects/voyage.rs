//! Voyage AI's rerank API under `/voyage`, since Voyage's own path is Jina's and Cohere's too: its
//! clients get `http://HOST:PORT/voyage/v1` as their base URL.
//!
//! Source: Voyage AI's API reference, "Rerankers"; the client voyageai 0.3.7.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Dialect;
use super::fields::{at_least_1, truncated};
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::{flag, whole};
use crate::rerank::{Answer, Ask, Queries};

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": "What is the capital of France?",
    "documents": ["Berlin is in Germany.", "Paris is the capital of France."],
    "top_k": 1,
    "return_documents": true,
}))]
pub(in crate::http) struct VoyageRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// The query.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The documents to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    documents: Vec<String>,
    /// Maximum number of results; all if left out.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    top_k: Option<usize>,
    /// Whether to return each document with its score.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
    /// Whether to cut a pair that is longer than the model's input; true if left out. With `false`
    /// it is an error if the windows that are read don't reach its end.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    truncation: Option<bool>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct VoyageResponse {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Best first; equal scores in the documents' order.
    data: Vec<VoyageResult>,
    /// The model that scored.
    model: String,
    usage: VoyageUsage,
}

#[derive(Debug, Serialize, ToSchema)]
struct VoyageResult {
    /// The document's position in the request, from 0.
    index: usize,
    /// Higher is better; between 0 and 1 unless the model says otherwise.
    #[schema(example = 0.98)]
    relevance_score: f32,
    /// The document, if `return_documents` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    document: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct VoyageUsage {
    /// Tokens that were scored, special tokens included: of a document that stands twice once, of a score from the cache none.
    total_tokens: usize,
}

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct Voyage;

impl Dialect for Voyage {
    type Request = VoyageRequest;
    type Ask = Ask;
    /// The documents, if they are to be returned.
    type Kept = Option<Arc<[String]>>;
    type Response = VoyageResponse;

    fn model<'r>(&self, request: &'r VoyageRequest) -> Option<&'r str> {
        request.model.as_deref()
    }

    fn ask(
        &self,
        request: VoyageRequest,
        _: &Context,
    ) -> Result<(Ask, Option<Arc<[String]>>), ApiError> {
        let ask = Ask {
            model: request.model,
            queries: Queries::One(request.query),
            documents: request.documents.into(),
            top_n: request.top_k.map(|n| at_least_1(n, "top_k")).transpose()?,
            fit: truncated(request.truncation.or(Some(true))),
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
        _: &Context,
    ) -> VoyageResponse {
        let results = answer.ranked.iter().map(|ranked| VoyageResult {
            index: ranked.index,
            relevance_score: ranked.score.get(),
            document: documents.as_ref().map(|all| all[ranked.index].clone()),
        });
        VoyageResponse {
            object: "list",
            data: results.collect(),
            model: answer.model.name.clone(),
            usage: VoyageUsage {
                total_tokens: answer.cost.tokens,
            },
        }
    }
}
