//! What a model's files say of how it is to be used: read as sentence-transformers 6 reads them.
//!
//! A folder with modules.json was saved by sentence-transformers, and only then are
//! config_sentence_transformers.json and sentence_bert_config.json read.

use serde_json::Value;

use crate::engine::{ModelFile, ModelFiles, Task};
use crate::types::{Activation, MAX_WINDOWS, VectorRules};

use super::{StoreError, bad_file, read_json, vectors};

/// How a model is to be used.
#[derive(Debug, Clone)]
pub struct Usage {
    /// Longest input in tokens, if there is a limit.
    pub max_tokens: Option<usize>,
    /// `max_chunks_per_doc` of tokenizer_config.json, a key of our own: in how many windows a document
    /// that is too long should be read; 1 unless it says otherwise.
    pub max_chunks_per_doc: usize,
    /// What makes of a raw score the one that is shown.
    pub activation: Activation,
    /// Text that stands before each query; mostly empty.
    pub query_prompt: String,
    /// How vectors are made and scored, by a model that makes them.
    pub vectors: Option<VectorRules>,
    /// config.json.
    pub config: Value,
    /// tokenizer_config.json, with what sentence_bert_config.json lays over it.
    pub tokenizer_config: Value,
    /// Whether texts are lowercased before whatever else the tokenizer does.
    pub lowercase: bool,
}

/// Reads it. An `activation` that is given stands for what the files say.
///
/// # Errors
/// If a file is malformed, or asks for what rerankd can't do.
pub fn usage(files: &ModelFiles, activation: Option<Activation>) -> Result<Usage, StoreError> {
    let json = |name: &str| files.others.get(name).map(read_json).transpose();
    let config = read_json(&files.config)?;
    let mut tokenizer_config = json("tokenizer_config.json")?.unwrap_or_default();
    let (mut saved, mut transformer) = (Value::Null, Value::Null);
    if files.others.contains_key("modules.json") {
        saved = json("config_sentence_transformers.json")?.unwrap_or_default();
        // Of another kind of model sentence-transformers takes the weights and the tokenizer only.
        if saved["model_type"] == "CrossEncoder" || files.task == Task::Vectors {
            transformer = json("sentence_bert_config.json")?.unwrap_or_default();
            if let Some(file) = files.others.get("sentence_bert_config.json") {
                let has_head = files.task == Task::Labels && files.modules.is_empty();
                check_transformer(file, &transformer, has_head)?;
            }
        } else {
            saved = Value::Null;
        }
    }
    let over = &transformer["processor_kwargs"];
    let over = over
        .as_object()
        .or(transformer["tokenizer_args"].as_object());
    let own_length = over.is_some_and(|over| over.contains_key("model_max_length"));
    if let Some(over) = over {
        let mut merged = tokenizer_config.as_object().cloned().unwrap_or_default();
        merged.extend(over.clone());
        tokenizer_config = merged.into();
    }
    // As strong as they stand here.
    let lengths = [
        &transformer["processing_kwargs"]["text"]["max_length"],
        match own_length {
            true => &Value::Null,
            false => &transformer["max_seq_length"],
        },
        &tokenizer_config["model_max_length"],
        &tokenizer_config["max_len"],
    ];
    // transformers writes a model_max_length of 1e30 where there is no limit.
    let max_tokens = lengths.iter().find_map(|length| length.as_f64());
    let max_tokens = max_tokens.filter(|&l| (1.0..1e9).contains(&l));
    let windows = tokenizer_config["max_chunks_per_doc"].as_u64();
    let vectors = vectors::rules(files, &config, &saved, &transformer)?;
    Ok(Usage {
        max_tokens: max_tokens.map(|l| l as usize),
        max_chunks_per_doc: windows.map_or(1, |n| n.clamp(1, MAX_WINDOWS as u64) as usize),
        activation: match (activation, &vectors) {
            (Some(activation), _) => activation,
            (None, Some(_)) => Activation::Identity,
            (None, None) => read_activation(&files.config, &config, &saved)?,
        },
        query_prompt: match &vectors {
            Some(vectors) => vectors.query.prompt.clone(),
            None => read_prompt(files, &saved)?,
        },
        vectors,
        lowercase: transformer["do_lower_case"] == true,
        config,
        tokenizer_config,
    })
}

