//! Parses a JSON body with clear errors, and the values that clients spell in several ways.

use std::sync::LazyLock;

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::sync::Semaphore;

use super::error::ApiError;

/// A longer body is parsed off the async workers: it would hold up what else they do.
const LONG_BODY: usize = 64 * 1024;

/// Long bodies are parsed on as many threads as there are cores, not on as many as there are bodies.
static PARSERS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// Parses a request's body.
pub(super) async fn json<T: DeserializeOwned + Send + 'static>(
    request: Request,
) -> Result<T, ApiError> {
    parse(body(request).await?).await
}

/// A request's body, which `receive` has read.
pub(super) async fn body(request: Request) -> Result<Bytes, ApiError> {
    let body = to_bytes(request.into_body(), usize::MAX).await;
    body.map_err(|_| ApiError::BodyBroken)
}

/// Parses a body.
pub(super) async fn parse<T: DeserializeOwned + Send + 'static>(
    body: Bytes,
) -> Result<T, ApiError> {
    if body.len() < LONG_BODY {
        return parse_here(&body);
    }
    // The semaphore is never closed; were it, the parse would simply run.
    let _permit = PARSERS.acquire().await.ok();
    let parsed = tokio::task::spawn_blocking(move || parse_here(&body)).await;
    parsed.unwrap_or(Err(ApiError::Panicked))
}

fn parse_here<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
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
