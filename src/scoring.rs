//! How a model scores documents: texts to the sequences that it reads, its outputs to scores. Called by
//! `models`.
//!
//! A [`Scorer`] is two pure functions. `cross_encoder` is the one for models that read query and document
//! together; `fit` and `windows` say what they read of what is too long; `pool` runs the first function on
//! threads of its own, `work` in turns.

mod cross_encoder;
mod fit;
mod pool;
mod windows;
mod work;

pub use cross_encoder::CrossEncoder;
pub use fit::{Fit, FitOverrides, Strategy, Truncation};
pub use pool::{EncodePool, Encoded, Pairing, Pieces, Texts, Threads};
pub use windows::Windows;

pub use crate::tokenize::Direction;
use crate::tokenize::{TokenizeError, Tokens};
use crate::types::{Output, RawScore, Sequence};

/// What a model reads of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedDocument {
    /// The sequences: at least one.
    pub sequences: Vec<Sequence>,
    /// Whether a part of the document or its query is in none of them.
    pub truncated: bool,
}

/// How one kind of model scores a document against a query: what it reads of them, and what its outputs
/// mean. No text, no thread, no clock.
pub trait Scorer: std::fmt::Debug + Send + Sync {
    /// Longest sequence in tokens, special tokens included.
    fn max_tokens(&self) -> usize;

    /// How many tokens of a document decide what [`Scorer::encode`] makes of it beside a query of so many.
    fn needed(&self, query: usize, fit: &Fit) -> usize;

    /// The sequences for a document. What [`Scorer::needed`] says of it is enough; `index` is its place in
    /// the request, for the error.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] where truncation is off and the document does not fit, or `fit` leaves no
    /// room for any text.
    fn encode(
        &self,
        query: &Tokens,
        document: &Tokens,
        fit: &Fit,
        index: usize,
    ) -> Result<EncodedDocument, TokenizeError>;

    /// The document's score, from the outputs of its sequences; `None` if it is not finite.
    fn decode(&self, outputs: &[Output]) -> Option<RawScore>;
}
