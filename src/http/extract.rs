//! Parses a JSON body with clear errors, and what clients spell in several ways.

mod fault;
mod ignored;
mod object;
mod scalar;

use std::sync::LazyLock;

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::lenient;

use super::error::ApiError;

pub(super) use fault::in_words;
pub(super) use ignored::IgnoredFields;
pub(super) use object::{object, objects, optional_object, optional_objects};
pub(super) use scalar::{flag, number, whole};

/// A longer body is worked on off the async workers: it would hold up what else they do.
const LONG_BODY: usize = 64 * 1024;

/// Long bodies are worked on by as many threads as there are cores, not by as many as there are bodies.
static LONG_WORK: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// Does work on a body, off the async workers if it has many bytes.
pub(super) async fn work_on<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= LONG_BODY {
        return Ok(work());
    }
    // The semaphore is never closed; were it, the work would simply be done.
    let _permit = LONG_WORK.acquire().await.ok();
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::Panicked)
}

/// A body as it came, and where the fields are noted that its dialect doesn't know.
#[derive(Debug)]
pub(super) struct Received {
    bytes: Bytes,
    ignored: IgnoredFields,
}

/// A request's body, which `receive` has read.
pub(super) async fn body(request: Request) -> Result<Received, ApiError> {
    let ignored = request.extensions().get().cloned().unwrap_or_default();
    let bytes = to_bytes(request.into_body(), usize::MAX).await;
    let bytes = bytes.map_err(|_| ApiError::BodyBroken)?;
    Ok(Received { bytes, ignored })
}

/// Parses a body.
pub(super) async fn parse<T: DeserializeOwned + Send + 'static>(
    body: Received,
) -> Result<T, ApiError> {
    work_on(body.bytes.len(), move || body.parse()).await?
}

/// Parses some fields of a body that will be parsed whole.
pub(super) async fn peek<T: DeserializeOwned + Send + 'static>(
    body: &Received,
) -> Result<T, ApiError> {
    let (bytes, ignored) = (body.bytes.clone(), IgnoredFields::default());
    parse(Received { bytes, ignored }).await
}

impl Received {
    /// A body that did not come over HTTP.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.into(),
            ignored: IgnoredFields::default(),
        }
    }

    /// Where its ignored fields are noted.
    pub(super) fn ignored(&self) -> &IgnoredFields {
        &self.ignored
    }

    /// Parses it on this thread.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let text = lenient::bytes_without_bom(&self.bytes);
        // serde would take an array for a struct, its items for the fields in order.
        if text.trim_ascii_start().starts_with(b"[") {
            let detail = "expected an object, found an array";
            return Err(ApiError::invalid("body", detail));
        }
        let fault = match self.attempt(text) {
            Err(fault) if !fault.inner().is_data() => fault,
            done => return done.map_err(|fault| fault::described(text, fault)),
        };
        match lenient::mend_surrogates(text) {
            Some(text) => {
                let mended = self.attempt(&text);
                mended.map_err(|fault| fault::described(&text, fault))
            }
            None => Err(fault::described(text, fault)),
        }
    }

    fn attempt<T: DeserializeOwned>(&self, text: &[u8]) -> Result<T, Fault> {
        let mut parser = serde_json::Deserializer::from_slice(text);
        let mut note = |path: serde_ignored::Path<'_>| self.ignored.note(&path);
        let value = serde_ignored::Deserializer::new(&mut parser, &mut note);
        let mut track = serde_path_to_error::Track::new();
        let value = serde_path_to_error::Deserializer::new(value, &mut track);
        let parsed = T::deserialize(value).and_then(|value| parser.end().map(|()| value));
        parsed.map_err(|error| Fault::new(track.path(), error))
    }
}

/// What is wrong, and where.
type Fault = serde_path_to_error::Error<serde_json::Error>;
