//! The model within the binary: there at once, what its files say, and honest about itself.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::assert_says;
use crate::support::models::root;
use crate::support::process::{Server, run};

/// A few pairs and their logits, written by `training/reference.py` with transformers.
fn reference() -> Value {
    let text = std::fs::read(root().join("tests/golden/builtin.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// How far at most the logits of `rerankd rerank` are from the reference's.
fn distance(flags: &[&str]) -> f64 {
    let mut most: f64 = 0.0;
    for case in reference().as_array().unwrap() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let documents = case["documents"].as_array().unwrap();
        for (i, document) in documents.iter().enumerate() {
            let line = json!({"_id": i.to_string(), "text": document});
            std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
        }
        let query = case["query"].as_str().unwrap();
        let path = file.path().to_str().unwrap();
        let arguments = ["rerank", "-q", query, "-f", path, "--format", "json"];
        // The reference cuts a long document, where the model's default is to read more windows of it.
        let as_reference = ["--activation", "identity", "--max-chunks-per-doc", "1"];
        let output = run(&[&arguments[..], &as_reference, flags].concat());
        assert!(output.status.success(), "{output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["model"], "rerankd-builtin");
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), documents.len());
        for result in results {
            let index = result["index"].as_u64().unwrap() as usize;
            let expected = case["logits"][index].as_f64().unwrap();
            let logit = result["relevance_score"].as_f64().unwrap();
            most = most.max((logit - expected).abs());
        }
    }
    most
}

#[test]
fn without_a_model_the_built_in_one_gives_the_references_logits() {
    let exact = distance(&["--dtype", "f32"]);
    assert!(exact < 1e-4, "{exact}");
    // Its weights are stored in eight bits, and so it runs unless told otherwise.
    let by_default = distance(&[]);
    assert!(by_default > 1e-4 && by_default < 0.5, "{by_default}");
    assert_eq!(by_default, distance(&["--dtype", "int8"]));
}

#[tokio::test]
async fn info_and_metrics_say_what_it_is_and_how_to_name_a_stronger_one() {
    let server = tokio::task::spawn_blocking(|| Server::with_model(Path::new("builtin"), &[]));
    let server = server.await.unwrap();
    let info = reqwest::get(format!("{}/info", server.base)).await.unwrap();
    let info: Value = serde_json::from_str(&info.text().await.unwrap()).unwrap();
    assert_eq!(info["model_id"], "rerankd-builtin");
    assert_eq!(info["max_chunks_per_doc"], 4);
    assert_eq!(info["model_dtype"], "int8");
    let metrics = reqwest::get(format!("{}/metrics", server.base))
        .await
        .unwrap();
    assert_says(&metrics.text().await.unwrap(), &["dtype=\"int8\""]);
    let note = info["note"].as_str().unwrap();
    let words = [
        "built-in model",
        "English",
        "--model ORG/NAME",
        "--model FOLDER",
    ];
    assert_says(note, &words);

    let request = json!({"query": "What is the capital of France?", "documents": [
        "Berlin is the capital and largest city of Germany.",
        "Paris is the capital of France.",
        "Bake the bread for forty minutes.",
    ]});
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/rerank", server.base))
        .json(&request)
        .send()
        .await
        .unwrap();
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let order: Vec<_> = (0..3)
        .map(|i| answer["results"][i]["index"].clone())
        .collect();
    assert_eq!(order, [1, 0, 2], "{answer}");
}

#[test]
fn its_files_are_those_that_training_wrote() {
    let folder = root().join("models/builtin");
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), 4);
    let mut bytes = 0;
    for line in sums.lines() {
        let (expected, name) = line.split_once("  ").unwrap();
        let file = std::fs::read(folder.join(name)).unwrap();
        bytes += file.len();
        let digest = Sha256::digest(&file);
        let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, expected, "{name}");
    }
    assert!(bytes <= 25_000_000, "the built-in model has {bytes} bytes");
}
