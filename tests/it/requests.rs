//! What a request of the native API may ask beyond one model and one query.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::app::TestApp;

const DOCUMENTS: [&str; 4] = [
    "the river runs to the sea",
    "bread is baked of flour",
    "a cat sleeps by the river",
    "the sea is deep",
];

fn body(more: &Value) -> Value {
    let mut body = json!({"query": "river", "documents": DOCUMENTS});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The documents as objects, each with a field of its own.
fn with(field: &str, values: &[Value]) -> Value {
    let documents = DOCUMENTS.iter().zip(values);
    let documents = documents.map(|(text, value)| json!({"text": text, field: value}));
    json!(documents.collect::<Vec<_>>())
}

/// Each document's score, in the documents' order.
fn scores(answer: &Value) -> Vec<f64> {
    let mut scores = vec![0.0; DOCUMENTS.len()];
    for result in answer["results"].as_array().unwrap() {
        let index = result["index"].as_u64().unwrap();
        scores[index as usize] = result["relevance_score"].as_f64().unwrap();
    }
    scores
}

fn order(answer: &Value) -> Vec<u64> {
    let results = answer["results"].as_array().unwrap().iter();
    results.map(|r| r["index"].as_u64().unwrap()).collect()
}

async fn answer(app: &TestApp, more: &Value) -> Value {
    let answer = app.post("/v1/rerank", &body(more)).await;
    assert_eq!(answer.status, StatusCode::OK, "{more}: {:?}", answer.body);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_fields_are_named() {
    let app = TestApp::start("tiny-bert").await;
    let ones = json!([1, 1, 1, 1]);
    let rrf = json!({"method": "rrf"});
    let stage = json!({"model": "tiny-bert"});
    for (more, expected) in [
        (json!({"queries": ["a"]}), "queries: send \"query\" or"),
        (json!({"query": null}), "query: it is missing"),
        (
            json!({"query": null, "queries": []}),
            "queries: there must be 1 to 16",
        ),
        (
            json!({"query": null, "queries": vec!["a"; 17]}),
            "queries: there must be 1 to 16 of them, but there are 17",
        ),
        (
            json!({"query": null, "queries": ["a", ""]}),
            "queries[1]: it is empty",
        ),
        (
            json!({"query": null, "queries": ["a"], "combine": "sum"}),
            "combine: expected \"max\", \"mean\", \"rrf\", found \"sum\"",
        ),
        (json!({"combine": "max"}), "combine: it is for \"queries\""),
        (
            json!({"instruction": 1}),
            "instruction: expected a string, found 1",
        ),
        (
            json!({"instruct": []}),
            "instruct: expected a string, found an array",
        ),
        (
            json!({"min_score": "x"}),
            "min_score: expected a number, found \"x\"",
        ),
        (
            json!({"min_score": 1e300}),
            "min_score: it must be a finite number",
        ),
        (
            json!({"score_threshold": -1e300}),
            "score_threshold: it must be a finite",
        ),
        (
            json!({"fusion": rrf}),
            "fusion: it needs the first stage's scores",
        ),
        (
            json!({"fusion": "rrf"}),
            "fusion: expected an object, found \"rrf\"",
        ),
        (
            json!({"fusion": {"method": "sum"}, "first_stage_scores": ones}),
            "fusion.method: expected \"rrf\" or \"weighted\", found \"sum\"",
        ),
        (
            json!({"fusion": {"method": "rrf", "weight": 2}, "first_stage_scores": ones}),
            "fusion.weight: weight, the first stage's share, must be from 0 to 1, but is 2",
        ),
        (
            json!({"fusion": {"method": "rrf", "k": 0}, "first_stage_scores": ones}),
            "fusion.k: k must be more than 0",
        ),
        (
            json!({"first_stage_scores": [1, 2]}),
            "first_stage_scores: 2 scores for 4 documents",
        ),
        (
            json!({"first_stage_scores": [1, 2, 3, 1e300]}),
            "first_stage_scores[3]: it must be a finite number",
        ),
        (
            json!({"first_stage_scores": [1, 2, 3, "4"]}),
            "first_stage_scores[3]: expected a number, found \"4\"",
        ),
        (
            json!({"first_stage_scores": ones, "documents": with("first_stage_score", &[json!(1), json!(2)])}),
            "first_stage_scores: the documents say",
        ),
        (
            json!({"documents": [{"text": "a", "first_stage_score": 1}, {"text": "b", "first_stage_rank": 1}]}),
            "documents: some have a \"first_stage_score\" and some",
        ),
        (
            json!({"documents": with("first_stage_score", &[json!(1), json!("x")])}),
            "documents[1].first_stage_score: expected a number",
        ),
        (
            json!({"documents": with("first_stage_score", &[json!(1), json!(1e300)])}),
            "documents[1].first_stage_score: it must be a finite number",
        ),
        (
            json!({"documents": with("first_stage_rank", &[json!(1), json!(0)])}),
            "documents[1].first_stage_rank: expected a whole number from 1",
        ),
        (
            json!({"documents": with("first_stage_rank", &[json!(1.5), json!(2)])}),
            "documents[0].first_stage_rank: expected a whole number from 1",
        ),
        (
            json!({"cascade": []}),
            "cascade: there must be 1 to 4 stages",
        ),
        (
            json!({"cascade": vec![stage.clone(); 5]}),
            "cascade: there must be 1 to 4 stages, but there are 5",
        ),
        (
            json!({"cascade": ["m"]}),
            "cascade[0]: expected an object, found \"m\"",
        ),
        (json!({"cascade": [{}]}), "cascade[0].model: it is missing"),
        (
            json!({"cascade": [stage, {"model": "tiny-bert", "depth": 0}]}),
            "cascade[1].depth: it must be at least 1",
        ),
        (
            json!({"max_latency_ms": 0}),
            "max_latency_ms: it must be at least 1",
        ),
        (
            json!({"max_latency_ms": 10}),
            "max_latency_ms: it bounds a cascade",
        ),
    ] {
        for path in ["/v1/rerank", "/v2/rerank"] {
            let answer = app.post(path, &body(&more)).await;
            let detail = answer.body["detail"].as_str().unwrap_or_default();
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{more}");
            assert!(detail.starts_with(expected), "{more}: {detail}");
        }
    }
    let unknown = json!({"cascade": [{"model": "tiny-bert"}, {"model": "other"}]});
    let unknown = app.post("/v1/rerank", &body(&unknown)).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_queries_are_combined() {
    let app = TestApp::start("tiny-bert").await;
    let river = scores(&answer(&app, &json!({})).await);
    let bread = scores(&answer(&app, &json!({"query": "bread"})).await);
    let both = json!({"query": null, "queries": ["river", "bread"]});
    let combined = |combine: &str| {
        let mut both = both.clone();
        both["combine"] = json!(combine);
        both
    };
    let close = |a: f64, b: f64| (a - b).abs() < 1e-5;
    for more in [both.clone(), combined("max")] {
        let max = scores(&answer(&app, &more).await);
        for i in 0..4 {
            assert!(close(max[i], river[i].max(bread[i])), "{more}");
        }
    }
    let fused = answer(&app, &combined("rrf")).await;
    assert_eq!(fused["meta"]["score_kind"], "fused");
    let mean = answer(&app, &combined("mean")).await;
    assert_eq!(order(&mean).len(), 4);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_tells_its_stages_and_which_scored_a_document() {
    let app = TestApp::start("tiny-bert").await;
    let plain = answer(&app, &json!({})).await;
    assert!(plain["results"][0].get("model").is_none());
    assert!(plain["meta"].get("stages").is_none());
    let cascade = json!({"cascade": [{"model": "tiny-bert", "depth": 2}, {"model": "tiny-bert"}], "max_latency_ms": 60_000});
    // The name stands for no model, but is not read.
    for model in [json!(null), json!("not-read")] {
        let mut cascade = cascade.clone();
        cascade["model"] = model;
        let ranked = answer(&app, &cascade).await;
        assert_eq!(order(&ranked), order(&plain));
        assert_eq!(ranked["model"], "tiny-bert");
        assert_eq!(ranked["results"][0]["model"], "tiny-bert");
        assert_eq!(
            ranked["meta"]["stages"],
            json!([
                {"model": "tiny-bert", "documents": 4},
                {"model": "tiny-bert", "documents": 2},
            ])
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_stage_decides_where_it_has_the_whole_share() {
    let app = TestApp::start("tiny-bert").await;
    let best_last = [json!(1), json!(2), json!(3), json!(4)];
    let ranks = [json!(4), json!(3), json!(2), json!(1)];
    let plain = answer(&app, &json!({})).await;
    assert_eq!(plain["meta"]["score_kind"], "probability");
    for evidence in [
        json!({"first_stage_scores": best_last}),
        json!({"documents": with("first_stage_score", &best_last)}),
        json!({"documents": with("first_stage_rank", &ranks)}),
    ] {
        let alone = answer(&app, &evidence).await;
        assert_eq!(order(&alone), order(&plain), "{evidence}");
        for method in ["rrf", "weighted"] {
            let mut fused = evidence.clone();
            fused["fusion"] = json!({"method": method, "weight": 1});
            let fused = answer(&app, &fused).await;
            assert_eq!(order(&fused), [3, 2, 1, 0], "{method} {evidence}");
            assert_eq!(fused["meta"]["score_kind"], "fused");
        }
    }
    // What the first stage did not give comes last.
    let partly =
        json!({"first_stage_scores": [null, 2, null, 4], "fusion": {"method": "rrf", "weight": 1}});
    assert_eq!(order(&answer(&app, &partly).await)[..2], [3, 1]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_below_the_lowest_score_are_left_out() {
    let app = TestApp::start("tiny-bert").await;
    let all = answer(&app, &json!({})).await;
    let second = all["results"][1]["relevance_score"].clone();
    for name in ["min_score", "score_threshold"] {
        let some = answer(&app, &json!({name: second})).await;
        assert_eq!(order(&some), order(&all)[..2], "{name}");
    }
    let none = answer(&app, &json!({"min_score": 2})).await;
    assert_eq!(none["results"], json!([]));
    let logits = answer(&app, &json!({"raw_scores": true, "min_score": -1000})).await;
    assert_eq!(order(&logits), order(&all));
    assert_eq!(logits["meta"]["score_kind"], "logit");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instruction_that_the_model_does_not_take_is_named() {
    let app = TestApp::start("tiny-bert").await;
    let dashscope = "/api/v1/services/rerank/text-rerank/text-rerank";
    let query = json!({"query": "river", "documents": DOCUMENTS});
    for (path, body, expected) in [
        (
            "/v1/rerank",
            body(&json!({"instruction": "find"})),
            "instruction",
        ),
        ("/v1/rerank", body(&json!({"instruct": "find"})), "instruct"),
        (
            "/rerank",
            body(&json!({"instruction": "find"})),
            "instruction",
        ),
        (
            "/v1/reranks",
            body(&json!({"instruct": "find"})),
            "instruct",
        ),
        (dashscope, body(&json!({"instruct": "find"})), "instruct"),
        (
            dashscope,
            json!({"input": query, "parameters": {"instruct": "find"}}),
            "parameters.instruct",
        ),
    ] {
        let answer = app.post(path, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        assert_eq!(answer.headers["x-rerankd-ignored-fields"], expected);
    }
    app.stop().await;
}
