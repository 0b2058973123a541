//! Pinecone's shape.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::ErrorShape;
use crate::http::error::{ApiError, with_headers};

/// An error in Pinecone's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct PineconeError {
    error: PineconeErrorBody,
    /// The status.
    #[schema(example = 400)]
    status: u16,
}

#[derive(Debug, Serialize, ToSchema)]
struct PineconeErrorBody {
    /// Names the error for programs.
    #[schema(example = "INVALID_ARGUMENT")]
    code: &'static str,
    /// What was wrong and how to mend it.
    #[schema(example = "the query is empty")]
    message: String,
}

/// An error in this dialect's shape.
pub(super) fn error(error: &ApiError) -> Response {
    let described = error.describe();
    let status = ErrorShape::Pinecone.status(error, described.status);
    let code = match status {
        StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
        StatusCode::FORBIDDEN => "PERMISSION_DENIED",
        StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        StatusCode::METHOD_NOT_ALLOWED => "UNIMPLEMENTED",
        StatusCode::SERVICE_UNAVAILABLE => "UNAVAILABLE",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
        status if status.is_server_error() => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    };
    let body = PineconeError {
        error: PineconeErrorBody {
            code,
            message: described.detail,
        },
        status: status.as_u16(),
    };
    with_headers(error, status, Json(body).into_response())
}
