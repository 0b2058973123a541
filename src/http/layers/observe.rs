//! What is told of each request: its id, metrics, the one log line, its span, and where its time went.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{counter, gauge, histogram};
use tracing::field::display;

use crate::rerank::{Cost, Timings};
use crate::telemetry::{KeyValue, RequestSpan, TRACE_RESPONSE};
use crate::types::Span;

use super::super::access;
use super::super::auth::KeyName;
use super::super::error::Failed;
use super::super::extensions::{ClientAddress, RequestId, X_REQUEST_ID};
use super::super::shapes::is_grpc;
use super::super::state::AppState;

/// On an answer: number of documents that the model did not read whole.
const X_TRUNCATED: HeaderName = HeaderName::from_static("x-rerankd-truncated-documents");
/// On an answer: how long tokenising, waiting and scoring took, and all of it.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// On an answer: the same, in whole milliseconds, as text-embeddings-inference tells it.
const TOKENIZATION_TIME: HeaderName = HeaderName::from_static("x-tokenization-time");
const QUEUE_TIME: HeaderName = HeaderName::from_static("x-queue-time");
const INFERENCE_TIME: HeaderName = HeaderName::from_static("x-inference-time");
const TOTAL_TIME: HeaderName = HeaderName::from_static("x-total-time");

/// Those of these headers that pages of other origins may read.
pub(super) const EXPOSED: [HeaderName; 7] = [
    X_TRUNCATED,
    SERVER_TIMING,
    TOKENIZATION_TIME,
    QUEUE_TIME,
    INFERENCE_TIME,
    TOTAL_TIME,
    HeaderName::from_static(TRACE_RESPONSE),
];

/// Observes a request from its head to its answer.
pub(super) async fn observe(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = RequestId::new(&request);
    request.extensions_mut().insert(id.clone());
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "unmatched".into(), |r| r.as_str().to_owned());
    let observed = Observed {
        trace: trace(&request, &route),
        is_grpc: is_grpc(request.headers()),
        route,
        method: request.method().clone(),
        id,
        client: request.extensions().get().copied(),
        start: Instant::now(),
        answered: false,
    };
    gauge!("rerankd_requests_in_flight").increment(1.0);
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(observed.id.as_str()) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    // An answer is what its type says, whatever a browser would make of its bytes.
    let no_sniffing = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, no_sniffing);
    if let Some(work) = response.extensions().get::<Cost>().cloned() {
        if work.truncated > 0 {
            let truncated = work.truncated;
            response.headers_mut().insert(X_TRUNCATED, truncated.into());
            state.count_truncated(truncated);
        }
        let elapsed = observed.start.elapsed();
        tell_timings(response.headers_mut(), &work.timings, elapsed);
    }
    let span = observed.trace.as_ref().and_then(RequestSpan::response);
    if let Some(span) = span.and_then(|span| HeaderValue::from_str(&span).ok()) {
        response.headers_mut().insert(TRACE_RESPONSE, span);
    }
    observed.answered(&response);
    response
}

/// A request's span; what probes and scrapes ask for has none.
fn trace(request: &Request, route: &str) -> Option<RequestSpan> {
    let method = request.method();
    let is_traced = !access::is_operation(method, route);
    let name = || format!("{} {route}", method_label(method));
    is_traced.then(|| RequestSpan::begin(name(), request.headers()))
}

/// Where the time went, in milliseconds, for browsers and for clients of text-embeddings-inference. The parts overlap,
/// hence the total.
fn tell_timings(headers: &mut HeaderMap, timings: &Timings, total: Duration) {
    let parts = [
        ("tokenize", TOKENIZATION_TIME, timings.tokenize.time),
        ("queue", QUEUE_TIME, timings.queue.time),
        ("inference", INFERENCE_TIME, timings.inference.time),
        ("total", TOTAL_TIME, total),
    ];
    for (_, name, time) in &parts {
        // A dialect may have told it in its own way.
        let entry = headers.entry(name);
        let time = HeaderValue::from_str(&time.as_millis().to_string());
        time.map(|time| entry.or_insert(time)).ok();
    }
    let parts = parts.map(|(name, _, time)| format!("{name};dur={:.2}", time.as_secs_f64() * 1e3));
    if let Ok(timing) = HeaderValue::from_str(&parts.join(", ")) {
        headers.insert(SERVER_TIMING, timing);
    }
}

/// A label must not be a client's to choose.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// One request under way. Dropped unanswered, its client has gone; that is counted and logged too,
/// with nginx's status 499.
struct Observed {
    trace: Option<RequestSpan>,
    is_grpc: bool,
    route: String,
    method: Method,
    id: RequestId,
    client: Option<ClientAddress>,
    start: Instant,
    answered: bool,
}

