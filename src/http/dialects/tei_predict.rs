//! text-embeddings-inference's `POST /predict`: scores pairs as a classifier with one label would.
//!
//! Source: text-embeddings-inference 1.9, router/src/http/{types,server}.rs.

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::PairsAsk;
use crate::scoring::FitOverrides;

use super::super::error::ApiError;
use super::super::extract::{flag, json};
use super::super::layers::with_work;
use super::super::state::{AppState, Call};
use super::tei::{self, Measured};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(predict))
}

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": [["What is the capital of France?", "Paris is the capital of France."]]}))]
pub(in crate::http) struct PredictRequest {
    inputs: PredictInput,
    /// Logits instead of scores.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    raw_scores: Option<bool>,
    /// Whether to cut a pair that is longer than the model's input; the server's setting if left
    /// out. With `false` such a pair is an error.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    truncate: Option<bool>,
}

/// One pair or several. A single text, which TEI takes for its classifiers, is refused: a reranker
/// scores pairs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a pair [\"query\", \"document\"] or an array of pairs"
)]
#[schema(example = json!([["capital of France?", "Paris is the capital of France."]]))]
enum PredictInput {
    /// One pair: query and document.
    Pair((String, String)),
    /// Several.
    Pairs(Vec<(String, String)>),
}

/// A pair's score.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Prediction {
    /// Higher is better; between 0 and 1 unless the model or `raw_scores` says otherwise.
    #[schema(example = 0.98)]
    score: f32,
    /// Always the one label that a reranker has.
    #[schema(example = "LABEL_0")]
    label: &'static str,
}

/// For one pair its prediction, for several one such array each.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum Predictions {
    /// Of one pair.
    One([Prediction; 1]),
    /// Of several, in their order.
    Each(Vec<[Prediction; 1]>),
}

/// Scores pairs, in the shape of text-embeddings-inference's classifiers.
#[utoipa::path(post, path = "/predict", tag = "score", request_body = PredictRequest, responses(
    (status = 200, description = "The scores, in the pairs' order", body = Predictions),
))]
pub(in crate::http) async fn predict(call: Call, request: Request) -> Response {
    let answer = answer(&call, request).await;
    answer.unwrap_or_else(|e| tei::error(&e))
}

async fn answer(call: &Call, request: Request) -> Result<Response, ApiError> {
    let served = call.model(None)?;
    let body: PredictRequest = json(request).await?;
    let (pairs, single) = match body.inputs {
        PredictInput::Pair(pair) => (vec![pair], true),
        PredictInput::Pairs(pairs) => (pairs, false),
    };
    let characters = pairs
        .iter()
        .map(|(q, d)| q.chars().count() + d.chars().count());
    let characters = characters.sum();
    let (queries, documents): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
    let request = PairsAsk {
        model: Some(served.info().name.clone()),
        queries: queries.into_iter().map(Into::into).collect(),
        documents: documents.into(),
        raw_scores: body.raw_scores.unwrap_or(false),
        fit: FitOverrides {
            truncate: body.truncate,
            ..FitOverrides::default()
        },
    };
    let scoring = call.reranker().score(&request, &call.caller).await?;
    let mut predictions: Vec<[Prediction; 1]> = scoring
        .scores()
        .map(|score| {
            [Prediction {
                score: score.get(),
                label: "LABEL_0",
            }]
        })
        .collect();
    let predictions = match predictions.pop() {
        Some(only) if single => Predictions::One(only),
        Some(last) => {
            predictions.push(last);
            Predictions::Each(predictions)
        }
        None => Predictions::Each(predictions),
    };
    let measured = Measured {
        work: scoring.cost,
        characters,
        on_gpu: served.info().device != "cpu",
    };
    let mut response = with_work(Json(predictions).into_response(), measured.work);
    measured.add_headers(&mut response);
    Ok(response)
}