fn check_transformer(
    file: &ModelFile,
    transformer: &Value,
    has_head: bool,
) -> Result<(), StoreError> {
    let task = &transformer["transformer_task"];
    let runs = match has_head {
        true => "sequence-classification",
        false => "feature-extraction",
    };
    if !task.is_null() && task != runs {
        let modules = match has_head {
            true => "without modules behind the Transformer",
            false => "before other modules",
        };
        return Err(bad_file(
            file,
            format!("transformer_task {task} is not supported; {modules} rerankd runs \"{runs}\""),
        ));
    }
    for key in ["config_kwargs", "config_args"] {
        let given = transformer[key].as_object();
        if given.is_some_and(|given| !given.is_empty()) {
            return Err(bad_file(
                file,
                format!("{key} is not supported; write its keys into config.json"),
            ));
        }
    }
    Ok(())
}

/// The value is a dotted path to a torch module. sentence-transformers' own file comes first, then
/// the keys that its versions 4 and 5, and older ones, wrote to config.json. Without any it is a sigmoid.
fn read_activation(
    file: &ModelFile,
    config: &Value,
    saved: &Value,
) -> Result<Activation, StoreError> {
    let newer = config["sentence_transformers"].get("activation_fn");
    let older = config.get("sbert_ce_default_activation_function");
    let name = saved["activation_fn"].as_str();
    let name = name.or(newer.or(older).and_then(Value::as_str));
    match name.map(|n| n.rsplit('.').next().unwrap_or(n)) {
        None | Some("Sigmoid") => Ok(Activation::Sigmoid),
        Some("Identity") => Ok(Activation::Identity),
        Some(_) => Err(bad_file(
            file,
            format!(
                "the model's activation function \"{}\" is not supported; choose what scores are shown as with --activation sigmoid or --activation identity (model.activation)",
                name.unwrap_or_default()
            ),
        )),
    }
}

/// The prompt that stands before each query unless a caller says otherwise, which ours can't.
fn read_prompt(files: &ModelFiles, saved: &Value) -> Result<String, StoreError> {
    let Some(name) = saved["default_prompt_name"].as_str() else {
        return Ok(String::new());
    };
    let prompt = saved["prompts"].get(name);
    match (
        prompt,
        files.others.get("config_sentence_transformers.json"),
    ) {
        (None, Some(file)) => Err(bad_file(
            file,
            format!("default_prompt_name is \"{name}\", but prompts holds no such prompt"),
        )),
        (prompt, _) => Ok(prompt
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::Embedded;

    const SIGMOID: &str = "torch.nn.modules.activation.Sigmoid";
    const IDENTITY: &str = "torch.nn.modules.linear.Identity";

    fn activation(config: &Value, saved: &Value) -> Result<Activation, String> {
        let file = ModelFile::Embedded(Embedded {
            name: "config.json",
            bytes: b"",
        });
        read_activation(&file, config, saved).map_err(|e| e.to_string())
    }

    #[test]
    fn the_activation_is_the_one_that_sentence_transformers_takes() {
        let older = |name: &str| json!({"sbert_ce_default_activation_function": name});
        let newer = |name: Value| json!({"sentence_transformers": {"activation_fn": name}});
        let both = |a: Value, b: &str| {
            let mut both = newer(a);
            both["sbert_ce_default_activation_function"] = b.into();
            both
        };
        let none = Value::Null;
        for (config, saved, expected) in [
            (json!({}), none.clone(), Activation::Sigmoid),
            (older(IDENTITY), none.clone(), Activation::Identity),
            (newer(IDENTITY.into()), none.clone(), Activation::Identity),
            (
                both(IDENTITY.into(), SIGMOID),
                none.clone(),
                Activation::Identity,
            ),
            // A newer key without a name still hides the older one.
            (
                both(none.clone(), IDENTITY),
                none.clone(),
                Activation::Sigmoid,
            ),
            (
                json!({}),
                json!({"activation_fn": IDENTITY}),
                Activation::Identity,
            ),
            (
                newer(IDENTITY.into()),
                json!({"activation_fn": SIGMOID}),
                Activation::Sigmoid,
            ),
            (
                newer(IDENTITY.into()),
                json!({"activation_fn": null}),
                Activation::Identity,
            ),
        ] {
            assert_eq!(
                activation(&config, &saved),
                Ok(expected),
                "{config} {saved}"
            );
        }
        let error = activation(&older("torch.nn.modules.activation.Tanh"), &none).unwrap_err();
        for word in ["config.json", "Tanh", "--activation identity"] {
            assert!(error.contains(word), "{error}");
        }
    }
}
