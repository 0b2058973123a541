//! One file per wire format: its request and response bodies, and their mapping to what the reranker is asked
//! and answers. Pure: no handler, no state, no clock. `handle` runs them, `routes` says at which paths.

pub(super) mod dashscope;
pub(super) mod dispatch;
mod document;
mod fields;
pub(super) mod infinity;
pub(super) mod mixedbread;
pub(super) mod native;
pub(super) mod nim;
pub(super) mod open_inference;
pub(super) mod pinecone;
pub(super) mod tei;
pub(super) mod tei_predict;
pub(super) mod vertex;
pub(super) mod vllm;
pub(super) mod voyage;
pub(super) mod weaviate;

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::asked::{Asked, Context};
use super::error::ApiError;
use super::text_fields::TextFields;

/// A wire format.
pub(super) trait Dialect: Debug + Sync {
    /// A request's body.
    type Request: DeserializeOwned + Send + 'static;
    /// What it asks.
    type Ask: Asked;
    /// The part of a request that the response needs.
    type Kept: Send;
    /// A response's body.
    type Response: Serialize;

    /// The model that a request names: if there is none of the name, that is told before other faults.
    fn model<'r>(&self, request: &'r Self::Request) -> Option<&'r str>;

    /// Maps a request.
    ///
    /// # Errors
    /// If a field is wrong.
    fn ask(
        &self,
        request: Self::Request,
        context: &Context,
    ) -> Result<(Self::Ask, Self::Kept), ApiError>;

    /// Maps an answer.
    fn answer(
        &self,
        answer: <Self::Ask as Asked>::Answer,
        kept: Self::Kept,
        context: &Context,
    ) -> Self::Response;

    /// Number of characters that were scored, where the service's headers tell it.
    fn characters(&self, _kept: &Self::Kept) -> Option<usize> {
        None
    }

    /// The name of the field that held a first stage's scores, if one did.
    fn first_stage_field(&self, _kept: &Self::Kept) -> Option<&'static str> {
        None
    }

    /// The names of the fields that held the query and the documents: what is wrong with them is told of these.
    fn text_fields(&self, _kept: &Self::Kept) -> TextFields {
        TextFields::USUAL
    }

    /// The name of the field that held the instruction.
    fn instruction_field(&self, _kept: &Self::Kept) -> &'static str {
        "instruction"
    }
}
