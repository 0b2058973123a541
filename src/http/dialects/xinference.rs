//! What Xinference's client asks before it ranks: whether there are API keys (it sends its own only then),
//! and what kind of model a name stands for. Its ranking is the native dialect's.
//!
//! Source: the client xinference-client 4.1.0; xinference, api/restful_api.py.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::error::ApiError;
use super::super::model_path::ModelName;
use super::super::routes::models::Model;
use super::super::state::AppState;
use super::ErrorAt;
use crate::rerank::RerankError;

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(served_model))
        .routes(routes!(cluster_auth))
}

/// Whether an API key is asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ClusterAuth {
    auth: bool,
}

/// The model of a name, in Xinference's and OpenAI's shape.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "models",
    params(("model" = String, Path, description = "The served model's name or an alias of it", example = "rerankd-builtin")),
    responses((status = 200, description = "The model", body = Model)),
)]
pub(in crate::http) async fn served_model(
    State(state): State<AppState>,
    ModelName(name): ModelName,
    at: ErrorAt,
) -> Response {
    let status = state.models().status(&name).map_err(RerankError::from);
    let status = status.map_err(ApiError::from);
    at.answer(status.map(|status| Json(Model::of(status))))
}

/// Whether an API key is asked for, in Xinference's shape.
#[utoipa::path(get, path = "/v1/cluster/auth", tag = "operations", responses(
    (status = 200, description = "Whether an API key is asked for", body = ClusterAuth),
))]
pub(in crate::http) async fn cluster_auth(State(state): State<AppState>) -> Json<ClusterAuth> {
    Json(ClusterAuth {
        auth: state.keys().is_some(),
    })
}
