//! Text to token ids: the tokenizer, the pair template, truncation, and the pool they run on.
//!
//! Knows nothing of batches or scores. Called by `rerank`.

mod boundary;
mod definition;
mod pool;
mod reading;
mod template;
mod truncate;
mod windows;
mod work;

use tokenizers::Tokenizer;

pub use definition::{Definition, Vocabulary};
pub use pool::{Options as PoolOptions, Pieces, Texts, TokenizePool, Tokenized};
pub use truncate::{Direction, Fit, FitOverrides, Strategy, Truncation};
pub use windows::Windows;

use crate::types::{ModelSpec, Sequence};
use boundary::Boundaries;
use definition::Made;
use reading::{Reading, Sizes, Tokens};
use template::PairTemplate;

/// Most tokens of a query that are read, and of a document whose windows are chosen: the first, or
/// the last where the beginning is cut. Of what is longer the rest is not looked at.
pub const MAX_TOKENS: usize = 32_768;

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
        "document {document} and the query are {}{tokens} tokens together, more than the {max_tokens} that are allowed; shorten it, or let it be truncated (\"truncate\": true, or the setting model.truncation)",
        if *at_least { "at least " } else { "" }
    )]
    TooLong {
        /// The document's index in the request.
        document: usize,
        /// Tokens of the pair, special tokens included.
        tokens: usize,
        /// Whether they may be more: no text is read further than needed.
        at_least: bool,
        /// The most that is allowed.
        max_tokens: usize,
    },
    /// The tokenizer failed on a text.
    #[error("the tokenizer failed: {0}")]
    Failed(String),
}

/// What the model reads of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fitted {
    /// The document with its query, in as many windows as it takes: at least one.
    sequences: Vec<Sequence>,
    /// Whether a part of the document or its query is in none of them.
    truncated: bool,
}

/// Encodes query–document pairs for one model.
#[derive(Debug)]
pub struct PairEncoder {
    tokenizer: Tokenizer,
    template: PairTemplate,
    max_tokens: usize,
    boundaries: Boundaries,
    /// Bytes of the longest entry in the vocabulary.
    longest_entry: usize,
    direction: Direction,
    sizes: Sizes,
}

