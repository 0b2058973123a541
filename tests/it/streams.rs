//! Whoever reads the log or the output may go away, or not read: no request waits or fails for its
//! log line, and no command breaks.

use std::io::{BufRead, BufReader, PipeWriter};
use std::process::{Child, ChildStderr, Command, Stdio};

use reqwest::StatusCode;
use serde_json::json;

use crate::support::app::metric;
use crate::support::models;
use crate::support::process::{end_of, rerankd};

/// A pipe that nobody reads.
fn closed_pipe() -> PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

/// A ready server whose log the test holds in its hand.
struct Server {
    child: Child,
    base: String,
    client: reqwest::Client,
}

impl Server {
    fn start() -> (Self, BufReader<ChildStderr>) {
        let mut child = rerankd()
            .args(["serve", "--port", "0", "--log-format", "json", "--model"])
            .arg(models::folder("tiny-bert"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut base = String::new();
        loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the program ended");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if let Some(address) = line["address"].as_str() {
                base = format!("http://{address}");
            }
            if line["message"] == "ready" {
                break;
            }
        }
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let server = Self {
            child,
            base,
            client,
        };
        (server, log)
    }

    async fn rerank(&self) -> StatusCode {
        let body = json!({"query": "rivers", "documents": ["sea", "land"]});
        let request = self.client.post(format!("{}/v1/rerank", self.base));
        request.json(&body).send().await.unwrap().status()
    }

    async fn dropped_lines(&self) -> f64 {
        let answer = self.client.get(format!("{}/metrics", self.base)).send();
        let text = answer.await.unwrap().text().await.unwrap();
        metric(&text, "rerankd_log_lines_dropped_total")
    }

    /// Asks it to stop, and sees that it does in order.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &id]).status();
        assert!(sent.unwrap().success());
        assert_eq!(end_of(&mut self.child).code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_when_the_logs_reader_has_gone() {
    let (server, log) = Server::start();
    assert_eq!(server.dropped_lines().await, 0.0);
    drop(log);
    for _ in 0..20 {
        assert_eq!(server.rerank().await, 200);
    }
    // The thread that writes may be a line or two behind.
    assert!(server.dropped_lines().await > 10.0);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_when_the_logs_reader_does_not_read() {
    const CLIENTS: usize = 8;
    // More than the pipe and the buffer of lines hold.
    const REQUESTS: usize = 12_000;
    let (server, log) = Server::start();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, url) = (server.client.clone(), format!("{}/nowhere", server.base));
        clients.spawn(async move {
            for _ in 0..REQUESTS / CLIENTS {
                let answer = client.get(&url).send().await.unwrap();
                assert_eq!(answer.status(), 404);
                answer.bytes().await.unwrap();
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    assert!(server.dropped_lines().await > 0.0);
    assert_eq!(server.rerank().await, 200);
    server.stop();
    drop(log);
}

#[test]
fn an_error_that_nobody_reads_is_still_an_error() {
    let mut command = rerankd();
    command.args(["--model", "/no/such/model", "--port", "0"]);
    let status = command.stderr(closed_pipe()).status().unwrap();
    assert_eq!(status.code(), Some(2));
    let mut command = rerankd();
    command.args(["--config", "/no/such/file"]);
    let status = command.stderr(closed_pipe()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_command_ends_quietly_when_its_outputs_reader_has_gone() {
    let model = models::folder("tiny-bert");
    let model = model.to_str().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a river\na sea\n").unwrap();
    let file = file.path().to_str().unwrap();
    let rerank = ["rerank", "--model", model, "-q", "x", "-f", file];
    let bench = ["bench", "--model", model, "--clients", "1", "--rounds", "1"];
    for args in [
        &["openapi"][..],
        &["--print-config"],
        &["--check-config"],
        &["--help"],
        &["--version"],
        &rerank,
        &[&rerank[..], &["--format", "json"]].concat(),
        &bench,
    ] {
        let output = rerankd().args(args).stdout(closed_pipe()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {error}");
        assert!(!error.contains("panic"), "{args:?}: {error}");
    }
}
