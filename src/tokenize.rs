//! From text to token ids: builds the tokenizer from its files, and tokenises no more of a text than is needed.
//!
//! Knows nothing of models' inputs, batches or scores. Called by `scoring`.

mod boundary;
mod definition;
mod joint;
mod reading;
mod template;

use std::collections::BTreeMap;
use std::fmt;

use tokenizers::Tokenizer;

pub use definition::{Definition, VOCABULARY_FILES, Vocabulary};
pub use joint::{Fixed, Near};
pub use reading::{Reading, Tokens};
pub use template::{PairTemplate, TextTemplate};

use boundary::Boundaries;
use definition::Made;
use reading::Sizes;

/// Maximum number of tokens read from a query, and from a document whose windows are selected. They are the
/// first tokens, or the last ones if the beginning is cut off; the rest is not read.
pub const MAX_TOKENS: usize = 32_768;

/// Which end of a text is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The end; the beginning is kept.
    Right,
    /// The beginning; the end is kept.
    Left,
}

/// A text of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// A query.
    Query,
    /// The document with this index.
    Document(usize),
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query => f.write_str("the query"),
            Self::Document(index) => write!(f, "document {index}"),
        }
    }
}

/// Why a tokenizer can't be built, or a text can't be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// A file of the tokenizer is malformed or doesn't fit the model.
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
        "document {document} and the query are {}{tokens} tokens together, more than the {}{max_tokens} that are allowed; shorten it, or let it be truncated (by the request, or by the setting model.truncation)",
        if *at_least { "at least " } else { "" }, windows_of(*windows)
    )]
    TooLong {
        /// The document's index in the request.
        document: usize,
        /// Tokens of the pair, special tokens included.
        tokens: usize,
        /// Whether `tokens` is a lower bound, since no text is read further than needed.
        at_least: bool,
        /// Maximum number of tokens of a pair.
        max_tokens: usize,
        /// Maximum number of windows that are read of a document.
        windows: usize,
    },
    /// A text that is read alone is too long and truncation is off.
    #[error(
        "{text} is {}{tokens} tokens long, more than the {max_tokens} that are allowed; shorten it, or let it be truncated (by the request, or by the setting model.truncation)",
        if *at_least { "at least " } else { "" }
    )]
    TextTooLong {
        /// Which one.
        text: Text,
        /// Its tokens, special tokens included.
        tokens: usize,
        /// Whether `tokens` is a lower bound, since no text is read further than needed.
        at_least: bool,
        /// Maximum number of its tokens.
        max_tokens: usize,
    },
    /// A sequence has too few tokens for what stands around its texts.
    #[error(
        "a {what} may have {max_tokens} tokens (the least of model.max_input_tokens and what the model's files allow), which \
         leaves no room beside the {around} that stand around its text; allow {least} at least"
    )]
    TooShort {
        /// What it holds.
        what: &'static str,
        /// Maximum number of its tokens.
        max_tokens: usize,
        /// Tokens that are not the text's.
        around: usize,
        /// The least maximum that will do.
        least: usize,
    },
    /// A prompt leaves no room for what it is about.
    #[error(
        "the prompt with its instruction has at least {tokens} tokens, which leaves no room for query and document in the \
         {max_tokens} that are allowed; shorten the instruction"
    )]
    Instruction {
        /// Least number of the prompt's tokens.
        tokens: usize,
        /// Maximum number of tokens of a pair.
        max_tokens: usize,
    },
    /// The tokenizer failed on a text.
    #[error("the tokenizer failed: {0}")]
    Failed(String),
}

/// What stands before a maximum that is a window's.
fn windows_of(windows: usize) -> String {
    match windows {
        0 | 1 => String::new(),
        windows => format!("{windows} windows of "),
    }
}

/// A model's tokenizer.
#[derive(Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    boundaries: Boundaries,
    file: String,
    /// Whether query and document get different type ids.
    segments: bool,
    /// The largest token id.
    largest_id: usize,
    /// Bytes of the longest entry in the vocabulary.
    longest_entry: usize,
    direction: Direction,
    /// The special tokens that have roles.
    roles: BTreeMap<&'static str, u32>,
    sizes: Sizes,
}

impl TextTokenizer {
    /// Builds a model's tokenizer.
    ///
    /// # Errors
    /// If a file is malformed or missing, or no tokenizer can be made of it.
    pub fn new(definition: &Definition) -> Result<Self, TokenizeError> {
        let Made {
            tokenizer,
            segments,
            direction,
            file,
            roles,
        } = definition.make()?;
        let vocabulary = tokenizer.get_vocab(true);
        let added = tokenizer.get_added_tokens_decoder();
        let entries = vocabulary.iter().filter(|(_, id)| !added.contains_key(id));
        let longest_entry = entries.map(|(entry, _)| entry.len()).max().unwrap_or(1);
        Ok(Self {
            boundaries: Boundaries::probe(&tokenizer)?,
            sizes: Sizes::default(),
            largest_id: vocabulary.values().max().copied().unwrap_or(0) as usize,
            tokenizer,
            file,
            segments,
            longest_entry,
            direction,
            roles,
        })
    }

    /// The tokenizer's pair template, for a model whose token type and word embedding tables have this many
    /// rows.
    ///
    /// # Errors
    /// If there is no pair template, or a token id is not in the model's embedding table.
    pub fn pair_template(
        &self,
        type_vocab_size: usize,
        vocab_size: usize,
    ) -> Result<PairTemplate, TokenizeError> {
        let segments = if self.segments { type_vocab_size } else { 1 };
        let template = PairTemplate::probe(&self.tokenizer, segments)?;
        let special = template.special_ids().max().unwrap_or(0);
        self.check_ids(special, vocab_size)?;
        Ok(template)
    }

    /// As [`TextTokenizer::pair_template`], of a text that stands alone.
    ///
    /// # Errors
    /// If no special tokens are put around a text, or a token id is not in the model's embedding table.
    pub fn text_template(
        &self,
        type_vocab_size: usize,
        vocab_size: usize,
    ) -> Result<TextTemplate, TokenizeError> {
        let segments = if self.segments { type_vocab_size } else { 1 };
        let template = TextTemplate::probe(&self.tokenizer, segments)?;
        let special = template.special_ids().max().unwrap_or(0);
        self.check_ids(special, vocab_size)?;
        Ok(template)
    }

    /// The id of the special token that has a role, such as `mask_token`.
    #[must_use]
    pub fn special_id(&self, role: &str) -> Option<u32> {
        self.roles.get(role).copied()
    }

    /// Checks that a model's word embedding table has a row for each of the tokenizer's ids, and for another.
    ///
    /// # Errors
    /// If it has not.
    pub fn check_ids(&self, other: u32, vocab_size: usize) -> Result<(), TokenizeError> {
        let largest = self.largest_id.max(other as usize);
        if largest < vocab_size {
            return Ok(());
        }
        Err(TokenizeError::File {
            path: self.file.clone(),
            reason: format!(
                "holds token id {largest}, but the model's word embedding table has only {vocab_size} rows; \
                 the tokenizer and the weights are of different models"
            ),
        })
    }

    /// The default truncation direction, from the tokenizer's files.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Ids of one text, without a template's special tokens.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        let tokens = self.encode_within(text, usize::MAX, Direction::Right)?;
        Ok(tokens.into_ids())
    }

    /// The first `limit` tokens of a text at most, or with [`Direction::Left`] the last.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_within(
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

    /// Ids of one text that is tokenised at once, however long it is.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_segment(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|e| TokenizeError::Failed(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }
}

#[cfg(test)]
pub(crate) mod tests;
