//! Traces: a span for each request, and one for each of its stages, sent by OTLP over HTTP in the background. Never a
//! query, a document or a key.
//!
//! A request's span continues the trace that the client's `traceparent` header names
//! (<https://www.w3.org/TR/trace-context/>). Names of attributes are OpenTelemetry's for HTTP and gRPC servers, and
//! OpenInference's for rerankers (<https://arize-ai.github.io/openinference/spec/semantic_conventions.html>).
//!
//! Nothing waits for the collector: spans that it does not take in time are dropped and counted.

use std::error::Error;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use hyper::{HeaderMap, Request, Response};
use metrics::counter;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use reqwest::Client;
use tokio::runtime::Handle;

use crate::types::Span;

/// How long the process's end may wait for the collector.
const LAST_SPANS_WITHIN: Duration = Duration::from_secs(2);
/// How long one export may take.
const EXPORT_WITHIN: Duration = Duration::from_secs(10);
/// The trace that a request belongs to, on its answer (<https://www.w3.org/TR/trace-context-2/>).
pub const TRACE_RESPONSE: &str = "traceresponse";

/// Where spans are sent, and of which requests.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// The collector's URL for traces.
    pub endpoint: String,
    /// The share of requests that are traced, of those whose client does not say, from 0 to 1; `None` if the environment
    /// says it (`OTEL_TRACES_SAMPLER`).
    pub sample: Option<f64>,
}

/// Why there can't be traces.
#[derive(Debug, thiserror::Error)]
#[error("traces can't be sent: {0}")]
pub struct TraceError(String);

struct Installed {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Begins to send spans, with a client that trusts the right certificates. A second call changes nothing. Must be called
/// within a tokio runtime.
///
/// # Errors
/// If a setting or a variable of OpenTelemetry makes no sense.
pub fn install(options: &TraceOptions, client: Client) -> Result<(), TraceError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector {
            client,
            runtime: Handle::current(),
            is_lost: AtomicBool::new(false),
        })
        // The one that is built in, whatever the environment asks of other programs.
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT_WITHIN)
        .with_endpoint(&options.endpoint);
    let exporter = exporter.build().map_err(|e| TraceError(e.to_string()))?;
    let mut provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource());
    if let Some(sample) = options.sample {
        let of_roots = Sampler::TraceIdRatioBased(sample);
        provider = provider.with_sampler(Sampler::ParentBased(Box::new(of_roots)));
    }
    let provider = provider.build();
    let tracer = provider.tracer("rerankd");
    let _ = INSTALLED.set(Installed { provider, tracer });
    Ok(())
}

/// What the spans come from: the environment's `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else `rerankd`.
fn resource() -> Resource {
    let named = Resource::builder().build();
    let name = named
        .get(&"service.name".into())
        .map(|name| name.to_string());
    let builder = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    match name {
        Some(name) if !name.starts_with("unknown_service") => builder.build(),
        _ => builder.with_service_name("rerankd").build(),
    }
}

/// Sends the spans that wait; to be called once, at the process's end. Blocks, but not for long.
pub fn flush() {
    if let Some(installed) = INSTALLED.get() {
        let begun = Instant::now();
        let ended = installed.provider.shutdown_with_timeout(LAST_SPANS_WITHIN);
        // Whatever else failed was told when it did.
        if ended.is_err() && begun.elapsed() >= LAST_SPANS_WITHIN {
            tracing::warn!("the collector did not take the last spans in time");
        }
    }
}

/// A request's span, or only the trace that its client names where no spans are sent.
#[derive(Debug)]
pub struct RequestSpan {
    begun: (Instant, SystemTime),
    /// With the request's span, or the client's.
    context: Context,
}

