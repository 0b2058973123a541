//! `POST /v1/ranking` and `/v1/retrieval/{model}/reranking`: NVIDIA NIM's shape.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn rankings_are_the_native_routes_logits() {
    let app = TestApp::start("tiny-bert").await;
    let texts = ["bread", "rivers carve valleys", "the sea"];
    let native = json!({"query": "rivers", "documents": texts, "raw_scores": true});
    let native = app.post("/v1/rerank", &native).await.body;
    let passages: Vec<_> = texts.iter().map(|t| json!({"text": t})).collect();
    let body = json!({"query": {"text": "rivers"}, "passages": passages, "truncate": "END"});
    for path in ["/v1/ranking", "/v1/retrieval/tiny-bert/reranking"] {
        let answer = app.post(path, &body).await;
        assert_eq!(answer.status, StatusCode::OK);
        let rankings = answer.body["rankings"].as_array().unwrap();
        let results = native["results"].as_array().unwrap();
        assert_eq!((rankings.len(), results.len()), (3, 3));
        for (n, native) in rankings.iter().zip(results) {
            assert_eq!(n["index"], native["index"]);
            assert_eq!(n["logit"], native["relevance_score"]);
        }
        assert_eq!(answer.body["usage"], native["usage"]);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_the_body_that_is_not_the_paths_is_told_as_ignored() {
    let app = TestApp::start("tiny-bert").await;
    let path = "/v1/retrieval/tiny-bert/reranking";
    for (model, ignored) in [("tiny-bert", None), ("other", Some("model"))] {
        let body =
            json!({"model": model, "query": {"text": "rivers"}, "passages": [{"text": "sea"}]});
        let answer = app.post(path, &body).await;
        assert_eq!(answer.status, StatusCode::OK);
        let told = answer.headers.get("x-rerankd-ignored-fields");
        assert_eq!(told.map(|value| value.to_str().unwrap()), ignored);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_a_detail() {
    let app = TestApp::start("tiny-bert").await;
    let long = "river ".repeat(2000);
    let query = json!({"text": "x"});
    for (path, body, status, word) in [
        (
            "/v1/ranking",
            json!({"query": query, "passages": []}),
            422,
            "documents",
        ),
        (
            "/v1/ranking",
            json!({"query": "x", "passages": [query]}),
            422,
            "query",
        ),
        (
            "/v1/ranking",
            json!({"query": query, "passages": [{"text": long}], "truncate": "NONE"}),
            422,
            "tokens",
        ),
        (
            "/v1/retrieval/other/reranking",
            json!({"query": query, "passages": [query]}),
            404,
            "other",
        ),
    ] {
        let answer = app.post(path, &body).await;
        assert_eq!(answer.status, status, "{body}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{detail}");
    }
    app.stop().await;
}
