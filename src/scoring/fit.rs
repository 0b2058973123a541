//! Truncation of pairs that are too long. Pure.

use std::ops::Range;

use crate::tokenize::Direction;

use super::windows::Windows;

/// Which side of a pair that is too long is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The longer of query and document, as with `longest_first` of Hugging Face tokenizers.
    LongestFirst,
    /// The document only; a query that leaves no room for it is an error.
    Document,
    /// Neither: a pair that is too long is an error.
    Off,
}

/// How a pair that is too long is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    /// Which side of the pair is truncated.
    pub strategy: Strategy,
    /// Which end is cut off.
    pub direction: Direction,
}

/// How a pair that is too long is truncated or split into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// The truncation of pairs that get one window.
    pub truncation: Truncation,
    /// Maximum length of a pair in tokens, special tokens included; the model's if `None` or longer.
    pub max_tokens: Option<usize>,
    /// Maximum number of tokens read from a document; the rest is ignored.
    pub max_document_tokens: Option<usize>,
    /// The windows of documents that do not fit.
    pub windows: Windows,
}

impl From<Truncation> for Fit {
    /// One window, as long as the model allows.
    fn from(truncation: Truncation) -> Self {
        Self {
            truncation,
            max_tokens: None,
            max_document_tokens: None,
            windows: Windows { max: 1, overlap: 0 },
        }
    }
}

/// A request's overrides of a model's [`Fit`]; `None` keeps the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FitOverrides {
    /// Whether pairs that are too long are truncated; if not, they are an error.
    pub truncate: Option<bool>,
    /// Which end is cut off.
    pub direction: Option<Direction>,
    /// Maximum length of a pair in tokens, special tokens included.
    pub max_tokens: Option<usize>,
    /// Maximum number of tokens read from a document.
    pub max_document_tokens: Option<usize>,
    /// Maximum number of windows per document.
    pub max_windows: Option<usize>,
    /// Tokens that a window shares with the one before it.
    pub overlap: Option<usize>,
}

impl Fit {
    /// This fit with a request's overrides.
    #[must_use]
    pub fn with(mut self, overrides: &FitOverrides) -> Self {
        let strategy = &mut self.truncation.strategy;
        *strategy = match (overrides.truncate, *strategy) {
            (Some(false), _) => Strategy::Off,
            (Some(true), Strategy::Off) => Strategy::LongestFirst,
            (_, strategy) => strategy,
        };
        let direction = overrides.direction;
        self.truncation.direction = direction.unwrap_or(self.truncation.direction);
        self.max_tokens = overrides.max_tokens.or(self.max_tokens);
        self.max_document_tokens = overrides.max_document_tokens.or(self.max_document_tokens);
        self.windows.max = overrides.max_windows.unwrap_or(self.windows.max);
        self.windows.overlap = overrides.overlap.unwrap_or(self.windows.overlap);
        self
    }
}

/// The numbers of tokens kept of (query, document), at most `room` together. `None` if they don't fit and the
/// strategy is [`Strategy::Off`].
pub(super) fn kept(
    query: usize,
    document: usize,
    room: usize,
    strategy: Strategy,
) -> Option<(usize, usize)> {
    if query + document <= room {
        return Some((query, document));
    }
    match strategy {
        Strategy::Off => None,
        Strategy::Document => {
            let query = query.min(room);
            Some((query, room - query))
        }
        // If the shorter one fits in half the room it is kept whole; else each gets half, and the
        // odd token goes to the longer one. Same outcome as huggingface/tokenizers, truncation.rs.
        Strategy::LongestFirst => {
            let (short, long) = (query.min(document), query.max(document));
            let (short, long) = if short <= room / 2 {
                (short, (room - short).min(long))
            } else {
                (room / 2, room / 2 + room % 2)
            };
            // With equal lengths the document counts as the longer one.
            Some(if query > document {
                (long, short)
            } else {
                (short, long)
            })
        }
    }
}

/// The kept part of so many tokens.
pub(super) fn cut(tokens: usize, keep: usize, direction: Direction) -> Range<usize> {
    match direction {
        Direction::Right => 0..keep,
        Direction::Left => tokens - keep..tokens,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use tokenizers::utils::truncation::{
        TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
    };
    use tokenizers::{Encoding, Token};

    fn encoding(n: usize) -> Encoding {
        let tokens = (0..n)
            .map(|i| Token::new(i as u32, String::new(), (0, 0)))
            .collect();
        Encoding::from_tokens(tokens, 0)
    }

    proptest! {
        #[test]
        fn longest_first_is_what_hugging_face_does(q in 0usize..80, d in 0usize..80, room in 1usize..120) {
            let params = TruncationParams {
                max_length: room,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
                direction: TruncationDirection::Right,
            };
            let (a, b) = truncate_encodings(encoding(q), Some(encoding(d)), &params).unwrap();
            let expected = (a.get_ids().len(), b.unwrap().get_ids().len());
            prop_assert_eq!(kept(q, d, room, Strategy::LongestFirst), Some(expected));
        }

        #[test]
        fn document_strategy_keeps_the_query_whole(q in 0usize..80, d in 0usize..80, room in 1usize..120) {
            let (kept_q, kept_d) = kept(q, d, room, Strategy::Document).unwrap();
            prop_assert!(kept_q + kept_d <= room && kept_d <= d);
            prop_assert_eq!(kept_q, q.min(room));
        }

        #[test]
        fn off_refuses_exactly_what_does_not_fit(q in 0usize..80, d in 0usize..80, room in 1usize..120) {
            prop_assert_eq!(kept(q, d, room, Strategy::Off).is_some(), q + d <= room);
        }
    }

    #[test]
    fn left_keeps_the_end() {
        assert_eq!(cut(3, 2, Direction::Left), 1..3);
        assert_eq!(cut(3, 2, Direction::Right), 0..2);
    }
}
