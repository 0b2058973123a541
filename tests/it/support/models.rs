//! The tiny models, their golden logits, and altered copies of them.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

/// Names of all tiny models.
pub(crate) const ALL: &[&str] = &[
    "tiny-bert",
    "tiny-legacy",
    "tiny-roberta",
    "tiny-xlmr",
    "tiny-modernbert",
    "tiny-modernbert-cls",
    "tiny-ettin",
    "tiny-ettin-mean",
    "tiny-deberta",
    "tiny-deberta-v2",
    "tiny-distilbert",
    "tiny-electra",
    "tiny-mpnet",
    "tiny-albert",
    "tiny-camembert",
    "tiny-jina-v2",
    "tiny-gte",
    "tiny-jina-v1",
];

/// The folder of a tiny model.
pub(crate) fn folder(name: &str) -> PathBuf {
    root().join("tests/fixtures/models").join(name)
}

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the reference says of one model.
#[derive(Debug, Deserialize)]
pub(crate) struct Golden {
    pub(crate) max_tokens: usize,
    pub(crate) cases: Vec<Case>,
}

/// One query with its documents, each pair's token ids, logit and score.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Case {
    pub(crate) truncation: String,
    pub(crate) query: String,
    pub(crate) documents: Vec<String>,
    pub(crate) ids: Vec<Vec<u32>>,
    pub(crate) logits: Vec<f32>,
    pub(crate) scores: Vec<f32>,
}

/// Reads a model's golden file.
pub(crate) fn golden(name: &str) -> Golden {
    let path = root().join("tests/golden").join(format!("{name}.json"));
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut cases = golden.cases.iter();
    assert!(cases.any(|c| c.truncation == "longest_first" && !c.documents.is_empty()));
    golden
}

/// A copy of a tiny model that a test may alter.
pub(crate) fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in files(name) {
        let to = copy.path().join(&file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(folder(name).join(&file), to).unwrap();
    }
    copy
}

/// The files of a tiny model, those in its folders too, as `1_Pooling/config.json`.
pub(crate) fn files(name: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(within) = folders.pop() {
        for entry in std::fs::read_dir(folder(name).join(&within)).unwrap() {
            let entry = entry.unwrap();
            let path = within.clone() + entry.file_name().to_str().unwrap();
            match entry.path().is_dir() {
                true => folders.push(path + "/"),
                false => files.push(path),
            }
        }
    }
    files
}

/// Changes a JSON file in place.
pub(crate) fn edit_json(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let mut value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}
