//! The order is that of the model's own scores, however the shown ones round.

use std::io::Write;
use std::path::Path;

use candle_core::{Device, safetensors};
use rerankd::config::{ActivationName, WindowScoreName};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::TestApp;
use crate::support::models::{self, copy};
use crate::support::process::run;

/// tiny-bert with logits so high that a sigmoid makes 1 of all.
fn confident() -> TempDir {
    let model = copy("tiny-bert");
    let path = model.path().join("model.safetensors");
    let mut tensors = safetensors::load(&path, &Device::Cpu).unwrap();
    for (name, scale, shift) in [
        ("classifier.weight", 9.0, 0.0),
        ("classifier.bias", 0.0, 60.0),
    ] {
        let changed = tensors[name].affine(scale, shift).unwrap();
        tensors.insert(name.into(), changed);
    }
    safetensors::save(&tensors, path).unwrap();
    model
}

fn ranking(answer: &Value, score: &str) -> Vec<(u64, f64)> {
    let results = answer["results"].as_array().or(answer.as_array());
    let results = results.unwrap_or_else(|| panic!("{answer}")).iter();
    results
        .map(|r| (r["index"].as_u64().unwrap(), r[score].as_f64().unwrap()))
        .collect()
}

fn order(ranking: &[(u64, f64)]) -> Vec<u64> {
    ranking.iter().map(|r| r.0).collect()
}

fn documents() -> Vec<String> {
    models::golden("tiny-bert").cases.remove(0).documents
}

async fn with(model: &Path, activation: ActivationName, windows: WindowScoreName) -> TestApp {
    let model = model.to_str().unwrap().to_owned();
    TestApp::changed(|s| {
        s.model.id = model;
        s.model.activation = activation;
        s.model.window_score = windows;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_that_round_to_one_keep_the_models_order_everywhere() {
    let model = confident();
    let app = with(model.path(), ActivationName::Auto, WindowScoreName::Best).await;
    let documents = documents();
    let ask = |path: &'static str, key: &'static str, more: Value| {
        let mut body = json!({"query": "how do rivers shape the land?", key: documents});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let app = &app;
        async move { app.post(path, &body).await.body }
    };
    let raw = ask("/v1/rerank", "documents", json!({"raw_scores": true})).await;
    let raw = ranking(&raw, "relevance_score");
    assert!(raw.windows(2).all(|pair| pair[0].1 >= pair[1].1), "{raw:?}");
    let expected = order(&raw);
    assert!(!expected.is_sorted(), "document order must be another");
    let shown = ask("/v1/rerank", "documents", json!({})).await;
    let shown = ranking(&shown, "relevance_score");
    assert!(shown.iter().all(|r| r.1 == 1.0), "{shown:?}");
    assert_eq!(order(&shown), expected);
    let best = ask("/v1/rerank", "documents", json!({"top_n": 2})).await;
    assert_eq!(order(&ranking(&best, "relevance_score")), expected[..2]);
    let tei = ask("/rerank", "texts", json!({})).await;
    assert_eq!(order(&ranking(&tei, "score")), expected);
    app.stop().await;

    let mut file = tempfile::NamedTempFile::new().unwrap();
    // More than one request to the engine; the copies come last, and rank behind their equals.
    for document in std::iter::repeat_n("a cat", 70).chain(documents.iter().map(String::as_str)) {
        writeln!(file, "{}", json!(document)).unwrap();
    }
    let (model, file) = (
        model.path().to_str().unwrap(),
        file.path().to_str().unwrap(),
    );
    let args = [
        "rerank",
        "--model",
        model,
        "-q",
        "how do rivers shape the land?",
        "-f",
        file,
        "--format",
        "json",
    ];
    let output = run(&args);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let raw = run(&[&args[..], &["--raw-scores"]].concat());
    let raw: Value = serde_json::from_slice(&raw.stdout).unwrap();
    let (shown, raw) = (
        ranking(&shown, "relevance_score"),
        ranking(&raw, "relevance_score"),
    );
    assert!(shown.iter().all(|r| r.1 == 1.0));
    assert_eq!(order(&shown), order(&raw));
    assert!(!order(&shown).is_sorted());
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_joined_by_the_models_scores() {
    let model = confident();
    for windows in [WindowScoreName::Best, WindowScoreName::MeanTop3] {
        let mut orders = Vec::new();
        for activation in [ActivationName::Identity, ActivationName::Sigmoid] {
            let app = with(model.path(), activation, windows).await;
            let long = [
                "river sea bread cat",
                "bread and water",
                "the cat",
                "the land changes",
            ];
            let documents: Vec<String> = long.map(|words| format!("{words} ").repeat(60)).into();
            let body = json!({"query": "rivers", "documents": documents, "max_chunks_per_doc": 6});
            let answer = app.post("/v1/rerank", &body).await.body;
            orders.push(order(&ranking(&answer, "relevance_score")));
            app.stop().await;
        }
        assert_eq!(orders[0], orders[1], "{windows:?}");
        assert!(!orders[0].is_sorted());
    }
}
