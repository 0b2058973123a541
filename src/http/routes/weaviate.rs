//! What Weaviate asks of its inference container besides the ranking.
//!
//! Source: weaviate/reranker-transformers, app.py.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::error::ApiError;
use crate::http::state::AppState;

/// The model.
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
) -> Result<StatusCode, ApiError> {
    state.ready()?;
    Ok(StatusCode::NO_CONTENT)
}

/// The model, for Weaviate.
#[utoipa::path(get, path = "/meta", tag = "models", responses(
    (status = 200, description = "The model", body = WeaviateMeta),
))]
pub(in crate::http) async fn weaviate_meta(
    State(state): State<AppState>,
) -> Result<Json<WeaviateMeta>, ApiError> {
    let served = state.model(None)?;
    Ok(Json(WeaviateMeta {
        model: served.info().name.clone(),
        model_type: served.info().spec.family,
    }))
}
