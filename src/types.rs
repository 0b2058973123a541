//! The domain's types, used by every layer. Imports no other module of the crate.

use std::fmt;
use std::sync::Arc;

pub use rerankd_kernels::Dtype;

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

/// The tokens of one model input. For a cross-encoder: a query with a document, or with one of its windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
}

impl Sequence {
    /// A sequence of `ids` and their token type (segment) ids, both `[tokens]`.
    ///
    /// # Panics
    /// If the two have different lengths.
    #[must_use]
    pub fn new(ids: Vec<u32>, type_ids: Vec<u32>) -> Self {
        assert_eq!(ids.len(), type_ids.len(), "each token has one type");
        Self { ids, type_ids }
    }

    /// Token ids, `[tokens]`, special tokens included.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Token type (segment) ids, `[tokens]`.
    #[must_use]
    pub fn type_ids(&self) -> &[u32] {
        &self.type_ids
    }

    /// Number of tokens, special tokens included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens. Never true for an encoded pair: the template adds special tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// A *packed* batch: sequences one after the other, without padding.
///
/// Sequence `i` is `ids[bounds[i]..bounds[i + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    bounds: Vec<usize>,
}

impl Batch {
    /// Packs sequences in the given order.
    pub fn pack<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> Self {
        let sequences = sequences.into_iter();
        Self::of(sequences.map(|s| (s.ids.as_slice(), s.type_ids.as_slice())))
    }

    fn of<'a>(sequences: impl Iterator<Item = (&'a [u32], &'a [u32])>) -> Self {
        let mut batch = Self {
            ids: Vec::new(),
            type_ids: Vec::new(),
            bounds: vec![0],
        };
        for (ids, type_ids) in sequences {
            batch.ids.extend_from_slice(ids);
            batch.type_ids.extend_from_slice(type_ids);
            batch.bounds.push(batch.ids.len());
        }
        batch
    }

    /// Token ids, `[total tokens]`.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Token type ids, `[total tokens]`.
    #[must_use]
    pub fn type_ids(&self) -> &[u32] {
        &self.type_ids
    }

    /// Where each sequence begins, and where the last one ends: `[sequences + 1]`.
    #[must_use]
    pub fn bounds(&self) -> &[usize] {
        &self.bounds
    }

    /// Number of sequences.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Number of tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Length in tokens of each sequence, `[sequences]`.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.bounds.windows(2).map(|w| w[1] - w[0])
    }

    /// A batch of some of this one's sequences, in the given order.
    #[must_use]
    pub fn select(&self, sequences: &[usize]) -> Self {
        Self::of(sequences.iter().map(|&i| {
            let range = self.bounds[i]..self.bounds[i + 1];
            (&self.ids[range.clone()], &self.type_ids[range])
        }))
    }
}

/// A model's output for one sequence, `[rows, width]`: 1 x 1 for a logit, 1 x d for an embedding, n x d
/// for an embedding of each token.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    values: Box<[f32]>,
    width: usize,
}

impl Output {
    /// An output with rows of `width` values.
    ///
    /// # Panics
    /// If the values don't fill whole rows.
    #[must_use]
    pub fn new(values: Box<[f32]>, width: usize) -> Self {
        assert!(
            width > 0 && values.len().is_multiple_of(width),
            "an output has whole rows"
        );
        Self { values, width }
    }

    /// The output of a classifier with one label: its value before any activation.
    #[must_use]
    pub fn logit(value: f32) -> Self {
        Self::new(Box::new([value]), 1)
    }

    /// All values, row after row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
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

/// The meaning of the scores in an answer: what they can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreKind {
    /// From 0 to 1: the sigmoid of a logit.
    Probability,
    /// The model's raw output, unbounded.
    Logit,
    /// From a fusion of several rankings; only the order is meaningful.
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

/// A model's architecture and sizes.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// The architecture family as `config.json` names it, such as `bert`.
    pub family: &'static str,
    /// Hidden size.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub layers: usize,
    /// Rows of the word embedding table.
    pub vocab_size: usize,
    /// Rows of the token type embedding table.
    pub type_vocab_size: usize,
    /// Maximum number of tokens that the position table can address.
    pub max_positions: usize,
}
