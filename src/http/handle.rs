//! The one handler of all dialects' routes: reads the body, parses it, asks the reranker, renders the answer
//! and what its headers tell.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{FromRequestParts, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::future::BoxFuture;

use crate::rerank::Cost;

use super::asked::{Answered, Asked, Context};
use super::dialects::Dialect;
use super::dialects::dispatch::TellingFields;
use super::error::ApiError;
use super::extensions::RequestId;
use super::extract::{Received, body, parse, peek};
use super::model_path::ModelName;
use super::shapes::ErrorShape;
use super::state::Call;

/// A dialect, whatever its types are.
pub(super) trait Speaks: Sync {
    /// Answers a request.
    fn respond<'a>(
        &'a self,
        call: &'a Call,
        context: &'a Context,
        body: Received,
    ) -> BoxFuture<'a, Result<Response, ApiError>>;
}

impl<D: Dialect> Speaks for D {
    fn respond<'a>(
        &'a self,
        call: &'a Call,
        context: &'a Context,
        body: Received,
    ) -> BoxFuture<'a, Result<Response, ApiError>> {
        Box::pin(async move {
            let ignored = body.ignored().clone();
            let request = parse(body).await?;
            match (self.model(&request), &context.model) {
                (Some(name), None) => drop(call.model(Some(name))?),
                (Some(name), Some(path)) if name != path => ignored.note_name("model".to_owned()),
                _ => {}
            }
            let (ask, kept) = self.ask(request, context)?;
            let answer = ask.run(call.reranker(), &call.terms).await;
            let fields = self.text_fields(&kept);
            let answer = answer.map_err(|error| match error.into() {
                ApiError::Rerank(error, _) => ApiError::Rerank(error, fields),
                other => other,
            })?;
            if answer.instruction_ignored() {
                ignored.note_name(self.instruction_field(&kept).to_owned());
            }
            if let Some(field) = self.first_stage_field(&kept)
                && answer.first_stage_ignored()
            {
                ignored.note_name(field.to_owned());
            }
            let cost = answer.cost();
            let mut headers = HeaderMap::new();
            if let (Some(characters), Some(cost)) = (self.characters(&kept), &cost) {
                headers = compute_headers(cost, characters, answer.device());
            }
            let body = self.answer(answer, kept, context);
            let mut response = (headers, Json(body)).into_response();
            if let Some(cost) = cost {
                response.extensions_mut().insert(cost);
            }
            Ok(response)
        })
    }
}

/// A dialect and the shape of its errors.
pub(super) type Spoken = (&'static dyn Speaks, ErrorShape);

/// How the dialect of a request is found.
#[derive(Clone, Copy)]
pub(super) enum Choice {
    /// The path has one.
    One(Spoken),
    /// Several share the path, and the body's fields tell.
    ByFields(fn(&TellingFields) -> Spoken),
}

/// Answers a request. An error that comes after the choice of the dialect has that one's shape, any other the
/// path's.
pub(super) async fn handle(
    choice: Choice,
    call: Call,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, rest) = request.into_parts();
    let ModelName(name) = ModelName::from_request_parts(&mut parts, &()).await?;
    let model = Some(name).filter(|name| !name.is_empty());
    if let Some(name) = &model {
        call.model(Some(name))?;
    }
    let id = parts.extensions.get().map(RequestId::as_str);
    let context = Context {
        id: id.unwrap_or_default().to_owned(),
        model,
        time: now(),
    };
    let body = body(Request::from_parts(parts, rest)).await?;
    let (dialect, shape) = match choice {
        Choice::One(spoken) => spoken,
        Choice::ByFields(choose) => choose(&peek(&body).await?),
    };
    match dialect.respond(&call, &context, body).await {
        Err(error) => Ok((Extension(ShapedBy(shape)), error).into_response()),
        answered => answered,
    }
}

/// On the response of an error: its shape, where it is not the path's.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShapedBy(pub(super) ErrorShape);

/// Seconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

/// The headers in which text-embeddings-inference tells what an answer cost, but for those that every answer has; times
/// in milliseconds.
fn compute_headers(cost: &Cost, characters: usize, device: &str) -> HeaderMap {
    let timings = cost.timings;
    let total = timings.tokenize.time + timings.queue.time + timings.inference.time;
    let ms = |time: Duration| HeaderValue::from_str(&time.as_millis().to_string()).ok();
    let compute_type = if device == "cpu" { "cpu" } else { "gpu" };
    let headers = [
        (
            "x-compute-type",
            Some(HeaderValue::from_static(compute_type)),
        ),
        ("x-compute-time", ms(total)),
        ("x-compute-characters", Some(characters.into())),
        ("x-compute-tokens", Some(cost.tokens.into())),
        ("x-total-time", ms(total)),
    ];
    let headers = headers.into_iter();
    headers
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), value?)))
        .collect()
}
