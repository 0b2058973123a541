//! The modules that sentence-transformers puts behind a transformer, each with a folder of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::engine::{Embedded, ModelFile, Module, Task, Weights};

use super::{StoreError, bad_file, read_json};

/// The module that makes a score of a causal model's logits.
const LOGIT_SCORE: &str = ".LogitScore";

/// PyLate's own module, which is as the one of sentence-transformers that has its name.
const PYLATE: &str = "pylate.models.Dense.Dense";

/// Finds them and the task that they make of a cross-encoder, from a place where one can `get` a file.
pub(super) fn collect(
    others: &BTreeMap<&'static str, ModelFile>,
    get: impl Fn(&str) -> Result<Option<PathBuf>, StoreError>,
) -> Result<(Vec<Module>, Task), StoreError> {
    let none = || (Vec::new(), Task::Labels);
    let Some(file) = others.get("modules.json") else {
        return Ok(none());
    };
    let all = read_json(file)?;
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    check_first(file, all.first())?;
    let of = |module: &Value| {
        let text = |key: &str| module[key].as_str().unwrap_or_default().to_owned();
        let (kind, path) = (text("type"), text("path"));
        if !kind.starts_with("sentence_transformers.") && kind != PYLATE {
            return Err(bad_file(
                file,
                format!(
                    "module \"{kind}\" is code that comes with the model, which rerankd does not run"
                ),
            ));
        }
        if path.is_empty() || path.contains(['/', '\\']) || path.starts_with('.') {
            return Err(bad_file(
                file,
                format!(
                    "module \"{kind}\" has the path \"{path}\", which is not a folder beside modules.json"
                ),
            ));
        }
        let config = match get(&format!("{path}/config.json"))? {
            Some(config) => ModelFile::Disk(config),
            // Older versions wrote none.
            None if kind.ends_with(".Normalize") => ModelFile::Embedded(Embedded {
                name: "Normalize/config.json",
                bytes: b"{}",
            }),
            None => {
                return Err(bad_file(
                    file,
                    format!("{path}/config.json, of module \"{kind}\", is missing"),
                ));
            }
        };
        let weights = match get(&format!("{path}/model.safetensors"))? {
            Some(path) => Some(Weights::Safetensors(vec![path])),
            None => {
                get(&format!("{path}/pytorch_model.bin"))?.map(|path| Weights::Pytorch(vec![path]))
            }
        };
        Ok(Module {
            kind,
            path,
            config,
            weights,
        })
    };
    let modules = all.iter().skip(1).map(of);
    let modules: Vec<Module> = modules.collect::<Result<_, _>>()?;
    match &modules[..] {
        [score] if score.kind.ends_with(LOGIT_SCORE) => Ok((Vec::new(), answer(score)?)),
        _ => Ok((modules, Task::Labels)),
    }
}

/// The tokens whose logits a LogitScore reads.
fn answer(score: &Module) -> Result<Task, StoreError> {
    let config = read_json(&score.config)?;
    let id = |key: &str| match &config[key] {
        Value::Null => Ok(None),
        value => match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(bad_file(
                &score.config,
                format!("{key} is {value}, which is not a token's id"),
            )),
        },
    };
    let missing = || bad_file(&score.config, "it has no true_token_id".to_owned());
    Ok(Task::Answer {
        token: id("true_token_id")?.ok_or_else(missing)?,
        minus: id("false_token_id")?,
    })
}

/// The first must be the transformer, with its files beside modules.json.
fn check_first(file: &ModelFile, first: Option<&Value>) -> Result<(), StoreError> {
    let Some(first) = first else {
        return Err(bad_file(file, "it names no modules".to_owned()));
    };
    let kind = first["type"].as_str().unwrap_or_default();
    if !kind.starts_with("sentence_transformers.") || !kind.ends_with(".Transformer") {
        return Err(bad_file(
            file,
            format!(
                "module \"{kind}\" is not supported as the first; rerankd runs models that begin with a Transformer"
            ),
        ));
    }
    let path = first["path"].as_str().unwrap_or_default();
    if !path.is_empty() {
        return Err(bad_file(
            file,
            format!(
                "module \"{kind}\" has its files in {path}; move them beside modules.json, and make that path empty"
            ),
        ));
    }
    Ok(())
}
