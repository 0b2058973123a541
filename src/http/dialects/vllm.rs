//! vLLM's score API: `POST /score` and `/v1/score`. Its rerank API is the native dialect's; see
//! `dispatch` for `/rerank`.
//!
//! Source: vLLM, "OpenAI-compatible server", Score API.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Dialect;
use super::document::one_of;
use super::fields::{TruncationSide, Usage, logits, priority, prompt_tokens};
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::{flag, whole};
use crate::http::text_fields::TextFields;
use crate::rerank::{PairsAnswer, PairsAsk};
use crate::scoring::FitOverrides;
use crate::types::Priority;

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
    /// Cuts each pair to this many tokens, special tokens included, and reads no further window of a text; -1 stands
    /// for the model's longest input.
    #[schema(minimum = -1)]
    #[serde(default, deserialize_with = "whole")]
    truncate_prompt_tokens: Option<i64>,
    /// Which end of a pair that is too long is cut.
    truncation_side: Option<TruncationSide>,
    /// The request's class: `interactive` or `batch`, or a number, where 0 and less are interactive and more is batch.
    /// Batch work is done once no interactive work waits, but for a small share.
    #[serde(default, deserialize_with = "priority")]
    #[schema(value_type = Option<i64>, example = 0)]
    priority: Option<Priority>,
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

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct VllmScore;

impl Dialect for VllmScore {
    type Request = ScoreInput;
    type Ask = PairsAsk;
    type Kept = TextFields;
    type Response = ScoreOutput;

    fn model<'r>(&self, request: &'r ScoreInput) -> Option<&'r str> {
        request.model.as_deref()
    }

    fn ask(&self, request: ScoreInput, _: &Context) -> Result<(PairsAsk, TextFields), ApiError> {
        let mut fit = FitOverrides::default();
        if let Some(tokens) = request.truncate_prompt_tokens {
            prompt_tokens(&mut fit, tokens)?;
        }
        fit.direction = request.truncation_side.map(Into::into);
        let sent = |names: &[(&'static str, bool)]| {
            let name = names.iter().find(|(_, is_sent)| *is_sent);
            name.map_or(names[0].0, |(name, _)| name)
        };
        let of_queries = sent(&[
            ("text_1", request.text_1.is_some()),
            ("queries", request.queries.is_some()),
            ("data_1", request.data_1.is_some()),
        ]);
        let of_documents = sent(&[
            ("text_2", request.text_2.is_some()),
            ("documents", request.documents.is_some()),
            ("items", request.items.is_some()),
            ("data_2", request.data_2.is_some()),
        ]);
        let queries: Vec<String> = one_of(
            ("text_1", request.text_1),
            [("queries", request.queries), ("data_1", request.data_1)],
        )?
        .into();
        let documents: Vec<String> = one_of(
            ("text_2", request.text_2),
            [
                ("documents", request.documents),
                ("items", request.items),
                ("data_2", request.data_2),
            ],
        )?
        .into();
        let (first, second) = (queries.len(), documents.len());
        if first != 1 && first != second && second > 0 {
            let detail = format!(
                "{first} texts, but {of_documents} has {second}: there must be one, or one for each of {of_documents}"
            );
            return Err(ApiError::invalid(of_queries, detail));
        }
        let ask = PairsAsk {
            model: request.model,
            queries: queries.into_iter().map(Into::into).collect(),
            documents: documents.into(),
            raw_scores: logits(
                request.raw_scores,
                [request.use_activation, request.activation, request.softmax],
            )?,
            fit,
            priority: request.priority,
        };
        let fields = TextFields {
            query: of_queries,
            documents: of_documents,
        };
        Ok((ask, fields))
    }

    fn answer(&self, answer: PairsAnswer, _: TextFields, context: &Context) -> ScoreOutput {
        let data = answer.scores().enumerate();
        let data = data.map(|(index, score)| ScoreDatum {
            index,
            object: "score",
            score: score.get(),
        });
        ScoreOutput {
            id: context.id.clone(),
            object: "list",
            created: context.time,
            data: data.collect(),
            model: answer.model.name.clone(),
            usage: Usage::of(answer.cost.tokens),
        }
    }

    fn text_fields(&self, kept: &TextFields) -> TextFields {
        *kept
    }
}
