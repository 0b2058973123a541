//! Receives a request's body before its handler runs: everything that can be refused without reading it
//! is, and what is read and decoded stays within a budget of bytes, since a body that waits costs memory.

mod coding;
mod values;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::budget::Share;
use super::error::ApiError;
use super::extract::{IgnoredFields, work_on};
use super::state::{AppState, Phase, terms};
pub(super) use coding::Coding;

/// On an answer: names of the request's fields that were ignored.
pub(super) const X_IGNORED: HeaderName = HeaderName::from_static("x-rerankd-ignored-fields");

/// What a body of unknown length begins with.
const FIRST: usize = 64 * 1024;
/// While the server drains, a body has this long to come.
const LAST_BYTES: Duration = Duration::from_millis(500);

/// The state of the layer: the server's, and which routes take a body.
#[derive(Debug, Clone)]
pub(super) struct Receiver {
    pub(super) state: AppState,
    pub(super) paths: Arc<HashSet<String>>,
}

impl Receiver {
    /// Whether a request is one that takes a body, and so ranks or scores.
    pub(super) fn takes(&self, request: &Request) -> bool {
        let path = request.extensions().get::<MatchedPath>();
        path.is_some_and(|path| self.paths.contains(path.as_str()))
            && request.method() == axum::http::Method::POST
    }
}

/// Hands a request on with its body in memory, or refuses it.
pub(super) async fn receive(
    State(receiver): State<Receiver>,
    request: Request,
    next: Next,
) -> Response {
    if !receiver.takes(&request) {
        return next.run(request).await;
    }
    let (mut request, permits) = match body(&receiver.state, request).await {
        Ok(received) => received,
        Err(error) => return error.into_response(),
    };
    let ignored = IgnoredFields::default();
    request.extensions_mut().insert(ignored.clone());
    let mut response = next.run(request).await;
    if let Some(names) = ignored.header() {
        response.headers_mut().insert(X_IGNORED, names);
    }
    holding(response, permits)
}

/// An answer that keeps its request's part of the budget until it is sent: it may carry all of the request's documents.
pub(super) fn holding(response: Response, permits: Vec<OwnedSemaphorePermit>) -> Response {
    response.map(|body| Body::new(Holding { body, permits }))
}

async fn body(
    state: &AppState,
    request: Request,
) -> Result<(Request, Vec<OwnedSemaphorePermit>), ApiError> {
    state.any_model()?;
    if !is_json(request.headers()) {
        return Err(ApiError::UnsupportedMediaType);
    }
    let codings = Coding::of(request.headers())?;
    let (parts, bytes, mut share) = whole(state, request).await?;
    let (limit, encoded) = (state.options().body_limit_bytes, bytes.len());
    let bytes = match codings.is_empty() {
        true => bytes,
        false => decode(bytes, codings, limit, encoded, &mut share).await?,
    };
    check_values(&bytes, limit, &mut share).await?;
    Ok((Request::from_parts(parts, Body::from(bytes)), share.permits))
}

/// Refuses a body whose values would take too much memory, and takes what they take beyond its own bytes out of the
/// budget: that has three bytes for each of a body's, but a value of two may become hundreds.
async fn check_values(bytes: &Bytes, limit: usize, share: &mut Share<'_>) -> Result<(), ApiError> {
    let json = bytes.clone();
    let memory = work_on(bytes.len(), move || values::memory(&json)).await?;
    share.hold_values(memory, bytes.len(), limit).await
}

/// A request and its body as it came, with the body's share of the budget.
pub(super) async fn whole(
    state: &AppState,
    request: Request,
) -> Result<(Parts, Bytes, Share<'_>), ApiError> {
    let options = state.options();
    let limit = options.body_limit_bytes;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(ApiError::BodyTooLarge(limit));
    }
    let reranker = state.reranker();
    reranker.check_room(&terms(request.extensions()), length.unwrap_or(0))?;

    let now = Instant::now();
    let mut share = Share::new(state.body_budget(), now + options.max_queue);
    share.grow_to(length.unwrap_or(FIRST)).await?;
    let (parts, body) = request.into_parts();
    let read = timeout_at(
        now + options.body_timeout,
        read(body, length, limit, &mut share),
    );
    let drained = async {
        state.reached(Phase::Draining).await;
        tokio::time::sleep(LAST_BYTES).await;
    };
    let bytes = tokio::select! {
        read = read => read.map_err(|_| ApiError::BodyTimeout)??,
        () = drained => return Err(ApiError::Draining),
    };
    Ok((parts, bytes, share))
}

/// Whether a body may be JSON: some clients don't say what it is.
fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str());
    let media_type = media_type.unwrap_or(Ok("")).unwrap_or("?");
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let media_type = media_type.to_ascii_lowercase();
    media_type.is_empty()
        || media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// Decodes a body, or a part of it, to at most `limit` bytes. Its share of the budget grows from the bytes that are
/// `held` already by what that becomes.
pub(super) async fn decode(
    encoded: Bytes,
    codings: Vec<Coding>,
    limit: usize,
    held: usize,
    share: &mut Share<'_>,
) -> Result<Bytes, ApiError> {
    let codings: Arc<[Coding]> = codings.into();
    let decode = |keep| {
        let (encoded, codings) = (encoded.clone(), Arc::clone(&codings));
        // However small it is, it may become large.
        work_on(usize::MAX, move || {
            coding::decode(encoded, &codings, limit, keep)
        })
    };
    share.grow_to(held + FIRST).await?;
    let (mut bytes, all) = decode(FIRST).await??;
    if all > bytes.len() {
        share.grow_to(held + all).await?;
        bytes = decode(all).await??.0;
    }
    Ok(bytes.into())
}

async fn read(
    mut body: Body,
    length: Option<usize>,
    limit: usize,
    share: &mut Share<'_>,
) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::with_capacity(length.unwrap_or(0));
    while let Some(frame) = next_frame(&mut body).await {
        let frame = frame.map_err(|_| ApiError::BodyBroken)?;
        let Ok(data) = frame.into_data() else {
            continue; // Trailers.
        };
        let total = bytes.len() + data.len();
        if total > limit {
            return Err(ApiError::BodyTooLarge(limit));
        }
        if total > share.bytes {
            share.grow_to((2 * total).min(limit)).await?;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context)).await
}

/// An answer's body that holds its request's part of the budget.
#[derive(Debug)]
struct Holding {
    body: Body,
    #[expect(dead_code, reason = "held, not read")]
    permits: Vec<OwnedSemaphorePermit>,
}

impl HttpBody for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
