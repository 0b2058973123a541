//! What a run's rows follow from, so that one that broke off goes on with nothing else.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::ScoreArgs;
use crate::app::Loaded;
use crate::config::Settings;
use crate::data_file::Digest;
use crate::engine::{ModelFile, ModelFiles, Weights};
use crate::tables::Input;
use crate::types::Dtype;

impl ScoreArgs {
    /// All that decides the rows of the output.
    pub(super) fn described(
        &self,
        settings: &Settings,
        loaded: &Loaded,
        input: &Input,
    ) -> Result<Map<String, Value>> {
        let (columns, info) = (&input.head.columns, &loaded.info);
        let about = std::fs::metadata(&self.input).ok();
        let bytes = about.filter(std::fs::Metadata::is_file);
        let bytes = bytes.map(|about| about.len());
        let content = match bytes {
            Some(_) => {
                Some(of_file(&self.input).with_context(|| self.input.display().to_string())?)
            }
            None => input.first_lines.clone(),
        };
        // What is rounded is rounded otherwise on another kind of CPU; an int8 model's attention may be in bf16.
        let rounded = match info.dtype {
            Dtype::F32 | Dtype::F16 => Vec::new(),
            dtype => [dtype, Dtype::Bf16]
                .map(|dtype| loaded.device.arithmetic(dtype))
                .into(),
        };
        let model = of_model(&loaded.files).context("the model's files can't be read again")?;
        let described = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "input": self.input,
            "input_bytes": bytes,
            "input_content": content,
            "shard": self.shard.map(|shard| format!("{}/{}", shard.index + 1, shard.of)),
            "columns": [
                Some(&columns.query), Some(&columns.document), Some(&columns.text), Some(&columns.score),
                columns.order.as_ref(),
            ],
            "top_n": self.top_n,
            "raw_scores": self.raw_scores,
            "on_error": format!("{:?}", self.on_error).to_lowercase(),
            "model_files": model,
            "dtype": info.dtype.name(),
            "arithmetic": rounded,
            "label": info.label(),
        });
        let mut all = settings.of_scores();
        if let Value::Object(described) = described {
            all.extend(described);
        }
        Ok(all)
    }
}

fn of_file(path: &Path) -> io::Result<String> {
    let mut digest = Digest::default();
    digest.add_file(path)?;
    Ok(digest.text())
}

/// What a model's files hold: the commit where the hub has them.
fn of_model(files: &ModelFiles) -> io::Result<String> {
    if let Some(revision) = &files.revision {
        return Ok(revision.clone());
    }
    let mut digest = Digest::default();
    let modules = files.modules.iter();
    let others = files.others.values();
    let others = others.chain(modules.clone().map(|module| &module.config));
    for file in std::iter::once(&files.config).chain(others) {
        match file {
            ModelFile::Disk(path) => digest.add_file(path)?,
            ModelFile::Embedded(file) => digest.add(file.bytes),
        }
    }
    let weights = modules.filter_map(|module| module.weights.as_ref());
    for weights in std::iter::once(&files.weights).chain(weights) {
        match weights {
            Weights::Safetensors(paths) | Weights::Pytorch(paths) => {
                paths.iter().try_for_each(|path| digest.add_file(path))?;
            }
            Weights::Gguf(path) => digest.add_file(path)?,
            Weights::Embedded(file) => digest.add(file.bytes),
        }
    }
    Ok(digest.text())
}
