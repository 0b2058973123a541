//! Text to token ids: the tokenizer, the pair template, truncation, and the pool they run on.
//!
//! Knows nothing of batches or scores. Called by `rerank`.

mod pool;
mod template;
mod truncate;

use std::path::Path;

use tokenizers::Tokenizer;

pub use pool::{Options as PoolOptions, TokenizePool, Tokenized};
pub use truncate::{Direction, Strategy, Truncation};

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
        "document {document} and the query are {tokens} tokens together, more than the model's {max_tokens}"
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
    /// Reads a tokenizer.json for a model.
    ///
    /// `max_tokens` is the longest pair, special tokens included. The truncation and padding that
    /// many tokenizer.json files carry are dropped: the server's own settings rule.
    ///
    /// # Errors
    /// If the file can't be read, has no pair template, or holds ids that the model's embedding
    /// table lacks.
    pub fn from_file(
        path: &Path,
        spec: &ModelSpec,
        max_tokens: usize,
    ) -> Result<Self, TokenizeError> {
        let file_error = |reason: String| TokenizeError::File {
            path: path.display().to_string(),
            reason,
        };
        let mut tokenizer = Tokenizer::from_file(path).map_err(|e| file_error(e.to_string()))?;
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
        let room = self.max_tokens - self.template.special_tokens();
        let (q, d) = truncate::kept(query.len(), document.len(), room, truncation.strategy)
            .ok_or_else(|| TokenizeError::TooLong {
                document: index,
                tokens: query.len() + document.len() + self.template.special_tokens(),
                max_tokens: self.max_tokens,
            })?;
        Ok(self.template.apply(
            truncate::cut(query, q, truncation.direction),
            truncate::cut(document, d, truncation.direction),
            q < query.len() || d < document.len(),
        ))
    }
}
