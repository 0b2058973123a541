//! The wire formats of errors: one file each, with its body and its statuses where they differ from
//! `error`'s. `routes` says which a path has.

mod dashscope;
mod detail;
mod grpc;
mod open_inference;
mod openai;
mod pinecone;
mod problem;
mod tei;

use axum::http::StatusCode;
use axum::response::Response;

pub(super) use dashscope::DashScopeError;
pub(super) use detail::Detail;
pub(super) use grpc::{error as grpc_error, is_grpc};
pub(super) use open_inference::InferError;
pub(super) use openai::OpenAiError;
pub(super) use pinecone::PineconeError;
pub(super) use problem::Problem;
pub(super) use tei::TeiError;

use super::error::ApiError;
use super::extensions::RequestId;

/// A wire format of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorShape {
    /// `application/problem+json`.
    Problem,
    /// Voyage's.
    Voyage,
    /// `{"detail"}`, NVIDIA NIM's.
    Detail,
    /// TEI's, and Weaviate's.
    Tei,
    /// OpenAI's: vLLM, Infinity, llama.cpp.
    OpenAi,
    /// Pinecone's.
    Pinecone,
    /// The Open Inference Protocol's.
    OpenInference,
    /// DashScope's.
    DashScope,
}

impl ErrorShape {
    /// The status of a wrong field.
    fn wrong_field(self) -> StatusCode {
        match self {
            Self::Problem | Self::Detail | Self::Tei => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Voyage
            | Self::OpenAi
            | Self::Pinecone
            | Self::OpenInference
            | Self::DashScope => StatusCode::BAD_REQUEST,
        }
    }

    /// The status of a full queue: 429 where clients send a request again on that only.
    fn overloaded(self) -> StatusCode {
        match self {
            Self::Voyage | Self::Tei | Self::DashScope => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The status of an error in this shape.
    fn status(self, error: &ApiError, described: StatusCode) -> StatusCode {
        match error {
            error if error.is_overload() => self.overloaded(),
            _ if described == StatusCode::UNPROCESSABLE_ENTITY => self.wrong_field(),
            _ => described,
        }
    }

    /// An error in this shape.
    pub(super) fn response(self, error: &ApiError, id: &RequestId) -> Response {
        match self {
            Self::Problem => problem::error(error, id),
            Self::Voyage | Self::Detail => detail::error(error, self),
            Self::Tei => tei::error(error),
            Self::OpenAi => openai::error(error),
            Self::Pinecone => pinecone::error(error),
            Self::OpenInference => open_inference::error(error),
            Self::DashScope => dashscope::error(error, id),
        }
    }
}
