//! From a model's name to its files: the built-in model, a local folder, or the Hugging Face hub.
//!
//! Finds and fetches; `engine` reads and checks. Called by `app`.

#[cfg(feature = "builtin-model")]
mod builtin;
mod hub;
mod local;

use std::path::Path;

use crate::engine::{ModelFile, ModelFiles};
use crate::types::MAX_WINDOWS;
pub use hub::Options as HubOptions;

/// Which model, and where to look for it.
#[derive(Debug, Clone)]
pub struct Options {
    /// `builtin`, a folder, or a hub id `org/name`.
    pub model: String,
    /// Branch, tag or commit on the hub.
    pub revision: String,
    /// How to reach the hub and its cache.
    pub hub: HubOptions,
}

/// Why a model's files can't be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Built without the built-in model.
    #[error(
        "no model is named, and this rerankd was built without the built-in model (feature builtin-model); name one with\n  \
         --model FOLDER     a folder in the Hugging Face layout (config.json, tokenizer.json, model.safetensors)\n  \
         --model ORG/NAME   a model on the Hugging Face hub, such as cross-encoder/ms-marco-MiniLM-L6-v2"
    )]
    NoBuiltin,
    /// Neither a folder nor a hub id.
    #[error(
        "--model {0}: there is no such folder, and it is no hub id of the form ORG/NAME either"
    )]
    NoSuchModel(String),
    /// A file is missing from a folder or repository.
    #[error("{place}: {file} is missing{hint}")]
    MissingFile {
        /// The folder or repository.
        place: String,
        /// The file.
        file: String,
        /// What can be done.
        hint: &'static str,
    },
    /// A file is there but can't be used.
    #[error("{file}: {reason}")]
    BadFile {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The hub refuses access.
    #[error(
        "the hub refuses access to {0} (HTTP {1}); if the model is private or gated, accept its terms there and set HF_TOKEN to a token that may read it"
    )]
    Unauthorized(String, u16),
    /// The hub has no such model or revision.
    #[error(
        "the hub has no model {0} at revision {1} (HTTP 404); check the name, or set HF_TOKEN if it is private"
    )]
    NotOnHub(String, String),
    /// The hub can't be reached and the cache has no copy.
    #[error(
        "{reason}, and {cache} holds no complete copy of {model}; \
         fetch the model's files on a machine that reaches the hub, and start rerankd with --model FOLDER, \
         or copy that machine's cache here and point HF_HUB_CACHE to it"
    )]
    Unreachable {
        /// The model.
        model: String,
        /// The cache folder.
        cache: String,
        /// Why.
        reason: String,
    },
    /// The cache can't be written.
    #[error(
        "{model} can't be fetched, because the cache's folder {folder} can't be written ({reason}); \
         let this user write there and see that the disk has room, point HF_HUB_CACHE to another folder, \
         or start rerankd with --model FOLDER"
    )]
    Unwritable {
        /// The model.
        model: String,
        /// The folder.
        folder: String,
        /// Why.
        reason: String,
    },
    /// A transfer broke off or brought the wrong bytes.
    #[error(
        "{model}: fetching {file} failed: {reason}; start rerankd again to resume the transfer"
    )]
    Transfer {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
}

/// Finds a model's files, fetching them from the hub if need be.
///
/// Blocks; call it off the async threads.
///
/// # Errors
/// See [`StoreError`]; each message says what to do.
pub fn resolve(options: &Options) -> Result<ModelFiles, StoreError> {
    if options.model == "builtin" {
        #[cfg(feature = "builtin-model")]
        return Ok(builtin::files());
        #[cfg(not(feature = "builtin-model"))]
        return Err(StoreError::NoBuiltin);
    }
    let folder = Path::new(&options.model);
    if folder.is_dir() {
        return local::find(folder);
    }
    if !is_from_hub(&options.model) {
        return Err(StoreError::NoSuchModel(options.model.clone()));
    }
    hub::fetch(&options.model, &options.revision, &options.hub)
}

/// Whether a model is looked for on the hub.
#[must_use]
pub fn is_from_hub(model: &str) -> bool {
    is_hub_id(model) && !Path::new(model).is_dir()
}

/// `org/name`, each part of letters, digits, `-`, `_` and `.`, as the hub allows.
fn is_hub_id(model: &str) -> bool {
    let valid = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    matches!(model.split_once('/'), Some((org, name)) if valid(org) && valid(name))
}

/// How much of a document a model reads, as its tokenizer_config.json says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// `model_max_length`: the longest input in tokens, if there is a limit.
    pub max_tokens: Option<usize>,
    /// `max_chunks_per_doc`, a key of our own: in how many windows a document that is too long
    /// should be read; 1 unless it says otherwise.
    pub max_chunks_per_doc: usize,
}

/// Reads a model's tokenizer_config.json, if there is one.
///
/// transformers writes a `model_max_length` of 1e30 where there is no limit.
///
/// # Errors
/// If the file is there but can't be read.
pub fn reading(tokenizer_config: Option<&ModelFile>) -> Result<Reading, StoreError> {
    let value = tokenizer_config.map(read_json).transpose()?;
    let value = value.unwrap_or_default();
    let length = value["model_max_length"].as_f64();
    let windows = value["max_chunks_per_doc"].as_u64();
    Ok(Reading {
        max_tokens: length
            .filter(|&l| (1.0..1e9).contains(&l))
            .map(|l| l as usize),
        max_chunks_per_doc: windows.map_or(1, |n| n.clamp(1, MAX_WINDOWS as u64) as usize),
    })
}

fn read_json(file: &ModelFile) -> Result<serde_json::Value, StoreError> {
    let bad = |reason: String| StoreError::BadFile {
        file: file.to_string(),
        reason,
    };
    let text = file.read().map_err(|e| bad(e.to_string()))?;
    serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))
}

/// The shard files that a `model.safetensors.index.json` names, without duplicates.
fn shards(index: &Path) -> Result<Vec<String>, StoreError> {
    let bad = |reason: &str| StoreError::BadFile {
        file: index.display().to_string(),
        reason: reason.into(),
    };
    let value = read_json(&ModelFile::Disk(index.to_owned()))?;
    let map = value["weight_map"].as_object();
    let map = map.ok_or_else(|| bad("has no weight_map"))?;
    let mut names: Vec<String> = map
        .values()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() || names.iter().any(|n| n.contains('/') || n.contains("..")) {
        return Err(bad("its weight_map names no shard files beside it"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_have_an_organisation_and_a_name() {
        for id in [
            "cross-encoder/ms-marco-MiniLM-L6-v2",
            "BAAI/bge-reranker-v2-m3",
        ] {
            assert!(is_hub_id(id), "{id}");
        }
        for other in [
            "",
            "bert",
            "/models/x",
            "./models/x",
            "../x",
            "a/b/c",
            "a/ b",
            "a/",
        ] {
            assert!(!is_hub_id(other), "{other}");
        }
    }
}
