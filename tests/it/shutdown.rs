//! SIGTERM loses no request: not ready, a pause, no new connections, the rest is finished.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::metric;
use crate::support::process::Server;

/// A request whose body is half sent.
struct HalfSent {
    stream: TcpStream,
    rest: String,
}

impl HalfSent {
    fn begin(server: &Server) -> Self {
        let body = json!({"query": "rivers", "documents": ["sea", "land"]}).to_string();
        let (half, rest) = body.split_at(body.len() / 2);
        let address = server.base.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "POST /v1/rerank HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{half}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // In flight beside it is only the scrape itself.
        while metric(&get(server, "/metrics").1, "rerankd_requests_in_flight") < 2.0 {}
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

fn get(server: &Server, path: &str) -> (u16, String) {
    let address = server.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[test]
fn requests_in_flight_are_finished_before_the_end() {
    let mut server = Server::start(&[]);
    let request = HalfSent::begin(&server);
    server.signal("TERM");
    let address = server.base.strip_prefix("http://").unwrap().to_owned();
    while TcpStream::connect(&address).is_ok() {}
    let answer = request.finish();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["results"].as_array().unwrap().len(), 2);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn during_the_pause_the_server_is_not_ready_but_answers() {
    let mut server = Server::start(&[("shutdown.pause_ms", "1500")]);
    assert_eq!(get(&server, "/health/ready").0, 200);
    server.signal("TERM");
    server.log("shutting down");
    while get(&server, "/health/ready").0 == 200 {}
    assert_eq!(get(&server, "/health/ready").0, 503);
    assert_eq!(get(&server, "/health/live").0, 200);
    assert_eq!(get(&server, "/info").0, 200);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_request_that_outlasts_the_deadline_does_not_hold_the_server() {
    let mut server = Server::start(&[("shutdown.deadline_ms", "100")]);
    let request = HalfSent::begin(&server);
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(1));
    let log = server.rest_of_log();
    let said = log
        .iter()
        .any(|line| line.to_string().contains("still in flight 100 ms"));
    assert!(said, "{log:?}");
    drop(request);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&[("shutdown.pause_ms", "600000")]);
    server.signal("TERM");
    server.log("shutting down");
    let start = std::time::Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(130));
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "the pause was not cut short"
    );
}
