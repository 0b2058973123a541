//! The second port, for health and metrics.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::support::process::Server;
use crate::support::tls::{free_port, get_plain};
use crate::support::until;

fn start(port: u16, settings: &[(&str, &str)]) -> Server {
    let port = port.to_string();
    let mut all = vec![("server.health_port", port.as_str())];
    all.extend(settings);
    Server::start(&all)
}

fn post(address: &str) -> (u16, String) {
    let body = json!({"query": "rivers", "documents": ["sea"]}).to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/rerank HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

/// A request of which the body does not come: its connection can't be spared.
fn held(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    let head = "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        expect: 100-continue\r\ncontent-length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    stream
}

#[test]
fn it_answers_health_and_metrics_and_the_main_port_has_no_metrics_then() {
    let port = free_port();
    let server = start(port, &[]);
    for path in [
        "/health",
        "/health/live",
        "/health/ready",
        "/ping",
        "/v2/health/ready",
        "/",
    ] {
        assert_eq!(get_plain(port, path).0, 200, "{path}");
        assert_eq!(server.get(path).0, 200, "{path}");
    }
    let (status, metrics) = get_plain(port, "/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("rerankd_model_ready"));
    let (status, answer) = server.get("/metrics");
    assert_eq!(status, 404);
    assert!(
        answer.contains(&format!("port {port} (server.health_port)")),
        "{answer}"
    );
    assert_eq!(post(server.address()).0, 200);
    let (status, answer) = post(&format!("127.0.0.1:{port}"));
    assert_eq!(status, 404);
    assert!(answer.contains("server.port"), "{answer}");
    let (status, answer) = get_plain(port, "/v1/rerank");
    assert_eq!(status, 404);
    assert!(!answer.contains("\nallow:"), "{answer}");
    for path in ["/info", "/docs/", "/page/app.js", "/v1/models"] {
        assert_eq!(get_plain(port, path).0, 404, "{path}");
        assert_eq!(server.get(path).0, 200, "{path}");
    }
}

#[test]
fn it_is_reachable_while_the_main_port_is_full_and_has_a_limit_of_its_own() {
    let port = free_port();
    let server = start(port, &[("server.max_connections", "1")]);
    let _held = held(&server);
    assert_eq!(post(server.address()).0, 503, "the main port is full");
    // All that is kept for health there is taken too.
    let mut silent: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for stream in &mut silent {
        stream.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    }
    for _ in 0..20 {
        assert_eq!(get_plain(port, "/health/ready").0, 200);
        assert_eq!(get_plain(port, "/metrics").0, 200);
    }
    let _idle: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    assert_eq!(get_plain(port, "/health/ready").0, 200);
    let (_, metrics) = get_plain(port, "/metrics");
    let fds = crate::support::app::metric(&metrics, "process_open_fds");
    assert!(fds < 150.0, "{fds} files for 400 connections");
}

#[test]
fn it_answers_until_the_process_ends() {
    let port = free_port();
    let mut server = start(port, &[("shutdown.pause_ms", "300")]);
    let mut held = held(&server);
    server.signal("TERM");
    server.log("shutting down");
    // In the pause, and while the last requests are finished.
    assert_eq!(get_plain(port, "/health/ready").0, 503);
    let address = server.address().to_owned();
    until("the main port is closed", || {
        TcpStream::connect(&address).is_err()
    });
    assert_eq!(get_plain(port, "/health/ready").0, 503);
    assert_eq!(get_plain(port, "/health/live").0, 200);
    assert_eq!(get_plain(port, "/metrics").0, 200);
    let mut answer = String::new();
    held.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(server.wait().code(), Some(0));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = crate::support::process::rerankd();
    command.args(["serve", "--port", "0"]);
    let output = command.env("RERANKD__SERVER__HEALTH_PORT", &port).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("server.health_port") && told.contains(&port),
        "{told}"
    );
}
