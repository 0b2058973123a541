//! Infinity's rerank API: `POST /infinity/rerank`, and `/rerank` where `dispatch` can tell. Its
//! documents come back as strings, vLLM's under the same path as objects.
//!
//! Source: infinity_emb 0.0.77 and its generated client infinity-client.

use std::sync::Arc;

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
use super::super::layers::{RequestId, with_work};
use super::super::state::{AppState, Call};
use super::openai::{self, Usage, now};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(infinity_rerank))
}

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
    /// What is searched for.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The documents to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    documents: Vec<String>,
    /// How many of the best to return; all if left out, and with 0.
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

/// Ranks documents by their relevance to a query, in Infinity's shape.
#[utoipa::path(post, path = "/infinity/rerank", tag = "rerank", request_body = InfinityRequest, responses(
    (status = 200, description = "The ranking", body = InfinityResponse),
))]
pub(in crate::http) async fn infinity_rerank(call: Call, request: Request) -> Response {
    let id = RequestId::of(&request).cloned();
    let answer = async {
        let body = json(request).await?;
        answer(&call, body, id.as_ref()).await
    };
    answer.await.unwrap_or_else(|e| openai::error(&e))
}

pub(super) async fn answer(
    call: &Call,
    body: InfinityRequest,
    id: Option<&RequestId>,
) -> Result<Response, ApiError> {
    let model = body.model.as_deref().filter(|&name| name != NO_MODEL);
    let served = call.model(model)?;
    let documents: Arc<[String]> = body.documents.into();
    let request = Ask {
        model: Some(served.info().name.clone()),
        queries: Queries::One(body.query),
        documents: Arc::clone(&documents),
        top_n: body.top_n.filter(|&n| n > 0),
        raw_scores: body.raw_scores.unwrap_or(false),
        fit: FitOverrides::default(),
        ..Ask::default()
    };
    let reranking = call.reranker().rerank(&request, &call.caller).await?;
    let with_documents = body.return_documents.unwrap_or(false);
    let results = reranking.ranked.iter().map(|ranked| InfinityResult {
        relevance_score: ranked.score.get(),
        index: ranked.index,
        document: with_documents.then(|| documents[ranked.index].clone()),
    });
    let response = InfinityResponse {
        object: "rerank",
        results: results.collect(),
        model: served.info().name.clone(),
        usage: Usage::of(reranking.cost.tokens),
        id: id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        created: now(),
    };
    let work = reranking.cost;
    Ok(with_work(Json(response).into_response(), work))
}
