//! Models that make vectors: how they are told from others, and what their files say of their use. There are three
//! layouts: sentence-transformers' modules, for one vector of a text or one of each token; PyLate's, of the same form
//! with keys of its own; and Stanford's ColBERT, whose settings are in artifact.metadata. All are read as
//! sentence-transformers 6 reads them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::engine::{Embedded, ModelFile, ModelFiles, Module, Task};
use crate::types::{Expansion, Similarity, TextRules, VectorRules};

use super::{StoreError, bad_file, read_json};

/// Stanford's file of settings.
pub(super) const METADATA: &str = "artifact.metadata";
/// The settings of the module that says which tokens' vectors count.
const MASK: &str = "MultiVectorMask/config.json";
/// Those of the module that makes vectors' lengths 1.
const NORMALIZE: &str = "Normalize/config.json";

/// ASCII's punctuation, whose vectors don't count unless the files say otherwise.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// Keys that only PyLate writes.
const OF_PYLATE: [&str; 8] = [
    "query_length",
    "document_length",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "attend_to_mask_tokens",
    "query_prefix",
    "document_prefix",
    "skiplist_words",
];

/// What the files say of how the model's scores come about.
fn is_late(saved: &Value, config: &Value) -> bool {
    match saved["model_type"].as_str() {
        Some(kind) => ["ColBERT", "MultiVectorEncoder"].contains(&kind),
        None => is_stanford(config),
    }
}

fn is_stanford(config: &Value) -> bool {
    is_of(config, "HF_ColBERT")
}

/// Whether a model reads documents together.
pub(super) fn is_listwise(config: &Value) -> bool {
    is_of(config, "JinaForRanking")
}

fn is_of(config: &Value, architecture: &str) -> bool {
    let mut names = config["architectures"].as_array().into_iter().flatten();
    names.any(|name| name == architecture)
}

/// Says of the files of a model that makes vectors that it does, and keeps apart the modules that come after the
/// engine's.
pub(super) fn recognise(files: &mut ModelFiles) -> Result<(), StoreError> {
    let config = read_json(&files.config)?;
    if is_listwise(&config) {
        files.task = Task::Vectors;
        files.modules.clear();
        return Ok(());
    }
    let saved = files.others.get("config_sentence_transformers.json");
    let saved = saved.map(read_json).transpose()?.unwrap_or_default();
    let has_modules = files.others.contains_key("modules.json");
    let scores = saved["model_type"] == "CrossEncoder" || files.task != Task::Labels;
    if has_modules && scores {
        return Ok(());
    }
    if files.modules.is_empty() && is_stanford(&config) {
        files.modules = vec![projection(files, &config)?];
    }
    if files.modules.is_empty() {
        return Ok(());
    }
    if saved["model_type"] == "SparseEncoder" {
        return Err(bad_file(
            &files.config,
            "the model makes sparse vectors (SparseEncoder), which rerankd can't score".into(),
        ));
    }
    files.task = Task::Vectors;
    for module in std::mem::take(&mut files.modules) {
        let apart = match module.kind.rsplit('.').next() {
            Some("MultiVectorMask") => MASK,
            Some("Normalize") => NORMALIZE,
            _ if files.others.contains_key(NORMALIZE) => {
                let reason = format!(
                    "module \"{}\" after Normalize is not supported",
                    module.kind
                );
                return Err(bad_file(&module.config, reason));
            }
            _ => {
                files.modules.push(module);
                continue;
            }
        };
        files.others.insert(apart, module.config);
    }
    Ok(())
}

/// Stanford's projection, which lies among the transformer's own weights, as a module.
fn projection(files: &ModelFiles, config: &Value) -> Result<Module, StoreError> {
    let metadata = metadata(&files.others)?;
    let outputs = metadata["dim"].as_u64().unwrap_or(128);
    let config = json!({
        "in_features": config["hidden_size"],
        "out_features": outputs,
        "bias": false,
        "activation_function": "torch.nn.modules.linear.Identity",
    });
    Ok(Module {
        kind: "sentence_transformers.base.modules.dense.Dense".into(),
        path: ".".into(),
        config: ModelFile::Embedded(Embedded {
            name: METADATA,
            // Some bytes each time that such a model is loaded.
            bytes: Box::leak(config.to_string().into_bytes().into_boxed_slice()),
        }),
        weights: Some(files.weights.clone()),
    })
}

