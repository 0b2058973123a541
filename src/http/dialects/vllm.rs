//! vLLM's score API: `POST /score` and `/v1/score`. Its rerank API is the native dialect's; see
//! `dispatch` for `/rerank`.
//!
//! Source: vLLM, "OpenAI-compatible server", Score API.

use std::fmt;

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rerank::PairsAsk;
use crate::scoring::FitOverrides;
use crate::tokenize::Direction;

use super::super::error::ApiError;
use super::super::extract::{flag, json, whole};
use super::super::layers::{RequestId, with_work};
use super::super::state::{AppState, Call};
use super::document::one_of;
use super::native::prompt_tokens;
use super::openai::{self, Usage, now};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(score))
        .routes(routes!(score_v1))
}

/// A request: one query for all documents, or one for each. Unknown fields are ignored; null is the
/// same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "text_1": "What is the capital of France?",
    "text_2": ["Berlin is in Germany.", "Paris is the capital of France."],
}))]
pub(in crate::http) struct ScoreInput {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// The query or queries.
    #[schema(example = "What is the capital of France?")]
    text_1: Option<OneOrMany>,
    /// The document or documents.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]))]
    text_2: Option<OneOrMany>,
    /// The same as `text_1`; send one of them.
    queries: Option<OneOrMany>,
    /// The same as `text_2`; send one of them.
    documents: Option<OneOrMany>,
    /// The same as `text_2`.
    items: Option<OneOrMany>,
    /// The same as `text_1`.
    data_1: Option<OneOrMany>,
    /// The same as `text_2`.
    data_2: Option<OneOrMany>,
    /// Logits instead of scores.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    raw_scores: Option<bool>,
    /// With `false` logits.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    use_activation: Option<bool>,
    /// An older name of `use_activation`.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    activation: Option<bool>,
    /// The oldest name of `use_activation`.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    softmax: Option<bool>,
    /// Cuts each pair to this many tokens, special tokens included; -1 stands for the model's
    /// longest input.
    #[schema(minimum = -1)]
    #[serde(default, deserialize_with = "whole")]
    truncate_prompt_tokens: Option<i64>,
    /// Which end of a pair that is too long is cut.
    truncation_side: Option<TruncationSide>,
}

/// Which end is cut.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum TruncationSide {
    /// The beginning.
    Left,
    /// The end.
    Right,
}

impl From<TruncationSide> for Direction {
    fn from(side: TruncationSide) -> Self {
        match side {
            TruncationSide::Left => Self::Left,
            TruncationSide::Right => Self::Right,
        }
    }
}

/// Whether logits are asked for: by `raw_scores`, or by one of vLLM's names for the opposite.
pub(super) fn logits(raw_scores: Option<bool>, activation: [Option<bool>; 3]) -> bool {
    let activation = activation.into_iter().flatten().next();
    raw_scores.unwrap_or(activation == Some(false))
}

/// A text or several.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// serde's own for such an enum would not say which text is wrong.
impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextsVisitor;

        impl<'de> Visitor<'de> for TextsVisitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, texts: A) -> Result<OneOrMany, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(texts)).map(OneOrMany::Many)
            }
        }

        deserializer.deserialize_any(TextsVisitor)
    }
}

impl From<OneOrMany> for Vec<String> {
    fn from(texts: OneOrMany) -> Self {
        match texts {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ScoreOutput {
    /// The request's id.
    id: String,
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// When it was answered, in seconds since 1970.
    created: u64,
    /// The model that scored.
    model: String,
    /// In the documents' order.
    data: Vec<ScoreDatum>,
    usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
struct ScoreDatum {
    /// The document's position in the request, from 0.
    index: usize,
    /// Always `score`.
    #[schema(example = "score")]
    object: &'static str,
    /// Higher is better; between 0 and 1 unless the model or `raw_scores` says otherwise.
    #[schema(example = 0.98)]
    score: f32,
}

/// Scores documents against a query, or each against its own, in vLLM's shape.
#[utoipa::path(post, path = "/score", tag = "score", request_body = ScoreInput, responses(
    (status = 200, description = "The scores, in the documents' order", body = ScoreOutput),
))]
pub(in crate::http) async fn score(call: Call, request: Request) -> Response {
    let answer = answer(&call, request).await;
    answer.unwrap_or_else(|e| openai::error(&e))
}

/// The same under a path with a version.
#[utoipa::path(post, path = "/v1/score", tag = "score", request_body = ScoreInput, responses(
    (status = 200, description = "The scores, in the documents' order", body = ScoreOutput),
))]
pub(in crate::http) async fn score_v1(call: Call, request: Request) -> Response {
    score(call, request).await
}

async fn answer(call: &Call, request: Request) -> Result<Response, ApiError> {
    let id = RequestId::of(&request).map(|id| id.as_str().to_owned());
    let body: ScoreInput = json(request).await?;
    let served = call.model(body.model.as_deref())?;
    let mut fit = FitOverrides::default();
    if let Some(tokens) = body.truncate_prompt_tokens {
        prompt_tokens(&mut fit, tokens)?;
    }
    if let Some(side) = body.truncation_side {
        fit.direction = Some(side.into());
    }
    let queries: Vec<String> = one_of(
        ("text_1", body.text_1),
        [("queries", body.queries), ("data_1", body.data_1)],
    )?
    .into();
    let documents: Vec<String> = one_of(
        ("text_2", body.text_2),
        [
            ("documents", body.documents),
            ("items", body.items),
            ("data_2", body.data_2),
        ],
    )?
    .into();
    let request = PairsAsk {
        model: Some(served.info().name.clone()),
        queries: queries.into_iter().map(Into::into).collect(),
        documents: documents.into(),
        raw_scores: logits(
            body.raw_scores,
            [body.use_activation, body.activation, body.softmax],
        ),
        fit,
    };
    let scoring = call.reranker().score(&request, &call.caller).await?;
    let data = scoring.scores().enumerate();
    let data = data.map(|(index, score)| ScoreDatum {
        index,
        object: "score",
        score: score.get(),
    });
    let output = ScoreOutput {
        id: id.unwrap_or_default(),
        object: "list",
        created: now(),
        model: served.info().name.clone(),
        data: data.collect(),
        usage: Usage::of(scoring.cost.tokens),
    };
    let work = scoring.cost;
    Ok(with_work(Json(output).into_response(), work))
}
