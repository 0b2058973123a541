//! The Open Inference Protocol's service. Scores are asked for with the inputs `query` and `documents`, as over REST,
//! or with NVIDIA NIM's, `query` and `passage`, which gives a ranking.
//!
//! Source: kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto; NVIDIA NeMo Retriever
//! Reranking NIM, gRPC reference.

use super::inference_messages::{
    ModelInferRequest, ModelInferResponse, ModelMetadata, Nothing, OfModel, ParameterChoice, Ready,
    ServerLive, ServerMetadata, TensorMetadata,
};
use super::tensors::{Inputs, Output, Values};
use super::wire::{One, Reply};
use crate::http::dialects::open_inference;
use crate::http::error::ApiError;
use crate::http::extensions::RequestId;
use crate::http::state::{AppState, Call};
use crate::rerank::{Answer, Ask, Cost, PairsAsk, Queries, RerankError};
use crate::scoring::FitOverrides;
use crate::types::Priority;

/// There is one version of each model.
const VERSION: &str = "1";
/// NIM's names of the input with the documents.
const PASSAGES: [&str; 2] = ["passage", "passages"];
/// NIM's output with each passage's number of tokens. They are counted only if it is asked for.
const TOKEN_COUNT: &str = "token_count";

/// `ServerLive`.
pub(super) async fn server_live(
    One(Nothing {}): One<Nothing>,
) -> Result<Reply<ServerLive>, ApiError> {
    Ok(Reply::free(ServerLive { live: true }))
}

/// `ServerReady`.
pub(super) async fn server_ready(
    call: Call,
    One(Nothing {}): One<Nothing>,
) -> Result<Reply<Ready>, ApiError> {
    let ready = call.ready().is_ok();
    Ok(Reply::free(Ready { ready }))
}

/// `ModelReady`.
pub(super) async fn model_ready(
    call: Call,
    One(OfModel { name }): One<OfModel>,
) -> Result<Reply<Ready>, ApiError> {
    let name = model_name(&call, name)?;
    let ready = call.serving().is_ok() && call.described(name.as_deref()).is_ok();
    Ok(Reply::free(Ready { ready }))
}

