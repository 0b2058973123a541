//! text-embeddings-inference's `POST /predict`: scores pairs as a classifier with one label would.
//!
//! Source: text-embeddings-inference 1.9, router/src/http/{types,server}.rs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Dialect;
use super::fields::truncated;
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::flag;
use crate::rerank::{PairsAnswer, PairsAsk};

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": [["What is the capital of France?", "Paris is the capital of France."]]}))]
pub(in crate::http) struct PredictRequest {
    inputs: PredictInput,
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// Logits instead of scores.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    raw_scores: Option<bool>,
    /// Whether to cut a pair that is longer than the model's input; the server's setting if left
    /// out. With `false` it is an error if the windows that are read (`max_chunks_per_doc`, else the
    /// server's setting) don't reach its end.
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

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct TeiPredict;

/// The part of a request that the response needs.
#[derive(Debug)]
pub(in crate::http) struct Kept {
    is_single: bool,
    characters: usize,
}

impl Dialect for TeiPredict {
    type Request = PredictRequest;
    type Ask = PairsAsk;
    type Kept = Kept;
    type Response = Predictions;

    fn model<'r>(&self, request: &'r PredictRequest) -> Option<&'r str> {
        request.model.as_deref()
    }

    fn ask(&self, request: PredictRequest, _: &Context) -> Result<(PairsAsk, Kept), ApiError> {
        let (pairs, is_single) = match request.inputs {
            PredictInput::Pair(pair) => (vec![pair], true),
            PredictInput::Pairs(pairs) => (pairs, false),
        };
        let characters = pairs
            .iter()
            .map(|(q, d)| q.chars().count() + d.chars().count());
        let characters = characters.sum();
        let (queries, documents): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
        let ask = PairsAsk {
            model: request.model,
            queries: queries.into_iter().map(Into::into).collect(),
            documents: documents.into(),
            raw_scores: request.raw_scores.unwrap_or(false),
            fit: truncated(request.truncate),
            ..PairsAsk::default()
        };
        let kept = Kept {
            is_single,
            characters,
        };
        Ok((ask, kept))
    }

    fn answer(&self, answer: PairsAnswer, kept: Kept, _: &Context) -> Predictions {
        let mut predictions: Vec<[Prediction; 1]> = answer
            .scores()
            .map(|score| {
                [Prediction {
                    score: score.get(),
                    label: "LABEL_0",
                }]
            })
            .collect();
        match predictions.pop() {
            Some(only) if kept.is_single => Predictions::One(only),
            last => {
                predictions.extend(last);
                Predictions::Each(predictions)
            }
        }
    }

    fn characters(&self, kept: &Kept) -> Option<usize> {
        Some(kept.characters)
    }
}
