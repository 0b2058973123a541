//! What is served: /info in TEI's shape, /v1/models in OpenAI's and Xinference's.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::error::ApiError;
use super::super::state::AppState;
use crate::models::{Served, Status};
use crate::scoring::Strategy;
use crate::types::{Dtype, ScoreKind, WindowScore};

/// The model and the limits, in the shape of text-embeddings-inference's `/info`.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Info {
    model_id: String,
    /// The commit on the hub, if the model came from there.
    model_sha: Option<String>,
    #[schema(example = "float32")]
    model_dtype: &'static str,
    model_type: ModelType,
    /// Longest query-document pair in tokens.
    max_input_length: usize,
    /// Maximum number of windows read from a document that does not fit, unless the request says otherwise.
    max_chunks_per_doc: usize,
    /// Number of tokens that a window shares with the one before it.
    overlap_tokens: usize,
    /// What windows make of a document: `best` or `mean_top_3`.
    #[schema(example = "best")]
    window_score: &'static str,
    /// The part that is cut of a pair that is too long: `longest_first`, `document`, or `off`, which refuses it.
    #[schema(example = "longest_first")]
    truncation: &'static str,
    max_batch_tokens: usize,
    /// Number of documents since the start that the model did not read whole, since they are too long.
    truncated_documents: u64,
    /// Most documents in one request.
    max_client_batch_size: usize,
    tokenization_workers: usize,
    version: &'static str,
    /// How scores come about: `cross-encoder` (it reads query and document together), `late interaction` (it makes a
    /// vector of each token of either), `bi-encoder` (a vector of each text) or `listwise` (it reads a whole list).
    #[schema(example = "cross-encoder")]
    kind: &'static str,
    /// The label that documents are ranked by; empty if the model makes vectors.
    #[schema(example = "LABEL_0")]
    score_label: String,
    /// What turns a logit into a score: `sigmoid` or `identity`.
    activation: String,
    /// What scores mean: `probability`, `logit` or `similarity`.
    #[schema(example = "probability")]
    score_kind: &'static str,
    /// The prompt that the model reads query and document in: `chat_template` (its own) or a published one's name; null
    /// if it has none.
    #[schema(example = "qwen3-reranker")]
    prompt: Option<String>,
    /// Whether requests may have an instruction.
    takes_instruction: bool,
    /// The instruction of requests that have none; null if the model takes none, or its prompt then has none.
    default_instruction: Option<String>,
    #[schema(example = "cpu")]
    device: String,
    #[schema(example = "bert")]
    family: &'static str,
    /// Which hidden states the head reads: `cls` (the first token's), `last` (the last one's), `mean` (of all), or
    /// what a `decoder` makes of all.
    #[schema(example = "cls")]
    pooling: &'static str,
    /// The steps from there to the logits.
    #[schema(example = "linear + tanh, linear")]
    head: String,
    layers: usize,
    hidden_size: usize,
    /// What whoever uses the model should know: the built-in model's limits, and how to name a stronger one.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    /// All models of the server, the default one first.
    models: Vec<ModelState>,
}

/// Where a model stands.
#[derive(Debug, Serialize, ToSchema)]
struct ModelState {
    #[schema(example = "rerankd-builtin")]
    name: String,
    /// `waiting` for its turn at the start, `loading`, `ready`, `failed` or `unloaded`.
    #[schema(example = "ready")]
    state: &'static str,
}

/// What may stand in the address.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct InfoQuery {
    /// The model to tell of; the default one if left out.
    #[param(example = "rerankd-builtin")]
    model: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ModelType {
    reranker: Labels,
}

#[derive(Debug, Serialize, ToSchema)]
struct Labels {
    id2label: BTreeMap<String, String>,
    label2id: BTreeMap<String, u32>,
}

/// The default model, or the one that is named, and the limits.
#[utoipa::path(get, path = "/info", tag = "models", params(InfoQuery), responses(
    (status = 200, description = "The model and the limits", body = Info),
))]
pub(in crate::http) async fn info(
    State(state): State<AppState>,
    query: Result<Query<InfoQuery>, QueryRejection>,
) -> Result<Json<Info>, ApiError> {
    let query = query.map_err(|error| ApiError::invalid("model", error.body_text()));
    let Query(query) = query?;
    let served = state.described(query.model.as_deref())?;
    Ok(Json(describe(&served, &state)))
}

/// A type's name in PyTorch.
pub(in crate::http) fn dtype(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
        Dtype::Int8 => "int8",
    }
}

