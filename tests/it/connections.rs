//! Slow, idle, silent and rude clients cost the others nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::app::{TestApp, metric};
use crate::support::different;
use crate::support::http2::Http2;
use crate::support::process::Server;
use crate::support::until;

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A connection with a request of which only so many bytes of the body were sent. The interim answer
/// tells that the server reads it.
fn half_sent(server: &Server, body: &str, sent: usize) -> TcpStream {
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 "));
    stream.write_all(&body.as_bytes()[..sent]).unwrap();
    stream
}

fn small_body() -> String {
    json!({"query": "rivers", "documents": ["sea", "land"]}).to_string()
}

/// Whatever still comes, up to the end or the connection's break.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A break is as good an end as any.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

#[test]
fn health_and_metrics_answer_however_many_connections_are_silent() {
    let server = Server::with_open_files(64, &[]);
    let mut silent = Vec::new();
    for _ in 0..150 {
        silent.push(server.connect());
        if silent.len() % 10 == 0 {
            assert_eq!(server.get("/health").0, 200);
            assert_eq!(server.get("/metrics").0, 200);
        }
    }
    server.log("all connections are taken; idle ones are closed to make room");
    assert_eq!(server.get("/v1/models").0, 200);
    // Said once, not for each connection.
    let more = server.log_count("all connections are taken; idle ones are closed to make room");
    assert_eq!(more, 0);
}

#[test]
fn running_out_of_files_is_said_once_and_survived() {
    let server = Server::start(&[]);
    server.allow_more_files(6);
    let silent: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    for _ in 0..3 {
        assert_eq!(server.get("/health").0, 200);
    }
    let message = "can't accept connections; idle ones are closed to make room";
    server.log(message);
    assert_eq!(server.log_count(message), 0);
    drop(silent);
}

#[test]
fn idle_connections_make_room_for_others_the_oldest_first() {
    let server = Server::start(&[("server.max_connections", "20")]);
    let ask = |stream: &mut TcpStream| {
        let asked = stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
        asked.is_ok() && stream.read(&mut [0; 1024]).is_ok_and(|n| n > 0)
    };
    let mut kept: Vec<TcpStream> = (0..60).map(|_| server.connect()).collect();
    assert!(
        kept.iter_mut().rev().take(10).all(ask),
        "the newest are served"
    );
    assert!(!ask(&mut kept[0]), "the oldest has gone");
}