/// `ServerMetadata`.
pub(super) async fn server_metadata(
    One(Nothing {}): One<Nothing>,
) -> Result<Reply<ServerMetadata>, ApiError> {
    Ok(Reply::free(ServerMetadata {
        name: "rerankd".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

/// `ModelMetadata`.
pub(super) async fn model_metadata(
    call: Call,
    One(OfModel { name }): One<OfModel>,
) -> Result<Reply<ModelMetadata>, ApiError> {
    let name = model_name(&call, name)?;
    let served = call.described(name.as_deref())?;
    let tensor = |name: &str, datatype: &str| TensorMetadata {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![-1],
    };
    Ok(Reply::free(ModelMetadata {
        name: served.info().name.clone(),
        versions: vec![VERSION.to_owned()],
        platform: "rerankd".to_owned(),
        inputs: vec![tensor("query", "BYTES"), tensor("documents", "BYTES")],
        outputs: vec![tensor("scores", "FP32")],
    }))
}

/// `ModelInfer`.
pub(super) async fn model_infer(
    call: Call,
    id: axum::Extension<RequestId>,
    One(mut request): One<ModelInferRequest>,
) -> Result<Reply<ModelInferResponse>, ApiError> {
    let model = model_name(&call, std::mem::take(&mut request.model_name))?;
    call.model(model.as_deref())?;
    let options = Options::of(&request)?;
    let mut inputs = Inputs::of(&mut request)?;
    let most = call.reranker().limits().max_documents;
    let queries = inputs.strings("query", most)?;
    let passages = PASSAGES.into_iter().find(|name| inputs.has(name));
    let documents = inputs.strings(passages.unwrap_or("documents"), most)?;
    inputs.all_taken()?;
    let asked: Vec<&str> = request.outputs.iter().map(|o| o.name.as_str()).collect();
    let done = match passages {
        Some(_) => {
            let counts = asked.is_empty() || asked.contains(&TOKEN_COUNT);
            rank(&call, model, queries, documents, &options, counts).await?
        }
        None => score(&call, model, queries, documents, &options).await?,
    };
    let mut response = ModelInferResponse {
        model_name: done.model,
        model_version: VERSION.to_owned(),
        id: match request.id.is_empty() {
            true => id.as_str().to_owned(),
            false => request.id,
        },
        ..ModelInferResponse::default()
    };
    let is_raw = !request.raw_input_contents.is_empty();
    for output in chosen(done.outputs, &asked)? {
        output.add_to(&mut response, is_raw);
    }
    Ok(Reply::new(response, done.cost))
}

/// What came of a request.
struct Done {
    model: String,
    outputs: Vec<Output>,
    cost: Cost,
}

async fn score(
    call: &Call,
    model: Option<String>,
    queries: Vec<String>,
    documents: Vec<String>,
    options: &Options,
) -> Result<Done, ApiError> {
    let ask = PairsAsk {
        model,
        queries: queries.into_iter().map(Into::into).collect(),
        documents: documents.into(),
        fit: options.fit,
        raw_scores: options.raw_scores,
        priority: options.priority,
    };
    let answer = call.reranker().score(&ask, &call.terms).await?;
    let scores = answer.scores().map(|score| score.get());
    Ok(Done {
        outputs: vec![Output::list("scores", Values::Fp32(scores.collect()))],
        model: answer.model.name.clone(),
        cost: answer.cost,
    })
}

async fn rank(
    call: &Call,
    model: Option<String>,
    mut queries: Vec<String>,
    documents: Vec<String>,
    options: &Options,
    counts_tokens: bool,
) -> Result<Done, ApiError> {
    let count = queries.len();
    queries.dedup();
    let query = match (queries.pop(), queries.is_empty()) {
        (Some(query), true) if count == 1 || count == documents.len() => query,
        (Some(_), true) => {
            let queries = count;
            let documents = documents.len();
            return Err(RerankError::Unpaired { queries, documents }.into());
        }
        _ => {
            let detail = "passages are ranked for one query: send it once, or the same for each";
            return Err(ApiError::invalid("inputs.query", detail));
        }
    };
    let ask = Ask {
        model,
        queries: Queries::One(query),
        documents: documents.into(),
        fit: options.fit,
        raw_scores: true,
        priority: options.priority,
        ..Ask::default()
    };
    let answer = call.reranker().rerank(&ask, &call.terms).await?;
    let mut outputs = ranking(&answer);
    if counts_tokens {
        let served = call.model(ask.model.as_deref())?;
        let counts = served.count_tokens(&ask.documents).await;
        let counts = counts.map_err(RerankError::from)?.into_iter().map(number);
        outputs.push(Output::list(TOKEN_COUNT, Values::Int32(counts.collect())));
    }
    Ok(Done {
        outputs,
        model: answer.model.name.clone(),
        cost: answer.cost,
    })
}

fn number(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A ranking as NIM gives it, best first.
fn ranking(answer: &Answer) -> Vec<Output> {
    let ranked = &answer.ranked;
    let indices = ranked.iter().map(|ranked| number(ranked.index)).collect();
    let logits = ranked.iter().map(|ranked| ranked.score.get()).collect();
    vec![
        Output::column("index", Values::Int32(indices)),
        Output::column("logit", Values::Fp32(logits)),
    ]
}

/// The outputs that were asked for; all if none was named.
fn chosen(outputs: Vec<Output>, asked: &[&str]) -> Result<Vec<Output>, ApiError> {
    let names: Vec<&str> = outputs.iter().map(Output::name).collect();
    if let Some(other) = asked.iter().find(|name| !names.contains(name)) {
        let detail = format!("there is no \"{other}\"; there are: {}", names.join(", "));
        return Err(ApiError::invalid("outputs", detail));
    }
    let mut outputs = outputs;
    outputs.retain(|output| asked.is_empty() || asked.contains(&output.name()));
    Ok(outputs)
}

/// A request's parameters; others are ignored.
struct Options {
    raw_scores: bool,
    fit: FitOverrides,
    priority: Option<Priority>,
}

impl Options {
    fn of(request: &ModelInferRequest) -> Result<Self, ApiError> {
        use ParameterChoice as Choice;
        let (mut raw_scores, mut fit) = (false, FitOverrides::default());
        let mut priority = None;
        for (name, value) in &request.parameters {
            let is = |word: &str, expected| word.eq_ignore_ascii_case(expected);
            match (name.as_str(), &value.parameter_choice) {
                ("raw_scores", Some(Choice::Bool(value))) => raw_scores = *value,
                ("truncate", Some(Choice::Text(word))) if is(word, "END") => {
                    fit.truncate = Some(true)
                }
                ("truncate", Some(Choice::Text(word))) if is(word, "NONE") => {
                    fit.truncate = Some(false)
                }
                ("priority", Some(Choice::Uint64(number))) => {
                    priority = open_inference::priority(*number);
                }
                ("priority", Some(Choice::Int64(number @ 0..))) => {
                    priority = open_inference::priority(number.unsigned_abs());
                }
                ("priority", _) => return Err(wrong_parameter(name, "a whole number, 0 or more")),
                ("raw_scores", _) => return Err(wrong_parameter(name, "true or false")),
                ("truncate", _) => return Err(wrong_parameter(name, "\"END\" or \"NONE\"")),
                _ => {}
            }
        }
        Ok(Self {
            raw_scores,
            fit,
            priority,
        })
    }
}

fn wrong_parameter(name: &str, expected: &str) -> ApiError {
    ApiError::invalid(format!("parameters.{name}"), format!("expected {expected}"))
}

/// The served model's name for the one in a request; none if that is empty. NIM's clients write a name in lower case
/// with `_` for all but letters and digits.
fn model_name(state: &AppState, asked: String) -> Result<Option<String>, ApiError> {
    if asked.is_empty() {
        return Ok(None);
    }
    match state.models().status(&asked) {
        Ok(_) => Ok(Some(asked)),
        Err(error) => {
            let mut served = state.models().list().into_iter().map(|status| status.name);
            let found = served.find(|name| underscored(name) == asked);
            let not_found = || RerankError::from(error).into();
            found.map(Some).ok_or_else(not_found)
        }
    }
}

fn underscored(name: &str) -> String {
    let characters = name.chars().map(|c| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_lowercase(),
        false => '_',
    });
    characters.collect()
}
