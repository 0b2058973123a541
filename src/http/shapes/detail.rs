//! Errors as `{"detail"}`, which Voyage, NVIDIA NIM and Mixedbread share; with `message` besides, for clients
//! that look there.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::ErrorShape;
use crate::http::error::{ApiError, with_headers};

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Detail {
    /// What was wrong and how to mend it.
    #[schema(example = "the query is empty")]
    detail: String,
    /// The same.
    message: String,
}

/// An error in this shape, with the statuses of one of the dialects that have it.
pub(super) fn error(error: &ApiError, shape: ErrorShape) -> Response {
    let described = error.describe();
    let status = shape.status(error, described.status);
    let body = Detail {
        detail: described.detail.clone(),
        message: described.detail,
    };
    with_headers(error, status, Json(body).into_response())
}
