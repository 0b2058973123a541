//! Classifiers with several labels: documents are ranked by the score of the one that the settings name.

use rerankd::config::{ActivationName, Settings};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::app::{self, TestApp};
use crate::support::models::{folder, root};
use crate::support::process::run;
use crate::support::{assert_says, last_error};

const TOLERANCE: f64 = 1e-4;

/// The golden logits of a classifier with several labels.
#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    truncation: String,
    query: String,
    documents: Vec<String>,
    /// `[documents][labels]`.
    logits: Vec<Vec<f64>>,
}

fn cases(model: &str) -> Vec<Case> {
    let path = root().join("tests/golden").join(format!("{model}.json"));
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut cases = golden.cases;
    cases.retain(|case| case.truncation == "longest_first");
    assert!(cases.iter().any(|case| case.documents.len() > 1));
    cases
}

fn settings(model: &str, label: &str) -> Settings {
    let mut settings = app::settings(&folder(model));
    settings.model.score_label = label.into();
    settings
}

fn softmax(logits: &[f64], label: usize) -> f64 {
    let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
    logits[label].exp() / sum
}

/// The scores of a case's documents, in their order.
async fn scores(app: &TestApp, case: &Case, model: Option<&str>) -> Vec<f64> {
    let body = json!({"model": model, "query": case.query, "documents": case.documents});
    let answer = app.post("/v1/rerank", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let results = answer.body["results"].as_array().unwrap();
    let score = |result: &Value| result["relevance_score"].as_f64().unwrap();
    assert!(
        results
            .windows(2)
            .all(|two| score(&two[0]) >= score(&two[1]))
    );
    let mut scores = vec![f64::NAN; case.documents.len()];
    for result in results {
        scores[usize::try_from(result["index"].as_u64().unwrap()).unwrap()] = score(result);
    }
    scores
}

fn assert_close(found: &[f64], expected: impl Iterator<Item = f64>, what: &str) {
    let expected: Vec<f64> = expected.collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (f, e) in found.iter().zip(&expected) {
        assert!(
            (f - e).abs() < TOLERANCE,
            "{what}: {found:?}, not {expected:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_score_is_the_references_softmax_of_the_label() {
    for (model, asked, label) in [
        ("tiny-nli", "entailment", 1),
        ("tiny-nli", "Contradiction", 0),
        ("tiny-nli", "2", 2),
        ("tiny-two-label", "LABEL_1", 1),
    ] {
        let app = TestApp::with_settings(settings(model, asked)).await;
        for case in cases(model) {
            let found = scores(&app, &case, None).await;
            let expected = case.logits.iter().map(|logits| softmax(logits, label));
            assert_close(&found, expected, model);
        }
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sigmoid_a_score_is_the_labels_log_odds() {
    let mut settings = settings("tiny-nli", "entailment");
    settings.model.activation = ActivationName::Identity;
    let app = TestApp::with_settings(settings).await;
    for case in cases("tiny-nli") {
        let found = scores(&app, &case, None).await;
        let odds = case.logits.iter().map(|logits| {
            let p = softmax(logits, 1);
            (p / (1.0 - p)).ln()
        });
        assert_close(&found, odds, "tiny-nli");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_told_of() {
    let app = TestApp::with_settings(settings("tiny-nli", "1")).await;
    let info = app.get("/info").await.body;
    assert_eq!(
        info["model_type"]["reranker"]["id2label"],
        json!({"0": "contradiction", "1": "entailment", "2": "neutral"})
    );
    let models = app.get("/v1/models").await.body;
    for told in [&info, &models["data"][0]] {
        assert_eq!(told["family"], "bert");
        assert_eq!(told["pooling"], "cls");
        assert_eq!(told["head"], "linear + tanh, linear");
        assert_eq!(told["score_label"], "entailment");
        assert_eq!(told["activation"], "sigmoid");
        assert_eq!(told["score_kind"], "probability");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_models_has_its_own_label() {
    let nli = folder("tiny-nli");
    let file = tempfile::NamedTempFile::new().unwrap();
    let section = |name: &str, more: &str| {
        format!(
            "[[models]]\nname = \"{name}\"\nid = \"{}\"\n{more}\n",
            nli.display()
        )
    };
    let text = [
        section("entails", "score_label = \"entailment\""),
        section("contradicts", "score_label = \"contradiction\""),
        section("unsaid", "required = false"),
    ];
    std::fs::write(file.path(), text.concat()).unwrap();
    let settings = Settings::load(Some(file.path()), vec![("server.port", 0.into())]).unwrap();
    let app = TestApp::with_settings(settings).await;
    let case = &cases("tiny-nli")[0];
    for (model, label) in [("entails", 1), ("contradicts", 0)] {
        let found = scores(&app, case, Some(model)).await;
        let expected = case.logits.iter().map(|logits| softmax(logits, label));
        assert_close(&found, expected, model);
    }
    let body = json!({"model": "unsaid", "query": "a", "documents": ["b"]});
    let mut answer = app.post("/v1/rerank", &body).await;
    while answer.body["code"] == "not_ready" {
        answer = app.post("/v1/rerank", &body).await;
    }
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body["code"], "model_failed", "{}", answer.body);
    app.stop().await;
}

#[test]
fn without_a_label_that_it_has_a_classifier_is_refused() {
    let path = |model: &str| folder(model).display().to_string();
    let (nli, bert) = (path("tiny-nli"), path("tiny-bert"));
    for (model, asked, says) in [
        (
            &nli,
            None,
            "the classifier has 3 labels (contradiction, entailment, neutral); say which one's score to rank by \
             with --score-label entailment (model.score_label)",
        ),
        (
            &nli,
            Some("entails"),
            "labels are contradiction, entailment, neutral",
        ),
        (&nli, Some("3"), "model.score_label is \"3\""),
        (&bert, Some("relevant"), "one label is LABEL_0"),
    ] {
        for command in [&["--check-config"][..], &["serve", "--port", "0"]] {
            let asked = asked.map(|asked| ["--score-label", asked]);
            let model = ["--model", model];
            let args = [
                command,
                &model[..],
                asked.as_ref().map_or(&[], |asked| &asked[..]),
            ];
            let output = run(&args.concat());
            assert!(!output.status.success());
            assert_says(&last_error(&output.stderr), &[says, "config.json"]);
        }
    }
    let right = [
        "--check-config",
        "--model",
        &bert,
        "--score-label",
        "label_0",
    ];
    assert!(run(&right).status.success());
}