fn describe(served: &Served, state: &AppState) -> Info {
    let model = served.info();
    let options = served.options();
    let labels = || {
        let names = model.spec.labels.iter().cloned();
        (0_u32..).zip(names)
    };
    Info {
        model_id: model.name.clone(),
        model_sha: model.revision.clone(),
        model_dtype: dtype(model.dtype),
        model_type: ModelType {
            reranker: Labels {
                id2label: labels().map(|(i, name)| (i.to_string(), name)).collect(),
                label2id: labels().map(|(i, name)| (name, i)).collect(),
            },
        },
        max_input_length: served.max_input_tokens(),
        max_chunks_per_doc: options.fit.windows.max,
        overlap_tokens: options.fit.windows.overlap,
        window_score: match options.window_score {
            WindowScore::Best => "best",
            WindowScore::MeanTop3 => "mean_top_3",
        },
        truncation: match options.fit.truncation.strategy {
            Strategy::LongestFirst => "longest_first",
            Strategy::Document => "document",
            Strategy::Off => "off",
        },
        max_batch_tokens: model.max_batch_tokens,
        truncated_documents: state.truncated(),
        max_client_batch_size: state.reranker().limits().max_documents,
        tokenization_workers: model.tokenize_threads,
        version: env!("CARGO_PKG_VERSION"),
        kind: model.kind.name(),
        score_label: model.label().to_owned(),
        activation: options.activation.to_string(),
        score_kind: ScoreKind::of(model.kind, options.activation).name(),
        prompt: model
            .prompt
            .as_ref()
            .map(|prompt| prompt.format.to_string()),
        takes_instruction: model.takes_instruction(),
        default_instruction: model
            .prompt
            .as_ref()
            .and_then(|prompt| prompt.default_instruction())
            .map(str::to_owned),
        device: model.device.clone(),
        family: model.spec.family,
        pooling: model.spec.pooling,
        head: model.spec.head.clone(),
        layers: model.spec.layers,
        hidden_size: model.spec.hidden_size,
        note: model.note,
        models: state
            .models()
            .list()
            .into_iter()
            .map(|status| ModelState {
                state: status.state.name(),
                name: status.name,
            })
            .collect(),
    }
}

/// The served models.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Models {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<Model>,
}

/// A served model.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Model {
    id: String,
    #[schema(example = "model")]
    object: &'static str,
    /// When it was loaded, in seconds since 1970; 0 if it is not.
    created: u64,
    #[schema(example = "rerankd")]
    owned_by: &'static str,
    /// Always `rerank`, as Xinference names this kind of model.
    #[schema(example = "rerank")]
    model_type: &'static str,
    /// The same as `id`, as Xinference names it.
    model_name: String,
    /// The commit on the hub, if it came from there and is loaded.
    model_revision: Option<String>,
    /// `waiting` for its turn at the start, `loading`, `ready`, `failed` or `unloaded`.
    #[schema(example = "ready")]
    state: &'static str,
    /// If it is loaded, as what follows.
    #[schema(example = "bert")]
    family: Option<&'static str>,
    /// How scores come about: `cross-encoder`, `late interaction`, `bi-encoder` or `listwise`.
    #[schema(example = "cross-encoder")]
    kind: Option<&'static str>,
    /// Which hidden states the head reads: `cls` (the first token's), `last` (the last one's), `mean` (of all), or
    /// what a `decoder` makes of all.
    #[schema(example = "cls")]
    pooling: Option<&'static str>,
    /// The steps from there to the logits.
    #[schema(example = "linear + tanh, linear")]
    head: Option<String>,
    /// The label that documents are ranked by.
    #[schema(example = "LABEL_0")]
    score_label: Option<String>,
    /// What turns a logit into a score: `sigmoid` or `identity`.
    #[schema(example = "sigmoid")]
    activation: Option<String>,
    /// What scores mean: `probability`, `logit` or `similarity`.
    #[schema(example = "probability")]
    score_kind: Option<&'static str>,
    /// The prompt that the model reads query and document in: `chat_template` (its own) or a published one's name; null
    /// if it has none.
    #[schema(example = "qwen3-reranker")]
    prompt: Option<String>,
    /// Whether requests may have an instruction.
    takes_instruction: Option<bool>,
    /// The instruction of requests that have none, if the model takes one; empty if its prompt then has none.
    default_instruction: Option<String>,
}

impl Model {
    pub(in crate::http) fn of(status: Status) -> Self {
        let info = status.served.as_ref().map(|served| served.info());
        let activation = status.served.as_ref().map(|s| s.options().activation);
        let prompt = info.and_then(|info| info.prompt.as_ref());
        Self {
            object: "model",
            created: info.map_or(0, |info| info.loaded_at),
            owned_by: "rerankd",
            model_type: "rerank",
            model_name: status.name.clone(),
            model_revision: info.and_then(|info| info.revision.clone()),
            state: status.state.name(),
            family: info.map(|info| info.spec.family),
            kind: info.map(|info| info.kind.name()),
            pooling: info.map(|info| info.spec.pooling),
            head: info.map(|info| info.spec.head.clone()),
            score_label: info.map(|info| info.label().to_owned()),
            activation: activation.map(|activation| activation.to_string()),
            score_kind: info
                .zip(activation)
                .map(|(info, activation)| ScoreKind::of(info.kind, activation).name()),
            prompt: prompt.map(|prompt| prompt.format.to_string()),
            takes_instruction: info.map(|info| info.takes_instruction()),
            default_instruction: prompt.and_then(|prompt| prompt.instruction.clone()),
            id: status.name,
        }
    }
}

/// The served models, in OpenAI's shape, whether or not they are loaded; the default one first.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses(
    (status = 200, description = "The served models", body = Models),
))]
pub(in crate::http) async fn models(State(state): State<AppState>) -> Json<Models> {
    let models = state.models().list().into_iter();
    Json(Models {
        object: "list",
        data: models.map(Model::of).collect(),
    })
}
