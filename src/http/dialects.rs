//! One file per wire format: its request, response and error bodies, and their mapping.

pub(super) mod dashscope;
pub(super) mod detail;
pub(super) mod dispatch;
mod document;
pub(super) mod infinity;
mod mixedbread;
pub(super) mod native;
pub(super) mod nim;
pub(super) mod open_inference;
pub(super) mod openai;
pub(super) mod pinecone;
pub(super) mod problem;
pub(super) mod repository;
pub(super) mod tei;
pub(super) mod tei_predict;
pub(super) mod vllm;
pub(super) mod voyage;
pub(super) mod weaviate;
pub(super) mod xinference;

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::layers::RequestId;

/// The wire format of errors at a path.
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
    /// The shape at a path; where several dialects share it, that of errors found before the body
    /// tells which it is.
    pub(super) fn at(path: &str) -> Self {
        match path {
            "/rerank" | "/" | "/predict" | "/invocations" | "/vertex" | "/ping" => Self::Tei,
            "/score" | "/v1/score" | "/reranking" | "/v1/reranking" => Self::OpenAi,
            "/v1/ranking" => Self::Detail,
            "/v2" => Self::OpenInference,
            _ if path.starts_with("/voyage/") => Self::Voyage,
            _ if path.starts_with("/infinity/") => Self::OpenAi,
            _ if path.starts_with("/pinecone/") => Self::Pinecone,
            _ if path.starts_with("/v1/retrieval/") => Self::Detail,
            _ if path.starts_with("/api/v1/services/") => Self::DashScope,
            _ if path.starts_with("/v2/models/") || path.starts_with("/v2/health/") => {
                Self::OpenInference
            }
            _ if path.starts_with(repository::PREFIX) => Self::OpenInference,
            _ => Self::Problem,
        }
    }

    /// The status of a wrong field.
    pub(super) fn wrong_field(self) -> StatusCode {
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
    pub(super) fn overloaded(self) -> StatusCode {
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
    pub(super) fn response(self, error: &ApiError, id: Option<&RequestId>) -> Response {
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

/// Where a request's errors are shaped for, kept while the request itself is under way.
#[derive(Debug, Clone)]
pub(super) struct ErrorAt {
    path: String,
    id: Option<RequestId>,
}

impl ErrorAt {
    /// A request's path and id.
    pub(super) fn of(request: &Request) -> Self {
        Self {
            path: request.uri().path().to_owned(),
            id: RequestId::of(request).cloned(),
        }
    }

    /// What a handler found, or its error.
    pub(super) fn answer(&self, found: Result<impl IntoResponse, ApiError>) -> Response {
        match found {
            Ok(found) => found.into_response(),
            Err(error) => self.response(&error),
        }
    }

    /// The error as a response.
    pub(super) fn response(&self, error: &ApiError) -> Response {
        error_at_path(&self.path, error, self.id.as_ref())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ErrorAt {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            path: parts.uri.path().to_owned(),
            id: parts.extensions.get().cloned(),
        })
    }
}

/// An error in the shape of the path that was called.
pub(super) fn error_at(request: &Request, error: &ApiError) -> Response {
    error_at_path(request.uri().path(), error, RequestId::of(request))
}

/// An error in the shape of a path.
pub(super) fn error_at_path(path: &str, error: &ApiError, id: Option<&RequestId>) -> Response {
    ErrorShape::at(path).response(error, id)
}
