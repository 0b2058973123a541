//! The domain's types, used by every layer. Imports no other module of the crate.

use std::fmt;
use std::sync::Arc;

pub use rerankd_kernels::Dtype;

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

/// One query–document pair as token ids, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPair {
    /// Token ids, `[tokens]`.
    pub ids: Vec<u32>,
    /// Token type (segment) ids, `[tokens]`.
    pub type_ids: Vec<u32>,
    /// Whether the query or the document was cut to fit the model's input.
    pub truncated: bool,
}

impl EncodedPair {
    /// Number of tokens, special tokens included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the pair has no tokens at all (it never has: the template adds special tokens).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// A *packed* batch: sequences one after the other, without padding.
///
/// Sequence `i` is `ids[cu_seqlens[i]..cu_seqlens[i + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, `[total_tokens]`.
    pub ids: Vec<u32>,
    /// Token type ids, `[total_tokens]`.
    pub type_ids: Vec<u32>,
    /// Cumulative sequence lengths, `[pairs + 1]`, the first 0 and the last `total_tokens`.
    pub cu_seqlens: Vec<usize>,
}

impl Batch {
    /// Packs pairs in the given order.
    pub fn pack<'a>(pairs: impl IntoIterator<Item = &'a EncodedPair>) -> Self {
        let mut batch = Self {
            ids: Vec::new(),
            type_ids: Vec::new(),
            cu_seqlens: vec![0],
        };
        for pair in pairs {
            batch.ids.extend_from_slice(&pair.ids);
            batch.type_ids.extend_from_slice(&pair.type_ids);
            batch.cu_seqlens.push(batch.ids.len());
        }
        batch
    }

    /// Number of pairs.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// Number of tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Length in tokens of each sequence, `[pairs]`.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.cu_seqlens.windows(2).map(|w| w[1] - w[0])
    }

    /// A batch of some of this one's sequences, in the given order.
    #[must_use]
    pub fn select(&self, sequences: &[usize]) -> Self {
        let mut batch = Self {
            ids: Vec::new(),
            type_ids: Vec::new(),
            cu_seqlens: vec![0],
        };
        for &i in sequences {
            let range = self.cu_seqlens[i]..self.cu_seqlens[i + 1];
            batch.ids.extend_from_slice(&self.ids[range.clone()]);
            batch.type_ids.extend_from_slice(&self.type_ids[range]);
            batch.cu_seqlens.push(batch.ids.len());
        }
        batch
    }
}

/// A model's raw output for one pair, before any activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logit(pub f32);

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
}

/// What is known of a loaded model.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// The architecture family as `config.json` names it, such as `bert`.
    pub family: &'static str,
    /// Hidden size.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub layers: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Rows of the word embedding table.
    pub vocab_size: usize,
    /// Rows of the token type embedding table.
    pub type_vocab_size: usize,
    /// Most tokens that the position table can address.
    pub max_positions: usize,
}
