//! OpenAI's shape: vLLM, Infinity, llama.cpp.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::ErrorShape;
use crate::http::error::{ApiError, with_headers};

/// An error in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct OpenAiError {
    error: OpenAiErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
struct OpenAiErrorBody {
    /// What was wrong and how to mend it.
    #[schema(example = "query: it is empty")]
    message: String,
    /// `invalid_request_error`, `authentication_error`, `not_found_error`, `rate_limit_error`, `permission_error`,
    /// `unavailable_error` or `server_error`.
    #[serde(rename = "type")]
    #[schema(example = "invalid_request_error")]
    kind: &'static str,
    /// The field that is wrong.
    #[schema(example = "query")]
    param: Option<String>,
    /// The status.
    #[schema(example = 400)]
    code: u16,
}

/// An error in this shape. A wrong field is 400 here.
pub(super) fn error(error: &ApiError) -> Response {
    let described = error.describe();
    let status = ErrorShape::OpenAi.status(error, described.status);
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "not_found_error",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    let body = OpenAiError {
        error: OpenAiErrorBody {
            message: described.detail,
            kind,
            param: described.field,
            code: status.as_u16(),
        },
    };
    with_headers(error, status, Json(body).into_response())
}
