//! Fields that several dialects have alike.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::http::error::ApiError;
use crate::scoring::FitOverrides;
use crate::tokenize::Direction;
use crate::types::{MAX_WINDOWS, Priority};

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(in crate::http) struct Usage {
    /// Tokens that were scored, special tokens included: of a document that stands twice once, of a score from the cache none.
    total_tokens: usize,
    prompt_tokens: usize,
}

impl Usage {
    pub(super) fn of(tokens: usize) -> Self {
        Self {
            total_tokens: tokens,
            prompt_tokens: tokens,
        }
    }
}

/// Which end is cut.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum TruncationSide {
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

/// The class of a request, which may be absent or null: a word, or a number of which the lower goes first, as Cohere and
/// vLLM have it.
pub(super) fn priority<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Priority>, D::Error> {
    struct PriorityVisitor;

    impl Visitor<'_> for PriorityVisitor {
        type Value = Option<Priority>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("\"interactive\", \"batch\" or a whole number")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
            Ok(Some(Priority::of_number(number)))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
            self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
            match number.fract() == 0.0 {
                true => self.visit_i64(number as i64),
                false => Err(E::invalid_value(Unexpected::Float(number), &self)),
            }
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            let named = Priority::named(text.trim());
            let wrong = || E::invalid_value(Unexpected::Str(text), &self);
            named.map(Some).ok_or_else(wrong)
        }
    }

    deserializer.deserialize_any(PriorityVisitor)
}

/// Overrides of nothing but whether a pair that is too long is cut.
pub(super) fn truncated(truncate: Option<bool>) -> FitOverrides {
    FitOverrides {
        truncate,
        ..FitOverrides::default()
    }
}

/// Whether logits are asked for: by `raw_scores`, or by one of vLLM's names for the opposite.
pub(super) fn logits(
    raw_scores: Option<bool>,
    [use_activation, activation, softmax]: [Option<bool>; 3],
) -> Result<bool, ApiError> {
    let sent = [
        ("raw_scores", raw_scores),
        ("use_activation", use_activation.map(|scores| !scores)),
        ("activation", activation.map(|scores| !scores)),
        ("softmax", softmax.map(|scores| !scores)),
    ];
    let mut sent = sent
        .into_iter()
        .filter_map(|(name, logits)| Some((name, logits?)));
    let Some((first, logits)) = sent.next() else {
        return Ok(false);
    };
    match sent.find(|&(_, others)| others != logits) {
        None => Ok(logits),
        Some((name, _)) => {
            let detail = format!("it contradicts \"{first}\"; send one of them");
            Err(ApiError::invalid(name, detail))
        }
    }
}

/// Applies `max_chunks_per_doc` and `overlap_tokens`.
pub(super) fn windows(
    fit: &mut FitOverrides,
    max: Option<usize>,
    overlap: Option<usize>,
) -> Result<(), ApiError> {
    if let Some(max) = max {
        fit.max_windows = Some(at_least_1(max, "max_chunks_per_doc")?);
        if max > MAX_WINDOWS {
            return Err(ApiError::invalid(
                "max_chunks_per_doc",
                format!("it must be at most {MAX_WINDOWS}"),
            ));
        }
    }
    fit.overlap = overlap;
    Ok(())
}

/// Applies vLLM's `truncate_prompt_tokens`: a pair that is cut has one window, unless more are asked for.
pub(super) fn prompt_tokens(fit: &mut FitOverrides, tokens: i64) -> Result<(), ApiError> {
    fit.truncate = Some(true);
    fit.max_windows = fit.max_windows.or(Some(1));
    fit.max_tokens = match tokens {
        -1 => None,
        1.. => usize::try_from(tokens).ok(),
        _ => {
            return Err(ApiError::invalid(
                "truncate_prompt_tokens",
                "it must be at least 1, or -1 for the model's longest input",
            ));
        }
    };
    Ok(())
}

/// A number that may not be 0.
pub(super) fn at_least_1(value: usize, field: &str) -> Result<usize, ApiError> {
    if value == 0 {
        return Err(ApiError::invalid(
            field,
            "it must be at least 1; leave it out for the default",
        ));
    }
    Ok(value)
}
