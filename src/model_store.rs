//! From a model's name to its files: the built-in model, a local folder, or the Hugging Face hub.
//!
//! Finds and fetches, and reads what the files say of the model's use; `engine` reads and checks the
//! weights. Called by `app`.

#[cfg(feature = "builtin-model")]
mod builtin;
mod error;
mod hub;
mod local;
mod modules;
mod usage;
mod vectors;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::engine::{ModelFile, ModelFiles, Weights};
use crate::tokenize::VOCABULARY_FILES;
pub use error::StoreError;
pub use hub::{Certificates, Options as HubOptions, trusting};
pub use usage::{TemplateText, Usage, usage};

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
        return local::find(folder, None);
    }
    if is_gguf(folder) {
        return local::find(folder.parent().unwrap_or(Path::new("")), Some(folder));
    }
    if let Some(hint) = only_a_folder(&options.model) {
        return Err(StoreError::NoSuchFolder {
            model: options.model.clone(),
            hint,
        });
    }
    hub::fetch(&options.model, &options.revision, &options.hub)
}

/// The name that a model has unless the settings give another: the hub id, the folder's name.
#[must_use]
pub fn name(model: &str) -> String {
    let folder = Path::new(model);
    match model {
        "builtin" => "rerankd-builtin".into(),
        _ if folder.is_dir() || is_gguf(folder) => local::name(folder),
        _ => model.to_owned(),
    }
}

/// Whether it is a file of weights that may be of any name.
fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "gguf") && path.is_file()
}

/// Why what is no folder can be no model of the hub either; none if it can.
fn only_a_folder(model: &str) -> Option<String> {
    let path = Path::new(model);
    if path.is_file() {
        return Some(", but a file, and not a GGUF file".into());
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

/// Whether a model is looked for on the hub.
#[must_use]
pub fn is_from_hub(model: &str) -> bool {
    !Path::new(model).is_dir() && only_a_folder(model).is_none()
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

/// What a folder may hold besides config.json, the vocabulary and the weights, in order.
const OTHERS: [&str; 8] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "chat_template.jinja",
    vectors::METADATA,
];

/// A model's files, from a place where one can `get` a file, or none if the place has no such file.
fn collect(
    place: &str,
    get: impl Fn(&str) -> Result<Option<PathBuf>, StoreError>,
) -> Result<ModelFiles, StoreError> {
    let missing = |file: &str, hint| StoreError::MissingFile {
        place: place.to_owned(),
        file: file.to_owned(),
        hint,
    };
    let need = |file: &str, hint| get(file)?.ok_or_else(|| missing(file, hint));
    let config = need(
        "config.json",
        "; is this a model folder? (A GGUF file needs config.json and the tokenizer's files of its model beside it)",
    )?;
    let mut others = BTreeMap::new();
    for file in VOCABULARY_FILES {
        if let Some(path) = get(file)? {
            others.insert(file, ModelFile::Disk(path));
        }
        if others.contains_key("tokenizer.json") {
            break;
        }
    }
    if others.is_empty() {
        return Err(missing(
            "tokenizer.json",
            "; rerankd needs the fast tokenizer's file, which transformers writes with \
             AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)",
        ));
    }
    for file in OTHERS {
        if let Some(path) = get(file)? {
            others.insert(file, ModelFile::Disk(path));
        }
    }
    let sharded = |index: PathBuf, hint| {
        let names = shards(&index)?;
        let paths = names.iter().map(|name| need(name, hint));
        paths.collect::<Result<Vec<_>, _>>()
    };
    let weights = if let Some(single) = get("model.safetensors")? {
        Weights::Safetensors(vec![single])
    } else if let Some(index) = get("model.safetensors.index.json")? {
        let hint = ", though model.safetensors.index.json names it";
        Weights::Safetensors(sharded(index, hint)?)
    } else if let Some(single) = get("pytorch_model.bin")? {
        Weights::Pytorch(vec![single])
    } else if let Some(index) = get("pytorch_model.bin.index.json")? {
        let hint = ", though pytorch_model.bin.index.json names it";
        Weights::Pytorch(sharded(index, hint)?)
    } else {
        return Err(missing(
            "model.safetensors",
            " (and so are model.safetensors.index.json, pytorch_model.bin and its index)",
        ));
    };
    let (modules, task) = modules::collect(&others, get)?;
    let mut files = ModelFiles {
        name: String::new(),
        revision: None,
        note: None,
        dtype: None,
        config: ModelFile::Disk(config),
        weights,
        modules,
        task,
        cutoff_layer: None,
        compression: None,
        others,
    };
    vectors::recognise(&mut files)?;
    Ok(files)
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
    fn a_gguf_file_has_the_other_files_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny-Q8_0.gguf");
        std::fs::write(&path, "").unwrap();
        let options = Options {
            model: path.display().to_string(),
            revision: String::new(),
            hub: HubOptions::default(),
        };
        let error = resolve(&options).unwrap_err().to_string();
        assert!(
            error.contains("config.json is missing") && error.contains("GGUF"),
            "{error}"
        );
        let tiny =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/tiny-qwen3-plain");
        for file in ["config.json", "tokenizer.json"] {
            std::fs::copy(tiny.join(file), folder.path().join(file)).unwrap();
        }
        let files = resolve(&options).unwrap();
        assert_eq!(files.weights, Weights::Gguf(path));
        assert_eq!(
            (files.name.as_str(), name(&options.model).as_str()),
            ("tiny-Q8_0", "tiny-Q8_0")
        );
        assert!(!is_from_hub(&options.model));
    }

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
