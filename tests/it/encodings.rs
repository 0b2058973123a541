//! Bodies that come compressed, and answers that are asked for so.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{Answer, TestApp, send};
use crate::support::different;
use crate::support::process::Server;

const PLAIN: &[u8] =
    br#"{"query": "rivers", "documents": ["bread", "rivers carve valleys", "the sea"]}"#;
/// The same, by the reference implementations.
const BROTLI: &[u8] = b"\x1bM\x00@\x8c\xd4b\xcd\x19\xee\x04\xe2\xb6T\xc7j}\xbar0{\xb1\x88\xc9\xa2\xd3\xe5\x94\x03\x87\x00\xdb\x824\xc9\xda\xbe\x83\x87,D\x157|\xbe\x14C\xecZXv\x8cp\x10%\xcbg\xe6\xbe\xc5z\x04zV\xd1\xb2\x7f";
const ZSTD: &[u8] = b"(\xb5/\xfd N5\x02\x00\x12\xc4\x0e\x16\xa0\xb59\x7fj\xc9\x16\x06\xd6\xc4s\xe6\x12\xa0\xaf*\xc0x\x12U\xac\x06\x01\xc1\xf7\xec\x09\xd5\x9e\xd2\xb1\x9e\xe1\x9d\x16\xa3;\x0e\x0ej\x9c\xea\xb8\xb1\x0e\x82\xdc\xe2\xc4\xb3\x02]\xe3\x86_\x89\x01\x01\x02\x00R\x89/B\xa82";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bare_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn post(app: &TestApp, path: &str, coding: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = app.request(Method::POST, path);
    let request = request.header("content-type", "application/json");
    send(request.header("content-encoding", coding).body(body.into())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_is_answered_as_the_plain_one() {
    let app = TestApp::start("tiny-bert").await;
    let plain: Value = serde_json::from_slice(PLAIN).unwrap();
    for path in ["/v1/rerank", "/rerank", "/voyage/v1/rerank", "/reranking"] {
        let plain = app.post(path, &plain).await.body;
        let results = |body: &Value| body.get("results").or(body.get("data")).cloned();
        assert!(results(&plain).is_some());
        for (coding, body) in [
            ("identity", PLAIN.to_vec()),
            ("gzip", gzip(PLAIN)),
            ("deflate", zlib(PLAIN)),
            ("deflate", bare_deflate(PLAIN)),
            ("br", BROTLI.to_vec()),
            ("zstd", ZSTD.to_vec()),
            ("br, gzip", gzip(BROTLI)),
            ("ZSTD,identity, deflate, gzip", gzip(&zlib(ZSTD))),
        ] {
            let answer = post(&app, path, coding, body).await;
            assert_eq!(answer.status, StatusCode::OK, "{coding}: {}", answer.body);
            assert_eq!(results(&answer.body), results(&plain), "{path} {coding}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_broken_or_of_an_unknown_coding_is_told_in_the_dialects_shape() {
    let app = TestApp::start("tiny-bert").await;
    let whole = gzip(PLAIN);
    for (path, pointer) in [
        ("/v1/rerank", "/detail"),
        ("/rerank", "/error"),
        ("/score", "/error/message"),
        ("/pinecone/rerank", "/error/message"),
        ("/v2/models/tiny-bert/infer", "/error"),
    ] {
        for (coding, body, status) in [
            ("gzip", &whole[..whole.len() - 5], 400),
            ("gzip", PLAIN, 400),
            ("zstd", &whole[..], 400),
            ("br, gzip", &whole[..], 400),
            ("gzip", b"", 400),
            ("lzma", &whole[..], 415),
            ("gzip, gzip, gzip, gzip", &whole[..], 415),
        ] {
            let answer = post(&app, path, coding, body).await;
            assert_eq!(answer.status, status, "{path} {coding}: {}", answer.body);
            let message = answer
                .body
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap();
            if status == 415 {
                assert_eq!(answer.headers["accept-encoding"], "gzip, deflate, br, zstd");
                assert!(message.contains("gzip, deflate, br, zstd"), "{message}");
            } else {
                assert!(
                    message.contains(coding) && message.contains("broken"),
                    "{message}"
                );
            }
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_counts_as_large_as_it_becomes() {
    let app = TestApp::changed(|s| s.limits.body_limit_bytes = 100_000).await;
    let fits = json!({"query": "x", "documents": ["y ".repeat(49_950)]}).to_string();
    let bomb = format!("{{\"query\": \"{}", "x".repeat(20_000_000));
    let twice = gzip(&gzip(bomb.as_bytes()));
    assert!(twice.len() < 10_000);
    // Members without content, which decode to nothing, however many they are.
    let nothing = gzip(&gzip(b"").repeat(100_000));
    assert_eq!(
        post(&app, "/v1/rerank", "gzip", gzip(fits.as_bytes()))
            .await
            .status,
        200
    );
    for (coding, body) in [
        (
            "gzip",
            gzip(format!("{fits}{}", " ".repeat(100)).as_bytes()),
        ),
        ("gzip", gzip(bomb.as_bytes())),
        ("deflate", zlib(bomb.as_bytes())),
        ("gzip, gzip", twice),
        ("gzip, gzip", nothing),
    ] {
        for (path, pointer) in [("/v1/rerank", "/detail"), ("/rerank", "/error")] {
            let answer = post(&app, path, coding, body.clone()).await;
            assert_eq!(
                answer.status,
                StatusCode::PAYLOAD_TOO_LARGE,
                "{}",
                answer.body
            );
            let message = answer
                .body
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap();
            assert!(message.contains("100000 bytes"), "{message}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decoded_bytes_count_for_the_budget() {
    let (app, gate) = TestApp::gated(|s| {
        s.limits.max_body_bytes_in_flight = 4 << 20;
        s.limits.max_queue_ms = 50;
    })
    .await;
    // It takes all that there is for large bodies, as little as it is while compressed.
    let large = json!({"query": "x", "documents": [" ".repeat(3 << 20)]}).to_string();
    let large = gzip(large.as_bytes());
    assert!(large.len() < 3 << 16);
    let ask = || {
        let request = app.request(Method::POST, "/v1/rerank");
        send(
            request
                .header("content-encoding", "gzip")
                .body(large.clone()),
        )
    };
    let first = tokio::spawn(ask());
    tokio::task::block_in_place(|| gate.entered());
    let second = ask().await;
    assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
    let detail = second.body["detail"].as_str().unwrap();
    assert!(detail.contains("bytes of requests"), "{detail}");
    let _batches = gate.open_for_good();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(ask().await.status, StatusCode::OK);
    app.stop().await;
}

#[test]
fn a_connection_goes_on_after_a_compressed_body() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    let body = gzip(PLAIN);
    for _ in 0..3 {
        // In chunks, so that the end of the body is not told by its length.
        let head = "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        for chunk in body.chunks(7) {
            write!(stream, "{:x}\r\n", chunk.len()).unwrap();
            stream.write_all(chunk).unwrap();
            stream.write_all(b"\r\n").unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}}") {
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&bytes[..read]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
    }
}

/// Asks with an `accept-encoding`; returns the coding of the answer, its `vary`, and the bytes.
async fn ask(app: &TestApp, documents: usize, accept: &str) -> (String, bool, Vec<u8>) {
    let body = json!({"query": "rivers", "documents": different("rivers carve valleys", documents), "return_documents": true});
    let request = app.request(Method::POST, "/v1/rerank").json(&body);
    let answer = request
        .header("accept-encoding", accept)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let header = |name: &str| {
        answer
            .headers()
            .get(name)
            .map(|v| v.to_str().unwrap().to_owned())
    };
    let coding = header("content-encoding").unwrap_or_default();
    let varies = header("vary").is_some_and(|v| v.contains("accept-encoding"));
    (coding, varies, answer.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_compressed_for_those_who_ask_for_it() {
    let app = TestApp::start("tiny-bert").await;
    for (accept, expected) in [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.1, deflate;q=0.9", "deflate"),
        ("gzip;q=0, deflate;q=0", ""),
        ("identity", ""),
        ("gzip;q=0.5, identity;q=1.0", ""),
        ("br, zstd", ""),
        ("identity;q=0", ""),
        ("br, *;q=0.0", ""),
        ("identity;q=0, gzip", "gzip"),
        ("br, gzip, deflate, zstd", "gzip"),
    ] {
        let (coding, varies, bytes) = ask(&app, 900, accept).await;
        assert_eq!(coding, expected, "{accept}");
        assert!(varies, "{accept}");
        let mut decoded = Vec::new();
        match expected {
            "gzip" => GzDecoder::new(&*bytes).read_to_end(&mut decoded).unwrap(),
            "deflate" => ZlibDecoder::new(&*bytes).read_to_end(&mut decoded).unwrap(),
            _ => bytes.as_slice().read_to_end(&mut decoded).unwrap(),
        };
        // Larger than the chunks in which answers are sent.
        assert!(decoded.len() > 64 * 1024);
        let answer: Value = serde_json::from_slice(&decoded).unwrap();
        assert_eq!(answer["results"].as_array().unwrap().len(), 900);
    }
    let (coding, _, bytes) = ask(&app, 2, "gzip").await;
    assert_eq!(coding, "", "it is small");
    assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
    let metrics = app
        .request(Method::GET, "/metrics")
        .header("accept-encoding", "gzip");
    let metrics = metrics.send().await.unwrap();
    assert_eq!(metrics.headers()["content-encoding"], "gzip");
    app.stop().await;
}
