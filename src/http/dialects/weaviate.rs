//! What Weaviate's reranker-transformers module asks of its inference container: `POST /rerank` with
//! `property` (see `dispatch`), `GET /.well-known/{live,ready}` and `/meta`.
//!
//! Source: weaviate/reranker-transformers, app.py and crossencoder.py, and Weaviate's client of it,
//! modules/reranker-transformers/clients/ranker.go.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::PairsAsk;
use crate::scoring::FitOverrides;

use super::super::error::ApiError;
use super::super::layers::with_work;
use super::super::state::{AppState, Call};
use super::ErrorAt;

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(weaviate_live))
        .routes(routes!(weaviate_ready))
        .routes(routes!(weaviate_meta))
}

/// A request: documents to score, or one in `property`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": "What is the capital of France?",
    "documents": ["Berlin is in Germany.", "Paris is the capital of France."],
    "property": "",
}))]
pub(in crate::http) struct WeaviateRequest {
    /// What is searched for.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The one document, where `documents` is left out. Weaviate always sends the field, mostly
    /// empty; by it this request is told from the others of its path.
    #[schema(example = "")]
    property: Option<String>,
    /// The documents.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    documents: Option<Vec<String>>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct WeaviateResponse {
    query: String,
    property: String,
    /// In the documents' order: Weaviate sorts them itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    scores: Option<Vec<WeaviateScore>>,
    /// Of `property`, where `documents` was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    score: Option<f32>,
}

#[derive(Debug, Serialize, ToSchema)]
struct WeaviateScore {
    document: String,
    /// Higher is better; between 0 and 1 unless the model says otherwise.
    #[schema(example = 0.98)]
    score: f32,
}

/// What is known of the model.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct WeaviateMeta {
    /// The model's name.
    model: String,
    /// Its architecture family.
    model_type: &'static str,
}

/// Whether the process answers at all, for Weaviate.
#[utoipa::path(get, path = "/.well-known/live", tag = "operations", responses(
    (status = 204, description = "Alive"),
))]
pub(in crate::http) async fn weaviate_live() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Whether requests should be sent here, for Weaviate.
#[utoipa::path(get, path = "/.well-known/ready", tag = "operations", responses(
    (status = 204, description = "Ready"),
))]
pub(in crate::http) async fn weaviate_ready(
    State(state): State<AppState>,
    at: ErrorAt,
) -> Response {
    at.answer(state.ready().map(|()| StatusCode::NO_CONTENT))
}

/// The model, for Weaviate.
#[utoipa::path(get, path = "/meta", tag = "models", responses(
    (status = 200, description = "The model", body = WeaviateMeta),
))]
pub(in crate::http) async fn weaviate_meta(State(state): State<AppState>, at: ErrorAt) -> Response {
    let meta = state.model(None).map(|served| WeaviateMeta {
        model: served.info().name.clone(),
        model_type: served.info().spec.family,
    });
    at.answer(meta.map(Json))
}

pub(super) async fn answer(call: &Call, body: WeaviateRequest) -> Result<Response, ApiError> {
    let served = call.model(None)?;
    let property = body.property.unwrap_or_default();
    let alone = body.documents.is_none();
    let documents = body.documents.unwrap_or_else(|| vec![property.clone()]);
    let request = PairsAsk {
        model: Some(served.info().name.clone()),
        queries: [body.query.as_str().into()].into(),
        documents: documents.clone().into(),
        raw_scores: false,
        fit: FitOverrides::default(),
    };
    let scoring = call.reranker().score(&request, &call.caller).await?;
    let scores: Vec<f32> = scoring.scores().map(|score| score.get()).collect();
    let response = WeaviateResponse {
        query: body.query,
        property,
        score: scores.first().copied().filter(|_| alone),
        scores: (!alone).then(|| {
            let scored = documents.into_iter().zip(scores);
            scored
                .map(|(document, score)| WeaviateScore { document, score })
                .collect()
        }),
    };
    let work = scoring.cost;
    Ok(with_work(Json(response).into_response(), work))
}
