//! How a result's explanation is shown.

use serde::Serialize;
use utoipa::ToSchema;

use crate::rerank::{Part, Word};

/// A sentence of a document, or several neighbours.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainedPart {
    /// Its text, with the blanks behind it.
    #[schema(example = "Paris is the capital of France. ")]
    text: String,
    /// The document's logit less that of the document without this part: positive supports the document,
    /// negative speaks against it.
    #[schema(example = 2.13)]
    weight: f32,
    /// Its words, if it is the part of the greatest weight and that is positive; joined, their texts are the
    /// part's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    words: Option<Vec<ExplainedWord>>,
}

/// A word, or several neighbours.
#[derive(Debug, Serialize, ToSchema)]
struct ExplainedWord {
    /// Its text, with the blanks behind it.
    #[schema(example = "Paris ")]
    text: String,
    /// As a part's.
    #[schema(example = 0.2)]
    weight: f32,
}

/// A document's parts as they are sent.
pub(super) fn shown(parts: Vec<Part>) -> Vec<ExplainedPart> {
    let word = |Word { text, weight }| ExplainedWord { text, weight };
    let parts = parts.into_iter().map(|part| ExplainedPart {
        text: part.text,
        weight: part.weight,
        words: part
            .words
            .map(|words| words.into_iter().map(word).collect()),
    });
    parts.collect()
}
