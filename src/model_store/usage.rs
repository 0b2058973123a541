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
    /// Whether the files or the settings say so, and it is not only what it is by default.
    pub is_activation_said: bool,
    /// Text that stands before each query, or the default instruction of a model that takes one; mostly empty.
    pub query_prompt: String,
    /// How vectors are made and scored, by a model that makes them.
    pub vectors: Option<VectorRules>,
    /// The chat template, in Jinja.
    pub chat_template: Option<TemplateText>,
    /// Whether messages for the chat template have their text in a list of parts.
    pub is_chat_structured: bool,
    /// Whether the model reads documents together.
    pub is_listwise: bool,
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
                check_transformer(file, &transformer, files)?;
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
    let max_tokens = max_tokens.map(|l| l as usize);
    let mut vectors = vectors::rules(files, &config, &saved, &transformer)?;
    for side in vectors
        .iter_mut()
        .flat_map(|v| [&mut v.query, &mut v.document])
    {
        side.max_tokens = side.max_tokens.or(max_tokens);
    }
    let said = match (activation, &vectors) {
        (Some(activation), _) => Some(activation),
        (None, Some(_)) => Some(Activation::Identity),
        (None, None) if vectors::is_listwise(&config) => Some(Activation::Identity),
        (None, None) => read_activation(&files.config, &config, &saved)?,
    };
    let message = &transformer["modality_config"]["message"];
    Ok(Usage {
        max_tokens,
        max_chunks_per_doc: windows.map_or(1, |n| n.clamp(1, MAX_WINDOWS as u64) as usize),
        activation: said.unwrap_or(Activation::Sigmoid),
        is_activation_said: said.is_some(),
        chat_template: read_chat_template(files, &tokenizer_config)?,
        is_chat_structured: message["format"] == "structured",
        query_prompt: match &vectors {
            // Its encoders put it before each.
            Some(_) => String::new(),
            None => read_prompt(files, &saved)?,
        },
        vectors,
        is_listwise: vectors::is_listwise(&config),
        lowercase: transformer["do_lower_case"] == true,
        config,
        tokenizer_config,
    })
}

fn check_transformer(
    file: &ModelFile,
    transformer: &Value,
    files: &ModelFiles,
) -> Result<(), StoreError> {
    let task = &transformer["transformer_task"];
    let (runs, modules) = match (files.task, files.modules.is_empty()) {
        (Task::Answer { .. }, _) => ("text-generation", "before a LogitScore"),
        (Task::Labels, true) => (
            "sequence-classification",
            "without modules behind the Transformer",
        ),
        (Task::Vectors, _) | (_, false) => ("feature-extraction", "before other modules"),
    };
    if !task.is_null() && task != runs {
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
/// the keys that its versions 4 and 5, and older ones, wrote to config.json. `None` without any: a sigmoid.
fn read_activation(
    file: &ModelFile,
    config: &Value,
    saved: &Value,
) -> Result<Option<Activation>, StoreError> {
    let newer = config["sentence_transformers"].get("activation_fn");
    let older = config.get("sbert_ce_default_activation_function");
    let name = saved["activation_fn"].as_str();
    let name = name.or(newer.or(older).and_then(Value::as_str));
    match name.map(|n| n.rsplit('.').next().unwrap_or(n)) {
        None => Ok(None),
        Some("Sigmoid") => Ok(Some(Activation::Sigmoid)),
        Some("Identity") => Ok(Some(Activation::Identity)),
        Some(_) => Err(bad_file(
            file,
            format!(
                "the model's activation function \"{}\" is not supported; choose what scores are shown as with --activation sigmoid or --activation identity (model.activation)",
                name.unwrap_or_default()
            ),
        )),
    }
}

/// A template, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateText {
    /// The template, in Jinja.
    pub text: String,
    /// Its file, and its key there if the file has more.
    pub place: String,
}

/// The chat template: in a file of its own, or in tokenizer_config.json, where the one of several that is called
/// `default` counts.
fn read_chat_template(
    files: &ModelFiles,
    tokenizer_config: &Value,
) -> Result<Option<TemplateText>, StoreError> {
    if let Some(file) = files.others.get("chat_template.jinja") {
        let text = file.read().map_err(|e| bad_file(file, e.to_string()))?;
        let text = String::from_utf8(text.into_owned());
        let text = text.map_err(|_| bad_file(file, "it is not UTF-8 text".to_owned()))?;
        let place = file.to_string();
        return Ok(Some(TemplateText { text, place }));
    }
    let template = &tokenizer_config["chat_template"];
    let named = template.as_array().into_iter().flatten();
    let default = named
        .filter(|named| named["name"] == "default")
        .find_map(|named| named["template"].as_str());
    let text = template.as_str().or(default);
    let file = files.others.get("tokenizer_config.json");
    let place = file.map_or_else(String::new, ToString::to_string);
    Ok(text.map(|text| TemplateText {
        text: text.to_owned(),
        place: format!("{place}: chat_template"),
    }))
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
        let found = read_activation(&file, config, saved).map_err(|e| e.to_string())?;
        Ok(found.unwrap_or(Activation::Sigmoid))
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
