//! The domain's types, used by every layer. Imports no other module of the crate.

use std::fmt;
use std::sync::Arc;

pub use crate::engine::{Batch, Dtype, ModelSpec, Output, Sequence};

/// Who sends a request: callers get equal shares of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Whoever has the API key of this name.
    Key(Arc<str>),
    /// Without keys, whoever holds the connection of this number.
    Connection(u64),
}

impl Caller {
    /// The process itself: commands that run a model without a server.
    #[must_use]
    pub fn local() -> Self {
        Self::Connection(0)
    }
}

/// A document's relevance before any activation, finite by construction and totally ordered: what
/// documents are ranked by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawScore(f32);

impl RawScore {
    /// A raw score, or `None` for NaN and infinities.
    #[must_use]
    pub fn new(value: f32) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// The value.
    #[must_use]
    pub fn get(self) -> f32 {
        self.0
    }
}

impl Eq for RawScore {}

impl PartialOrd for RawScore {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RawScore {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // -0.0 and 0.0 must be equal, or "equal scores keep document order" breaks for them.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

/// A document's score as it is shown. It has no order: different raw scores round to the same one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score(f32);

impl Score {
    /// The value; never NaN or infinite.
    #[must_use]
    pub fn get(self) -> f32 {
        self.0
    }
}

/// What turns a raw score into the one that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The raw score itself.
    Identity,
    /// `1 / (1 + exp(-x))`, sentence-transformers' default for one label.
    Sigmoid,
}

impl Activation {
    /// Applies the activation.
    #[must_use]
    pub fn apply(self, raw: RawScore) -> Score {
        Score(match self {
            Self::Identity => raw.0,
            Self::Sigmoid => 1.0 / (1.0 + (-raw.0).exp()),
        })
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Sigmoid => "sigmoid",
        })
    }
}

/// What a score that is shown is: what it may be compared with, and what must not be done to it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreKind {
    /// From 0 to 1, by a sigmoid.
    Probability,
    /// A classifier's raw value.
    Logit,
    /// Of a fusion of several rankings; only the order means something.
    Fused,
}

impl ScoreKind {
    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Probability => "probability",
            Self::Logit => "logit",
            Self::Fused => "fused",
        }
    }
}

impl From<Activation> for ScoreKind {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Identity => Self::Logit,
            Activation::Sigmoid => Self::Probability,
        }
    }
}

/// Most windows in which one document may be read, whoever asks for them.
pub const MAX_WINDOWS: usize = 1024;

/// What the logits of a document's windows make of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowScore {
    /// The greatest.
    Best,
    /// The mean of the three greatest (of all, where there are fewer).
    MeanTop3,
}

/// One document's place in the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The document's position in the request, from 0.
    pub index: usize,
    /// What it is ranked by.
    pub raw: RawScore,
    /// Its score as it is shown.
    pub score: Score,
    /// The last stage of a cascade that scored it, from 0.
    pub stage: usize,
}
