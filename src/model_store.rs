//! From a model's name to its files: the built-in model, a local folder, or the Hugging Face hub.
//!
//! Finds and fetches, and reads what the files say of the model's use; `engine` reads and checks the
//! weights. Called by `app`.

#[cfg(feature = "builtin-model")]
mod builtin;
mod hub;
mod local;
mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::engine::{ModelFile, ModelFiles, Weights};
use crate::types::Dtype;
pub use hub::Options as HubOptions;
pub use usage::{Usage, usage};

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

/// What a folder may hold besides config.json and the weights, in order.
const OTHERS: [&str; 10] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
];

/// Those that a tokenizer is made of where there is no tokenizer.json.
const VOCABULARY: [&str; 3] = ["vocab.txt", "vocab.json", "merges.txt"];

/// A model's files, of a place that `has` files and lets one `get` them.
fn collect(
    has: impl Fn(&str) -> bool,
    get: impl Fn(&str) -> Result<PathBuf, StoreError>,
) -> Result<ModelFiles, StoreError> {
    let need = |file: &str, hint: &'static str| {
        get(file).map_err(|error| match error {
            StoreError::MissingFile { place, file, .. } => {
                StoreError::MissingFile { place, file, hint }
            }
            other => other,
        })
    };
    let config = need("config.json", "; is this a model folder?")?;
    let whole = has("tokenizer.json");
    let older = has("vocab.txt") || (has("vocab.json") && has("merges.txt"));
    if !whole && !older {
        need(
            "tokenizer.json",
            "; rerankd needs the fast tokenizer's file, which transformers writes with \
             AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)",
        )?;
    }
    let mut others = BTreeMap::new();
    for file in OTHERS {
        if has(file) && !(whole && VOCABULARY.contains(&file)) {
            others.insert(file, ModelFile::Disk(get(file)?));
        }
    }
    let sharded = |index: &str, hint| {
        let names = shards(&get(index)?)?;
        let paths = names.iter().map(|name| need(name, hint));
        paths.collect::<Result<Vec<_>, _>>()
    };
    let weights = if has("model.safetensors") {
        Weights::Safetensors(vec![get("model.safetensors")?])
    } else if has("model.safetensors.index.json") {
        Weights::Safetensors(sharded(
            "model.safetensors.index.json",
            ", though model.safetensors.index.json names it",
        )?)
    } else if has("pytorch_model.bin") {
        Weights::Pytorch(vec![get("pytorch_model.bin")?])
    } else if has("pytorch_model.bin.index.json") {
        Weights::Pytorch(sharded(
            "pytorch_model.bin.index.json",
            ", though pytorch_model.bin.index.json names it",
        )?)
    } else {
        let hint = " (and so are model.safetensors.index.json, pytorch_model.bin and its index)";
        Weights::Safetensors(vec![need("model.safetensors", hint)?])
    };
    Ok(ModelFiles {
        name: String::new(),
        revision: None,
        note: None,
        dtype: Dtype::F32,
        config: ModelFile::Disk(config),
        weights,
        others,
    })
}

/// Reads a JSON file.
///
/// # Errors
/// If it can't be read or is malformed.
pub fn read_json(file: &ModelFile) -> Result<serde_json::Value, StoreError> {
    let text = file.read().map_err(|e| bad_file(file, e.to_string()))?;
    serde_json::from_slice(&text).map_err(|e| bad_file(file, e.to_string()))
}

fn bad_file(file: &ModelFile, reason: String) -> StoreError {
    StoreError::BadFile {
        file: file.to_string(),
        reason,
    }
}

/// The shard files that an index of weights names, without duplicates.
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
