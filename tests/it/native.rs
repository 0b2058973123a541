//! `POST /v1/rerank` and `/v2/rerank`: Cohere's shape.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::app::TestApp;

const DOCUMENTS: [&str; 4] = [
    "A cat sleeps in the sun.",
    "Rivers carve valleys and carry sediment to the sea.",
    "A cat sleeps in the sun.",
    "Bread is made of flour.",
];

fn body(more: &Value) -> Value {
    let mut body = json!({"query": "how do rivers shape the land?", "documents": DOCUMENTS});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_stages_scores_that_nothing_joins_are_told_as_ignored() {
    let app = TestApp::start("tiny-bert").await;
    let scores = json!({"query": "rivers", "documents": ["a", "b"], "first_stage_scores": [1, 2]});
    let mut joined = scores.clone();
    joined["fusion"] = json!({"method": "rrf"});
    let within = |name: &str| {
        let documents = [json!({"text": "a", name: 2}), json!({"text": "b", name: 1})];
        json!({"query": "rivers", "documents": documents})
    };
    for (body, ignored) in [
        (scores, Some("first_stage_scores")),
        (joined, None),
        (within("first_stage_score"), Some("first_stage_score")),
        (within("first_stage_rank"), Some("first_stage_rank")),
    ] {
        let answer = app.post("/v1/rerank", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let told = answer.headers.get("x-rerankd-ignored-fields");
        assert_eq!(told.map(|value| value.to_str().unwrap()), ignored);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_sorted_and_equal_scores_keep_document_order() {
    let app = TestApp::start("tiny-bert").await;
    let answer = app.post("/v1/rerank", &body(&json!({}))).await;
    assert_eq!(answer.status, StatusCode::OK);
    let results = answer.body["results"].as_array().unwrap();
    let scores: Vec<f64> = results
        .iter()
        .map(|r| r["relevance_score"].as_f64().unwrap())
        .collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let place = |index: u64| results.iter().position(|r| r["index"] == index).unwrap();
    assert_eq!(place(2), place(0) + 1, "documents 0 and 2 are the same");
    assert_eq!(results.len(), 4);
    assert_eq!(answer.body["model"], "tiny-bert");
    assert_eq!(
        answer.body["id"],
        answer.headers["x-request-id"].to_str().unwrap()
    );
    assert_eq!(answer.body["meta"]["billed_units"]["search_units"], 1);
    assert!(answer.body["usage"]["total_tokens"].as_u64().unwrap() > 40);
    assert!(results[0].get("document").is_none());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_n_keeps_the_best() {
    let app = TestApp::start("tiny-bert").await;
    let all = app.post("/v1/rerank", &body(&json!({}))).await.body;
    for (top_n, kept) in [
        (json!(1), 1),
        (json!(3), 3),
        (json!(100), 4),
        (Value::Null, 4),
    ] {
        let answer = app
            .post("/v1/rerank", &body(&json!({"top_n": top_n})))
            .await
            .body;
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results[..], all["results"].as_array().unwrap()[..kept]);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_come_back_if_asked_for_with_all_their_fields() {
    let app = TestApp::start("tiny-bert").await;
    let documents = json!(["plain", {"text": "with fields", "id": 7, "lang": ["en"]}]);
    let request = body(&json!({"documents": documents, "return_documents": true}));
    let answer = app.post("/v1/rerank", &request).await.body;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let expected = match result["index"].as_u64().unwrap() {
            0 => json!({"text": "plain"}),
            _ => documents[1].clone(),
        };
        assert_eq!(result["document"], expected);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_send_besides_is_accepted() {
    let app = TestApp::start("tiny-bert").await;
    let plain = app.post("/v1/rerank", &body(&json!({}))).await.body["results"].clone();
    assert_eq!(plain.as_array().unwrap().len(), 4);
    for more in [
        json!({"model": "rerank-v3.5", "max_tokens_per_doc": 4096, "priority": 0}),
        json!({"model": null, "top_n": null, "return_documents": null, "unknown": {"a": [1]}}),
        json!({"model": "tiny-bert", "return_documents": "false", "raw_scores": false}),
        json!({"model": "", "truncate": true}),
    ] {
        let answer = app.post("/v1/rerank", &body(&more)).await;
        assert_eq!(answer.body["results"], plain, "{more}");
    }
    let mut texts = body(&json!({}));
    texts["texts"] = texts["documents"].take();
    assert_eq!(app.post("/v1/rerank", &texts).await.body["results"], plain);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_scores_are_logits_and_scores_their_sigmoid() {
    let app = TestApp::start("tiny-bert").await;
    let scores = app.post("/v1/rerank", &body(&json!({}))).await.body;
    let logits = app
        .post("/v1/rerank", &body(&json!({"raw_scores": "true"})))
        .await
        .body;
    let scores = scores["results"].as_array().unwrap();
    let logits = logits["results"].as_array().unwrap();
    assert_eq!((scores.len(), logits.len()), (4, 4));
    for (score, logit) in scores.iter().zip(logits) {
        assert_eq!(score["index"], logit["index"]);
        let sigmoid = 1.0 / (1.0 + (-logit["relevance_score"].as_f64().unwrap()).exp());
        assert!((sigmoid - score["relevance_score"].as_f64().unwrap()).abs() < 1e-6);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_too_long_is_cut_unless_truncation_is_off() {
    let app = TestApp::start("tiny-bert").await;
    let long = json!({"documents": ["short", "river ".repeat(500)]});
    assert_eq!(
        app.post("/v1/rerank", &body(&long)).await.status,
        StatusCode::OK
    );
    let mut off = body(&long);
    off["truncate"] = false.into();
    let refused = app.post("/v1/rerank", &off).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.body["code"], "input_too_long");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("document 1") && detail.contains("96"),
        "{detail}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_versions_path_answers_the_same() {
    let app = TestApp::start("tiny-bert").await;
    let request = body(&json!({"model": "rerank-v3.5", "top_n": 2, "max_tokens_per_doc": 4096}));
    let first = app.post("/v1/rerank", &request).await.body;
    let second = app.post("/v2/rerank", &request).await;
    assert_eq!(second.status, StatusCode::OK);
    assert_eq!(second.body["results"], first["results"]);
    let refused = app.post("/v2/rerank", &json!({"query": "x"})).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused.body["message"].is_string(),
        "Cohere's clients read the message"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_twice_is_refused_and_both_names_are_told() {
    let app = TestApp::start("tiny-bert").await;
    let texts = json!(["the sea", "a cat"]);
    for (more, words) in [
        (json!({"texts": ["a dog"]}), ["\"documents\"", "\"texts\""]),
        (
            json!({"min_score": 0.1, "score_threshold": 0.2}),
            ["\"min_score\"", "\"score_threshold\""],
        ),
    ] {
        let mut body = json!({"query": "rivers", "documents": texts});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let refused = app.post("/v1/rerank", &body).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(words.iter().all(|word| detail.contains(word)), "{detail}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_strategy_is_told_by_the_key_at_fault() {
    let app = TestApp::start("tiny-bert").await;
    let first = json!([1.0, 0.5]);
    for (more, status, place) in [
        (
            json!({"fusion": {"method": "weighted", "weight": 2}}),
            422,
            "fusion.weight",
        ),
        (
            json!({"fusion": {"method": "rrf", "k": 0}}),
            422,
            "fusion.k",
        ),
        (json!({"fusion": {"method": "none"}}), 422, "fusion.method"),
        (
            json!({"cascade": [{"model": "tiny-bert"}, {"model": "nobody"}]}),
            404,
            "cascade[1].model",
        ),
    ] {
        let mut body = json!({"query": "rivers", "documents": ["the sea", "a cat"], "first_stage_scores": first});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let refused = app.post("/v1/rerank", &body).await;
        assert_eq!(refused.status, status, "{}", refused.body);
        let told = refused.body.to_string();
        assert!(told.contains(&format!("\"{place}\"")), "{told}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fusion_of_null_switches_the_settings_one_off() {
    let fusion = "{ method = \"weighted\", weight = 1.0 }";
    let fusion: toml::Table = format!("fusion = {fusion}").parse().unwrap();
    let folder = crate::support::models::folder("tiny-bert");
    let overrides = vec![
        ("model.id", folder.to_str().unwrap().into()),
        ("server.port", 0.into()),
        ("model.fusion", fusion["fusion"].clone()),
    ];
    let settings = rerankd::config::Settings::load(None, overrides).unwrap();
    let app = TestApp::with_settings(settings).await;
    let body = json!({"query": "rivers", "documents": ["the sea", "a cat"], "first_stage_scores": [0.0, 1.0]});
    let kind = async |body: &Value| {
        let answer = app.post("/v1/rerank", body).await;
        answer.body["meta"]["score_kind"].clone()
    };
    assert_eq!(kind(&body).await, "fused");
    let mut body = body;
    body["fusion"] = Value::Null;
    assert_eq!(kind(&body).await, "probability");
    app.stop().await;
}
