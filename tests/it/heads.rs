//! Heads of HTTP/1.1: what is too large or not as the RFC has it is refused, and operators can see it.

use std::io::{Read, Write};
use std::time::Instant;

use serde_json::Value;

use crate::support::app::metric;
use crate::support::process::Server;

const BODY: &str = "{\"query\": \"rivers\", \"documents\": [\"sea\"]}";

/// A server that closes no connection for want of time.
fn server() -> Server {
    Server::start(&[
        ("server.head_timeout_ms", "600000"),
        ("server.idle_timeout_ms", "600000"),
    ])
}

/// All that the server answers until it closes the connection.
fn until_closed(server: &Server, sent: &[u8]) -> String {
    let mut stream = server.connect();
    // It may close before it has read everything.
    let _ = stream.write_all(sent);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn get(lines: &str) -> String {
    format!("GET /health HTTP/1.1\r\n{lines}connection: close\r\n\r\n")
}

#[test]
fn a_head_may_have_64_kib_and_100_headers() {
    let server = server();
    let long = |bytes: usize| format!("host: x\r\nx-a: {}\r\n", "a".repeat(bytes));
    let answer = until_closed(&server, get(&long(60_000)).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for sent in [
        get(&long(70_000)),
        // It need not be whole.
        format!(
            "GET /health HTTP/1.1\r\nhost: x\r\nx-a: {}",
            "a".repeat(70_000)
        ),
        format!("GET /{}", "a".repeat(70_000)),
        format!("GET /health HTTP/1.1\r\n{}", "a: a\r\n".repeat(12_000)),
    ] {
        let answer = until_closed(&server, sent.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let headers = |count: usize| format!("host: x\r\n{}", "x-a: a\r\n".repeat(count - 2));
    let answer = until_closed(&server, get(&headers(100)).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = until_closed(&server, get(&headers(101)).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn a_head_that_could_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let server = server();
    let post = |lines: &str, body: &str| {
        let head = format!("POST /v1/rerank HTTP/1.1\r\ncontent-type: application/json\r\n{lines}");
        format!("{head}\r\n{body}{}", get("host: x\r\n"))
    };
    let chunks = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let length = format!("content-length: {}\r\n", BODY.len());
    for (lines, body, names) in [
        (
            "host: x\r\ntransfer-encoding: gzip, chunked\r\n",
            &*chunks,
            "transfer-encoding",
        ),
        (
            "host: x\r\ntransfer-encoding: chunked, chunked\r\n",
            &chunks,
            "transfer-encoding",
        ),
        (
            "host: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            &chunks,
            "transfer-encoding",
        ),
        (
            "host: x\r\ntransfer-encoding: , chunked\r\n",
            &chunks,
            "transfer-encoding",
        ),
        (&*length, BODY, "host"),
        (&format!("host: x\r\nhost: x\r\n{length}"), BODY, "host"),
        (&format!("host: a b/@\r\n{length}"), BODY, "host"),
    ] {
        let answer = until_closed(&server, post(lines, body).as_bytes());
        let (head, problem) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 "), "{lines}: {answer}");
        assert!(head.contains("connection: close"), "{lines}: {answer}");
        // Nothing but that: what follows has no answer.
        let problem: Value = serde_json::from_str(problem).unwrap();
        assert_eq!(problem["code"], "bad_head", "{lines}");
        assert!(
            problem["detail"].as_str().unwrap().contains(names),
            "{problem}"
        );
        let line = server.log("request");
        assert_eq!(
            (&line["status"], &line["error"]),
            (&400.into(), &"bad_head".into())
        );
    }
    for lines in [
        "host: x\r\ntransfer-encoding: \tcHunked\r\n",
        "host: [::1]:80\r\ntransfer-encoding: chunked\r\n",
    ] {
        let answer = until_closed(&server, post(lines, &chunks).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{lines}: {answer}");
    }
    let old = "GET /health HTTP/1.0\r\n\r\n";
    let answer = until_closed(&server, old.as_bytes());
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
}

#[test]
fn a_head_that_can_not_be_read_is_told_without_what_it_holds() {
    let server = server();
    for (lines, reason) in [
        ("host: secret\r\ncontent-length: secret\r\n", "bad_head"),
        ("host: secret\r\nse cret: 1\r\n", "bad_head"),
        (
            &*format!("host: secret\r\n{}", "x-secret: 1\r\n".repeat(101)),
            "head_too_large",
        ),
    ] {
        until_closed(&server, get(lines).as_bytes());
        let line = server.log("a request's head was refused");
        assert_eq!(line["error"], reason);
        assert!(
            line["client"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
        assert!(!line.to_string().contains("cret"), "{line}");
    }
    let metrics = server.get("/metrics").1;
    let count = |reason| {
        let name = format!("rerankd_bad_heads_total{{reason=\"{reason}\"}}");
        metric(&metrics, &name)
    };
    assert_eq!((count("bad_head"), count("head_too_large")), (2.0, 1.0));
    // Who only leaves has sent nothing wrong.
    let mut stream = server.connect();
    stream.write_all(b"GET /health HT").unwrap();
    drop(stream);
    assert_eq!(server.get("/health").0, 200);
    assert_eq!(server.log_count("a request's head was refused"), 0);
}

#[test]
fn a_requests_line_tells_who_asked_and_why_it_was_refused() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        keys.path(),
        "ours k\nslow s requests_per_minute=1\nscraper m metrics\n",
    )
    .unwrap();
    let server = Server::start(&[
        ("auth.keys_file", keys.path().to_str().unwrap()),
        ("limits.body_limit_bytes", "1000"),
    ]);
    let post = |key: &str, body: &str| {
        let mut stream = server.connect();
        let client = stream.local_addr().unwrap();
        let head = format!(
            "POST /v1/rerank HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        let line = server.log("request");
        assert_eq!(line["client"], client.to_string());
        (line["status"].as_u64().unwrap(), line["error"].clone())
    };
    let start = Instant::now();
    assert_eq!(post("k", BODY), (200, Value::Null));
    assert_eq!(post("wrong", BODY), (401, "unauthorized".into()));
    assert_eq!(post("m", BODY), (403, "forbidden".into()));
    assert_eq!(post("k", "{\"query\": 1}"), (422, "invalid_field".into()));
    assert_eq!(post("k", &" ".repeat(1001)), (413, "body_too_large".into()));
    assert_eq!(post("s", BODY).0, 200);
    assert_eq!(post("s", BODY), (429, "rate_limited".into()));
    assert!(
        start.elapsed().as_secs() < 60,
        "the bucket fills in a minute"
    );
}
