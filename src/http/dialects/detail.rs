//! Errors as `{"detail"}`, which Voyage and NVIDIA NIM share; with `message` besides, for clients
//! that look there.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::{ApiError, with_headers};

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Detail {
    /// What was wrong and how to mend it.
    detail: String,
    /// The same.
    message: String,
}

/// An error in this shape, with `status` if it is given, else the one that goes with the error.
pub(super) fn error(error: &ApiError, status: Option<StatusCode>) -> Response {
    let described = error.describe();
    let body = Detail {
        detail: described.detail.clone(),
        message: described.detail,
    };
    let response = Json(body).into_response();
    with_headers(status.unwrap_or(described.status), response)
}
