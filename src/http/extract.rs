//! Reads a JSON body with clear errors, and the values that clients spell in several ways.

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::Options;
use super::dialects;
use super::error::ApiError;

/// Reads and parses a body, within the limits of size and time.
pub(super) async fn json<T: DeserializeOwned>(
    request: Request,
    options: &Options,
) -> Result<T, ApiError> {
    parse(&body(request, options).await?)
}

/// Reads a JSON body, within the limits of size and time.
pub(super) async fn body(request: Request, options: &Options) -> Result<Bytes, ApiError> {
    let media_type = request.headers().get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let is_json = media_type.eq_ignore_ascii_case("application/json")
        || (media_type.starts_with("application/") && media_type.ends_with("+json"));
    if !is_json {
        return Err(ApiError::UnsupportedMediaType);
    }
    let limit = options.body_limit_bytes;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|l| l > limit) {
        return Err(ApiError::BodyTooLarge(limit));
    }
    let body = to_bytes(request.into_body(), limit);
    tokio::time::timeout(options.request_timeout, body)
        .await
        .map_err(|_| ApiError::BodyTimeout)?
        .map_err(|error| body_error(&error, limit))
}

/// Parses a body.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would take an array for a struct, its items for the fields in order.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::Invalid {
            field: "body".into(),
            detail: "expected an object, not an array".into(),
        });
    }
    let mut parser = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => ApiError::Invalid {
                field: if field == "." { "body".into() } else { field },
                detail: inner.to_string(),
            },
            _ => ApiError::InvalidJson(inner.to_string()),
        }
    })?;
    parser
        .end()
        .map_err(|e| ApiError::InvalidJson(e.to_string()))?;
    Ok(value)
}

/// `to_bytes` hides the length limit's error under its own.
fn body_error(error: &axum::Error, limit: usize) -> ApiError {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if inner.to_string().contains("length limit exceeded") {
            return ApiError::BodyTooLarge(limit);
        }
        source = inner.source();
    }
    ApiError::BodyBroken
}

/// The model's name in a path; several segments are joined by slashes.
#[derive(Debug)]
pub(super) struct ModelName(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for ModelName {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        match RawPathParams::from_request_parts(parts, state).await {
            Ok(params) => {
                let segments: Vec<&str> = params.iter().map(|(_, value)| value).collect();
                Ok(Self(segments.join("/")))
            }
            // The path is not UTF-8, so it names nothing that is here.
            Err(_) => Err(dialects::error_at_path(
                parts.uri.path(),
                &ApiError::NotFound,
                None,
            )),
        }
    }
}

/// A flag that may be absent, null, a boolean, or the string "true" or "false".
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected true or false")]
    enum Flag {
        Bool(bool),
        Word(Word),
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        #[serde(alias = "True")]
        True,
        #[serde(alias = "False")]
        False,
    }
    Ok(
        Option::<Flag>::deserialize(deserializer)?.map(|flag| match flag {
            Flag::Bool(value) => value,
            Flag::Word(Word::True) => true,
            Flag::Word(Word::False) => false,
        }),
    )
}
