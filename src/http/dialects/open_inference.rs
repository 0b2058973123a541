//! The Open Inference Protocol, version 2, over REST, as KServe and Triton speak it: inputs `query`
//! and `documents`, output `scores`.
//!
//! Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::PairsAsk;
use crate::scoring::FitOverrides;

use super::super::error::{ApiError, with_headers};
use super::super::extract::{flag, json, objects, optional_object};
use super::super::layers::{RequestId, with_work};
use super::super::model_path::ModelName;
use super::super::state::{AppState, Call};
use super::ErrorShape;

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(server))
        .routes(routes!(server_live))
        .routes(routes!(server_ready))
        .routes(routes!(model))
        .routes(routes!(model_ready))
        .routes(routes!(infer))
}

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

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": [
    {"name": "query", "datatype": "BYTES", "shape": [1], "data": ["capital of France?"]},
    {"name": "documents", "datatype": "BYTES", "shape": [2], "data": ["Berlin is in Germany.", "Paris is the capital of France."]},
]}))]
pub(in crate::http) struct InferRequest {
    /// Comes back with the answer.
    id: Option<String>,
    /// `query` with one query for all documents, or one for each; and `documents`.
    #[serde(deserialize_with = "objects")]
    inputs: Vec<InputTensor>,
    #[serde(default, deserialize_with = "optional_object")]
    parameters: Option<InferParameters>,
}

/// Parameters; others are ignored.
#[derive(Debug, Deserialize, ToSchema)]
struct InferParameters {
    /// Logits instead of scores.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    raw_scores: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct InputTensor {
    /// `query` or `documents`.
    name: String,
    /// How many strings `data` holds; the product of the dimensions.
    shape: Vec<usize>,
    /// `BYTES`.
    datatype: String,
    /// The strings; arrays in it count as if their items stood in it.
    #[schema(value_type = Vec<String>)]
    data: Value,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct InferResponse {
    model_name: String,
    id: String,
    /// `scores`, in the documents' order.
    outputs: [OutputTensor; 1],
}

#[derive(Debug, Serialize, ToSchema)]
struct OutputTensor {
    #[schema(example = "scores")]
    name: &'static str,
    #[schema(example = json!([2]))]
    shape: [usize; 1],
    #[schema(example = "FP32")]
    datatype: &'static str,
    /// Higher is better; between 0 and 1 unless the model or `raw_scores` says otherwise.
    #[schema(example = json!([0.1, 0.98]))]
    data: Vec<f32>,
}

/// An error in the protocol's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct InferError {
    /// What was wrong and how to mend it.
    #[schema(example = "inputs: there is no \"query\"")]
    error: String,
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
pub(in crate::http) async fn server_ready(State(state): State<AppState>) -> Response {
    match state.ready() {
        Ok(()) => Json(ServerReady { ready: true }).into_response(),
        Err(e) => error(&e),
    }
}

/// The model, in the Open Inference Protocol.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "models",
    params(("model" = String, Path, description = "The served model's name or an alias of it", example = "rerankd-builtin")),
    responses((status = 200, description = "The model", body = ModelMetadata)),
)]
pub(in crate::http) async fn model(
    State(state): State<AppState>,
    ModelName(name): ModelName,
) -> Response {
    let tensor = |name, datatype| TensorMetadata {
        name,
        datatype,
        shape: [-1],
    };
    match state.described(Some(&name)) {
        Ok(served) => Json(ModelMetadata {
            name: served.info().name.clone(),
            platform: "rerankd",
            inputs: [tensor("query", "BYTES"), tensor("documents", "BYTES")],
            outputs: [tensor("scores", "FP32")],
        })
        .into_response(),
        Err(e) => error(&e),
    }
}

/// Whether the model is ready, in the Open Inference Protocol.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "models",
    params(("model" = String, Path, description = "The served model's name or an alias of it", example = "rerankd-builtin")),
    responses((status = 200, description = "Ready", body = ModelReady)),
)]
pub(in crate::http) async fn model_ready(
    State(state): State<AppState>,
    ModelName(name): ModelName,
) -> Response {
    let ready = state.serving().and_then(|()| state.described(Some(&name)));
    match ready {
        Ok(served) => Json(ModelReady {
            name: served.info().name.clone(),
            ready: true,
        })
        .into_response(),
        Err(e) => error(&e),
    }
}

