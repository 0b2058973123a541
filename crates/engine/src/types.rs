//! What goes into a model and comes out of it.

use std::ops::Range;

/// Which of a sequence's hidden states make its output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Read {
    /// What the model's head reads: the first token's, the last one's, or the mean of all. One row.
    #[default]
    Pooled,
    /// Those of the tokens at these places, in ascending order; a row for each.
    At(Box<[u32]>),
}

/// The tokens of one model input. For a cross-encoder: a query with a document, or with one of its windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    shared_prefix: usize,
    unseen_tail: usize,
    document: Range<usize>,
    read: Read,
}

impl Sequence {
    /// A sequence of `ids` and their token type (segment) ids, both `[tokens]`.
    ///
    /// # Panics
    /// If the two have different lengths.
    #[must_use]
    pub fn new(ids: Vec<u32>, type_ids: Vec<u32>) -> Self {
        assert_eq!(ids.len(), type_ids.len(), "each token has one type");
        Self {
            ids,
            type_ids,
            shared_prefix: 0,
            unseen_tail: 0,
            document: 0..0,
            read: Read::Pooled,
        }
    }

    /// The same sequence, of whose tokens other sequences of the request have the first `tokens` too. A model whose
    /// tokens see only those before them computes them once for all, and may keep what it made of them.
    ///
    /// # Panics
    /// If no token of its own is left.
    #[must_use]
    pub fn with_shared_prefix(mut self, tokens: usize) -> Self {
        assert!(
            tokens < self.ids.len() || tokens == 0,
            "a sequence has a token of its own"
        );
        self.shared_prefix = tokens;
        self
    }

    /// The same sequence, of whose tokens none sees the last `tokens`, themselves included; those see the others.
    ///
    /// # Panics
    /// If no token is left to be seen.
    #[must_use]
    pub fn with_unseen_tail(mut self, tokens: usize) -> Self {
        assert!(
            tokens < self.ids.len() || tokens == 0,
            "some token of a sequence is seen"
        );
        self.unseen_tail = tokens;
        self
    }

    /// The same sequence, of whose tokens these are the document's, which a model may compress.
    ///
    /// # Panics
    /// If one of them is not of the sequence, or of the shared prefix.
    #[must_use]
    pub fn with_document(mut self, tokens: Range<usize>) -> Self {
        assert!(
            self.shared_prefix <= tokens.start && tokens.end <= self.ids.len(),
            "a document is of the sequence's own tokens"
        );
        self.document = tokens;
        self
    }

    /// The same sequence, whose output is made of the hidden states at some places.
    ///
    /// # Panics
    /// If there is no place, one is not of a token, one is of the shared prefix, or they don't ascend.
    #[must_use]
    pub fn reading(mut self, places: Box<[u32]>) -> Self {
        let own = |place: &u32| (self.shared_prefix..self.ids.len()).contains(&(*place as usize));
        assert!(
            !places.is_empty() && places.is_sorted_by(|a, b| a < b) && places.iter().all(own),
            "places ascend and are of tokens"
        );
        self.read = Read::At(places);
        self
    }

    /// How many of the first tokens other sequences of the request have too.
    #[must_use]
    pub fn shared_prefix(&self) -> usize {
        self.shared_prefix
    }

    /// How many of the last tokens no token sees.
    #[must_use]
    pub fn unseen_tail(&self) -> usize {
        self.unseen_tail
    }

    /// Which of the tokens are the document's; none if nothing says so.
    #[must_use]
    pub fn document(&self) -> Range<usize> {
        self.document.clone()
    }

    /// Which hidden states make its output.
    #[must_use]
    pub fn read(&self) -> &Read {
        &self.read
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
    shared_prefixes: Vec<usize>,
    unseen_tails: Vec<usize>,
    documents: Vec<Range<usize>>,
    reads: Vec<Read>,
}

impl Batch {
    /// Packs sequences in the given order.
    pub fn pack<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> Self {
        let mut batch = Self::empty();
        for sequence in sequences {
            batch.push(sequence);
        }
        batch
    }

    fn empty() -> Self {
        Self {
            ids: Vec::new(),
            type_ids: Vec::new(),
            bounds: vec![0],
            shared_prefixes: Vec::new(),
            unseen_tails: Vec::new(),
            documents: Vec::new(),
            reads: Vec::new(),
        }
    }

    fn push(&mut self, sequence: &Sequence) {
        self.ids.extend_from_slice(&sequence.ids);
        self.type_ids.extend_from_slice(&sequence.type_ids);
        self.bounds.push(self.ids.len());
        self.shared_prefixes.push(sequence.shared_prefix);
        self.unseen_tails.push(sequence.unseen_tail);
        self.documents.push(sequence.document.clone());
        self.reads.push(sequence.read.clone());
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

    /// How many of each sequence's first tokens others of its request have too, `[sequences]`.
    #[must_use]
    pub fn shared_prefixes(&self) -> &[usize] {
        &self.shared_prefixes
    }

    /// How many of each sequence's last tokens no token sees, `[sequences]`.
    #[must_use]
    pub fn unseen_tails(&self) -> &[usize] {
        &self.unseen_tails
    }

    /// Which of each sequence's tokens are the document's, `[sequences]`.
    #[must_use]
    pub fn documents(&self) -> &[Range<usize>] {
        &self.documents
    }

    /// Which hidden states make each sequence's output, `[sequences]`.
    #[must_use]
    pub fn reads(&self) -> &[Read] {
        &self.reads
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
        let mut batch = Self::empty();
        for &i in sequences {
            let range = self.bounds[i]..self.bounds[i + 1];
            batch.push(&Sequence {
                ids: self.ids[range.clone()].into(),
                type_ids: self.type_ids[range].into(),
                shared_prefix: self.shared_prefixes[i],
                unseen_tail: self.unseen_tails[i],
                document: self.documents[i].clone(),
                read: self.reads[i].clone(),
            });
        }
        batch
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

/// What a model's sequences cost, in tokens that see no others: each token costs 1, and a share for each that it sees.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Of a token that is seen, in all layers that see however far.
    pub(crate) far: f64,
    /// In all layers that see some way only.
    pub(crate) near: f64,
    /// How many tokens those see at most.
    pub(crate) near_tokens: usize,
    /// Whether tokens see only those before them.
    pub(crate) causal: bool,
}

impl Cost {
    /// That of a sequence's tokens from `before` on, where those before them are known.
    #[must_use]
    pub fn of(&self, before: usize, tokens: usize) -> f64 {
        let sides = if self.causal { 2.0 } else { 1.0 };
        let whole = |tokens: usize| {
            let (near, tokens) = (tokens.min(self.near_tokens) as f64, tokens as f64);
            tokens * (1.0 + (self.far * tokens + self.near * near) / sides)
        };
        whole(tokens) - whole(before)
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
    /// Whether tokens see only those before them, so that a shared prefix is worth telling.
    pub causal: bool,
    /// Values in a row of an output.
    pub width: usize,
    /// Which hidden states the head reads: `cls`, `mean` or `last`, or what makes one of all: `decoder`.
    pub pooling: &'static str,
    /// The head's steps, such as `linear + tanh, linear`.
    pub head: String,
    /// What a sequence's outputs mean: one for each logit; none if they are vectors.
    pub labels: Vec<String>,
}
