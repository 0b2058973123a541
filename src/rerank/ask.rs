//! What a client asks, whatever the dialect it asks in, and what it is answered.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::models::{Info, Timings};
use crate::rank::fusion::{FirstStage, Fusion};
use crate::rank::rank;
use crate::scoring::FitOverrides;
use crate::types::{Activation, Ranked, RawScore, Score, ScoreKind};

/// Documents to rank. What is left out is the model's or the server's default.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The model's name; the first model's if `None`. Left out with a cascade, which names its own.
    pub model: Option<String>,
    /// The query or queries.
    pub queries: Queries,
    /// The documents' texts.
    pub documents: Arc<[String]>,
    /// What the model is told of the task, if it takes that.
    pub instruction: Option<String>,
    /// How pairs that are too long are made to fit.
    pub fit: FitOverrides,
    /// Models that rank one after the other, if more than one does.
    pub cascade: Vec<Stage>,
    /// How long a cascade should take: later stages get no more documents than can be scored in that.
    pub max_latency: Option<Duration>,
    /// What the stage before rerankd says of each document.
    pub first_stage: Option<FirstStage>,
    /// How that is joined with the model's scores; the model's default if `None`.
    pub fusion: Option<Fusion>,
    /// Raw scores in place of what the activation makes of them.
    pub raw_scores: bool,
    /// Documents whose shown score is lower are left out.
    pub min_score: Option<f32>,
    /// How many of the best to return; all if `None`.
    pub top_n: Option<usize>,
}

/// What documents are ranked by.
#[derive(Debug, Clone)]
pub enum Queries {
    /// One query.
    One(String),
    /// Several, each of which every document is scored against.
    Several {
        /// The queries.
        queries: Vec<String>,
        /// What their scores make of a document.
        combine: Combine,
    },
}

impl Queries {
    /// Their texts.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        match self {
            Self::One(query) => std::slice::from_ref(query),
            Self::Several { queries, .. } => queries,
        }
    }
}

impl Default for Queries {
    fn default() -> Self {
        Self::One(String::new())
    }
}

/// What a document's scores against several queries make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// The greatest.
    Max,
    /// Their mean.
    Mean,
    /// Reciprocal rank fusion of the queries' rankings.
    Rrf,
}

/// A stage of a cascade.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The model's name.
    pub model: String,
    /// How many of the documents, the best of its ranking, it hands to the next stage.
    pub depth: Option<usize>,
}

/// Pairs to score, in their own order.
#[derive(Debug, Clone, Default)]
pub struct PairsAsk {
    /// The model's name; the first model's if `None`.
    pub model: Option<String>,
    /// One query for all documents, or one for each; those that are the same may be one text.
    pub queries: Arc<[Arc<str>]>,
    /// The documents' texts.
    pub documents: Arc<[String]>,
    /// How pairs that are too long are made to fit.
    pub fit: FitOverrides,
    /// Raw scores in place of what the activation makes of them.
    pub raw_scores: bool,
}

/// What a request cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Documents in the request.
    pub documents: usize,
    /// Tokens of all that was scored, special tokens included.
    pub tokens: usize,
    /// Documents of which the model did not read all.
    pub truncated: usize,
    /// How long each stage took.
    pub timings: Timings,
}

impl Cost {
    /// Of both of two that were done at the same time.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        let (a, b) = (self.timings, other.timings);
        Self {
            documents: self.documents + other.documents,
            tokens: self.tokens + other.tokens,
            truncated: self.truncated + other.truncated,
            timings: Timings {
                tokenize: a.tokenize.max(b.tokenize),
                queue: a.queue.max(b.queue),
                inference: a.inference.max(b.inference),
            },
        }
    }
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone)]
pub struct Answer {
    /// The model that scored; the last one of a cascade.
    pub model: Arc<Info>,
    /// Best first.
    pub ranked: Vec<Ranked>,
    /// What the scores that are shown are.
    pub score_kind: ScoreKind,
    /// The models that scored, in a cascade's order, with how many documents each; [`Ranked::stage`] is a
    /// place in it.
    pub stages: Vec<StageDone>,
    /// Whether there was an instruction, but the model takes none.
    pub instruction_ignored: bool,
    /// What it cost.
    pub cost: Cost,
}

/// What a stage did.
#[derive(Debug, Clone)]
pub struct StageDone {
    /// Its model.
    pub model: Arc<Info>,
    /// How many documents it scored.
    pub documents: usize,
}

/// The answer to a [`PairsAsk`].
#[derive(Debug, Clone)]
pub struct PairsAnswer {
    /// The model that scored.
    pub model: Arc<Info>,
    /// Each document's raw score, in the documents' order.
    pub raw: Vec<RawScore>,
    /// What makes of them the scores that are shown.
    pub(super) activation: Activation,
    /// What it cost.
    pub cost: Cost,
}

impl PairsAnswer {
    /// The scores that are shown, in the documents' order.
    pub fn scores(&self) -> impl ExactSizeIterator<Item = Score> {
        self.raw.iter().map(|&raw| self.activation.apply(raw))
    }

    /// Ranks some of its documents; their indices are counted from the first of them.
    #[must_use]
    pub fn ranked(&self, documents: Range<usize>, top_n: Option<usize>) -> Vec<Ranked> {
        rank(&self.raw[documents], self.activation, top_n)
    }
}

/// The server's limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most documents in one request.
    pub max_documents: usize,
    /// From admission to the answer.
    pub request_timeout: Duration,
}
