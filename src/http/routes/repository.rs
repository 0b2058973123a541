//! The model repository extension of the Open Inference Protocol, as Triton and KServe's runtimes speak it:
//! which models there are, and loading and unloading them.
//!
//! Source: triton-inference-server/server, docs/protocol/extension_model_repository.md.

use std::time::Duration;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::models::{ModelError, State as ModelState, Status};
use crate::rerank::RerankError;

use super::super::access::check_admin;
use super::super::error::ApiError;
use super::super::extract::{flag, optional_object};
use super::super::model_path::ModelName;
use super::super::state::AppState;

/// What all of its paths begin with.
pub(in crate::http) const PREFIX: &str = "/v2/repository/";

/// Maximum size of a body in bytes.
pub(in crate::http) const MAX_BODY: usize = 64 * 1024;

/// Which models to list.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({"ready": true}))]
pub(in crate::http) struct RepositoryIndexRequest {
    /// Only those that are ready.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    ready: Option<bool>,
}

/// A model of the list.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RepositoryModel {
    #[schema(example = "rerankd-builtin")]
    name: String,
    /// Always 1: there is one of each model.
    #[schema(example = "1")]
    version: &'static str,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    #[schema(example = "READY")]
    state: &'static str,
    /// Why it is not ready; empty if it is.
    #[schema(example = "")]
    reason: String,
}

impl From<Status> for RepositoryModel {
    fn from(status: Status) -> Self {
        let (state, reason) = match status.state {
            ModelState::Ready => ("READY", String::new()),
            ModelState::Waiting | ModelState::Loading => ("LOADING", String::new()),
            ModelState::Failed => {
                let reason = ModelError::Failed {
                    name: status.name.clone(),
                    retry_after: Duration::ZERO,
                };
                ("UNAVAILABLE", reason.to_string())
            }
            ModelState::Unloaded => ("UNAVAILABLE", "unloaded".to_owned()),
        };
        Self {
            name: status.name,
            version: "1",
            state,
            reason,
        }
    }
}

/// A request to load or unload a model. The body may be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({}))]
pub(in crate::http) struct RepositoryRequest {
    /// `unload_dependents` is ignored, since no model depends on another; there are no others.
    #[serde(default, deserialize_with = "optional_object")]
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, Value>>,
}

/// The models, whether or not they are loaded.
#[utoipa::path(post, path = "/v2/repository/index", tag = "repository",
    request_body = RepositoryIndexRequest,
    responses((status = 200, description = "The models", body = Vec<RepositoryModel>)),
)]
pub(in crate::http) async fn index(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<Vec<RepositoryModel>>, ApiError> {
    let asked: RepositoryIndexRequest = body(&state, request).await?;
    let all = state.models().list().into_iter();
    let only_ready = asked.ready.unwrap_or(false);
    let all = all.filter(|model| !only_ready || model.state == ModelState::Ready);
    Ok(Json(all.map(RepositoryModel::from).collect()))
}

/// Loads a model, anew if it is loaded, and answers once it is ready. Needs an API key with the admin right.
#[utoipa::path(post, path = "/v2/repository/models/{model}/load", tag = "repository",
    request_body = RepositoryRequest,
    params(("model" = String, Path, description = "The model's name or an alias of it", example = "rerankd-builtin")),
    responses((status = 200, description = "Loaded; the body is empty")),
)]
pub(in crate::http) async fn load(
    State(state): State<AppState>,
    ModelName(name): ModelName,
    request: Request,
) -> Result<(), ApiError> {
    check(&state, request).await?;
    Ok(state.models().load(&name).await?)
}

/// Unloads a model, once the requests that are in are answered; nothing but a load brings it back. Needs an
/// API key with the admin right.
#[utoipa::path(post, path = "/v2/repository/models/{model}/unload", tag = "repository",
    request_body = RepositoryRequest,
    params(("model" = String, Path, description = "The model's name or an alias of it", example = "rerankd-builtin")),
    responses((status = 200, description = "Unloaded; the body is empty")),
)]
pub(in crate::http) async fn unload(
    State(state): State<AppState>,
    ModelName(name): ModelName,
    request: Request,
) -> Result<(), ApiError> {
    check(&state, request).await?;
    let unloaded = state.models().unload(&name).await;
    Ok(unloaded.map_err(RerankError::from)?)
}

/// Whether a request may load or unload a model, and asks for nothing else.
async fn check(state: &AppState, request: Request) -> Result<(), ApiError> {
    check_admin(state, &request)?;
    let asked: RepositoryRequest = body(state, request).await?;
    let mut parameters = asked.parameters.iter().flat_map(Map::keys);
    match parameters.find(|name| *name != "unload_dependents") {
        Some(name) => Err(ApiError::Invalid {
            field: format!("parameters.{name}"),
            detail: "it is not known here; a model is loaded as the server's settings say".into(),
        }),
        None => Ok(()),
    }
}

/// Reads a body whatever its type is said to be, as Triton does: its clients name none. It may be empty.
async fn body<T: DeserializeOwned + Default>(
    state: &AppState,
    request: Request,
) -> Result<T, ApiError> {
    let bytes = to_bytes(request.into_body(), MAX_BODY);
    let bytes = timeout(state.options().body_timeout, bytes).await;
    let bytes = bytes.map_err(|_| ApiError::BodyTimeout)?;
    let bytes = bytes.map_err(|_| ApiError::BodyTooLarge(MAX_BODY))?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| ApiError::InvalidJson(error.to_string()))
}
