//! Whoever asks and whoever runs the server can tell that documents were too long to be read whole.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::app::{Answer, TestApp};
use crate::support::process::{Server, run};

const HEADER: &str = "x-rerankd-truncated-documents";

fn truncated(answer: &Answer) -> Option<u64> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let value = answer.headers.get(HEADER)?;
    Some(value.to_str().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialects_answer_tells_of_documents_that_were_not_read_whole() {
    let app = TestApp::start("tiny-bert").await;
    let long = "river ".repeat(300);
    let three =
        |document: fn(&str) -> Value| json!([document(&long), document("short"), document(&long)]);
    let plain = three(|text| json!(text));
    let object = three(|text| json!({"text": text}));
    let pair = three(|text| json!(["rivers", text]));
    let tensor = |name: &str, data: &Value| json!({"name": name, "datatype": "BYTES", "shape": [data.as_array().unwrap().len()], "data": data});
    let texts = json!({"query": "rivers", "texts": plain});
    for (path, body, expected) in [
        (
            "/v1/rerank",
            json!({"query": "rivers", "documents": plain}),
            2,
        ),
        (
            "/v2/rerank",
            json!({"query": "rivers", "documents": plain, "top_n": 1}),
            2,
        ),
        ("/rerank", json!({"query": "rivers", "documents": plain}), 2),
        (
            "/rerank",
            json!({"query": "rivers", "documents": plain, "property": ""}),
            2,
        ),
        (
            "/rerank",
            json!({"query": "rivers", "documents": plain, "raw_scores": true}),
            2,
        ),
        ("/rerank", texts.clone(), 2),
        ("/vertex", json!({"instances": [texts, texts]}), 4),
        ("/predict", json!({"inputs": pair}), 2),
        ("/score", json!({"text_1": "rivers", "text_2": plain}), 2),
        (
            "/v1/reranking",
            json!({"query": "rivers", "input": plain}),
            2,
        ),
        (
            "/voyage/v1/rerank",
            json!({"query": "rivers", "documents": plain}),
            2,
        ),
        (
            "/pinecone/rerank",
            json!({"query": "rivers", "documents": object}),
            2,
        ),
        (
            "/v1/ranking",
            json!({"query": {"text": "rivers"}, "passages": object}),
            2,
        ),
        (
            "/v2/models/tiny-bert/infer",
            json!({"inputs": [tensor("query", &json!(["rivers"])), tensor("documents", &plain)]}),
            2,
        ),
    ] {
        let answer = app.post(path, &body).await;
        assert_eq!(truncated(&answer), Some(expected), "{path}");
        let told = answer.body.pointer("/meta/truncated_documents");
        if answer.body.pointer("/meta").is_some() {
            assert_eq!(told, Some(&json!(expected)), "{path}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_whose_windows_reach_its_end_was_read_whole() {
    let app = TestApp::start("tiny-bert").await;
    let document = "river ".repeat(200);
    for (more, expected) in [
        (json!({"max_chunks_per_doc": 10}), None),
        (json!({"max_chunks_per_doc": 2}), Some(1)),
        (json!({"max_chunks_per_doc": 1}), Some(1)),
        (
            json!({"max_chunks_per_doc": 10, "max_tokens_per_doc": 20}),
            Some(1),
        ),
    ] {
        let mut body = more.clone();
        body["query"] = "rivers".into();
        body["documents"] = json!([document, "sea"]);
        let answer = app.post("/v1/rerank", &body).await;
        assert_eq!(truncated(&answer), expected, "{more}");
        let told = answer.body["meta"].get("truncated_documents");
        assert_eq!(told, expected.map(|n| json!(n)).as_ref(), "{more}");
        let results = answer.body["results"].as_array().unwrap();
        for result in results {
            let told = (result["index"] == 0).then(|| expected.map(|_| json!(true)));
            assert_eq!(result.get("truncated"), told.flatten().as_ref(), "{more}");
        }
    }
    app.stop().await;
}

#[test]
fn the_log_info_and_health_tell_of_it() {
    let server = Server::start(&[]);
    let health = || String::from_utf8(run(&["health", "--url", &server.base]).stdout).unwrap();
    assert!(!health().contains("too long"), "{}", health());
    let body = json!({"query": "rivers", "documents": ["river ".repeat(300), "sea"]}).to_string();
    let mut stream = server.connect();
    std::io::Write::write_all(
        &mut stream,
        format!(
            "POST /v1/rerank HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )
    .unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(
        answer.contains("\r\nx-rerankd-truncated-documents: 1\r\n"),
        "{answer}"
    );
    assert_eq!(server.log("request")["truncated"], 1);
    let (_, info) = server.get("/info");
    let info: Value = serde_json::from_str(info.split_once("\r\n\r\n").unwrap().1).unwrap();
    for (key, value) in [
        ("truncated_documents", json!(1)),
        ("max_input_length", json!(96)),
        ("truncation", json!("longest_first")),
        ("max_chunks_per_doc", json!(1)),
        ("overlap_tokens", json!(32)),
        ("window_score", json!("best")),
    ] {
        assert_eq!(info[key], value, "{key}");
    }
    assert!(
        health().contains("\n1 documents were too long"),
        "{}",
        health()
    );
}