impl PairEncoder {
    /// Makes a model's tokenizer.
    ///
    /// `max_tokens` is the longest pair, special tokens included.
    ///
    /// # Errors
    /// If a file is malformed, there is no pair template, or there are ids that the model's embedding
    /// table lacks.
    pub fn new(
        definition: Definition,
        spec: &ModelSpec,
        max_tokens: usize,
    ) -> Result<Self, TokenizeError> {
        let file = definition.file.clone();
        let file_error = |reason: String| TokenizeError::File {
            path: file.clone(),
            reason,
        };
        let Made {
            tokenizer,
            segments,
            direction,
        } = definition.make().map_err(file_error)?;
        let segments = if segments { spec.type_vocab_size } else { 1 };
        let template = PairTemplate::probe(&tokenizer, segments)?;

        let vocabulary = tokenizer.get_vocab(true);
        let largest = vocabulary.values().copied();
        let largest = largest.chain(template.special_ids()).max().unwrap_or(0) as usize;
        let added = tokenizer.get_added_tokens_decoder();
        let entries = vocabulary.iter().filter(|(_, id)| !added.contains_key(id));
        let longest_entry = entries.map(|(entry, _)| entry.len()).max().unwrap_or(1);
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
            boundaries: Boundaries::probe(&tokenizer)?,
            sizes: Sizes::default(),
            tokenizer,
            template,
            max_tokens,
            longest_entry,
            direction,
        })
    }

    /// The longest pair in tokens, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Which end of a text is cut unless a request says otherwise.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Ids of one text, without special tokens of the template.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        let tokens = self.encode_within(text, usize::MAX, Direction::Right)?;
        Ok(tokens.ids)
    }

    /// At most `limit` tokens from a text's beginning, or with [`Direction::Left`] from its end.
    fn encode_within(
        &self,
        text: &str,
        limit: usize,
        direction: Direction,
    ) -> Result<Tokens, TokenizeError> {
        let mut reading = Reading::new(self, text, limit, direction);
        while !reading.is_done() {
            reading.step(self, text)?;
        }
        Ok(reading.finish())
    }

    fn encode_segment(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
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
    ) -> Result<Sequence, TokenizeError> {
        let pair = self.pair_within(query, document, truncation, self.max_tokens);
        let pair = pair.map(|(pair, _)| pair);
        pair.ok_or_else(|| TokenizeError::TooLong {
            document: index,
            tokens: query.len() + document.len() + self.template.special_tokens(),
            at_least: false,
            max_tokens: self.max_tokens,
        })
    }

    /// The longest pair that `fit` allows, special tokens included.
    fn longest_pair(&self, fit: &Fit) -> usize {
        let asked = fit.max_tokens.unwrap_or(self.max_tokens);
        asked.min(self.max_tokens)
    }

    /// How many tokens of a document decide what [`Self::fit`] makes of it beside a query of so many.
    fn needed(&self, query: usize, fit: &Fit) -> usize {
        let special = self.template.special_tokens();
        let room = self.longest_pair(fit).saturating_sub(special);
        let Windows { max, overlap } = fit.windows;
        let needed = if max <= 1 {
            // The longer of query and document gives way, so it must be known which that is.
            room.max(query)
        } else if fit.truncation.strategy == Strategy::Off {
            let kept = windows::query_in_windows(query, room);
            let covered = windows::capacity(max, room - kept, overlap);
            covered.min(self.sizes.tokens).max(room)
        } else {
            // Any window may be the best one.
            self.sizes.tokens.max(room)
        };
        // One more tells whether the document ends there.
        let asked = fit.max_document_tokens.unwrap_or(usize::MAX);
        needed.min(asked).saturating_add(1)
    }

    /// Puts a tokenised query and document together in as many windows of the document as `fit`
    /// allows: at least one. What [`Self::needed`] says of the document is enough.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] where truncation is off and so many windows don't cover the
    /// document, or `fit` leaves no room for any text.
    fn fit(
        &self,
        query: &Tokens,
        document: &Tokens,
        fit: &Fit,
        index: usize,
    ) -> Result<Fitted, TokenizeError> {
        let max_tokens = self.longest_pair(fit);
        let special = self.template.special_tokens();
        let room = max_tokens.saturating_sub(special);
        let direction = fit.truncation.direction;
        let too_long = |tokens: usize| TokenizeError::TooLong {
            document: index,
            tokens: query.ids.len() + tokens + special,
            at_least: query.more || document.more,
            max_tokens,
        };
        let found = document.ids.len();
        if room == 0 {
            return Err(too_long(found));
        }
        let read = fit.max_document_tokens.unwrap_or(usize::MAX).min(found);
        let cut = read < found || !document.is_whole() || !query.is_whole();
        // Beyond what may be read it doesn't matter that there is more.
        let unread = document.more && read == found;
        let (query, document) = (
            &query.ids[..],
            truncate::cut(&document.ids, read, direction),
        );
        if fit.windows.max <= 1 || query.len() + read <= room {
            let pair = self.pair_within(query, document, fit.truncation, max_tokens);
            let (pair, truncated) = pair.ok_or_else(|| too_long(read))?;
            return Ok(Fitted {
                sequences: vec![pair],
                truncated: truncated || cut,
            });
        }
        let Windows { max, overlap } = fit.windows;
        let kept = match windows::query_in_windows(query.len(), room) {
            // The room that a short document leaves is the query's.
            kept if read <= room - kept && !unread => query.len().min(room - read),
            kept => kept,
        };
        let ranges = windows::cover(read, room - kept, overlap);
        let covered = ranges.len() <= max && !unread;
        let whole = covered && kept == query.len();
        if !whole && fit.truncation.strategy == Strategy::Off {
            return Err(too_long(found));
        }
        let query = truncate::cut(query, kept, direction);
        let ranges = windows::best(query, document, ranges, max);
        let windows = ranges.into_iter();
        let windows = windows.map(|range| self.template.apply(query, &document[range]));
        Ok(Fitted {
            sequences: windows.collect(),
            truncated: cut || !whole,
        })
    }

    /// One pair of at most so many tokens and whether it was cut, or `None` where the truncation forbids that.
    fn pair_within(
        &self,
        query: &[u32],
        document: &[u32],
        truncation: Truncation,
        max_tokens: usize,
    ) -> Option<(Sequence, bool)> {
        let room = max_tokens - self.template.special_tokens();
        let (q, d) = truncate::kept(query.len(), document.len(), room, truncation.strategy)?;
        let pair = self.template.apply(
            truncate::cut(query, q, truncation.direction),
            truncate::cut(document, d, truncation.direction),
        );
        Some((pair, q < query.len() || d < document.len()))
    }
}

#[cfg(test)]
mod tests;
