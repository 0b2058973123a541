//! The model families: what each makes of config.json, and where its checkpoints keep what.
//!
//! A new family is a file in `families/` and a row in [`FAMILIES`]. What its models have that no
//! other's had becomes part of [`Arch`], and of what reads it.

mod bert;
mod roberta;

use std::num::NonZeroUsize;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ModelSpec;

use super::arch::Arch;
use super::error::{LoadError, file_error};
use super::files::ModelFile;

/// One family.
pub(super) struct Family {
    /// What config.json calls its models.
    model_types: &'static [&'static str],
    /// Reads config.json, or says what is wrong with it.
    read: fn(&Config) -> Result<Arch, String>,
    names: Names,
}

/// All families that there is code for.
const FAMILIES: &[Family] = &[bert::FAMILY, roberta::FAMILY];

/// Where a family's checkpoints keep what: layers of tensors `NAME.weight` and `NAME.bias`, and tables
/// of `NAME.weight` alone.
#[derive(Debug)]
pub(super) struct Names {
    /// What the names of embeddings and layers begin with.
    pub(super) encoder: &'static str,
    /// Within the encoder.
    pub(super) word: &'static str,
    pub(super) position: &'static str,
    pub(super) token_type: &'static str,
    pub(super) embeddings_norm: &'static str,
    pub(super) layers: &'static str,
    /// Within a layer.
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) attention_output: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) intermediate: &'static str,
    pub(super) output: &'static str,
    pub(super) output_norm: &'static str,
    /// The head's, whole names.
    pub(super) dense: &'static str,
    pub(super) classifier: &'static str,
}

impl Names {
    /// A part of the encoder.
    pub(super) fn encoder(&self, part: &str) -> String {
        format!("{}.{part}", self.encoder)
    }

    /// A part of a layer.
    pub(super) fn layer(&self, layer: usize, part: &str) -> String {
        format!("{}.{}.{layer}.{part}", self.encoder, self.layers)
    }
}

/// What config.json says of a model.
#[derive(Debug)]
pub(super) struct Described {
    /// As config.json names the family.
    pub(super) family: &'static str,
    pub(super) arch: Arch,
    pub(super) names: &'static Names,
}

impl Described {
    /// What all but the engine needs to know.
    pub(super) fn spec(&self) -> ModelSpec {
        ModelSpec {
            family: self.family,
            hidden_size: self.arch.hidden_size,
            layers: self.arch.layers,
            vocab_size: self.arch.vocab_size,
            type_vocab_size: self.arch.token_types,
            max_positions: self.arch.position.longest(),
        }
    }
}

/// Reads config.json.
///
/// # Errors
/// If it is malformed, of no family that there is code for, or no reranker's.
pub(super) fn describe(file: &ModelFile) -> Result<Described, LoadError> {
    let text = file.read().map_err(|e| file_error(file, e.to_string()))?;
    let value = serde_json::from_slice(&text).map_err(|e| file_error(file, e.to_string()))?;
    let (config, wrong) = (Config(value), |reason| file_error(file, reason));
    let model_type: String = config.required("model_type", "a text").map_err(wrong)?;
    let types =
        |family: &'static Family| family.model_types.iter().map(move |name| (family, *name));
    let mut all = FAMILIES.iter().flat_map(types);
    let Some((family, name)) = all.clone().find(|(_, name)| *name == model_type) else {
        let supported: Vec<&str> = all.by_ref().map(|(_, name)| name).collect();
        return Err(LoadError::Unsupported {
            file: file.to_string(),
            model_type,
            supported: supported.join(", "),
        });
    };
    Ok(Described {
        family: name,
        arch: (family.read)(&config).map_err(wrong)?,
        names: &family.names,
    })
}

/// config.json. Errors say which field is wrong.
#[derive(Debug)]
pub(super) struct Config(Value);

