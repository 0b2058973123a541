//! What goes into a model and comes out of it.

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

/// A model's output for one sequence, `[rows, width]`: 1 x labels for logits, 1 x d for an embedding, n x d
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

    /// The output of a classifier: a value for each label, before any activation.
    #[must_use]
    pub fn logits(values: &[f32]) -> Self {
        Self::new(values.into(), values.len())
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
    /// Rows of the token type embedding table; 0 if there is none.
    pub type_vocab_size: usize,
    /// Most tokens of a sequence.
    pub max_positions: usize,
    /// Which hidden states the head reads: `cls` or `mean`.
    pub pooling: &'static str,
    /// The head's steps, such as `linear + tanh, linear`.
    pub head: String,
    /// What a sequence's outputs mean: one for each logit.
    pub labels: Vec<String>,
}
