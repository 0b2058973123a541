//! The domain's types, used by every layer. Imports no other module of the crate.

mod span;
mod vectors;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::engine::{Batch, Cost, Dtype, ModelSpec, Output, Read, Sequence};
pub use span::Span;
pub use vectors::{Expansion, ModelKind, Similarity, TextRules, VectorDtype, VectorRules};

/// Who sends a request. Callers that wait get equal shares of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The owner of the API key with this name.
    Key(Arc<str>),
    /// The connection with this number, where no keys are configured.
    Connection(u64),
}

impl Caller {
    /// The process itself, for commands that run a model without a server.
    #[must_use]
    pub fn local() -> Self {
        Self::Connection(0)
    }
}

/// The class of a request: interactive work is done before batch work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// It may take what is left, and a small share at least.
    Batch,
}

impl Priority {
    /// Both, in their order.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Batch];
    /// While interactive work waits, one `BATCH_SHARE`th is for batch work.
    pub const BATCH_SHARE: u32 = 16;

    /// Of a number, of which the lower goes first; 0 is the usual one.
    #[must_use]
    pub fn of_number(number: i64) -> Self {
        match number {
            ..=0 => Self::Interactive,
            _ => Self::Batch,
        }
    }

    /// The class that a word or a number names.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        let named = |class: &Self| text.eq_ignore_ascii_case(class.name());
        let number = || text.parse().ok().map(Self::of_number);
        Self::ALL.into_iter().find(named).or_else(number)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

/// What a request's share of the engine goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Who sent it.
    pub caller: Caller,
    /// The caller's share, relative to those of others that wait.
    pub weight: u32,
    /// The request's class.
    pub priority: Priority,
}

/// Who sends a request, and on what terms.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Who sends it.
    pub caller: Caller,
    /// The caller's share of the engine, relative to those of others that wait.
    pub weight: u32,
    /// Its class, whatever the request itself says.
    pub priority: Option<Priority>,
    /// Its class if nothing says it.
    pub usual_priority: Priority,
    /// How long its client waits, if that is known.
    pub deadline: Option<Deadline>,
    /// The most tokens that it may have, if its caller has a limit.
    pub most_tokens: Option<u64>,
}

/// How long a client waits.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// As the client said it, from the request's arrival on.
    pub timeout: Duration,
    /// The time after which it is gone.
    pub at: Instant,
}

impl Terms {
    /// Where a request stands that asks for a class itself.
    #[must_use]
    pub fn standing(&self, asked: Option<Priority>) -> Standing {
        Standing {
            caller: self.caller.clone(),
            weight: self.weight,
            priority: self.priority.or(asked).unwrap_or(self.usual_priority),
        }
    }
}

impl From<&Terms> for Terms {
    fn from(terms: &Terms) -> Self {
        terms.clone()
    }
}

/// The usual terms.
impl From<&Caller> for Terms {
    fn from(caller: &Caller) -> Self {
        Self {
            caller: caller.clone(),
            weight: 1,
            priority: None,
            usual_priority: Priority::default(),
            deadline: None,
            most_tokens: None,
        }
    }
}

/// A document's relevance before any activation. Documents are ranked by it; it is always finite and
/// totally ordered.
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

/// A document's score as answers show it. It has no order, since different raw scores can round to the
/// same score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score(f32);

impl Score {
    /// The value; never NaN or infinite.
    #[must_use]
    pub fn get(self) -> f32 {
        self.0
    }
}

/// The function from a raw score to the score that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The raw score itself.
    Identity,
    /// `1 / (1 + exp(-x))`, sentence-transformers' default for one label.
    Sigmoid,
    /// The sigmoid of `x / 5`, as zerank's published code has it.
    SigmoidOfFifth,
}

impl Activation {
    /// Applies the activation.
    #[must_use]
    pub fn apply(self, raw: RawScore) -> Score {
        Score(match self {
            Self::Identity => raw.0,
            Self::Sigmoid => sigmoid(raw.0),
            Self::SigmoidOfFifth => sigmoid(raw.0 / 5.0),
        })
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Sigmoid => "sigmoid",
            Self::SigmoidOfFifth => "sigmoid(x/5)",
        })
    }
}

/// The meaning of the scores in an answer: what they can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreKind {
    /// From 0 to 1: the sigmoid of a logit.
    Probability,
    /// The model's raw output, unbounded.
    Logit,
    /// How alike the query's and the document's vectors are.
    Similarity,
    /// From a fusion of several rankings; only the order is meaningful.
    Fused,
}

impl ScoreKind {
    /// Of a model's scores after an activation.
    #[must_use]
    pub fn of(model: ModelKind, activation: Activation) -> Self {
        match (activation, model) {
            (Activation::Sigmoid | Activation::SigmoidOfFifth, _) => Self::Probability,
            (Activation::Identity, ModelKind::CrossEncoder) => Self::Logit,
            (Activation::Identity, _) => Self::Similarity,
        }
    }

    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Probability => "probability",
            Self::Logit => "logit",
            Self::Similarity => "similarity",
            Self::Fused => "fused",
        }
    }
}

/// Maximum number of windows read from one document, for settings and requests alike.
pub const MAX_WINDOWS: usize = 1024;

/// How a document's raw score is computed from the logits of its windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowScore {
    /// The maximum.
    Best,
    /// The mean of the three highest, or of all if there are fewer.
    MeanTop3,
}

/// One document in the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The document's position in the request, from 0.
    pub index: usize,
    /// The raw score that it is ranked by.
    pub raw: RawScore,
    /// Its score as the answer shows it.
    pub score: Score,
    /// The last stage of a cascade that scored it, from 0.
    pub stage: usize,
}
