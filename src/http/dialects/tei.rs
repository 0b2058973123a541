//! text-embeddings-inference's rerank API: a bare array, one entry per text unless `top_n` is sent.
//! SageMaker's containers speak it too; `vertex` has several requests at once, `tei_predict` `/predict`.
//!
//! Source: text-embeddings-inference 1.9, router/src/http/{types,server}.rs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Dialect;
use super::document::{DocumentInput, one_of, texts};
use super::fields::{at_least_1, truncated, windows};
use crate::http::asked::Context;
use crate::http::error::ApiError;
use crate::http::extract::{flag, whole};
use crate::rerank::{Answer, Ask, Queries};
use crate::tokenize::Direction;
use crate::types::Ranked;

/// A request. Unknown fields are ignored; null is the same as absent.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "query": "What is the capital of France?",
    "texts": ["Berlin is in Germany.", "Paris is the capital of France."],
    "return_text": true,
}))]
pub(in crate::http) struct TeiRequest {
    /// The served model's name or an alias of it; may be left out.
    model: Option<String>,
    /// The query.
    #[schema(example = "What is the capital of France?", min_length = 1)]
    query: String,
    /// The texts to rank.
    #[schema(example = json!(["Berlin is in Germany.", "Paris is the capital of France."]), min_items = 1)]
    texts: Option<Vec<DocumentInput>>,
    /// The same under Cohere's name; send one of the two.
    documents: Option<Vec<DocumentInput>>,
    /// Maximum number of results; all if left out.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    top_n: Option<usize>,
    /// Whether to return each text with its score.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_text: Option<bool>,
    /// The same under Cohere's name.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = Option<bool>)]
    return_documents: Option<bool>,
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
    /// Which end is cut.
    truncation_direction: Option<TruncationDirection>,
    /// Maximum number of windows read from a text that does not fit, as on `/v1/rerank`.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 1024)]
    max_chunks_per_doc: Option<usize>,
    /// Number of tokens that a window shares with the one before it.
    #[serde(default, deserialize_with = "whole")]
    overlap_tokens: Option<usize>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
enum TruncationDirection {
    /// The beginning.
    #[serde(alias = "left")]
    Left,
    /// The end.
    #[serde(alias = "right")]
    Right,
}

/// One text's place in the ranking.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TeiRank {
    /// The text's position in the request, from 0.
    index: usize,
    /// Higher is better; between 0 and 1 unless the model or `raw_scores` says otherwise.
    #[schema(example = 0.98)]
    score: f32,
    /// The text, if `return_text` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    text: Option<String>,
}

/// The dialect.
#[derive(Debug)]
pub(in crate::http) struct Tei;

/// The texts of a request, and whether they are returned.
#[derive(Debug)]
pub(in crate::http) struct Texts {
    query_characters: usize,
    texts: Arc<[String]>,
    returned: bool,
}

impl Dialect for Tei {
    type Request = TeiRequest;
    type Ask = Ask;
    type Kept = Texts;
    type Response = Vec<TeiRank>;

    fn model<'r>(&self, request: &'r TeiRequest) -> Option<&'r str> {
        request.model.as_deref()
    }

    fn ask(&self, request: TeiRequest, _: &Context) -> Result<(Ask, Texts), ApiError> {
        let mut fit = truncated(request.truncate);
        fit.direction = request
            .truncation_direction
            .map(|direction| match direction {
                TruncationDirection::Left => Direction::Left,
                TruncationDirection::Right => Direction::Right,
            });
        windows(&mut fit, request.max_chunks_per_doc, request.overlap_tokens)?;
        let top_n = request.top_n.map(|n| at_least_1(n, "top_n")).transpose()?;
        let documents = one_of(("texts", request.texts), [("documents", request.documents)])?;
        let documents = texts(&documents, None, "texts")?;
        let kept = Texts {
            query_characters: request.query.chars().count(),
            texts: Arc::clone(&documents),
            returned: request
                .return_text
                .or(request.return_documents)
                .unwrap_or(false),
        };
        let ask = Ask {
            model: request.model,
            queries: Queries::One(request.query),
            documents,
            top_n,
            raw_scores: request.raw_scores.unwrap_or(false),
            fit,
            ..Ask::default()
        };
        Ok((ask, kept))
    }

    fn answer(&self, answer: Answer, kept: Texts, _: &Context) -> Vec<TeiRank> {
        kept.ranks(&answer.ranked)
    }

    fn characters(&self, kept: &Texts) -> Option<usize> {
        let texts = kept.texts.iter();
        let characters = texts.map(|text| kept.query_characters + text.chars().count());
        Some(characters.sum())
    }
}

impl Texts {
    /// A ranking in TEI's shape.
    pub(super) fn ranks(&self, ranked: &[Ranked]) -> Vec<TeiRank> {
        let ranks = ranked.iter().map(|ranked| TeiRank {
            index: ranked.index,
            score: ranked.score.get(),
            text: self.returned.then(|| self.texts[ranked.index].clone()),
        });
        ranks.collect()
    }
}
