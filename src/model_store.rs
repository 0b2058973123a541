//! From a model's name to its files: the built-in model, a local folder, or the Hugging Face hub.
//!
//! Finds and fetches; `engine` reads and checks. Called by `app`.

#[cfg(feature = "builtin-model")]
mod builtin;
mod error;
mod hub;
mod local;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::engine::{ModelFile, ModelFiles};
use crate::types::MAX_WINDOWS;
pub use error::StoreError;
pub use hub::{Certificates, Options as HubOptions};

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
    if let Some(hint) = only_a_folder(&options.model) {
        return Err(StoreError::NoSuchFolder {
            model: options.model.clone(),
            hint,
        });
    }
    hub::fetch(&options.model, &options.revision, &options.hub)
}

/// Why what is no folder can be no model of the hub either; none if it can.
fn only_a_folder(model: &str) -> Option<String> {
    let path = Path::new(model);
    if path.is_file() {
        return Some(", but a file".into());
    }
    if is_hub_id(model) {
        let parent = path.parent().filter(|parent| parent.is_dir())?;
        return Some(format!(
            " in {}; the hub was not asked, because {} is a folder here (for the hub's model of this name, \
             start rerankd in another folder)",
            absolute(parent),
            parent.display()
        ));
    }
    let missing = path.ancestors().skip(1).find(|parent| parent.is_dir());
    Some(match missing {
        _ if path.is_absolute() => String::new(),
        _ if model.starts_with('~') => " (~ is not expanded here)".into(),
        Some(parent) => format!(" in {}", absolute(parent)),
        None => format!(" in {}", absolute(Path::new("."))),
    })
}

/// A path as the system resolves it.
fn absolute(path: &Path) -> String {
    // The empty path is the parent of a name alone.
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let found = path.canonicalize();
    found
        .unwrap_or_else(|_| path.to_owned())
        .display()
        .to_string()
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

/// Whether a file is what git holds in place of a large file, until `git lfs pull` fetches that.
fn is_lfs_pointer(path: &Path) -> bool {
    const START: &[u8] = b"version https://git-lfs.github.com/spec/";
    let mut start = [0; START.len()];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok() && start == *START)
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
