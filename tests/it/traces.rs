//! Traces: spans reach an OTLP collector, continue the client's trace, and hold no text.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::PATIENCE;
use crate::support::process::{Server, rerankd};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// An export that a collector got: its headers and its body.
type Export = (HeaderMap, Bytes);

/// A collector that answers with a status; returns its URL and what it gets.
async fn collector(status: StatusCode) -> (String, Receiver<Export>) {
    let (send, exports) = channel();
    let take = async move |headers: HeaderMap, body: Bytes| {
        let _ = send.send((headers, body));
        status
    };
    let router = Router::new().route("/v1/traces", post(take));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, exports)
}

/// The spans of exports by name, with the name of the service that sent them.
fn spans(exports: &Receiver<Export>) -> (String, BTreeMap<String, Span>) {
    let (mut service, mut spans) = (String::new(), BTreeMap::new());
    for (headers, body) in exports.try_iter() {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let export = ExportTraceServiceRequest::decode(body).unwrap();
        for of_resource in export.resource_spans {
            let resource = of_resource.resource.unwrap();
            let named = resource.attributes.iter().find(|a| a.key == "service.name");
            if let Some(Attribute::StringValue(name)) = named
                .and_then(|named| named.value.clone())
                .and_then(|value| value.value)
            {
                service = name;
            }
            let of_scopes = of_resource.scope_spans.into_iter();
            for span in of_scopes.flat_map(|scope| scope.spans) {
                spans.insert(span.name.clone(), span);
            }
        }
    }
    (service, spans)
}

fn attributes(span: &Span) -> BTreeMap<String, Value> {
    let attributes = span.attributes.iter().map(|attribute| {
        let value = attribute.value.clone().unwrap().value.unwrap();
        let value = match value {
            Attribute::StringValue(text) => json!(text),
            Attribute::IntValue(number) => json!(number),
            Attribute::DoubleValue(number) => json!(number),
            other => panic!("{other:?}"),
        };
        (attribute.key.clone(), value)
    });
    attributes.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asks for a ranking of two documents within a trace; returns the answer's headers.
async fn rerank(server: &Server, documents: &[&str]) -> (u16, HeaderMap) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .post(format!("{}/v1/rerank", server.base))
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .json(&json!({"query": "secret rivers", "documents": documents, "top_n": 1}));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.headers().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_of_its_clients_trace_with_its_stages() {
    let (url, exports) = collector(StatusCode::OK).await;
    let mut server = Server::start(&[("traces.endpoint", &url)]);
    let (status, headers) = rerank(&server, &["secret sea", "secret land"]).await;
    assert_eq!(status, 200);
    assert_eq!(server.get("/health").0, 200);
    let line = server.log("request");
    assert_eq!(line["trace_id"], TRACE);
    // Spans that wait are sent at the end.
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let bodies = |text: &[u8]| String::from_utf8_lossy(text).contains("secret");
    let all: Vec<Export> = exports.try_iter().collect();
    assert!(all.iter().all(|(_, body)| !bodies(body)), "no text is told");
    let (send, again) = channel();
    all.into_iter()
        .for_each(|export| send.send(export).unwrap());
    let (service, spans) = spans(&again);
    assert_eq!(service, "rerankd");
    let names: Vec<&str> = spans.keys().map(String::as_str).collect();
    let stages = ["admission", "inference", "queue", "tokenize"];
    assert_eq!(names, [&["POST /v1/rerank"], &stages[..]].concat());

    let request = &spans["POST /v1/rerank"];
    assert_eq!(hex(&request.trace_id), TRACE);
    assert_eq!(hex(&request.parent_span_id), PARENT);
    let of = format!("00-{TRACE}-{}-01", hex(&request.span_id));
    assert_eq!(headers["traceresponse"], of.as_str());
    let told = attributes(request);
    assert_eq!(told["http.request.method"], "POST");
    assert_eq!(told["http.route"], "/v1/rerank");
    assert_eq!(told["client.address"], "127.0.0.1");
    assert_eq!(told["http.response.status_code"], 200);
    assert_eq!(told["openinference.span.kind"], "RERANKER");
    assert_eq!(told["reranker.model_name"], "tiny-bert");
    assert_eq!(told["reranker.top_k"], 1);
    assert_eq!(told["rerankd.documents"], 2);
    assert_eq!(
        told["rerankd.request_id"],
        headers["x-request-id"].to_str().unwrap()
    );
    for stage in stages {
        let stage = &spans[stage];
        assert_eq!(stage.parent_span_id, request.span_id);
        assert_eq!(stage.trace_id, request.trace_id);
        assert!(stage.start_time_unix_nano >= request.start_time_unix_nano);
        assert!(stage.end_time_unix_nano <= request.end_time_unix_nano);
        assert!(stage.start_time_unix_nano <= stage.end_time_unix_nano);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_of_opentelemetry_is_enough_and_failures_are_spans_too() {
    let (url, exports) = collector(StatusCode::OK).await;
    let mut command = rerankd();
    command
        .args(["serve", "--port", "0", "--log-format", "json", "--model"])
        .arg(crate::support::models::folder("tiny-bert"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
        .env("OTEL_SERVICE_NAME", "ranking")
        // Any other SDK may say so; this server speaks HTTP only.
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let mut server = Server::of(command);
    let (status, _) = rerank(&server, &[]).await;
    assert_eq!(status, 422);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let (service, spans) = spans(&exports);
    assert_eq!(service, "ranking");
    let told = attributes(&spans["POST /v1/rerank"]);
    assert_eq!(told["http.response.status_code"], 422);
    assert_eq!(told["error.type"], "422");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_decide_and_others_are_traced_as_often_as_the_settings_say() {
    let (url, exports) = collector(StatusCode::OK).await;
    let settings = [("traces.endpoint", &*url), ("traces.sample_percent", "0")];
    let mut server = Server::start(&settings);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = client.post(format!("{}/v1/rerank", server.base));
    let post = post.json(&json!({"query": "x", "documents": ["y"]}));
    assert_eq!(post.send().await.unwrap().status(), 200);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(spans(&exports).1.len(), 0);

    let mut server = Server::start(&settings);
    assert_eq!(rerank(&server, &["sea"]).await.0, 200);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(spans(&exports).1.len(), 5, "its client asks for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_fails_or_is_away_disturbs_nothing() {
    let (url, exports) = collector(StatusCode::SERVICE_UNAVAILABLE).await;
    // One that takes the connection and never answers, and a port that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for (url, lines) in [(&url, 1), (&closed, 1), (&silent, 0)] {
        let mut server = Server::start(&[("traces.endpoint", url)]);
        assert_eq!(rerank(&server, &["sea"]).await.0, 200);
        server.signal("TERM");
        assert_eq!(server.wait().code(), Some(0));
        let log = server.rest_of_log();
        let told = log.iter().filter(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("collector takes no spans")
        });
        assert_eq!(told.count(), lines, "{url}: {log:?}");
        let is_late =
            |line: &Value| line["message"] == "the collector did not take the last spans in time";
        assert_eq!(log.iter().any(is_late), lines == 0, "{url}: {log:?}");
    }
    assert!(exports.recv_timeout(PATIENCE).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_the_log_still_names_the_clients_trace() {
    let server = Server::start(&[]);
    let (status, headers) = rerank(&server, &["sea"]).await;
    assert_eq!(status, 200);
    assert!(!headers.contains_key("traceresponse"));
    assert_eq!(server.log("request")["trace_id"], TRACE);
}
