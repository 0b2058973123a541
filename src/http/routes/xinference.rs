//! What Xinference's client asks before it ranks: whether there are API keys (it sends its own only then),
//! and what kind of model a name stands for. Its ranking is the native dialect's.
//!
//! Source: the client xinference-client 4.1.0; xinference, api/restful_api.py.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::models::Model;
use crate::http::error::ApiError;
use crate::http::model_path::ModelName;
use crate::http::state::AppState;
use crate::rerank::RerankError;

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
) -> Result<Json<Model>, ApiError> {
    let status = state.models().status(&name);
    Ok(Json(Model::of(status.map_err(RerankError::from)?)))
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
