//! The Open Inference Protocol's shape.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::ErrorShape;
use crate::http::error::{ApiError, with_headers};

/// An error in the protocol's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct InferError {
    /// What was wrong and how to mend it.
    #[schema(example = "inputs: there is no \"query\"")]
    error: String,
}

/// An error in the protocol's shape. A wrong field is 400 here.
pub(super) fn error(error: &ApiError) -> Response {
    let described = error.describe();
    let status = ErrorShape::OpenInference.status(error, described.status);
    let body = InferError {
        error: described.detail,
    };
    with_headers(error, status, Json(body).into_response())
}
