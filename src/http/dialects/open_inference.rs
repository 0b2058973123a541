//! The Open Inference Protocol, version 2, over REST, as KServe and Triton speak it: inputs `query`
//! and `documents`, output `scores`.
//!
//! Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Dialect;
use super::fields::truncated;
use crate::http::asked::Context;
use crate::http::error::{ApiError, shortened};
use crate::http::extract::{flag, objects, optional_object, optional_objects, whole};
use crate::rerank::{PairsAnswer, PairsAsk};
use crate::types::Priority;

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
    /// The outputs that are wanted: `scores`, the only one.
    #[serde(default, deserialize_with = "optional_objects")]
    outputs: Option<Vec<WantedOutput>>,
}

/// An output; its parameters are ignored.
#[derive(Debug, Deserialize, ToSchema)]
struct WantedOutput {
    #[schema(example = "scores")]
    name: String,
}

/// Parameters; others are ignored.
#[derive(Debug, Deserialize, ToSchema)]
struct InferParameters {
    /// Logits instead of scores.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    raw_scores: Option<bool>,
    /// What to do with a pair that is longer than the model's input; the server's setting if left out.
    truncate: Option<InferTruncate>,
    /// As in Triton: 1 is the first class, higher numbers are batch work, 0 is the usual class.
    #[serde(default, deserialize_with = "whole")]
    priority: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum InferTruncate {
    /// It is an error.
    None,
    /// Its end is cut.
    End,
}

/// The class that Triton's number stands for.
pub(in crate::http) fn priority(number: u64) -> Option<Priority> {
    match number {
        0 => None,
        1 => Some(Priority::Interactive),
        _ => Some(Priority::Batch),
    }
}

#[derive(Debug, Deserialize, ToSchema)]
struct InputTensor {
    /// `query` or `documents`.
    name: String,
    /// The dimensions; their product is the number of strings in `data`.
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

/// The error for an input that is there beside a query and documents.
pub(in crate::http) fn left_over(name: &str) -> ApiError {
    let detail = match name {
        "query" | "documents" => format!("\"{name}\" stands twice"),
        _ => {
            let name = shortened(name);
            format!("there is no \"{name}\"; there are \"query\" and \"documents\"")
        }
    };
    ApiError::invalid("inputs", detail)
}

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct OpenInference;

impl Dialect for OpenInference {
    type Request = InferRequest;
    type Ask = PairsAsk;
    /// The request's id.
    type Kept = Option<String>;
    type Response = InferResponse;

    fn model<'r>(&self, _: &'r InferRequest) -> Option<&'r str> {
        None
    }

    fn ask(
        &self,
        mut request: InferRequest,
        context: &Context,
    ) -> Result<(PairsAsk, Option<String>), ApiError> {
        let queries = strings(&mut request.inputs, "query")?;
        let documents = strings(&mut request.inputs, "documents")?;
        if let Some(other) = request.inputs.first() {
            return Err(left_over(&other.name));
        }
        let mut wanted = request.outputs.iter().flatten();
        if let Some(other) = wanted.find(|output| output.name != "scores") {
            let name = shortened(&other.name);
            let detail = format!("there is no \"{name}\"; there is \"scores\"");
            return Err(ApiError::invalid("outputs", detail));
        }
        let parameters = request.parameters.as_ref();
        let raw_scores = parameters.and_then(|p| p.raw_scores);
        let truncate = parameters.and_then(|p| p.truncate);
        let ask = PairsAsk {
            model: context.model.clone(),
            queries: queries.into_iter().map(Into::into).collect(),
            documents: documents.into(),
            raw_scores: raw_scores.unwrap_or(false),
            fit: truncated(truncate.map(|truncate| truncate == InferTruncate::End)),
            priority: parameters.and_then(|p| priority(p.priority?)),
        };
        Ok((ask, request.id))
    }

    fn answer(&self, answer: PairsAnswer, id: Option<String>, context: &Context) -> InferResponse {
        InferResponse {
            model_name: answer.model.name.clone(),
            id: id.unwrap_or_else(|| context.id.clone()),
            outputs: [OutputTensor {
                name: "scores",
                shape: [answer.raw.len()],
                datatype: "FP32",
                data: answer.scores().map(|score| score.get()).collect(),
            }],
        }
    }
}

/// Takes a tensor's strings.
fn strings(inputs: &mut Vec<InputTensor>, name: &str) -> Result<Vec<String>, ApiError> {
    let place = inputs.iter().position(|input| input.name == name);
    let Some(mut tensor) = place.map(|place| inputs.swap_remove(place)) else {
        let detail = format!("there is no \"{name}\"; \"query\" and \"documents\" are needed");
        return Err(ApiError::invalid("inputs", detail));
    };
    if tensor.datatype != "BYTES" {
        let detail = format!("datatype {} can't be read; send BYTES", tensor.datatype);
        return Err(ApiError::invalid(format!("inputs.{name}"), detail));
    }
    let mut strings = Vec::new();
    if !flatten(tensor.data.take(), &mut strings) {
        let field = format!("inputs.{name}.data");
        return Err(ApiError::invalid(field, "expected strings"));
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
        return Err(ApiError::invalid(format!("inputs.{name}.shape"), detail));
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
