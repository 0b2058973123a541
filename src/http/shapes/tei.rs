//! text-embeddings-inference's shape, and Weaviate's.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rerank::{ModelError, RerankError, ScoreError};
use crate::tokenize::TokenizeError;

use crate::http::error::{ApiError, with_headers};

/// An error in TEI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TeiError {
    /// What was wrong and how to mend it.
    error: String,
    /// `Empty`, `Validation`, `Tokenizer`, `Backend`, `Overloaded` or `Unhealthy`.
    #[schema(example = "Validation")]
    error_type: &'static str,
}

/// An error in this dialect's shape, with TEI's status where it differs.
pub(super) fn error(error: &ApiError) -> Response {
    let described = error.describe();
    let (status, error_type) = match error {
        ApiError::Rerank(RerankError::EmptyQuery(_) | RerankError::NoDocuments, _) => {
            (StatusCode::BAD_REQUEST, "Empty")
        }
        // TEI's clients retry on 429 only.
        error if error.is_overload() => (StatusCode::TOO_MANY_REQUESTS, "Overloaded"),
        ApiError::RateLimited(_) => (described.status, "Overloaded"),
        _ if described.status == StatusCode::GATEWAY_TIMEOUT => (described.status, "Overloaded"),
        ApiError::Rerank(
            RerankError::Score(ScoreError::Tokenize(
                TokenizeError::TooLong { .. } | TokenizeError::TextTooLong { .. },
            )),
            _,
        ) => (described.status, "Validation"),
        ApiError::Rerank(RerankError::Score(ScoreError::Tokenize(_)), _) => {
            (described.status, "Tokenizer")
        }
        ApiError::Rerank(RerankError::Model(ModelError::Loading), _) | ApiError::Draining => {
            (described.status, "Unhealthy")
        }
        _ if described.status.is_server_error() => (described.status, "Backend"),
        _ => (described.status, "Validation"),
    };
    let body = TeiError {
        error: described.detail,
        error_type,
    };
    with_headers(error, status, Json(body).into_response())
}
