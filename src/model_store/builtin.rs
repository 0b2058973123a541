//! The model within the binary: `models/builtin`, trained by `training/`.

use std::collections::BTreeMap;

use crate::engine::{Embedded, ModelFile, ModelFiles, Task, Weights};
use crate::types::Dtype;

/// What whoever uses it should know; its model card has the figures.
const NOTE: &str = "the built-in model, small and English; \
    name a stronger one with --model ORG/NAME (from the Hugging Face hub) or --model FOLDER";

macro_rules! embedded {
    ($file:literal) => {
        Embedded {
            name: concat!("builtin/", $file),
            bytes: include_bytes!(concat!("../../models/builtin/", $file)),
        }
    };
}

pub(super) fn files() -> ModelFiles {
    ModelFiles {
        name: super::name("builtin"),
        revision: None,
        note: Some(NOTE),
        // Its weights are stored so.
        dtype: Some(Dtype::Int8),
        config: ModelFile::Embedded(embedded!("config.json")),
        weights: Weights::Embedded(embedded!("model.safetensors")),
        modules: Vec::new(),
        task: Task::Labels,
        cutoff_layer: None,
        compression: None,
        others: BTreeMap::from([
            (
                "tokenizer.json",
                ModelFile::Embedded(embedded!("tokenizer.json")),
            ),
            (
                "tokenizer_config.json",
                ModelFile::Embedded(embedded!("tokenizer_config.json")),
            ),
        ]),
    }
}
