//! Listwise models: scores of whole lists are the reference's, and nothing makes a list another one.

use serde_json::{Value, json};

use crate::support::app::TestApp;
use crate::support::models;

const MODEL: &str = "tiny-jina-v3";

fn golden() -> Vec<Value> {
    let path = models::root().join(format!("tests/golden/{MODEL}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    golden["cases"].as_array().unwrap().clone()
}

async fn scores(app: &TestApp, body: &Value) -> Vec<f64> {
    let answer = app.post("/v1/rerank", body).await;
    let results = answer.body["results"].as_array();
    let results = results.unwrap_or_else(|| panic!("{}", answer.body));
    let mut scores = vec![f64::NAN; results.len()];
    for result in results {
        let index = result["index"].as_u64().unwrap() as usize;
        scores[index] = result["relevance_score"].as_f64().unwrap();
    }
    scores
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_the_references_scores() {
    let app = TestApp::start(MODEL).await;
    let mut compared = 0;
    for case in golden() {
        // The reference reads the name of a special token in a text as the token.
        if case.to_string().contains("<|im_") {
            continue;
        }
        let mut body = json!({"query": case["query"], "documents": case["documents"]});
        if case["instruction"].is_string() {
            body["instruction"] = case["instruction"].clone();
        }
        // A list that was scored before is scored anew; equal documents are read as often as they are there.
        for _ in 0..2 {
            let found = scores(&app, &body).await;
            // Where the published limits make other blocks than the small ones of the tests, that is told.
            let published = match &case["published"] {
                Value::Null => &case["logits"],
                published => &published["logits"],
            };
            let expected: Vec<f64> = serde_json::from_value(published.clone()).unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{body}: {found}, {expected}"
                );
            }
        }
        compared += 1;
    }
    assert!(compared >= 10, "{compared}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_a_list_of_one_and_explanations_are_refused() {
    let app = TestApp::start(MODEL).await;
    let alone = json!({"query": "a river", "documents": ["The river is long."]});
    let expected = scores(&app, &alone).await;
    let pairs =
        json!({"queries": ["a river", "tea"], "documents": ["The river is long.", "Tea is hot."]});
    let answer = app
        .post(
            "/predict",
            &json!({"inputs": [["a river", "The river is long."], ["tea", "Tea is hot."]]}),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let several = app.post("/v1/rerank", &pairs).await;
    assert_eq!(several.status, 200, "{}", several.body);
    let mut explained = alone.clone();
    explained["explain"] = true.into();
    let refused = app.post("/v1/rerank", &explained).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.body["code"], "cannot_explain");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("\"{MODEL}\"")), "{detail}");
    let info = app.get("/info").await;
    assert_eq!(info.body["kind"], "listwise");
    assert_eq!(info.body["score_kind"], "similarity");
    assert_eq!(info.body["prompt"], "jina-reranker-v3");
    assert_eq!(info.body["takes_instruction"], true);
    assert_eq!(info.body["default_instruction"], Value::Null);
    assert!((-1.0..=1.0).contains(&expected[0]));
    app.stop().await;
}
