//! Who may ask how much, and who goes first: deadlines, classes, and the rights, limits and metrics of API keys.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::app::{Answer, TestApp, metric, send};
use crate::support::different;
use crate::support::gate::Gate;
use crate::support::grpc::{Grpc, framed};
use crate::support::models::folder;
use crate::support::process::{Server, run};

fn request(text: &str, documents: usize) -> Value {
    json!({"query": "rivers", "documents": different(text, documents)})
}

fn keys(lines: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    file
}

async fn keyed(file: &NamedTempFile) -> TestApp {
    TestApp::changed(|s| s.auth.keys_file = file.path().to_owned()).await
}

/// A request of a key's owner.
fn of(app: &TestApp, key: &str, body: &Value) -> RequestBuilder {
    let request = app.request(Method::POST, "/v1/rerank");
    request.bearer_auth(key).json(body)
}

/// Sends a request that the test does not wait for yet.
fn begin(request: RequestBuilder) -> tokio::task::JoinHandle<Answer> {
    tokio::spawn(send(request))
}

async fn until_waiting(app: &TestApp, pairs: usize) {
    app.until_metric("rerankd_queue_pairs", |n| n == pairs as f64)
        .await;
}

/// Lets batches run until a request is answered, and returns how many.
fn batches_until<T>(gate: &Gate, done: &tokio::task::JoinHandle<T>, most: usize) -> usize {
    let mut batches = 0;
    while !done.is_finished() {
        gate.open();
        tokio::task::block_in_place(|| gate.entered());
        batches += 1;
        assert!(batches <= most, "not answered after {batches} batches");
    }
    batches
}

