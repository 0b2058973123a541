//! `POST /voyage/v1/rerank`: Voyage AI's shape.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::app::TestApp;

const DOCUMENTS: [&str; 3] = ["bread", "rivers carve valleys", "the sea"];

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_a_list_with_the_native_routes_scores() {
    let app = TestApp::start("tiny-bert").await;
    let body = json!({"query": "rivers", "documents": DOCUMENTS, "top_k": null});
    let answer = app.post("/voyage/v1/rerank", &body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let native = app.post("/v1/rerank", &body).await.body;
    assert_eq!(answer.body["object"], "list");
    assert_eq!(answer.body["model"], native["model"]);
    assert_eq!(
        answer.body["usage"]["total_tokens"],
        native["usage"]["total_tokens"]
    );
    assert_eq!(answer.body["data"], native["results"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_k_limits_and_documents_come_back_as_strings() {
    let app = TestApp::start("tiny-bert").await;
    let body = json!({
        "query": "rivers", "documents": DOCUMENTS, "top_k": 2, "return_documents": true,
    });
    let answer = app.post("/voyage/v1/rerank", &body).await.body;
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), 2);
    for result in data {
        let index = result["index"].as_u64().unwrap() as usize;
        assert_eq!(result["document"], DOCUMENTS[index]);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_truncation_a_long_document_is_refused_whatever_the_servers_setting() {
    let long = "river ".repeat(2000);
    for setting in [
        rerankd::config::TruncationName::LongestFirst,
        rerankd::config::TruncationName::Off,
    ] {
        let app = TestApp::changed(|s| s.model.truncation = setting).await;
        let body = |truncation: Value| json!({"query": "x", "documents": [long], "truncation": truncation});
        for (truncation, status) in [(json!(false), 400), (json!(true), 200), (Value::Null, 200)] {
            let answer = app.post("/voyage/v1/rerank", &body(truncation)).await;
            assert_eq!(answer.status, status, "{:?}", answer.body);
        }
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_a_detail_and_voyages_status() {
    let app = TestApp::start("tiny-bert").await;
    for (body, status, word) in [
        (json!({"query": "", "documents": ["x"]}), 400, "query"),
        (json!({"query": "x", "documents": []}), 400, "documents"),
        (
            json!({"query": "x", "documents": [{"text": "x"}]}),
            400,
            "documents[0]",
        ),
        (
            json!({"query": "x", "documents": ["x"], "top_k": 0}),
            400,
            "top_k",
        ),
        (
            json!({"query": "x", "documents": ["x"], "model": "gpt"}),
            404,
            "gpt",
        ),
    ] {
        let answer = app.post("/voyage/v1/rerank", &body).await;
        assert_eq!(answer.status, status, "{body}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{detail}");
        assert_eq!(answer.body["message"], detail);
    }
    app.stop().await;
}