impl Observed {
    fn answered(mut self, response: &Response) {
        self.answered = true;
        let extensions = response.extensions();
        let key = extensions.get::<KeyName>();
        let error = extensions.get().map(|Failed(error)| error.describe());
        let status = match &error {
            // gRPC's own status stands within; what it would be over HTTP is told here.
            Some(error) if response.status() == StatusCode::OK => error.status,
            _ => response.status(),
        };
        let error = error.map(|error| error.code);
        self.record(status.as_u16(), error, extensions.get(), key);
    }

    fn record(
        &mut self,
        status: u16,
        error: Option<&'static str>,
        work: Option<&Cost>,
        key: Option<&KeyName>,
    ) {
        let elapsed = self.start.elapsed();
        let trace = self.trace.take();
        let trace_id = trace.as_ref().and_then(RequestSpan::trace_id);
        if let Some(span) = trace {
            self.end_span(span, status, work, key);
        }
        let (route, method) = (&self.route, method_label(&self.method));
        counter!("rerankd_requests_total", "route" => route.clone(), "method" => method, "status" => status.to_string())
            .increment(1);
        histogram!("rerankd_request_seconds", "route" => route.clone(), "method" => method)
            .record(elapsed.as_secs_f64());
        if let Some(work) = work {
            let model = work.model.as_ref().map(|model| model.name.clone());
            let model = model.unwrap_or_default();
            let inference = work.timings.inference.time.as_secs_f64();
            histogram!("rerankd_request_inference_seconds", "model" => model.clone())
                .record(inference);
            histogram!("rerankd_request_documents", "model" => model).record(work.documents as f64);
        }
        let id = self.id.as_str();
        let key = key.map(KeyName::as_str);
        let client = self.client.map(|ClientAddress(address)| display(address));
        let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
        let total_ms = ms(elapsed);
        if let Some(work) = work {
            tracing::info!(
                request_id = id,
                trace_id,
                client,
                key,
                method,
                route,
                status,
                error,
                documents = work.documents,
                tokens = work.tokens,
                truncated = work.truncated,
                tokenize_ms = ms(work.timings.tokenize.time),
                queue_ms = ms(work.timings.queue.time),
                inference_ms = ms(work.timings.inference.time),
                total_ms,
                "request"
            );
        } else if status < 400 && access::is_operation(&self.method, route) {
            // Probes and scrapes come every few seconds; their successes would drown the log.
            tracing::debug!(
                request_id = id,
                trace_id,
                client,
                key,
                method,
                route,
                status,
                error,
                total_ms,
                "request"
            );
        } else {
            tracing::info!(
                request_id = id,
                trace_id,
                client,
                key,
                method,
                route,
                status,
                error,
                total_ms,
                "request"
            );
        }
    }

    fn end_span(&self, span: RequestSpan, status: u16, work: Option<&Cost>, key: Option<&KeyName>) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("http.request.method", method_label(&self.method)),
            KeyValue::new("http.route", self.route.clone()),
            KeyValue::new("http.response.status_code", i64::from(status)),
            KeyValue::new("rerankd.request_id", self.id.as_str().to_owned()),
        ];
        if status >= 400 {
            attributes.push(KeyValue::new("error.type", status.to_string()));
        }
        if let Some(ClientAddress(client)) = self.client {
            attributes.push(KeyValue::new("client.address", client.ip().to_string()));
        }
        if let Some(key) = key {
            attributes.push(KeyValue::new("rerankd.key", key.as_str().to_owned()));
        }
        let method = self.route.trim_start_matches('/').split_once('/');
        if let Some((service, method)) = method.filter(|_| self.is_grpc) {
            attributes.push(KeyValue::new("rpc.system", "grpc"));
            attributes.push(KeyValue::new("rpc.service", service.to_owned()));
            attributes.push(KeyValue::new("rpc.method", method.to_owned()));
        }
        let mut stages = Vec::new();
        if let Some(work) = work {
            attributes.push(KeyValue::new("openinference.span.kind", "RERANKER"));
            if let Some(model) = &work.model {
                attributes.push(KeyValue::new("reranker.model_name", model.name.clone()));
            }
            attributes.push(KeyValue::new("reranker.top_k", number(work.results)));
            attributes.push(KeyValue::new("rerankd.documents", number(work.documents)));
            attributes.push(KeyValue::new("rerankd.tokens", number(work.tokens)));
            attributes.push(KeyValue::new("rerankd.truncated", number(work.truncated)));
            let admission = work.admitted.map(|admitted| Span::of(self.start, admitted));
            stages.extend(admission.map(|admission| ("admission", admission)));
            let Timings {
                tokenize,
                queue,
                inference,
            } = work.timings;
            stages.extend([
                ("tokenize", tokenize),
                ("queue", queue),
                ("inference", inference),
            ]);
        }
        span.end(attributes, &stages, status >= 500);
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        gauge!("rerankd_requests_in_flight").decrement(1.0);
        if !self.answered {
            const CLIENT_CLOSED_REQUEST: u16 = 499;
            self.record(CLIENT_CLOSED_REQUEST, None, None, None);
        }
    }
}
