//! SIGTERM loses no request: not ready, a pause, no new connections, the rest is finished.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::different;
use crate::support::http2::Http2;
use crate::support::models::folder;
use crate::support::process::{Server, rerankd, run};
use crate::support::until;

/// A request whose body is half sent.
struct HalfSent {
    stream: TcpStream,
    rest: String,
}

impl HalfSent {
    fn begin(server: &Server) -> Self {
        let body = json!({"query": "rivers", "documents": ["sea", "land"]}).to_string();
        let (half, rest) = body.split_at(body.len() / 2);
        let address = server.address();
        let mut stream = server.connect();
        let head = format!(
            "POST /v1/rerank HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{half}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // In flight beside it is only the scrape itself.
        server.until_metric("rerankd_requests_in_flight", |n| n >= 2.0);
        Self {
            stream,
            rest: rest.to_owned(),
        }
    }

    /// Sends the rest; returns the whole answer.
    fn finish(mut self) -> String {
        self.stream.write_all(self.rest.as_bytes()).unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn requests_in_flight_are_finished_before_the_end() {
    let mut server = Server::start(&[]);
    let request = HalfSent::begin(&server);
    server.signal("TERM");
    let answer = request.finish();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["results"].as_array().unwrap().len(), 2);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn during_the_pause_the_server_is_not_ready_but_answers() {
    let mut server = Server::start(&[("shutdown.pause_ms", "1500")]);
    assert_eq!(server.get("/health/ready").0, 200);
    server.signal("TERM");
    server.log("shutting down");
    until("not ready", || server.get("/health/ready").0 != 200);
    assert_eq!(server.get("/health/ready").0, 503);
    assert_eq!(server.get("/health/live").0, 200);
    assert_eq!(server.get("/info").0, 200);
    assert_eq!(server.wait().code(), Some(0));
}

/// A request that takes the built-in model some seconds.
fn long_request(server: &Server) -> TcpStream {
    let text = "the river carves a valley through the land ".repeat(20);
    let body = json!({"query": "rivers", "documents": different(&text, 60)}).to_string();
    let mut stream = server.connect();
    let head = format!(
        "POST /voyage/v1/rerank HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        server.address(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    server.until_metric("rerankd_pairs_scored_total", |n| n >= 1.0);
    stream
}

fn read_to_end(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_request_that_outlasts_the_deadline_gets_an_error_in_its_dialects_shape() {
    let settings = [("shutdown.deadline_ms", "100")];
    let mut server = Server::with_model(Path::new("builtin"), &settings);
    let request = long_request(&server);
    server.signal("INT");
    let answer = read_to_end(request);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("\"detail\":\"the server is shutting down\""),
        "{answer}"
    );
    assert_eq!(server.wait().code(), Some(1));
    let log = server.rest_of_log();
    let said = log.iter().any(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == "ERROR" && message.starts_with("1 requests were still in flight 100 ms")
    });
    assert!(said, "{log:?}");
}

#[test]
fn a_server_that_can_not_start_says_so_in_its_log() {
    let start = |args: &[&str]| {
        let output = run(&[&["serve", "--port", "0"], args].concat());
        let log = String::from_utf8(output.stderr).unwrap();
        let lines = log.lines().map(serde_json::from_str);
        let lines: Result<Vec<Value>, _> = lines.collect();
        let lines = lines.unwrap_or_else(|error| panic!("{error}: {log}"));
        let last = lines.last().unwrap();
        assert_eq!(last["level"], "ERROR");
        assert!(last["timestamp"].is_string(), "{last}");
        let message = last["message"].as_str().unwrap().to_owned();
        (output.status.code(), message)
    };
    let (code, message) = start(&["--log-format", "json", "--model", "/no/such"]);
    assert_ne!(code, Some(0));
    assert!(message.contains("/no/such"), "{message}");
    // Also where the log is to hold nothing.
    let (_, quiet) = start(&[
        "--log-format",
        "json",
        "--log-level",
        "off",
        "--model",
        "/no/such",
    ]);
    assert_eq!(quiet, message);
    // As a file, stderr gets JSON unless the settings say otherwise.
    assert_eq!(start(&["--model", "/no/such"]).1, message);
    let (code, message) = start(&["--log-format", "json", "--log-level", "loud"]);
    assert_eq!(code, Some(2));
    assert!(
        message.contains("log.level") || message.contains("--log-level"),
        "{message}"
    );
}

#[test]
fn an_idle_server_stops_at_once() {
    let stop = || {
        let mut server = Server::start(&[]);
        let mut idle = server.connect();
        idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        assert!(idle.read(&mut [0; 1024]).unwrap() > 0);
        let start = Instant::now();
        server.signal("TERM");
        assert_eq!(server.wait().code(), Some(0));
        let elapsed = start.elapsed();
        let log = server.rest_of_log();
        assert!(log.iter().all(|line| line["level"] != "WARN"), "{log:?}");
        elapsed
    };
    // The best of some: other tests run beside it.
    let fastest = (0..5).map(|_| stop()).min().unwrap();
    assert!(fastest < Duration::from_millis(200), "{fastest:?}");
}

/// Connections that have no request that is in: none of them may hold the server.
#[test]
fn clients_that_send_nothing_more_do_not_hold_the_server() {
    let mut server = Server::start(&[]);
    let mut partial_head = server.connect();
    partial_head.write_all(b"GET /health HT").unwrap();
    let silent = server.connect();
    let mut preface = server.connect();
    preface
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    let half_sent = HalfSent::begin(&server);
    let unread = unread_answer(&server);
    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    drop((partial_head, silent, preface, half_sent, unread));
}

#[test]
fn an_answer_that_is_being_read_is_sent_to_its_end() {
    let mut server = Server::start(&[]);
    let mut stream = unread_answer(&server);
    server.signal("TERM");
    server.log("shutting down");
    // A slow reader: 10 MB in about two seconds.
    let (mut answer, mut chunk) = (Vec::new(), vec![0; 50_000]);
    loop {
        let n = stream.read(&mut chunk).unwrap();
        if n == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..n]);
        std::thread::sleep(Duration::from_millis(10));
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );
    assert_eq!(server.wait().code(), Some(0));
}

/// A client that asks for some megabytes and reads none of them.
fn unread_answer(server: &Server) -> TcpStream {
    let documents = different(&"sea ".repeat(2500), 1000);
    let body = json!({"query": "x", "documents": documents, "return_documents": true, "max_tokens_per_doc": 4});
    let body = body.to_string();
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    server.log("request");
    stream
}

#[test]
fn a_half_sent_body_is_told_that_the_server_stops() {
    let mut server = Server::start(&[]);
    let request = HalfSent::begin(&server);
    server.signal("TERM");
    let answer = read_to_end(request.stream);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn during_the_pause_answers_ask_to_connect_anew() {
    let mut server = Server::start(&[("shutdown.pause_ms", "1500")]);
    let mut kept = server.connect();
    let mut ask = || {
        kept.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut answer = [0; 2048];
        let n = kept.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..n]).into_owned()
    };
    assert!(!ask().contains("connection: close"));
    let mut http2 = Http2::connect(&server, 65_535);
    http2.get("/health");
    http2.until_frame(Http2::HEADERS);
    server.signal("TERM");
    server.log("shutting down");
    assert!(ask().contains("connection: close"));
    http2.until_frame(Http2::GOAWAY);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&[("shutdown.pause_ms", "600000")]);
    server.signal("TERM");
    server.log("shutting down");
    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(130));
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "the pause was not cut short"
    );
}

#[test]
fn a_server_that_was_killed_starts_again_on_its_port() {
    let mut server = Server::start(&[]);
    let port = server.address().rsplit(':').next().unwrap().to_owned();
    let _request = HalfSent::begin(&server);
    server.signal("KILL");
    assert_eq!(server.wait().code(), None);
    let mut command = rerankd();
    command
        .args(["serve", "--port", &port, "--log-format", "json", "--model"])
        .arg(folder("tiny-bert"));
    let again = Server::of(command);
    assert!(again.address().ends_with(&port));
    assert_eq!(again.get("/health").0, 200);
}
