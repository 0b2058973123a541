//! `POST /rerank`: text-embeddings-inference's shape.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::app::{TestApp, send};

const TEXTS: [&str; 3] = ["bread", "rivers carve valleys", "the sea"];

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_a_bare_array_best_first() {
    let app = TestApp::start("tiny-bert").await;
    let body = json!({"query": "rivers", "texts": TEXTS});
    let answer = app.post("/rerank", &body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let ranks = answer.body.as_array().unwrap();
    assert_eq!(ranks.len(), 3);
    assert!(ranks.is_sorted_by(|a, b| a["score"].as_f64() >= b["score"].as_f64()));
    assert!(
        ranks.iter().all(|r| r.as_object().unwrap().len() == 2),
        "{ranks:?}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dialects_give_the_same_scores() {
    let app = TestApp::start("tiny-bert").await;
    for raw in [false, true] {
        let body = json!({"query": "rivers", "texts": TEXTS, "raw_scores": raw});
        let tei = app.post("/rerank", &body).await.body;
        let native = app.post("/v1/rerank", &body).await.body;
        let tei = tei.as_array().unwrap();
        let native = native["results"].as_array().unwrap();
        assert_eq!((tei.len(), native.len()), (3, 3));
        for (t, n) in tei.iter().zip(native) {
            assert_eq!(
                (&t["index"], &t["score"]),
                (&n["index"], &n["relevance_score"])
            );
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_come_back_if_asked_for() {
    let app = TestApp::start("tiny-bert").await;
    let body = json!({"query": "rivers", "texts": TEXTS, "return_text": true, "top_n": 2});
    let answer = app.post("/rerank", &body).await.body;
    let ranks = answer.as_array().unwrap();
    assert_eq!(ranks.len(), 2);
    for rank in ranks {
        assert_eq!(
            rank["text"],
            TEXTS[rank["index"].as_u64().unwrap() as usize]
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_direction_of_truncation_is_the_requests() {
    let app = TestApp::start("tiny-bert").await;
    let text = format!("{} sea", "river ".repeat(200));
    let score = async |direction: &str| {
        let body = json!({"query": "rivers", "texts": [text], "truncation_direction": direction});
        app.post("/rerank", &body).await.body[0]["score"]
            .as_f64()
            .unwrap()
    };
    let whole = json!({"query": "rivers", "texts": ["river ".repeat(200)]});
    let whole = app.post("/rerank", &whole).await.body[0]["score"]
        .as_f64()
        .unwrap();
    assert_eq!(
        score("Right").await,
        whole,
        "the end is cut, so the sea is not seen"
    );
    assert_ne!(score("left").await, whole);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_teis_shape_and_status() {
    let app = TestApp::start("tiny-bert").await;
    for (body, status, error_type) in [
        (json!({"query": "", "texts": ["x"]}), 400, "Empty"),
        (json!({"query": "x", "texts": []}), 400, "Empty"),
        (json!({"query": "x"}), 422, "Validation"),
        (json!({"query": 1, "texts": ["x"]}), 422, "Validation"),
        (
            json!({"query": "x", "texts": ["x"], "top_n": 0}),
            422,
            "Validation",
        ),
        (
            json!({"query": "x", "texts": ["y ".repeat(900)], "truncate": false}),
            422,
            "Validation",
        ),
        (
            json!({"query": "x", "texts": ["x"], "model": "other"}),
            404,
            "Validation",
        ),
    ] {
        let answer = app.post("/rerank", &body).await;
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.body["error_type"], error_type, "{body}");
        assert!(answer.body["error"].as_str().unwrap().len() > 5);
    }
    let broken = app
        .request(Method::POST, "/rerank")
        .header("content-type", "application/json");
    let answer = send(broken.body("{\"query\": ")).await;
    assert_eq!(
        (answer.status, &answer.body["error_type"]),
        (StatusCode::BAD_REQUEST, &"Validation".into())
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn predict_finds_the_model_that_is_named() {
    let app = TestApp::start("tiny-bert").await;
    let mut body = json!({"inputs": [["rivers", "the sea"]], "model": "tiny-bert"});
    assert_eq!(app.post("/predict", &body).await.status, StatusCode::OK);
    body["model"] = "nobody".into();
    let refused = app.post("/predict", &body).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "{}", refused.body);
    app.stop().await;
}