#[test]
fn connections_beyond_the_limit_are_for_health_and_metrics_if_none_can_be_spared() {
    let server = Server::start(&[("server.max_connections", "2")]);
    let body = small_body();
    let mut busy = [(); 2].map(|()| half_sent(&server, &body, body.len() - 1));
    assert_eq!(server.get("/metrics").0, 200);
    assert_eq!(server.get("/health/ready").0, 200);
    let mut other = server.connect();
    other
        .write_all(post("/v1/rerank", &body).as_bytes())
        .unwrap();
    let answer = String::from_utf8(rest(&mut other)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("connection: close") && answer.contains("\"overloaded\""),
        "{answer}"
    );
    for stream in &mut busy {
        stream
            .write_all(&body.as_bytes()[body.len() - 1..])
            .unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

#[test]
fn a_head_a_body_and_a_next_request_that_do_not_come_are_not_waited_for() {
    let server = Server::start(&[
        ("server.head_timeout_ms", "300"),
        ("server.body_timeout_ms", "300"),
        ("server.idle_timeout_ms", "300"),
    ]);
    // A head that trickles, one byte at a time.
    let mut trickle = server.connect();
    let start = Instant::now();
    for byte in b"GET /health HTTP/1.1\r\nx-slow: ".iter().cycle() {
        std::thread::sleep(Duration::from_millis(5));
        if trickle.write_all(&[*byte]).is_err() {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it is never cut off"
        );
    }
    let mut silent = server.connect();
    assert!(rest(&mut silent).is_empty());
    let mut idle = server.connect();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert!(rest(&mut idle).starts_with(b"HTTP/1.1 200"));
    let mut half = server.connect();
    let request = post("/v1/rerank", &small_body());
    half.write_all(&request.as_bytes()[..request.len() - 5])
        .unwrap();
    assert!(rest(&mut half).starts_with(b"HTTP/1.1 408"));
}

#[test]
fn an_answer_that_is_not_read_is_given_up() {
    let server = Server::start(&[("server.write_timeout_ms", "300")]);
    let documents = different(&"sea ".repeat(2500), 1000);
    let body = json!({"query": "x", "documents": documents, "return_documents": true, "max_tokens_per_doc": 4});
    let mut unread = server.connect();
    unread
        .write_all(post("/v1/rerank", &body.to_string()).as_bytes())
        .unwrap();
    server.log("request");
    std::thread::sleep(Duration::from_secs(1));
    let answer = rest(&mut unread);
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(answer.len() < 9_000_000, "all of it was sent");
}

#[test]
fn an_answer_over_http2_that_is_not_read_is_given_up_too() {
    let server = Server::start(&[("server.write_timeout_ms", "300")]);
    // No byte of the answer may be sent, and nothing shows of that at the socket.
    let mut stalled = Http2::connect(&server, 0);
    stalled.get("/openapi.json");
    stalled.until_frame(Http2::HEADERS);
    stalled.until_closed();
}

#[test]
fn a_client_that_sends_all_of_a_body_too_large_can_read_why_it_was_refused() {
    let server = Server::start(&[]);
    for path in ["/v1/rerank", "/nowhere"] {
        let mut stream = server.connect();
        let length = 40_000_000;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let chunk = vec![b' '; 100_000];
        for _ in 0..length / chunk.len() {
            stream.write_all(&chunk).unwrap();
        }
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert!(
            &answer == b"HTTP/1.1 413" || &answer == b"HTTP/1.1 404",
            "{answer:?}"
        );
    }
}

#[test]
fn a_connection_outlives_a_body_whose_end_came_after_its_early_answer() {
    let server = Server::start(&[("server.head_timeout_ms", "300")]);
    let mut stream = server.connect();
    let request = post("/nowhere", &" ".repeat(100_000));
    let (first, second) = request.as_bytes().split_at(50_000);
    stream.write_all(first).unwrap();
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 404"));
    stream.write_all(second).unwrap();
    // What came after the answer was no head, so the time for one does not count.
    std::thread::sleep(Duration::from_millis(900));
    stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let answers = rest(&mut stream);
    assert!(String::from_utf8_lossy(&answers).contains("HTTP/1.1 200"));
}

#[test]
fn bodies_wait_for_room_and_small_ones_always_have_some() {
    let server = Server::start(&[
        ("limits.max_body_bytes_in_flight", "8000000"),
        ("limits.max_queue_ms", "200"),
    ]);
    // Two half-sent bodies take all the room for large ones.
    let large = format!(
        "{{\"query\": \"x\", \"documents\": [\"{}\"]}}",
        "sea ".repeat(700_000)
    );
    let half = [(); 2].map(|()| half_sent(&server, &large, 1000));
    let large = post("/v1/rerank", &large);
    let ask = |request: &str| {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    assert_eq!(ask(&large), "503");
    assert_eq!(ask(&post("/v1/rerank", &small_body())), "200");
    drop(half);
    server.until_metric("rerankd_requests_in_flight", |n| n <= 1.0);
    // Answers that hold documents count until they are read.
    let document = "sea ".repeat(1_200_000);
    let back = json!({"query": "x", "documents": [document], "return_documents": true});
    let mut unread = server.connect();
    unread
        .write_all(post("/v1/rerank", &back.to_string()).as_bytes())
        .unwrap();
    unread.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(ask(&large), "503");
    drop(unread);
    until("room for a large body", || ask(&large) == "200");
    server.until_metric("rerankd_requests_in_flight", |n| n <= 1.0);
    assert_eq!(ask(&large), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_after_a_pipelined_byte_costs_no_further_compute() {
    let (app, gate) = TestApp::gated(|s| s.batch.max_tokens = 256).await;
    let before = metric(&app.metrics().await, "rerankd_requests_cancelled_total");
    let body = json!({"query": "rivers", "documents": different("a b c d e f", 1000)}).to_string();
    let mut gone = TcpStream::connect(app.base.strip_prefix("http://").unwrap()).unwrap();
    gone.write_all(post("/v1/rerank", &body).as_bytes())
        .unwrap();
    gone.write_all(b"P").unwrap();
    tokio::task::block_in_place(|| gate.entered());
    drop(gone);
    app.until_metric("rerankd_requests_cancelled_total", |n| n > before)
        .await;
    let batches = gate.open_for_good();
    let next = json!({"query": "x", "documents": ["y", "z"]});
    assert_eq!(app.post("/v1/rerank", &next).await.status, StatusCode::OK);
    assert_eq!(batches.try_iter().map(|b| b.sequences()).sum::<usize>(), 2);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_sent_its_last_word_still_gets_its_answer() {
    let (app, gate) = TestApp::gated(|_| {}).await;
    let mut stream = TcpStream::connect(app.base.strip_prefix("http://").unwrap()).unwrap();
    stream
        .write_all(post("/v1/rerank", &small_body()).as_bytes())
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    tokio::task::block_in_place(|| gate.entered());
    // Long enough for the server to look whether the client is still there.
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.open();
    let answer = tokio::task::block_in_place(|| rest(&mut stream));
    let answer = String::from_utf8(answer).unwrap();
    let answer = answer
        .strip_prefix("HTTP/1.1 100 Continue\r\n\r\n")
        .unwrap_or(&answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["results"].as_array().unwrap().len(), 2);
    drop(gate);
    app.stop().await;
}