impl RequestSpan {
    /// Begins one, in the trace that the headers name if they do.
    #[must_use]
    pub fn begin(name: String, headers: &HeaderMap) -> Self {
        let begun = (Instant::now(), SystemTime::now());
        let parent = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let context = match INSTALLED.get() {
            None => parent,
            Some(Installed { tracer, .. }) => {
                let span = tracer.span_builder(name).with_kind(SpanKind::Server);
                let span = span.with_start_time(begun.1);
                let span = span.start_with_context(tracer, &parent);
                parent.with_span(span)
            }
        };
        Self { begun, context }
    }

    /// The trace's id, in hexadecimal, if there is one.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        self.known().map(|context| context.trace_id().to_string())
    }

    /// The span's place in its trace, as the header [`TRACE_RESPONSE`] tells it; `None` if no spans are sent.
    #[must_use]
    pub fn response(&self) -> Option<String> {
        let context = self.known().filter(|_| INSTALLED.get().is_some())?;
        let flags = context.trace_flags().to_u8();
        Some(format!(
            "00-{}-{}-{flags:02x}",
            context.trace_id(),
            context.span_id()
        ))
    }

    /// Ends it, with the stages that it had. `error` makes it one that failed.
    pub fn end(self, attributes: Vec<KeyValue>, stages: &[(&'static str, Span)], error: bool) {
        let Some(Installed { tracer, .. }) = INSTALLED.get() else {
            return;
        };
        let span = self.context.span();
        if !span.is_recording() {
            return span.end();
        }
        for &(name, stage) in stages {
            let Some((begin, end)) = stage.bounds else {
                continue;
            };
            let busy = stage.time.as_secs_f64();
            let child = tracer
                .span_builder(name)
                .with_start_time(self.at(begin))
                .with_attributes([KeyValue::new("rerankd.busy_seconds", busy)]);
            let mut child = child.start_with_context(tracer, &self.context);
            child.end_with_timestamp(self.at(end));
        }
        span.set_attributes(attributes);
        if error {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(self.at(Instant::now()));
    }

    fn known(&self) -> Option<SpanContext> {
        let context = self.context.span().span_context().clone();
        context.is_valid().then_some(context)
    }

    /// What the clock would show, had nobody set it since the request began.
    fn at(&self, instant: Instant) -> SystemTime {
        let (begun, clock) = self.begun;
        match instant.checked_duration_since(begun) {
            Some(since) => clock + since,
            None => clock - begun.saturating_duration_since(instant),
        }
    }
}

/// What takes the spans. The exporter's thread belongs to no runtime, so the request is made on the server's.
#[derive(Debug)]
struct Collector {
    client: Client,
    runtime: Handle,
    /// Whether the last export failed, so that the log tells it once.
    is_lost: AtomicBool,
}

type Sent<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Collector {
    fn send_bytes<'life0, 'async_trait>(&'life0 self, request: Request<Bytes>) -> Sent<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let sent = self.runtime.spawn(send(self.client.clone(), request));
            // Cancelled, since the process ends: that says nothing of the collector.
            let sent = sent.await?;
            let failed = match &sent {
                Ok(answer) if answer.status().is_success() => None,
                Ok(answer) => Some(format!("it answers {}", answer.status())),
                Err(error) => Some(reason(&**error)),
            };
            self.tell(failed.as_deref());
            sent
        })
    }
}

impl Collector {
    fn tell(&self, failed: Option<&str>) {
        let result = if failed.is_some() { "failed" } else { "sent" };
        counter!("rerankd_trace_exports_total", "result" => result).increment(1);
        let was_lost = self.is_lost.swap(failed.is_some(), Ordering::Relaxed);
        match failed {
            Some(reason) if !was_lost => {
                tracing::warn!(
                    reason,
                    "the collector takes no spans; they are dropped until it does"
                );
            }
            None if was_lost => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}

async fn send(client: Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let request = request.try_into()?;
    let answer = client.execute(request).await?;
    let mut response = Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        *headers = answer.headers().clone();
    }
    Ok(response.body(answer.bytes().await?)?)
}

/// An error with its causes.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    reason
}
