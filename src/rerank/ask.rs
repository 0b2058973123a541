//! Requests and answers, independent of the HTTP dialect.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::models::{Info, Timings};
use crate::rank::fusion::{FirstStage, Fusion};
use crate::rank::rank;
use crate::scoring::FitOverrides;
use crate::types::{Activation, Priority, Ranked, RawScore, Score, ScoreKind};

use super::explain::Part;

/// A request to rank documents. A field that is `None` means the model's or the server's default.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The model's name; the first model if `None`. Ignored with a cascade, whose stages name their models.
    pub model: Option<String>,
    /// The query or queries.
    pub queries: Queries,
    /// The documents' texts.
    pub documents: Arc<[String]>,
    /// An instruction that describes the task, for models that take one.
    pub instruction: Option<String>,
    /// How pairs that are too long are truncated or split into windows.
    pub fit: FitOverrides,
    /// The stages of a cascade; empty for a single model.
    pub cascade: Vec<Stage>,
    /// Target latency of a cascade: later stages get no more documents than can be scored within it.
    pub max_latency: Option<Duration>,
    /// The scores or ranks of the retrieval stage before rerankd.
    pub first_stage: Option<FirstStage>,
    /// How `first_stage` is combined with the model's scores.
    pub fusion: Joined,
    /// Whether to return raw scores, without the activation.
    pub raw_scores: bool,
    /// Documents with a lower score in the answer are left out.
    pub min_score: Option<f32>,
    /// Maximum number of documents to return; all if `None`.
    pub top_n: Option<usize>,
    /// Whether to explain the scores of the best documents.
    pub explain: bool,
    /// The class of the request.
    pub priority: Option<Priority>,
}

/// How the first stage's scores are combined with the model's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Joined {
    /// As the model's settings say.
    #[default]
    AsConfigured,
    /// Not at all.
    Off,
    /// So.
    By(Fusion),
}

/// The query or queries of a request.
#[derive(Debug, Clone)]
pub enum Queries {
    /// One query.
    One(String),
    /// Several queries; every document is scored against each.
    Several {
        /// The queries.
        queries: Vec<String>,
        /// How the scores for the queries are combined into a document's score.
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

/// How a document's scores for several queries are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// The maximum.
    Max,
    /// The mean.
    Mean,
    /// Reciprocal rank fusion of the queries' rankings.
    Rrf,
}

/// A stage of a cascade.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The model's name.
    pub model: String,
    /// How many of its best documents go to the next stage; the default if `None`.
    pub depth: Option<usize>,
}

/// A request to score pairs, without ranking them.
#[derive(Debug, Clone, Default)]
pub struct PairsAsk {
    /// The model's name; the first model if `None`.
    pub model: Option<String>,
    /// One query for all documents, or one for each document. Equal queries may share one `Arc`.
    pub queries: Arc<[Arc<str>]>,
    /// The documents' texts.
    pub documents: Arc<[String]>,
    /// How pairs that are too long are truncated or split into windows.
    pub fit: FitOverrides,
    /// Whether to return raw scores, without the activation.
    pub raw_scores: bool,
    /// The class of the request.
    pub priority: Option<Priority>,
}

/// The work done for a request.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// The model; in a cascade, the last stage's.
    pub model: Option<Arc<Info>>,
    /// Documents in the request.
    pub documents: usize,
    /// Documents in the answer.
    pub results: usize,
    /// Pairs of a query and a document that were asked for, also those whose scores were known.
    pub pairs: usize,
    /// Tokens scored, special tokens included; pairs from the cache count as none.
    pub tokens: usize,
    /// Number of truncated documents.
    pub truncated: usize,
    /// When the request was admitted.
    pub admitted: Option<Instant>,
    /// How long each stage took.
    pub timings: Timings,
}

impl Cost {
    /// The cost of two requests that ran at the same time.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self {
            model: self.model.or(other.model),
            documents: self.documents + other.documents,
            results: self.results + other.results,
            pairs: self.pairs + other.pairs,
            tokens: self.tokens + other.tokens,
            truncated: self.truncated + other.truncated,
            admitted: self.admitted.or(other.admitted),
            timings: self.timings.beside(other.timings),
        }
    }
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone)]
pub struct Answer {
    /// The model; in a cascade, the last stage's.
    pub model: Arc<Info>,
    /// Best first.
    pub ranked: Vec<Ranked>,
    /// The meaning of the scores.
    pub score_kind: ScoreKind,
    /// The stages in order; [`Ranked::stage`] is an index into it.
    pub stages: Vec<StageDone>,
    /// Each of the first ranked documents' parts with their weights; of none unless it was asked for.
    pub explanations: Vec<Vec<Part>>,
    /// Whether the model did not read all of a document, by the document's index. In a cascade that is the last
    /// model that scored it.
    pub truncated: Vec<bool>,
    /// Whether the request has an instruction that the model ignored.
    pub instruction_ignored: bool,
    /// Whether it has a first stage's scores that were joined with no model's.
    pub first_stage_ignored: bool,
    /// The work done.
    pub cost: Cost,
}

/// A stage that has run.
#[derive(Debug, Clone)]
pub struct StageDone {
    /// The stage's model.
    pub model: Arc<Info>,
    /// Number of documents that it scored.
    pub documents: usize,
}

/// The answer to a [`PairsAsk`].
#[derive(Debug, Clone)]
pub struct PairsAnswer {
    /// The model.
    pub model: Arc<Info>,
    /// Each document's raw score, in the documents' order.
    pub raw: Vec<RawScore>,
    /// The function from raw scores to the scores that are shown.
    pub(super) activation: Activation,
    /// The work done.
    pub cost: Cost,
}

impl PairsAnswer {
    /// The scores after the activation, in the documents' order.
    pub fn scores(&self) -> impl ExactSizeIterator<Item = Score> {
        self.raw.iter().map(|&raw| self.activation.apply(raw))
    }

    /// Ranks the documents in a range. Indices count from the start of the range.
    #[must_use]
    pub fn ranked(&self, documents: Range<usize>, top_n: Option<usize>) -> Vec<Ranked> {
        rank(&self.raw[documents], self.activation, top_n)
    }
}

/// The server's limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of documents in one request.
    pub max_documents: usize,
    /// Maximum number of explained documents in one answer; 0 switches explanations off.
    pub max_explained: usize,
    /// Time limit of a request, from admission to the answer.
    pub request_timeout: Duration,
}
