//! Mixedbread's rerank API: `POST /v1/reranking` with `input` (see `dispatch`).
//!
//! Source: Mixedbread's API reference, "Answer"; its generated client.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Dialect;
use super::document::{DocumentInput, Returned, texts};
use super::fields::{Usage, at_least_1};
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::{flag, whole};
use crate::rerank::{Answer, Ask, Queries};

/// Number of results that Mixedbread returns where `top_k` is left out.
const TOP_K: usize = 10;

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": "What is the capital of France?",
    "input": ["Berlin is in Germany.", "Paris is the capital of France."],
    "top_k": 1,
    "return_input": true,
}))]
pub(in crate::http) struct MixedbreadRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// The query.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The documents to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    input: Vec<DocumentInput>,
    /// Which fields of documents that are objects are ranked, in this order; only `text` if left
    /// out.
    rank_fields: Option<Vec<String>>,
    /// Maximum number of results; 10 if left out.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    top_k: Option<usize>,
    /// Whether to return each document with its score.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_input: Option<bool>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct MixedbreadResponse {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The model that scored.
    model: String,
    /// Best first; equal scores in the documents' order.
    data: Vec<MixedbreadResult>,
    usage: Usage,
    /// The number of results that was asked for.
    top_k: usize,
    /// Whether they were asked for with their documents.
    return_input: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct MixedbreadResult {
    /// The document's position in the request, from 0.
    index: usize,
    /// Higher is better; between 0 and 1 unless the model says otherwise.
    #[schema(example = 0.98)]
    score: f32,
    /// The document as it was sent, if `return_input` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    input: Option<Value>,
    /// Always `rank_result`.
    #[schema(example = "rank_result")]
    object: &'static str,
}

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct Mixedbread;

/// The part of a request that the response repeats.
#[derive(Debug)]
pub(in crate::http) struct Repeated {
    input: Returned,
    top_k: usize,
    return_input: bool,
}

impl Dialect for Mixedbread {
    type Request = MixedbreadRequest;
    type Ask = Ask;
    type Kept = Repeated;
    type Response = MixedbreadResponse;

    fn model<'r>(&self, request: &'r MixedbreadRequest) -> Option<&'r str> {
        request.model.as_deref()
    }

    fn ask(&self, request: MixedbreadRequest, _: &Context) -> Result<(Ask, Repeated), ApiError> {
        let top_k = at_least_1(request.top_k.unwrap_or(TOP_K), "top_k")?;
        let ask = Ask {
            model: request.model,
            queries: Queries::One(request.query),
            documents: texts(
                &request.input,
                Some(&request.rank_fields.unwrap_or_default()),
                "input",
            )?,
            top_n: Some(top_k),
            ..Ask::default()
        };
        let return_input = request.return_input.unwrap_or(false);
        let repeated = Repeated {
            input: Returned::new(request.input, return_input),
            top_k,
            return_input,
        };
        Ok((ask, repeated))
    }

    fn answer(&self, answer: Answer, mut repeated: Repeated, _: &Context) -> MixedbreadResponse {
        let input = &mut repeated.input;
        let data = answer.ranked.iter().map(|ranked| MixedbreadResult {
            index: ranked.index,
            score: ranked.score.get(),
            input: input.take(ranked.index).map(DocumentInput::into_value),
            object: "rank_result",
        });
        MixedbreadResponse {
            object: "list",
            data: data.collect(),
            model: answer.model.name.clone(),
            usage: Usage::of(answer.cost.tokens),
            top_k: repeated.top_k,
            return_input: repeated.return_input,
        }
    }
}
