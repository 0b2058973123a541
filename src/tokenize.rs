//! Text to token ids: the tokenizer, the pair template, truncation, and the pool they run on.
//!
//! Knows nothing of batches or scores. Called by `rerank`.

mod pool;
mod template;
mod truncate;
mod windows;

use tokenizers::Tokenizer;

pub use pool::{Options as PoolOptions, Texts, TokenizePool, Tokenized};
pub use truncate::{Direction, Fitting, Strategy, Truncation};
pub use windows::Windows;

use crate::types::{EncodedPair, ModelSpec};
use template::PairTemplate;

/// What can go wrong between a text and its tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// tokenizer.json can't be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer's post-processor has no usable pair template.
    #[error("the tokenizer's pair template can't be used: {0}")]
    Template(String),
    /// A pair is too long and truncation is off.
    #[error(
        "document {document} and the query are {tokens} tokens together, more than the {max_tokens} that are allowed; shorten it, or let it be truncated"
    )]
    TooLong {
        /// The document's index in the request.
        document: usize,
        /// Tokens of the pair, special tokens included.
        tokens: usize,
        /// The most that is allowed.
        max_tokens: usize,
    },
    /// The tokenizer failed on a text.
    #[error("the tokenizer failed: {0}")]
    Failed(String),
}

/// Encodes query–document pairs for one model.
#[derive(Debug)]
pub struct PairEncoder {
    tokenizer: Tokenizer,
    template: PairTemplate,
    max_tokens: usize,
}

impl PairEncoder {
    /// Reads a tokenizer.json, `file` in messages, for a model.
    ///
    /// `max_tokens` is the longest pair, special tokens included. The truncation and padding that
    /// many tokenizer.json files carry are dropped: the server's own settings rule.
    ///
    /// # Errors
    /// If the file is malformed, has no pair template, or holds ids that the model's embedding
    /// table lacks.
    pub fn new(
        file: &str,
        json: &[u8],
        spec: &ModelSpec,
        max_tokens: usize,
    ) -> Result<Self, TokenizeError> {
        let file_error = |reason: String| TokenizeError::File {
            path: file.to_owned(),
            reason,
        };
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|e| file_error(e.to_string()))?;
        tokenizer
            .with_truncation(None)
            .map_err(|e| file_error(e.to_string()))?;
        tokenizer.with_padding(None);
        let template = PairTemplate::probe(&tokenizer, spec.type_vocab_size)?;

        let largest = tokenizer.get_vocab(true).into_values();
        let largest = largest.chain(template.special_ids()).max().unwrap_or(0) as usize;
        if largest >= spec.vocab_size {
            return Err(file_error(format!(
                "holds token id {largest}, but the model's word embedding table has only {} rows; \
                 the tokenizer and the weights are of different models",
                spec.vocab_size
            )));
        }
        if max_tokens <= template.special_tokens() {
            return Err(TokenizeError::Template(format!(
                "max_input_tokens is {max_tokens}, but every pair has {} special tokens",
                template.special_tokens()
            )));
        }
        Ok(Self {
            tokenizer,
            template,
            max_tokens,
        })
    }

    /// The longest pair in tokens, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Ids of one text, without special tokens of the template.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|e| TokenizeError::Failed(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Puts a tokenised query and document together, truncated as asked.
    ///
    /// `index` is the document's place in the request, for the error.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] where truncation is off.
    pub fn pair(
        &self,
        query: &[u32],
        document: &[u32],
        truncation: Truncation,
        index: usize,
    ) -> Result<EncodedPair, TokenizeError> {
        self.pair_within(query, document, truncation, self.max_tokens, index)
    }

    /// As [`Self::pair`], in as many windows of the document as `fitting` allows: at least one.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] where truncation is off and so many windows don't cover the
    /// document, or `fitting` leaves no room for any text.
    pub fn fit(
        &self,
        query: &[u32],
        document: &[u32],
        fitting: &Fitting,
        index: usize,
    ) -> Result<Vec<EncodedPair>, TokenizeError> {
        let asked = fitting.max_tokens.unwrap_or(self.max_tokens);
        let max_tokens = asked.min(self.max_tokens);
        let special = self.template.special_tokens();
        let room = max_tokens.saturating_sub(special);
        let too_long = || TokenizeError::TooLong {
            document: index,
            tokens: query.len() + document.len() + special,
            max_tokens,
        };
        if room == 0 {
            return Err(too_long());
        }
        let read = fitting.max_document_tokens.unwrap_or(usize::MAX);
        let read = document.len().min(read);
        let cut = read < document.len();
        let document = truncate::cut(document, read, fitting.truncation.direction);
        if fitting.windows.max <= 1 || query.len() + document.len() <= room {
            let mut pair =
                self.pair_within(query, document, fitting.truncation, max_tokens, index)?;
            pair.truncated |= cut;
            return Ok(vec![pair]);
        }
        let kept = windows::query_in_windows(query.len(), room);
        let Windows { max, overlap } = fitting.windows;
        let ranges = windows::cover(document.len(), room - kept, overlap);
        let covered = ranges.len() <= max;
        let whole = covered && kept == query.len();
        if !whole && fitting.truncation.strategy == Strategy::Off {
            return Err(too_long());
        }
        let query = truncate::cut(query, kept, fitting.truncation.direction);
        let ranges = windows::best(query, document, ranges, max);
        let pairs = ranges
            .into_iter()
            .map(|range| self.template.apply(query, &document[range], cut || !whole));
        Ok(pairs.collect())
    }

    fn pair_within(
        &self,
        query: &[u32],
        document: &[u32],
        truncation: Truncation,
        max_tokens: usize,
        index: usize,
    ) -> Result<EncodedPair, TokenizeError> {
        let room = max_tokens - self.template.special_tokens();
        let (q, d) = truncate::kept(query.len(), document.len(), room, truncation.strategy)
            .ok_or_else(|| TokenizeError::TooLong {
                document: index,
                tokens: query.len() + document.len() + self.template.special_tokens(),
                max_tokens,
            })?;
        Ok(self.template.apply(
            truncate::cut(query, q, truncation.direction),
            truncate::cut(document, d, truncation.direction),
            q < query.len() || d < document.len(),
        ))
    }
}