#[tokio::test(flavor = "multi_thread")]
async fn interactive_work_goes_before_batch_work_that_came_first() {
    let (app, gate) = TestApp::gated(|s| s.batch.max_tokens = 256).await;
    let post = |body: &Value| app.request(Method::POST, "/v1/rerank").json(body);
    let mut body = request("a b c d e f", 500);
    body["priority"] = json!(1);
    let by_number = begin(post(&body));
    let first = tokio::task::block_in_place(|| gate.entered()).sequences();
    let by_header = request("g h i j k l", 300);
    let by_header = begin(post(&by_header).header("x-request-priority", "batch"));
    // The header goes before the body.
    let mut body = request("x y", 60);
    body["priority"] = json!("batch");
    let interactive = begin(post(&body).header("x-request-priority", "0"));
    until_waiting(&app, 500 - first + 300 + 60).await;
    let batches = batches_until(&gate, &interactive, 10);
    assert!(batches >= 2, "one batch can't hold it: {batches}");
    assert!(!by_number.is_finished() && !by_header.is_finished());
    assert_eq!(interactive.await.unwrap().status, StatusCode::OK);
    let _batches = gate.open_for_good();
    for request in [by_number, by_header] {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_work_does_not_starve_while_interactive_work_waits() {
    let (app, gate) = TestApp::gated(|s| s.batch.max_tokens = 256).await;
    let post = |body: &Value| app.request(Method::POST, "/v1/rerank").json(body);
    let interactive = begin(post(&request("a b c d e f", 1000)));
    let first = tokio::task::block_in_place(|| gate.entered()).sequences();
    let batch = post(&request("x y", 5)).header("x-request-priority", "batch");
    let batch = begin(batch);
    until_waiting(&app, 1000 - first + 5).await;
    // One in sixteen.
    let batches = batches_until(&gate, &batch, 40);
    assert!(batches > 2, "it has overtaken: {batches}");
    assert!(!interactive.is_finished());
    assert_eq!(batch.await.unwrap().status, StatusCode::OK);
    let _batches = gate.open_for_good();
    assert_eq!(interactive.await.unwrap().status, StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_work_is_refused_first_when_the_queue_is_full() {
    // Of 60 tokens each request of about 20 holds a quarter, and counts as a large one.
    let (app, gate) = TestApp::gated(|s| s.limits.max_queue_tokens = 60).await;
    let post = |text: &str| {
        let request = app.request(Method::POST, "/v1/rerank");
        request.json(&request_of_two(text))
    };
    let batch = |text| post(text).header("x-request-priority", "batch");
    let mut held = vec![begin(post("a"))];
    tokio::task::block_in_place(|| gate.entered());
    held.push(begin(post("b")));
    held.push(begin(batch("c")));
    until_waiting(&app, 4).await;
    // Interactive requests hold half, and large ones of batch work fill half of the rest.
    let refused = send(batch("d")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.body["code"], "overloaded");
    held.push(begin(post("e")));
    until_waiting(&app, 6).await;
    let _batches = gate.open_for_good();
    for request in held {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    app.stop().await;
}

fn request_of_two(text: &str) -> Value {
    request(&format!("rivers carve {text}"), 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_longer_than_its_client_waits_is_refused_at_once() {
    let (app, gate) = TestApp::gated(|_| {}).await;
    let before = metric(&app.metrics().await, "rerankd_requests_rejected_total");
    let large = request("rivers carve valleys", 1000);
    let post = |path: &str, body: &Value| {
        let request = app.request(Method::POST, path).json(body);
        request.header("x-request-timeout-ms", "1")
    };
    let answer = send(post("/v1/rerank", &large)).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.body["code"], "deadline_exceeded");
    let texts = json!({"query": "rivers", "texts": large["documents"]});
    let answer = send(post("/rerank", &texts)).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.body["error_type"], "Overloaded");
    assert!(gate.try_entered().is_none(), "no work was spent on it");
    let refused = metric(&app.metrics().await, "rerankd_requests_rejected_total");
    assert_eq!(refused, before, "more servers would not have helped");
    drop(gate);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_client_waits_no_longer_leaves_the_queue() {
    let (app, gate) = TestApp::gated(|_| {}).await;
    let post = |text: &str| {
        let post = app.request(Method::POST, "/v1/rerank");
        post.json(&request(text, 3))
    };
    let running = begin(post("a"));
    tokio::task::block_in_place(|| gate.entered());
    let late = send(post("b").header("x-request-timeout-ms", "300")).await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    let detail = late.body["detail"].as_str().unwrap();
    assert!(detail.contains("300 ms"), "{detail}");
    // More than the server's own limit changes nothing.
    let next = begin(post("c").header("x-request-timeout-ms", "99999999999999"));
    until_waiting(&app, 3).await;
    let batches = gate.open_for_good();
    assert_eq!(running.await.unwrap().status, StatusCode::OK);
    assert_eq!(next.await.unwrap().status, StatusCode::OK);
    assert_eq!(batches.try_iter().count(), 1, "that of the late one too");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_deadline_or_class_is_refused_in_the_dialects_shape() {
    let app = TestApp::start("tiny-bert").await;
    let one = request("x", 1);
    let score = json!({"text_1": "x", "text_2": "y"});
    for (path, body, status, pointer) in [
        ("/v1/rerank", &one, 422, "/detail"),
        ("/score", &score, 400, "/error/message"),
        ("/voyage/v1/rerank", &one, 400, "/detail"),
        ("/pinecone/rerank", &one, 400, "/error/message"),
    ] {
        for (name, value) in [
            ("x-request-timeout-ms", "0"),
            ("x-request-timeout-ms", "1.5"),
            ("x-request-timeout-ms", "soon"),
            ("x-request-priority", "low"),
        ] {
            let request = app.request(Method::POST, path).json(body);
            let answer = send(request.header(name, value)).await;
            assert_eq!(answer.status, status, "{path}: {name}: {value}");
            let message = answer.body.pointer(pointer).unwrap().as_str().unwrap();
            assert!(message.starts_with(name), "{path}: {message}");
        }
    }
    for (path, mut body, status) in [("/v1/rerank", one, 422), ("/score", score, 400)] {
        for wrong in [json!("low"), json!(1.5), json!([])] {
            body["priority"] = wrong;
            let answer = app.post(path, &body).await;
            assert_eq!(answer.status, status, "{path}: {}", body["priority"]);
            let said = answer.body.to_string();
            assert!(
                said.contains("priority") && said.contains("batch"),
                "{said}"
            );
        }
        for right in [json!(999), json!(-1), json!("interactive"), json!(null)] {
            body["priority"] = right;
            let answer = app.post(path, &body).await;
            assert_eq!(answer.status, 200, "{path}: {}", body["priority"]);
            assert!(!answer.headers.contains_key("x-rerankd-ignored-fields"));
        }
    }
    let tensor =
        |name: &str| json!({"name": name, "datatype": "BYTES", "shape": [1], "data": ["x"]});
    for (priority, status) in [(json!(0), 200), (json!(2), 200), (json!(-1), 400)] {
        let body = json!({
            "inputs": [tensor("query"), tensor("documents")], "parameters": {"priority": priority}
        });
        let answer = app.post("/v2/models/tiny-bert/infer", &body).await;
        assert_eq!(answer.status, status, "{:?}", answer.body);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_the_owners_and_told_in_the_dialects_shape() {
    let file = keys("a one requests_per_minute=2\na two\nb three\n");
    let app = keyed(&file).await;
    let one = request("x", 1);
    for (key, remaining) in [("one", "1"), ("two", "0")] {
        let answer = send(of(&app, key, &one)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["x-ratelimit-limit-requests"], "2");
        assert_eq!(answer.headers["x-ratelimit-remaining-requests"], remaining);
        assert!(!answer.headers.contains_key("x-ratelimit-limit-tokens"));
    }
    for (path, pointer) in [
        ("/v1/rerank", "/detail"),
        ("/rerank", "/error"),
        ("/score", "/error/message"),
        ("/voyage/v1/rerank", "/detail"),
        ("/v1/ranking", "/detail"),
        ("/pinecone/rerank", "/error/message"),
        (
            "/api/v1/services/rerank/text-rerank/text-rerank",
            "/message",
        ),
        ("/v2/models/m/infer", "/error"),
    ] {
        let request = app.request(Method::POST, path).json(&one);
        let answer = send(request.bearer_auth("two")).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{path}");
        let message = answer.body.pointer(pointer).unwrap().as_str().unwrap();
        assert!(message.contains("2 requests a minute"), "{path}: {message}");
        let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        let seconds: u64 = header("retry-after").parse().unwrap();
        assert!((1..=30).contains(&seconds), "{seconds}");
        assert_eq!(header("x-ratelimit-remaining-requests"), "0");
        let reset = header("x-ratelimit-reset-requests");
        assert!(reset.ends_with('s'), "{reset}");
    }
    let grpc = Grpc::connect(&app.base).await;
    let key = [("authorization", "Bearer one")];
    let ended = grpc.send("tei.v1.Rerank/Rerank", &key, framed(&())).await;
    assert_eq!(ended.status, 8, "{}", ended.message);
    assert!(ended.metadata.contains_key("grpc-retry-pushback-ms"));
    // It is nobody else's, and of nothing else.
    let answer = send(of(&app, "three", &one)).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("x-ratelimit-limit-requests"));
    let info = app.request(Method::GET, "/info").bearer_auth("one");
    assert_eq!(send(info).await.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_limited_by_what_was_scored() {
    let file = keys("a one tokens_per_minute=500\n");
    let app = keyed(&file).await;
    // About 9 tokens each; the second leaves a debt.
    for documents in [20, 55] {
        let answer = send(of(&app, "one", &request("a b c d e f", documents))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let answer = send(of(&app, "one", &request("x", 1))).await;
    assert_eq!(answer.headers["x-ratelimit-limit-tokens"], "500");
    assert_eq!(answer.headers["x-ratelimit-remaining-tokens"], "0");
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.body["code"], "rate_limited");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("500 tokens"), "{detail}");
    let metrics = app.metrics().await;
    let refused = r#"rerankd_key_refused_total{key="a",reason="tokens_per_minute"}"#;
    assert!(metrics.contains(refused), "{metrics}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_more_tokens_than_a_minute_has_is_refused_and_costs_none() {
    let file = keys("a one tokens_per_minute=100\n");
    let app = keyed(&file).await;
    let large = request("a b c d e f", 60);
    let answer = send(of(&app, "one", &large)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.body["code"], "too_many_tokens");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("100 scored a minute"), "{detail}");
    assert_eq!(answer.headers["x-ratelimit-remaining-tokens"], "100");
    assert_eq!(send(of(&app, "one", &request("x", 1))).await.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_requests_may_be_in_flight_at_a_time() {
    let file = keys("a one concurrent=1\nb two\n");
    let (app, gate) = TestApp::gated(|s| s.auth.keys_file = file.path().to_owned()).await;
    let one = request("x", 1);
    let running = begin(of(&app, "one", &one));
    tokio::task::block_in_place(|| gate.entered());
    let refused = send(of(&app, "one", &one)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "1");
    let other = begin(of(&app, "two", &one));
    let _batches = gate.open_for_good();
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(other.await.unwrap().status, 200);
    assert_eq!(send(of(&app, "one", &one)).await.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_metrics_reads_them_and_ranks_nothing() {
    let file = keys("probe m metrics\nb r rerank\nc a admin\n");
    let app = TestApp::changed(|s| {
        s.auth.keys_file = file.path().to_owned();
        s.auth.protect_metrics = true;
    })
    .await;
    let one = request("x", 1);
    for (key, may_rank) in [("m", false), ("r", true), ("a", true)] {
        for path in ["/metrics", "/info", "/v1/models", "/v2/models/tiny-bert"] {
            let get = app.request(Method::GET, path).bearer_auth(key);
            assert_eq!(send(get).await.status, 200, "{key}: {path}");
        }
        let status = send(of(&app, key, &one)).await.status;
        assert_eq!(status, if may_rank { 200 } else { 403 }, "{key}");
    }
    assert_eq!(app.get("/metrics").await.status, 401);
    for (path, pointer) in [
        ("/v1/rerank", "/code"),
        ("/rerank", "/error"),
        ("/score", "/error/message"),
        ("/v2/models/tiny-bert/infer", "/error"),
        ("/v2/repository/models/tiny-bert/unload", "/error"),
    ] {
        let post = app.request(Method::POST, path).bearer_auth("m").json(&one);
        let answer = send(post).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert!(answer.body.pointer(pointer).unwrap().is_string(), "{path}");
    }
    let grpc = Grpc::connect(&app.base).await;
    let key = [("authorization", "Bearer m")];
    let ended = grpc.send("tei.v1.Rerank/Rerank", &key, framed(&())).await;
    assert_eq!(ended.status, 7, "permission denied: {}", ended.message);
    app.stop().await;
}

fn status_of(server: &Server, key: &str) -> u16 {
    use std::io::{Read, Write};
    let body = request("x", 1).to_string();
    let mut stream = server.connect();
    let request = format!(
        "POST /v1/rerank HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer[9..12].parse().unwrap()
}

#[test]
fn a_changed_file_keeps_what_was_used_where_the_number_stays() {
    let file = keys("a one requests_per_minute=2\n");
    let server = Server::start(&[("auth.keys_file", file.path().to_str().unwrap())]);
    assert_eq!([(); 3].map(|()| status_of(&server, "one")), [200, 200, 429]);
    let change = |lines: &str| {
        std::fs::write(file.path(), lines).unwrap();
        server.log("API keys read again");
    };
    change("a one requests_per_minute=2 concurrent=3\na other\n");
    assert_eq!(
        [status_of(&server, "one"), status_of(&server, "other")],
        [429; 2]
    );
    change("a one requests_per_minute=3\n");
    assert_eq!(
        [(); 4].map(|()| status_of(&server, "one")),
        [200, 200, 200, 429]
    );
    // What can't be used is told with its line, and changes nothing.
    std::fs::write(file.path(), "a one\nb two requests=5\n").unwrap();
    let kept = server.log("the API keys stay as they were").to_string();
    assert!(
        kept.contains("line 2") && kept.contains("requests_per_minute=N"),
        "{kept}"
    );
    assert_eq!(status_of(&server, "one"), 429);
}

#[test]
fn a_hundred_names_have_metrics_of_their_own() {
    let lines = (0..130).map(|i| format!("name-{i} key-{i}\n"));
    let file = keys(&lines.collect::<String>());
    let server = Server::start(&[("auth.keys_file", file.path().to_str().unwrap())]);
    for i in 0..130 {
        assert_eq!(status_of(&server, &format!("key-{i}")), 200);
    }
    let metrics = server.get("/metrics").1;
    for metric in ["requests", "tokens", "pairs"] {
        let prefix = format!("rerankd_key_{metric}_total{{key=\"");
        let samples = metrics
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix));
        let samples = samples.map(|rest| rest.split_once("\"} ").unwrap());
        let samples: Vec<(&str, u64)> = samples.map(|(k, n)| (k, n.parse().unwrap())).collect();
        let names: BTreeSet<&str> = samples.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), 101, "{metric}");
        let other = samples.iter().find(|(name, _)| *name == "other").unwrap().1;
        let all: u64 = samples.iter().map(|(_, n)| n).sum();
        match metric {
            "tokens" => assert!(other > 60 && all > 260, "{other} of {all}"),
            _ => assert_eq!((other, all), (30, 130)),
        }
    }
}

#[test]
fn the_room_for_bodies_is_told() {
    let model = folder("tiny-bert");
    let check = |bytes: &str| {
        let config = NamedTempFile::new().unwrap();
        let text = format!("[limits]\nmax_body_bytes_in_flight = {bytes}\n");
        std::fs::write(config.path(), text).unwrap();
        let (config, model) = (config.path().to_str().unwrap(), model.to_str().unwrap());
        let output = run(&["--check-config", "--config", config, "--model", model]);
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.starts_with("bodies"));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let set = check("50000000");
    assert!(set.ends_with("50000000 bytes of them at a time"), "{set}");
    let fitted = check("0");
    assert!(fitted.contains("MiB of memory"), "{fitted}");
    let bytes: u64 = fitted.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((8 << 20..=256 << 20).contains(&bytes), "{fitted}");
    let server = Server::start(&[]);
    let line = server.log("limits.max_body_bytes_in_flight goes by the memory");
    assert_eq!(line["bytes"], bytes);
}