impl Config {
    /// A field; `kind` says what it must be.
    fn optional<T: DeserializeOwned>(&self, name: &str, kind: &str) -> Result<Option<T>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::deserialize(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(format!("{name} is {value}, but it must be {kind}")),
            },
        }
    }

    fn required<T: DeserializeOwned>(&self, name: &str, kind: &str) -> Result<T, String> {
        let value = self.optional(name, kind)?;
        value.ok_or_else(|| format!("{name} is missing"))
    }

    /// A size.
    fn size(&self, name: &str) -> Result<usize, String> {
        let size: NonZeroUsize = self.required(name, SIZE)?;
        Ok(size.get())
    }

    fn size_or(&self, name: &str, default: usize) -> Result<usize, String> {
        let size: Option<NonZeroUsize> = self.optional(name, SIZE)?;
        Ok(size.map_or(default, NonZeroUsize::get))
    }

    /// Refuses a classifier of several labels. transformers' default is two when config.json names none;
    /// where it names no classifier either, sentence-transformers makes it one.
    fn has_one_label(&self) -> Result<(), String> {
        let names: Option<Vec<String>> = self.optional("architectures", "a list of texts")?;
        let is_classifier = |name: &String| name.ends_with("ForSequenceClassification");
        if !names.iter().flatten().any(is_classifier) {
            return Ok(());
        }
        let labels: Option<serde_json::Map<String, Value>> =
            self.optional("id2label", "an object")?;
        let labels = match labels {
            Some(labels) => labels.len(),
            None => self.size_or("num_labels", 2)?,
        };
        match labels {
            1 => Ok(()),
            _ => Err(format!(
                "the classifier has {labels} labels; a reranker has exactly one"
            )),
        }
    }
}

const SIZE: &str = "a whole number above 0";

#[cfg(test)]
mod tests {
    use super::*;

    /// A BERT's config.json with some fields changed; null takes one out.
    fn read(changes: &Value) -> Result<Described, String> {
        let mut config = serde_json::json!({
            "model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "hidden_act": "gelu",
            "max_position_embeddings": 16,
        });
        for (name, value) in changes.as_object().unwrap() {
            config[name] = value.clone();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config.to_string()).unwrap();
        let described = describe(&ModelFile::Disk(file.path().to_owned()));
        described.map_err(|error| {
            let text = error.to_string();
            let file = format!("{}: ", file.path().display());
            text.strip_prefix(&file).expect("it names the file").into()
        })
    }

    #[test]
    fn only_one_label_makes_a_reranker() {
        let classifier = serde_json::json!(["BertForSequenceClassification"]);
        let labels = serde_json::json!({"0": "LABEL_0"});
        let one = serde_json::json!({"architectures": classifier, "id2label": labels});
        assert!(read(&one).is_ok());
        let two = read(&serde_json::json!({"architectures": classifier})).unwrap_err();
        assert!(two.contains("2 labels"), "{two}");
        // As sentence-transformers has it; whether there is a head is seen in the weights.
        let none = serde_json::json!({"architectures": ["BertModel"], "num_labels": 2});
        assert!(read(&none).is_ok());
    }

    #[test]
    fn errors_name_the_field() {
        for (changes, expected) in [
            (r#"{"hidden_size": null}"#, "hidden_size is missing"),
            (
                r#"{"vocab_size": "many"}"#,
                r#"vocab_size is "many", but it must be a whole number above 0"#,
            ),
            (
                r#"{"num_hidden_layers": 0}"#,
                "num_hidden_layers is 0, but it must be a whole number above 0",
            ),
            (
                r#"{"layer_norm_eps": []}"#,
                "layer_norm_eps is [], but it must be a number",
            ),
            (
                r#"{"model_type": "roberta", "pad_token_id": -1}"#,
                "pad_token_id is -1, but it must be a token's id",
            ),
            (r#"{"model_type": null}"#, "model_type is missing"),
            (
                r#"{"num_attention_heads": 3}"#,
                "hidden_size 8 can't be divided among 3 attention heads",
            ),
        ] {
            let error = read(&serde_json::from_str(changes).unwrap()).unwrap_err();
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_foreign_family_is_told_what_there_is() {
        // Whatever else its config.json may lack.
        let foreign = serde_json::json!({"model_type": "llama", "hidden_act": null});
        let error = read(&foreign).unwrap_err();
        assert!(error.contains("\"llama\" is not supported"), "{error}");
        assert!(error.ends_with("bert, roberta, xlm-roberta"), "{error}");
    }
}