fn metadata(others: &BTreeMap<&'static str, ModelFile>) -> Result<Value, StoreError> {
    let read = others.get(METADATA).map(read_json).transpose()?;
    Ok(read.unwrap_or_default())
}

/// How a model is used that makes vectors; none of any other. `transformer` is sentence_bert_config.json.
pub(super) fn rules(
    files: &ModelFiles,
    config: &Value,
    saved: &Value,
    transformer: &Value,
) -> Result<Option<VectorRules>, StoreError> {
    if files.task != Task::Vectors || is_listwise(config) {
        return Ok(None);
    }
    let late = is_late(saved, config);
    let has_modules = files.others.contains_key("modules.json");
    let mut rules = VectorRules {
        late_interaction: late,
        query: TextRules {
            prompt: prompt(saved, &["query"]),
            max_tokens: length(transformer, "query_length"),
            skips_words: false,
        },
        document: TextRules {
            prompt: prompt(saved, &["document", "passage", "corpus"]),
            max_tokens: length(transformer, "document_length"),
            skips_words: true,
        },
        markers: Vec::new(),
        expansion: expansion(&transformer["query_expansion"]),
        skipped_words: Vec::new(),
        similarity: similarity(files, saved, late)?,
    };
    let pooling = files.modules.iter().find(|m| m.kind.ends_with(".Pooling"));
    match pooling {
        Some(pooling) if late => {
            let reason = "a model of one vector for each token has no Pooling".to_owned();
            return Err(bad_file(&pooling.config, reason));
        }
        Some(pooling) => {
            let has_prompt = !(rules.query.prompt.is_empty() && rules.document.prompt.is_empty());
            if has_prompt && read_json(&pooling.config)?["include_prompt"] == false {
                let reason = "include_prompt false is not supported".to_owned();
                return Err(bad_file(&pooling.config, reason));
            }
        }
        None if !late => {
            let reason = "the modules make a vector of each token (there is no Pooling), but the model_type in \
                          config_sentence_transformers.json is none of such a model (ColBERT, MultiVectorEncoder)";
            return Err(bad_file(&files.config, reason.to_owned()));
        }
        None => {}
    }
    if let Some(mask) = files.others.get(MASK) {
        let mask = read_json(mask)?;
        let has = |task: &str| match &mask["skiplist_tasks"] {
            Value::Null => task == "document",
            Value::String(one) => one == task,
            tasks => tasks
                .as_array()
                .is_some_and(|all| all.iter().any(|t| t == task)),
        };
        rules.skipped_words = words(&mask["skiplist_words"]).unwrap_or_default();
        (rules.query.skips_words, rules.document.skips_words) = (has("query"), has("document"));
    }
    if late && has_modules {
        of_pylate(saved, &mut rules);
    } else if late {
        of_stanford(&metadata(&files.others)?, &mut rules);
    }
    let unseen = rules.expansion.as_ref().is_some_and(|e| !e.is_seen);
    if unseen && config["model_type"] == "deberta-v2" {
        let reason = "queries are filled up with tokens that are not attended to, which rerankd can't do in DeBERTa";
        return Err(bad_file(&files.config, reason.into()));
    }
    Ok(Some(rules))
}

