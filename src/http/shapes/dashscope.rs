//! DashScope's shape.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::ErrorShape;
use crate::http::error::{ApiError, with_headers};
use crate::http::extensions::RequestId;

/// An error in DashScope's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DashScopeError {
    /// Names the error for programs.
    #[schema(example = "InvalidParameter")]
    code: &'static str,
    /// What was wrong and how to mend it.
    #[schema(example = "the query is empty")]
    message: String,
    /// The request's id.
    request_id: String,
}

/// An error in this dialect's shape.
pub(super) fn error(error: &ApiError, id: &RequestId) -> Response {
    let described = error.describe();
    let status = ErrorShape::DashScope.status(error, described.status);
    let code = match status {
        StatusCode::UNAUTHORIZED => "InvalidApiKey",
        StatusCode::FORBIDDEN => "AccessDenied",
        StatusCode::NOT_FOUND => "ModelNotFound",
        StatusCode::TOO_MANY_REQUESTS => "Throttling",
        StatusCode::SERVICE_UNAVAILABLE => "ModelUnavailable",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "RequestTimeOut",
        status if status.is_server_error() => "InternalError",
        _ => "InvalidParameter",
    };
    let body = DashScopeError {
        code,
        message: described.detail,
        request_id: id.as_str().to_owned(),
    };
    with_headers(error, status, Json(body).into_response())
}
