//! The domain's types, used by every layer. Imports no other module of the crate.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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

/// A relevance score, finite by construction and totally ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score(f32);

impl Score {
    /// A score, or `None` for NaN and infinities.
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

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // -0.0 and 0.0 must be equal, or "equal scores keep document order" breaks for them.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

/// What turns a logit into a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The logit itself.
    Identity,
    /// `1 / (1 + exp(-x))`, sentence-transformers' default for one label.
    Sigmoid,
}

impl Activation {
    /// Applies the activation.
    #[must_use]
    pub fn apply(self, logit: Logit) -> f32 {
        match self {
            Self::Identity => logit.0,
            Self::Sigmoid => 1.0 / (1.0 + (-logit.0).exp()),
        }
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
    /// Its score.
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
    /// The activation that the model's files ask for.
    pub activation: Activation,
}

/// What the weights are kept in. Arithmetic is in f32, but for int8's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Exact.
    F32,
    /// Half the memory; 11 bits of each weight.
    F16,
    /// Half the memory; 8 bits of each weight.
    Bf16,
    /// A quarter of the memory, and faster: weights quantised per output, activations per token.
    Int8,
}

impl Dtype {
    /// Its name in settings and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}