/// What PyLate's own keys say.
fn of_pylate(saved: &Value, rules: &mut VectorRules) {
    if saved["model_type"] == "ColBERT" {
        let listed = words(&saved["skiplist_words"]);
        rules.skipped_words = listed.unwrap_or_else(punctuation);
        rules.similarity.normalises = true;
    }
    for (key, side) in [
        ("query_prefix", &mut rules.query),
        ("document_prefix", &mut rules.document),
    ] {
        let prefix = saved[key].as_str().unwrap_or_default();
        let prompt = side.prompt.strip_prefix(prefix).unwrap_or(&side.prompt);
        side.prompt = format!("{prefix}{prompt}");
        rules
            .markers
            .extend((!prefix.is_empty()).then(|| prefix.to_owned()));
    }
    let document = length(saved, "document_length");
    rules.document.max_tokens = rules.document.max_tokens.or(document);
    let query = length(saved, "query_length");
    if saved.get("query_expansion").is_some() {
        rules.expansion = expansion(&saved["query_expansion"]);
        rules.query.max_tokens = rules.query.max_tokens.or(query);
    } else if OF_PYLATE.iter().any(|key| saved.get(key).is_some()) {
        let off = saved["do_query_expansion"] == false;
        let seen = saved.get("attend_to_expansion_tokens");
        let seen = seen.or(saved.get("attend_to_mask_tokens"));
        rules.expansion = (!off).then(|| fixed(query, seen.is_some_and(|seen| *seen == true)));
        rules.query.max_tokens = rules.query.max_tokens.or(query);
    }
}

/// What artifact.metadata says.
fn of_stanford(metadata: &Value, rules: &mut VectorRules) {
    let marker = |key: &str, usual: &str| {
        let name = metadata[key].as_str().filter(|name| !name.is_empty());
        format!("{} ", name.unwrap_or(usual))
    };
    rules.query.prompt = marker("query_token_id", "[unused0]");
    rules.document.prompt = marker("doc_token_id", "[unused1]");
    rules.markers = vec![rules.query.prompt.clone(), rules.document.prompt.clone()];
    rules.document.max_tokens = length(metadata, "doc_maxlen");
    let seen = metadata["attend_to_mask_tokens"] == true;
    rules.expansion = Some(fixed(length(metadata, "query_maxlen"), seen));
    if metadata["mask_punctuation"] != false {
        rules.skipped_words = punctuation();
    }
    rules.similarity.normalises = true;
}

fn punctuation() -> Vec<String> {
    PUNCTUATION.chars().map(String::from).collect()
}

fn words(list: &Value) -> Option<Vec<String>> {
    let list = list.as_array()?.iter();
    Some(list.filter_map(|w| w.as_str().map(str::to_owned)).collect())
}

fn prompt(saved: &Value, names: &[&str]) -> String {
    let mut found = names.iter().map(|name| &saved["prompts"][name]);
    let found = found.find_map(Value::as_str);
    found.unwrap_or_default().to_owned()
}

fn length(values: &Value, key: &str) -> Option<usize> {
    let length = values[key].as_u64().filter(|&length| length > 0)?;
    usize::try_from(length).ok()
}

fn fixed(length: Option<usize>, is_seen: bool) -> Expansion {
    Expansion {
        token: None,
        length: length.unwrap_or(32),
        is_fixed: true,
        is_seen,
    }
}

/// As sentence-transformers 6 writes it.
fn expansion(value: &Value) -> Option<Expansion> {
    Some(Expansion {
        token: value["token"].as_str().map(str::to_owned),
        length: length(value, "length")?,
        is_fixed: value["strategy"] != "min",
        is_seen: value["attend"] == true,
    })
}

fn similarity(files: &ModelFiles, saved: &Value, late: bool) -> Result<Similarity, StoreError> {
    let name = saved["similarity_fn_name"].as_str();
    let is_cosine = match (name, late) {
        // PyLate's files may name what is no similarity of several vectors.
        (_, true) => false,
        (None | Some("cosine"), _) => true,
        (Some("dot" | "dot_product"), _) => false,
        (Some(other), _) => {
            let file = files.others.get("config_sentence_transformers.json");
            return Err(bad_file(
                file.unwrap_or(&files.config),
                format!(
                    "similarity_fn_name \"{other}\" is not supported; rerankd has cosine and dot"
                ),
            ));
        }
    };
    Ok(Similarity {
        normalises: files.others.contains_key(NORMALIZE),
        dimensions: length(saved, "truncate_dim").filter(|_| !late),
        is_cosine,
        is_mean: late && name == Some("meanmaxsim"),
    })
}
