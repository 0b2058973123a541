//! Every limit refuses with a clear error, whole requests at a time.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::app::{TestApp, metric};

fn request(documents: usize) -> Value {
    json!({"query": "rivers", "documents": vec!["rivers carve valleys"; documents]})
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_documents_are_refused() {
    let app = TestApp::changed(|s| s.limits.max_documents = 3).await;
    assert_eq!(
        app.post("/v1/rerank", &request(3)).await.status,
        StatusCode::OK
    );
    let answer = app.post("/v1/rerank", &request(4)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.body["code"], "too_many_documents");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains('4') && detail.contains('3'), "{detail}");
    let tei = json!({"query": "x", "texts": vec!["y"; 4]});
    let answer = app.post("/rerank", &tei).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.body["error_type"], "Validation");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_documents_fit_by_default() {
    let app = TestApp::start("tiny-bert").await;
    let answer = app.post("/v1/rerank", &request(1000)).await;
    assert_eq!(answer.body["results"].as_array().unwrap().len(), 1000);
    assert_eq!(app.post("/v1/rerank", &request(1001)).await.status, 422);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_too_large_is_refused_whether_or_not_it_tells_its_length() {
    let app = TestApp::changed(|s| s.limits.body_limit_bytes = 1000).await;
    assert_eq!(
        app.post("/v1/rerank", &request(5)).await.status,
        StatusCode::OK
    );
    let answer = app.post("/v1/rerank", &request(100)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.body["code"], "body_too_large");
    let answer = post_chunked(&app, &request(100).to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    app.stop().await;
}

/// Sends a body without a content-length; returns the answer's first bytes.
async fn post_chunked(app: &TestApp, body: &str) -> String {
    let address = app.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/rerank HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 64];
    let n = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..n]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_request_is_refused_whole_while_others_wait() {
    let (app, gate) = TestApp::gated(|s| s.limits.max_queue_tokens = 500).await;
    let before = metric(&app.metrics().await, "rerankd_requests_rejected_total");
    let small = request(2);
    let first = tokio::spawn(app.request(Method::POST, "/v1/rerank").json(&small).send());
    tokio::task::block_in_place(|| gate.entered());
    // 900 tokens do not fit beside what is there; in either dialect's way of saying so.
    let refused = app.post("/v1/rerank", &request(90)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.body["code"], "overloaded");
    assert_eq!(refused.headers["retry-after"], "1");
    let tei = json!({"query": "rivers", "texts": vec!["rivers carve valleys"; 90]});
    let refused = app.post("/rerank", &tei).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.body["error_type"], "Overloaded");
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(gate.try_entered().is_none(), "nothing of it was queued");
    let _batches = gate.open_for_good();
    // What fits is still taken.
    assert_eq!(app.post("/v1/rerank", &small).await.status, StatusCode::OK);
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
    let after = metric(&app.metrics().await, "rerankd_requests_rejected_total");
    assert!(after >= before + 2.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_past_its_time_is_answered_with_504() {
    let (app, gate) = TestApp::gated(|s| s.limits.request_timeout_ms = 50).await;
    let answer = app.post("/v1/rerank", &request(2)).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.body["code"], "deadline_exceeded");
    assert!(answer.body["detail"].as_str().unwrap().contains("50 ms"));
    let tei = app
        .post("/rerank", &json!({"query": "x", "texts": ["y"]}))
        .await;
    assert_eq!(tei.status, StatusCode::GATEWAY_TIMEOUT);
    let batches = gate.open_for_good();
    // The first request's batch was in the engine already; the second one's was never run.
    app.stop().await;
    assert_eq!(batches.iter().map(|b| b.pairs()).collect::<Vec<_>>(), [2]);
}
