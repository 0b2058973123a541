//! Every limit refuses with a clear error, whole requests at a time.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::app::{TestApp, metric};
use crate::support::different;

fn request(documents: usize) -> Value {
    json!({"query": "rivers", "documents": different("rivers carve valleys", documents)})
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
async fn what_does_not_fit_the_queue_is_refused_whole() {
    // Of 60 tokens each request of about 20 holds a quarter, and large ones leave a quarter for small ones.
    let (app, gate) = TestApp::gated(|s| s.limits.max_queue_tokens = 60).await;
    let before = metric(&app.metrics().await, "rerankd_requests_rejected_total");
    let send = || {
        tokio::spawn(
            app.request(Method::POST, "/v1/rerank")
                .json(&request(2))
                .send(),
        )
    };
    let mut held = vec![send()];
    tokio::task::block_in_place(|| gate.entered());
    held.extend((0..2).map(|_| send()));
    let waiting = async || metric(&app.metrics().await, "rerankd_queue_pairs");
    app.until_metric("rerankd_queue_pairs", |n| n == 4.0).await;
    // In either dialect's way of saying so.
    let refused = app.post("/v1/rerank", &request(2)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.body["code"], "overloaded");
    assert_eq!(refused.headers["retry-after"], "1");
    let tei = json!({"query": "rivers", "texts": different("rivers carve valleys", 90)});
    let refused = app.post("/rerank", &tei).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.body["error_type"], "Overloaded");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(waiting().await, 4.0, "nothing of them was queued");
    let _batches = gate.open_for_good();
    for request in held {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(
        app.post("/v1/rerank", &request(2)).await.status,
        StatusCode::OK
    );
    let after = metric(&app.metrics().await, "rerankd_requests_rejected_total");
    assert_eq!(after, before + 2.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_leaves_room_for_small_ones_beside_it() {
    let (app, gate) = TestApp::gated(|s| s.limits.max_queue_tokens = 1000).await;
    let large = app.request(Method::POST, "/v1/rerank").json(&request(1000));
    let large = tokio::spawn(large.send());
    tokio::task::block_in_place(|| gate.entered());
    let small = app.request(Method::POST, "/v1/rerank").json(&request(5));
    let small = tokio::spawn(small.send());
    let mut batches = 0;
    while !small.is_finished() {
        gate.open();
        tokio::task::block_in_place(|| gate.entered());
        batches += 1;
        assert!(batches < 50, "it waits for the large one");
    }
    assert_eq!(small.await.unwrap().unwrap().status(), StatusCode::OK);
    assert!(!large.is_finished());
    let _batches = gate.open_for_good();
    let large: Value = large.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(large["results"].as_array().unwrap().len(), 1000);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_answered_in_time_is_refused_at_once() {
    let (app, gate) = TestApp::gated(|s| s.limits.request_timeout_ms = 1).await;
    let answer = app.post("/v1/rerank", &request(1000)).await;
    assert_eq!(
        answer.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{:?}",
        answer.body
    );
    assert_eq!(answer.body["code"], "too_many_tokens");
    assert!(gate.try_entered().is_none());
    drop(gate);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_requests_were_like_hardly_changes_an_estimate() {
    let app = TestApp::changed(|s| {
        s.limits.request_timeout_ms = 100;
        s.limits.max_documents = 20_000;
    })
    .await;
    let large = json!({"query": "rivers", "documents": different(&"rivers carve valleys ".repeat(20), 20_000)});
    let estimate = async || {
        let answer = app.post("/v1/rerank", &large).await;
        assert_eq!(answer.body["code"], "too_many_tokens", "{:?}", answer.body);
        let detail = answer.body["detail"].as_str().unwrap();
        let tokens = detail.split("about ").nth(1).unwrap();
        tokens.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let before = estimate().await;
    // A client's probe, and texts in no language.
    for _ in 0..50 {
        let probe = json!({"query": "q", "documents": ["d"]});
        app.post("/v1/rerank", &probe).await;
        let letters = json!({"query": "q", "documents": ["a".repeat(50_000)]});
        app.post("/v1/rerank", &letters).await;
    }
    let after = estimate().await;
    assert!((after / before - 1.0).abs() < 0.1, "{before} {after}");
    // Texts as theirs do.
    let alike =
        json!({"query": "rivers", "documents": different(&"rivers carve valleys ".repeat(5), 20)});
    for _ in 0..40 {
        app.post("/v1/rerank", &alike).await;
    }
    assert_ne!(estimate().await, after);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_counts_for_what_is_read_of_it() {
    let (app, gate) = TestApp::gated(|s| s.limits.max_queue_tokens = 200).await;
    let cut = |documents: usize| json!({"query": "x", "documents": different(&"rivers ".repeat(1000), documents), "max_tokens_per_doc": 8});
    let send = |documents| {
        tokio::spawn(
            app.request(Method::POST, "/v1/rerank")
                .json(&cut(documents))
                .send(),
        )
    };
    let mut held = vec![send(1)];
    tokio::task::block_in_place(|| gate.entered());
    held.extend((0..12).map(|_| send(1)));
    app.until_metric("rerankd_queue_pairs", |n| n == 12.0).await;
    let _batches = gate.open_for_good();
    for request in held {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    }
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
    assert_eq!(
        batches.iter().map(|b| b.sequences()).collect::<Vec<_>>(),
        [2]
    );
}
