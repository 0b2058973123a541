//! Errors as problem details (RFC 9457): the native, Cohere's and Jina's routes, and those that are
//! no dialect's. They carry `message` besides `detail`, since Cohere's clients read the one and
//! Jina's the other.

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::error::{ApiError, with_headers};
use crate::http::extensions::RequestId;

/// An error as problem details (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Problem {
    /// Always `about:blank`: `code` tells errors apart.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    #[schema(example = "Invalid field")]
    title: &'static str,
    #[schema(example = 422)]
    status: u16,
    /// What was wrong and how to mend it.
    #[schema(example = "documents[3]: expected a string or an object")]
    detail: String,
    /// The same, for clients that look here.
    #[schema(example = "documents[3]: expected a string or an object")]
    message: String,
    /// Names the error for programs.
    #[schema(example = "invalid_field")]
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// The fields that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
}

#[derive(Debug, Serialize, ToSchema)]
struct FieldError {
    #[schema(example = "documents[3]")]
    field: String,
    message: String,
}

/// An error in this shape.
pub(super) fn error(error: &ApiError, id: &RequestId) -> Response {
    let described = error.describe();
    let errors = described.field.map(|field| FieldError {
        field,
        message: described.detail.clone(),
    });
    let problem = Problem {
        kind: "about:blank",
        title: described.title,
        status: described.status.as_u16(),
        message: described.detail.clone(),
        detail: described.detail,
        code: described.code,
        request_id: Some(id.as_str().to_owned()),
        errors: errors.into_iter().collect(),
    };
    let mut response = Json(problem).into_response();
    let media_type = HeaderValue::from_static("application/problem+json");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    with_headers(error, described.status, response)
}
