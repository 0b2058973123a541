//! What the Open Inference Protocol, version 2, asks besides the scores: the server, its models, their health.
//!
//! Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::error::ApiError;
use crate::http::model_path::ModelName;
use crate::http::state::AppState;

/// The server.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ServerMetadata {
    #[schema(example = "rerankd")]
    name: &'static str,
    version: &'static str,
    #[schema(example = json!(["model_repository"]))]
    extensions: [&'static str; 1],
}

/// Whether the server lives.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ServerLive {
    live: bool,
}

/// Whether the server is ready.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ServerReady {
    ready: bool,
}

/// The model, and its inputs and outputs.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ModelMetadata {
    name: String,
    #[schema(example = "rerankd")]
    platform: &'static str,
    inputs: [TensorMetadata; 2],
    outputs: [TensorMetadata; 1],
}

#[derive(Debug, Serialize, ToSchema)]
struct TensorMetadata {
    #[schema(example = "documents")]
    name: &'static str,
    #[schema(example = "BYTES")]
    datatype: &'static str,
    /// -1 stands for any number.
    #[schema(example = json!([-1]))]
    shape: [i64; 1],
}

/// Whether the model is ready.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ModelReady {
    name: String,
    ready: bool,
}

/// The server, in the Open Inference Protocol.
#[utoipa::path(get, path = "/v2", tag = "models", responses(
    (status = 200, description = "The server", body = ServerMetadata),
))]
pub(in crate::http) async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: "rerankd",
        version: env!("CARGO_PKG_VERSION"),
        extensions: ["model_repository"],
    })
}

/// Whether the process answers at all, in the Open Inference Protocol.
#[utoipa::path(get, path = "/v2/health/live", tag = "operations", responses(
    (status = 200, description = "Alive", body = ServerLive),
))]
pub(in crate::http) async fn server_live() -> Json<ServerLive> {
    Json(ServerLive { live: true })
}

/// Whether requests should be sent here, in the Open Inference Protocol.
#[utoipa::path(get, path = "/v2/health/ready", tag = "operations", responses(
    (status = 200, description = "Ready", body = ServerReady),
))]
pub(in crate::http) async fn server_ready(
    State(state): State<AppState>,
) -> Result<Json<ServerReady>, ApiError> {
    state.ready()?;
    Ok(Json(ServerReady { ready: true }))
}

/// The model, in the Open Inference Protocol.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "models",
    params(("model" = String, Path, description = "The served model's name or an alias of it", example = "rerankd-builtin")),
    responses((status = 200, description = "The model", body = ModelMetadata)),
)]
pub(in crate::http) async fn model(
    State(state): State<AppState>,
    ModelName(name): ModelName,
) -> Result<Json<ModelMetadata>, ApiError> {
    let tensor = |name, datatype| TensorMetadata {
        name,
        datatype,
        shape: [-1],
    };
    let served = state.described(Some(&name))?;
    Ok(Json(ModelMetadata {
        name: served.info().name.clone(),
        platform: "rerankd",
        inputs: [tensor("query", "BYTES"), tensor("documents", "BYTES")],
        outputs: [tensor("scores", "FP32")],
    }))
}

/// Whether the model is ready, in the Open Inference Protocol.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "models",
    params(("model" = String, Path, description = "The served model's name or an alias of it", example = "rerankd-builtin")),
    responses((status = 200, description = "Ready", body = ModelReady)),
)]
pub(in crate::http) async fn model_ready(
    State(state): State<AppState>,
    ModelName(name): ModelName,
) -> Result<Json<ModelReady>, ApiError> {
    state.serving()?;
    let served = state.described(Some(&name))?;
    Ok(Json(ModelReady {
        name: served.info().name.clone(),
        ready: true,
    }))
}
