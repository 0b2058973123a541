//! Scoring: from texts to a model's input sequences, and from its outputs to raw scores. Called by `models`.
//!
//! A [`Scorer`] is a pair of pure functions, encode and decode. `cross_encoder` is the scorer for models that
//! read query and document together, `label` which of a classifier's labels counts; `fit` truncates pairs that are too long and `windows` splits documents;
//! `listwise` reads documents together; `vectors` makes sequences of texts that stand alone, and `maxsim` scores of their vectors.
//! `pool` runs the encoding on threads of its own, and `work` divides it into turns.

mod cross_encoder;
mod fit;
mod label;
mod listwise;
mod maxsim;
mod pairs;
mod pool;
mod prompt;
mod prompted;
mod vectors;
mod windows;
mod work;

use std::borrow::Cow;
use std::sync::Arc;

pub use cross_encoder::CrossEncoder;
pub use fit::{Fit, FitOverrides, Strategy, Truncation};
pub use label::{LabelError, find_label};
pub use listwise::{CutText, LISTWISE_PROMPT, Listwise, LongestTexts};
pub use maxsim::{DocumentVectors, QueryVectors, Workspace};
pub use pool::{EncodePool, Encoded, Pairing, Pieces, TURN_BYTES, Texts, Threads};
pub use prompt::{
    Answer, CHAT_TEMPLATE, ChatTemplate, ContentForm, FORMATS, Format, Part, Prompt, PromptInfo,
    Slot, Special,
};
pub use prompted::{PromptTokens, Prompted};
pub use vectors::VectorTexts;
pub use windows::Windows;

pub use crate::tokenize::Direction;
use crate::tokenize::{TextTokenizer, TokenizeError, Tokens};
use crate::types::{Output, RawScore, Sequence};

/// One document's input sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedDocument {
    /// The sequences; at least one.
    pub sequences: Vec<Sequence>,
    /// Whether a part of the document or of its query is in no sequence.
    pub truncated: bool,
}

/// The fixed tokens around query and document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Around {
    /// How many there are.
    pub tokens: usize,
    /// How many of them are computed once for all documents of a query.
    pub shared: usize,
    /// Whether the query is among what is.
    pub shares_query: bool,
}

/// How one kind of model scores a document for a query: encodes both into input sequences, and decodes
/// the outputs. Pure: token ids in, sequences and scores out.
pub trait Scorer: std::fmt::Debug + Send + Sync {
    /// Longest sequence in tokens, special tokens included.
    fn max_tokens(&self) -> usize;

    /// How many tokens of a document [`Scorer::encode`] needs beside a query of `query` tokens; further tokens
    /// don't change its result.
    fn needed(&self, query: usize, fit: &Fit) -> usize;

    /// The sequences for a document, of which [`Scorer::needed`] tokens are enough. `index` is its place in
    /// the request, for the error.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] if truncation is off and the pair does not fit, or if `fit` leaves no room
    /// for any text.
    fn encode(
        &self,
        query: &Tokens,
        document: &Tokens,
        fit: &Fit,
        index: usize,
    ) -> Result<EncodedDocument, TokenizeError>;

    /// The fixed tokens of a sequence, for estimates.
    fn around(&self) -> Around {
        Around::default()
    }

    /// What is tokenised of a query: it, with what must be tokenised together with it.
    fn query_text<'a>(&self, query: &'a str) -> Cow<'a, str> {
        query.into()
    }

    /// What is tokenised of a document.
    fn document_text<'a>(&self, document: &'a str) -> Cow<'a, str> {
        document.into()
    }

    /// The scorer of a request with this instruction; `None` if it is this one, whatever the instruction.
    ///
    /// # Errors
    /// [`TokenizeError::Instruction`] if it leaves no room for any text.
    fn instructed(
        &self,
        _tokenizer: &TextTokenizer,
        _instruction: &str,
    ) -> Result<Option<Arc<dyn Scorer>>, TokenizeError> {
        Ok(None)
    }

    /// The document's score, from the outputs of its sequences; `None` if it is not finite.
    fn decode(&self, outputs: &[Output]) -> Option<RawScore>;
}
