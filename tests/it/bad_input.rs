//! Bad input gets a clear 4xx, and nothing else suffers from it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::app::{Answer, TestApp, send};

fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{:?}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let body = &answer.body;
    assert_eq!(body["code"], code);
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], "about:blank");
    assert_eq!(body["detail"], body["message"]);
    assert!(!body["title"].as_str().unwrap().is_empty());
    assert!(!body["detail"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_field_is_named() {
    let app = TestApp::start("tiny-bert").await;
    for (body, code, field) in [
        (json!({"documents": ["x"]}), "invalid_field", "query"),
        (
            json!({"query": 7, "documents": ["x"]}),
            "invalid_field",
            "query",
        ),
        (json!({"query": "x"}), "invalid_field", "documents"),
        (
            json!({"query": "x", "documents": "y"}),
            "invalid_field",
            "documents",
        ),
        (
            json!({"query": "x", "documents": ["a", 3]}),
            "invalid_field",
            "documents[1]",
        ),
        (
            json!({"query": "x", "documents": [{"body": "a"}]}),
            "invalid_field",
            "documents[0]",
        ),
        (
            json!({"query": "x", "documents": ["a"], "top_n": -1}),
            "invalid_field",
            "top_n",
        ),
        (
            json!({"query": "x", "documents": ["a"], "raw_scores": "maybe"}),
            "invalid_field",
            "raw_scores",
        ),
        (
            json!({"query": "x", "documents": ["a"], "raw_scores": true, "activation": true}),
            "invalid_field",
            "activation",
        ),
        (
            json!({"query": "x", "documents": ["a"], "use_activation": true, "softmax": false}),
            "invalid_field",
            "softmax",
        ),
        (
            json!({"query": "x", "documents": ["a"], "min_score": "much"}),
            "invalid_field",
            "min_score",
        ),
        (
            json!({"query": "", "documents": ["x"]}),
            "empty_query",
            "query",
        ),
        (
            json!({"query": "x", "documents": []}),
            "no_documents",
            "documents",
        ),
        (json!([1]), "invalid_field", "body"),
    ] {
        let answer = app.post("/v1/rerank", &body).await;
        assert_problem(&answer, 422, code);
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert_eq!(answer.body["request_id"], id);
        assert_eq!(answer.body["errors"][0]["field"], field, "{body}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_json_is_refused() {
    let app = TestApp::start("tiny-bert").await;
    let post = || app.request(Method::POST, "/v1/rerank");
    let typed = |text: &str| {
        post()
            .header("content-type", "application/json")
            .body(text.to_owned())
    };
    for broken in ["", "{", "{\"query\": \"x\",}", "nonsense", "{} {}"] {
        assert_problem(&send(typed(broken)).await, 400, "invalid_json");
    }
    assert_problem(
        &send(typed("{\"query\": \"\u{1}\"}")).await,
        400,
        "invalid_json",
    );
    let whole = json!({"query": "x", "documents": ["x"]}).to_string();
    let answer = send(typed(&format!("{whole}{whole}"))).await;
    assert_problem(&answer, 400, "invalid_json");
    let form = post()
        .header("content-type", "text/plain")
        .body(whole.clone());
    assert_problem(&send(form).await, 415, "unsupported_media_type");
    let charset = post()
        .header("content-type", "application/json; charset=utf-8")
        .body(whole);
    assert_eq!(send(charset).await.status, StatusCode::OK);
    let latin1 = post()
        .header("content-type", "application/json")
        .body(vec![b'"', 0xff, b'"']);
    assert!(send(latin1).await.status.is_client_error());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_models_routes_and_methods_are_told() {
    let app = TestApp::start("tiny-bert").await;
    let body = json!({"query": "x", "documents": ["x"], "model": "no-such-model"});
    let answer = app.post("/v1/rerank", &body).await;
    assert_problem(&answer, 404, "model_not_found");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("no-such-model") && detail.contains("tiny-bert"),
        "{detail}"
    );
    assert_problem(&app.get("/no/such/route").await, 404, "not_found");
    assert_problem(&app.get("/v1/rerank").await, 405, "method_not_allowed");
    assert_problem(
        &app.post("/health", &json!({})).await,
        405,
        "method_not_allowed",
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_are_scored_like_any_other() {
    let app = TestApp::start("tiny-xlmr").await;
    let documents = [
        String::new(),
        "\u{0}\u{1}\u{7f}\u{fffd}".into(),
        "z".repeat(100_000),
        "\u{301}".repeat(5000),
        "👩‍👩‍👧".repeat(300),
        "</s><s><mask>".repeat(50),
    ];
    let answer = app
        .post(
            "/v1/rerank",
            &json!({"query": "\u{0}", "documents": documents}),
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results.len(), documents.len());
    assert!(
        results.iter().all(|r| r["relevance_score"].is_f64()),
        "no NaN, no null"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_harms_no_other_of_its_batch() {
    let app = TestApp::start("tiny-bert").await;
    let good = json!({"query": "rivers", "documents": ["sea", "land", "river"]});
    let expected = app.post("/v1/rerank", &good).await.body["results"].clone();
    assert_eq!(expected.as_array().unwrap().len(), 3);
    let bad: Value = json!({"query": "x", "documents": ["y ".repeat(900)], "truncate": false});
    for _ in 0..8 {
        let (bad, good) = tokio::join!(app.post("/v1/rerank", &bad), app.post("/v1/rerank", &good));
        assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(good.body["results"], expected);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_no_object_anywhere_and_a_long_name_is_cut() {
    let app = TestApp::start("tiny-bert").await;
    let sdk = "/api/v1/services/rerank/text-rerank/text-rerank";
    let tensor = json!(["query", [1], "BYTES", ["a"]]);
    for (path, body) in [
        (sdk, json!({"input": ["a", ["b"]]})),
        (sdk, json!({"input": []})),
        (
            "/pinecone/rerank",
            json!({"query": "a", "documents": ["b"], "parameters": ["END"]}),
        ),
        (
            "/v1/ranking",
            json!({"query": ["a"], "passages": [{"text": "b"}]}),
        ),
        (
            "/v1/ranking",
            json!({"query": {"text": "a"}, "passages": [["b"]]}),
        ),
        ("/vertex", json!({"instances": [["a", ["b"]]]})),
        ("/v2/models/tiny-bert/infer", json!({"inputs": [tensor]})),
    ] {
        let answer = app.post(path, &body).await;
        assert!(answer.status.is_client_error(), "{path} {body}");
        let told = answer.body.to_string();
        assert!(
            told.contains("expected an object, found an array"),
            "{told}"
        );
    }
    let body = json!({"query": "x", "documents": ["x"], "model": "y".repeat(100_000)});
    let answer = app.post("/v1/rerank", &body).await;
    assert_problem(&answer, 404, "model_not_found");
    assert!(answer.body.to_string().len() < 1000);
    app.stop().await;
}
