//! Mixedbread's rerank API: `POST /v1/reranking` with `input` (see `dispatch`).
//!
//! Source: Mixedbread's API reference, "Answer"; its generated client.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::rerank::{Ask, Queries};
use crate::scoring::FitOverrides;

use super::super::error::ApiError;
use super::super::extract::{flag, whole};
use super::super::layers::with_work;
use super::super::state::Call;
use super::document::{DocumentInput, Returned, texts};
use super::native::at_least_1;
use super::openai::Usage;

/// How many Mixedbread returns where `top_k` is left out.
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
    /// What is searched for.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The documents to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    input: Vec<DocumentInput>,
    /// Which fields of documents that are objects are ranked, in this order; only `text` if left
    /// out.
    rank_fields: Option<Vec<String>>,
    /// How many of the best to return; 10 if left out.
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
    /// How many were asked for.
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

pub(super) async fn answer(call: &Call, body: MixedbreadRequest) -> Result<Response, ApiError> {
    let served = call.model(body.model.as_deref())?;
    let top_k = at_least_1(body.top_k.unwrap_or(TOP_K), "top_k")?;
    let request = Ask {
        model: Some(served.info().name.clone()),
        queries: Queries::One(body.query),
        documents: texts(&body.input, body.rank_fields.as_deref(), "input")?,
        top_n: Some(top_k),
        raw_scores: false,
        fit: FitOverrides::default(),
        ..Ask::default()
    };
    let reranking = call.reranker().rerank(&request, &call.caller).await?;
    let return_input = body.return_input.unwrap_or(false);
    let mut input = Returned::new(body.input, return_input);
    let data = reranking.ranked.iter().map(|ranked| MixedbreadResult {
        index: ranked.index,
        score: ranked.score.get(),
        input: input.take(ranked.index).map(DocumentInput::into_value),
        object: "rank_result",
    });
    let response = MixedbreadResponse {
        object: "list",
        model: served.info().name.clone(),
        data: data.collect(),
        usage: Usage::of(reranking.cost.tokens),
        top_k,
        return_input,
    };
    let work = reranking.cost;
    Ok(with_work(Json(response).into_response(), work))
}