/// Scores documents against a query, in the Open Inference Protocol.
#[utoipa::path(post, path = "/v2/models/{model}/infer", tag = "score", request_body = InferRequest,
    params(("model" = String, Path, description = "The served model's name or an alias of it", example = "rerankd-builtin")),
    responses((status = 200, description = "The scores, in the documents' order", body = InferResponse)),
)]
pub(in crate::http) async fn infer(
    call: Call,
    ModelName(name): ModelName,
    request: Request,
) -> Response {
    let answer = answer(&call, &name, request).await;
    answer.unwrap_or_else(|e| error(&e))
}

async fn answer(call: &Call, name: &str, request: Request) -> Result<Response, ApiError> {
    let served = call.model(Some(name))?;
    let id = RequestId::of(&request).map(|id| id.as_str().to_owned());
    let mut body: InferRequest = json(request).await?;
    let queries = strings(&mut body.inputs, "query")?;
    let documents = strings(&mut body.inputs, "documents")?;
    let raw_scores = body.parameters.and_then(|p| p.raw_scores);
    let request = PairsAsk {
        model: Some(served.info().name.clone()),
        queries: queries.into_iter().map(Into::into).collect(),
        documents: documents.into(),
        raw_scores: raw_scores.unwrap_or(false),
        fit: FitOverrides::default(),
    };
    let scoring = call.reranker().score(&request, &call.caller).await?;
    let response = InferResponse {
        model_name: served.info().name.clone(),
        id: body.id.or(id).unwrap_or_default(),
        outputs: [OutputTensor {
            name: "scores",
            shape: [scoring.raw.len()],
            datatype: "FP32",
            data: scoring.scores().map(|score| score.get()).collect(),
        }],
    };
    let work = scoring.cost;
    Ok(with_work(Json(response).into_response(), work))
}

/// Takes a tensor's strings.
fn strings(inputs: &mut [InputTensor], name: &str) -> Result<Vec<String>, ApiError> {
    let invalid = |field: String, detail: String| ApiError::Invalid { field, detail };
    let found = inputs.iter_mut().find(|input| input.name == name);
    let Some(tensor) = found else {
        let detail = format!("there is no \"{name}\"; \"query\" and \"documents\" are needed");
        return Err(invalid("inputs".into(), detail));
    };
    if tensor.datatype != "BYTES" {
        let detail = format!("datatype {} can't be read; send BYTES", tensor.datatype);
        return Err(invalid(format!("inputs.{name}"), detail));
    }
    let mut strings = Vec::new();
    if !flatten(tensor.data.take(), &mut strings) {
        return Err(invalid(
            format!("inputs.{name}.data"),
            "expected strings".into(),
        ));
    }
    let items = tensor
        .shape
        .iter()
        .try_fold(1usize, |a, &b| a.checked_mul(b));
    if items != Some(strings.len()) {
        let detail = format!(
            "{:?} does not fit its {} strings",
            tensor.shape,
            strings.len()
        );
        return Err(invalid(format!("inputs.{name}.shape"), detail));
    }
    Ok(strings)
}

/// Collects the strings of nested arrays; false if there is anything else.
fn flatten(value: Value, strings: &mut Vec<String>) -> bool {
    match value {
        Value::String(text) => {
            strings.push(text);
            true
        }
        Value::Array(items) => items.into_iter().all(|item| flatten(item, strings)),
        _ => false,
    }
}

/// An error in the protocol's shape. A wrong field is 400 here.
pub(super) fn error(error: &ApiError) -> Response {
    let described = error.describe();
    let status = ErrorShape::OpenInference.status(error, described.status);
    let body = InferError {
        error: described.detail,
    };
    with_headers(error, status, Json(body).into_response())
}
