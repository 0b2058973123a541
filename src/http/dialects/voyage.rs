//! Voyage AI's rerank API under `/voyage`, since Voyage's own path is Jina's and Cohere's too: its
//! clients get `http://HOST:PORT/voyage/v1` as their base URL.
//!
//! Source: Voyage AI's API reference, "Rerankers"; the client voyageai 0.3.7.

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::{Ask, Queries};
use crate::scoring::FitOverrides;

use super::super::error::ApiError;
use super::super::extract::{flag, json, whole};
use super::super::layers::with_work;
use super::super::state::{AppState, Call};
use super::native::at_least_1;
use super::{ErrorShape, detail};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(voyage_rerank))
}

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
    /// What is searched for.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The documents to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    documents: Vec<String>,
    /// How many of the best to return; all if left out.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    top_k: Option<usize>,
    /// Whether to return each document with its score.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
    /// Whether to cut a pair that is longer than the model's input; true if left out. With `false`
    /// such a pair is an error.
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
    /// Tokens of all pairs, special tokens included.
    total_tokens: usize,
}

/// Ranks documents by their relevance to a query, in Voyage AI's shape.
#[utoipa::path(post, path = "/voyage/v1/rerank", tag = "rerank", request_body = VoyageRequest, responses(
    (status = 200, description = "The ranking", body = VoyageResponse),
))]
pub(in crate::http) async fn voyage_rerank(call: Call, request: Request) -> Response {
    answer(&call, request)
        .await
        .unwrap_or_else(|e| detail::error(&e, ErrorShape::Voyage))
}

async fn answer(call: &Call, request: Request) -> Result<Response, ApiError> {
    let body: VoyageRequest = json(request).await?;
    let served = call.model(body.model.as_deref())?;
    let top_n = body.top_k.map(|n| at_least_1(n, "top_k")).transpose()?;
    let fit = FitOverrides {
        truncate: body.truncation.or(Some(true)),
        ..FitOverrides::default()
    };
    let request = Ask {
        model: Some(served.info().name.clone()),
        queries: Queries::One(body.query),
        documents: body.documents.into(),
        top_n,
        raw_scores: false,
        fit,
        ..Ask::default()
    };
    let reranking = call.reranker().rerank(&request, &call.caller).await?;
    let with_documents = body.return_documents.unwrap_or(false);
    let results = reranking.ranked.iter().map(|ranked| VoyageResult {
        index: ranked.index,
        relevance_score: ranked.score.get(),
        document: with_documents.then(|| request.documents[ranked.index].clone()),
    });
    let response = VoyageResponse {
        object: "list",
        data: results.collect(),
        model: served.info().name.clone(),
        usage: VoyageUsage {
            total_tokens: reranking.cost.tokens,
        },
    };
    let work = reranking.cost;
    Ok(with_work(Json(response).into_response(), work))
}
