//! vLLM's parameters, on the routes that are its too.

use serde_json::{Value, json};

use crate::support::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn vllms_names_for_no_activation_give_logits_and_its_side_is_cut() {
    let app = TestApp::start("tiny-bert").await;
    let long = format!("{} sea", "river ".repeat(200));
    let ask = async |path: &str, more: Value| {
        let mut body = json!({"query": "x", "documents": [long]});
        if path == "/score" {
            body = json!({"text_1": "x", "text_2": [long]});
        }
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let answer = app.post(path, &body).await.body;
        let score = answer.pointer("/results/0/relevance_score");
        let score = score.or(answer.pointer("/data/0/score"));
        score
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("{answer}"))
    };
    for path in ["/score", "/v1/rerank", "/rerank"] {
        let logit = ask("/v1/rerank", json!({"raw_scores": true})).await;
        let score = ask("/v1/rerank", json!({})).await;
        assert!(
            (logit - score).abs() > 1e-3,
            "this test needs them to differ"
        );
        for (more, expected) in [
            (json!({"use_activation": false}), logit),
            (json!({"activation": false, "use_activation": null}), logit),
            (json!({"softmax": false}), logit),
            (json!({"use_activation": true, "softmax": null}), score),
            (json!({"truncation_side": "right"}), score),
        ] {
            let found = ask(path, more.clone()).await;
            assert!(
                (found - expected).abs() < 1e-6,
                "{path} {more}: {found} {expected}"
            );
        }
        let left = ask(path, json!({"truncation_side": "left"})).await;
        assert!((left - score).abs() > 1e-6, "{path}: the sea is read");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_of_the_field_that_was_sent() {
    let app = TestApp::start("tiny-bert").await;
    for (path, body, field) in [
        (
            "/v1/score",
            json!({"text_1": "", "text_2": ["a"]}),
            "text_1",
        ),
        ("/v1/score", json!({"queries": "q", "items": []}), "items"),
        (
            "/v1/rerank",
            json!({"query": "", "documents": ["a"]}),
            "query",
        ),
    ] {
        let answer = app.post(path, &body).await;
        assert_eq!(answer.status.as_u16() / 100, 4, "{}", answer.body);
        let param = answer.body.pointer("/error/param");
        let told = param.or(answer.body.pointer("/errors/0/field"));
        assert_eq!(told, Some(&json!(field)), "{body} {}", answer.body);
    }
    app.stop().await;
}
