//! From config.json to a model family, its specification and the loaded model.

use std::collections::HashMap;

use candle_core::Device;
use rerankd_kernels::Kernels;
use serde::Deserialize;

use crate::types::{Dtype, ModelSpec};

use super::load::{Names, file_error, open};
use super::models::bert;
use super::models::xlm_roberta::{self, XlmRoberta};
use super::packed::PackedEncoder;
use super::{LoadError, Model, ModelFile, ModelFiles, Options};

const SUPPORTED: &str = "bert, roberta, xlm-roberta";

/// What rerankd reads of a Hugging Face config.json.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Config {
    pub(super) model_type: String,
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) intermediate_size: usize,
    hidden_act: String,
    pub(super) max_position_embeddings: usize,
    #[serde(default = "two")]
    pub(super) type_vocab_size: usize,
    #[serde(default = "layer_norm_eps")]
    pub(super) layer_norm_eps: f64,
    #[serde(default)]
    pub(super) pad_token_id: Option<u32>,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    id2label: Option<HashMap<String, serde_json::Value>>,
    #[serde(default)]
    num_labels: Option<usize>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
}

/// An activation that there is code for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HiddenActivation {
    /// GELU with the exact error function.
    Gelu,
    /// GELU by tanh.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

fn two() -> usize {
    2
}

fn layer_norm_eps() -> f64 {
    1e-12
}

impl Config {
    /// transformers' default is two labels when config.json names none; where it names no classifier
    /// either, sentence-transformers makes it one.
    fn labels(&self) -> usize {
        let names_classifier = self.architectures.iter().flatten();
        let mut classifiers = names_classifier.filter(|a| a.ends_with("ForSequenceClassification"));
        if classifiers.next().is_none() {
            return 1;
        }
        match &self.id2label {
            Some(labels) => labels.len(),
            None => self.num_labels.unwrap_or(2),
        }
    }

    /// The feed-forward layers' activation, of transformers' names for it.
    pub(super) fn hidden_activation(&self) -> Result<HiddenActivation, LoadError> {
        match self.hidden_act.as_str() {
            "gelu" => Ok(HiddenActivation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(HiddenActivation::GeluTanh),
            "relu" => Ok(HiddenActivation::Relu),
            other => Err(LoadError::File {
                file: "config.json".into(),
                reason: format!(
                    "hidden_act \"{other}\" is not supported for {}",
                    self.model_type
                ),
            }),
        }
    }

    fn spec(&self, family: &'static str, max_positions: usize) -> Result<ModelSpec, String> {
        let labels = self.labels();
        if labels != 1 {
            return Err(format!(
                "the classifier has {labels} labels; a reranker has exactly one"
            ));
        }
        if self.num_hidden_layers == 0 {
            return Err("num_hidden_layers is 0".into());
        }
        if let Some(other) = &self.position_embedding_type
            && other != "absolute"
        {
            return Err(format!(
                "position_embedding_type \"{other}\" is not supported"
            ));
        }
        if self.num_attention_heads == 0
            || !self.hidden_size.is_multiple_of(self.num_attention_heads)
        {
            return Err(format!(
                "hidden_size {} can't be divided among {} attention heads",
                self.hidden_size, self.num_attention_heads
            ));
        }
        Ok(ModelSpec {
            family,
            hidden_size: self.hidden_size,
            layers: self.num_hidden_layers,
            vocab_size: self.vocab_size,
            intermediate_size: self.intermediate_size,
            type_vocab_size: self.type_vocab_size,
            max_positions,
        })
    }
}

/// What is known of a model before its weights are read.
#[derive(Debug, Clone)]
pub struct Checked {
    /// From config.json.
    pub spec: ModelSpec,
    /// The instruction set that will be used, on a CPU.
    pub instructions: Option<&'static str>,
}

/// Does what [`load`] does before it opens the weights.
///
/// # Errors
/// As [`load`].
pub fn check(files: &ModelFiles, options: &Options) -> Result<Checked, LoadError> {
    let (config, device) = (read_config(&files.config)?, device(options)?);
    let (spec, _) = family(&config, &files.config)?;
    config.hidden_activation()?;
    let kernels = device
        .is_cpu()
        .then(|| Kernels::named(&options.instructions));
    let kernels = kernels.transpose()?;
    Ok(Checked {
        spec,
        instructions: kernels.map(Kernels::name),
    })
}

/// Checks the weights' names and shapes as [`load`] does, and reads no values.
///
/// # Errors
/// As [`load`].
pub fn check_weights(files: &ModelFiles, options: &Options) -> Result<(), LoadError> {
    let (config, device) = (read_config(&files.config)?, device(options)?);
    let (_, names) = family(&config, &files.config)?;
    open(&files.weights, &config, names, &device).map(drop)
}

/// Reads, checks and loads a model.
///
/// # Errors
/// [`LoadError`], which names the file and, where it applies, the tensor.
pub fn load(files: &ModelFiles, options: &Options) -> Result<Box<dyn Model>, LoadError> {
    let (config, device) = (read_config(&files.config)?, device(options)?);
    let (spec, names) = family(&config, &files.config)?;
    let weights = &files.weights;
    Ok(match names.padding_id {
        _ if device.is_cpu() => {
            Box::new(PackedEncoder::load(&config, spec, weights, names, options)?)
        }
        None => Box::new(bert::Bert::load(&config, spec, weights, &device)?),
        Some(pad) => Box::new(XlmRoberta::load(&config, pad, spec, weights, &device)?),
    })
}

/// A family's specification, and where its checkpoints keep what.
fn family(config: &Config, file: &ModelFile) -> Result<(ModelSpec, Names), LoadError> {
    let invalid = |reason| file_error(file, reason);
    match config.model_type.as_str() {
        "bert" => {
            let spec = config.spec("bert", config.max_position_embeddings);
            Ok((spec.map_err(invalid)?, bert::NAMES))
        }
        family @ ("roberta" | "xlm-roberta") => {
            let family = if family == "roberta" {
                "roberta"
            } else {
                "xlm-roberta"
            };
            // Positions start after the padding index: row pad_token_id + 1 is the first token's.
            let pad = config.pad_token_id.unwrap_or(1);
            let positions = config.max_position_embeddings;
            let positions = positions.saturating_sub(pad as usize + 1);
            let spec = config.spec(family, positions).map_err(invalid)?;
            Ok((spec, xlm_roberta::names(pad)))
        }
        other => Err(LoadError::Unsupported {
            file: file.to_string(),
            model_type: other.to_owned(),
            supported: SUPPORTED,
        }),
    }
}

fn read_config(file: &ModelFile) -> Result<Config, LoadError> {
    let text = file.read().map_err(|e| file_error(file, e.to_string()))?;
    // The type first: a foreign family may lack the fields of ours, and the error should say so.
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| file_error(file, e.to_string()))?;
    match value["model_type"].as_str() {
        Some("bert" | "roberta" | "xlm-roberta") | None => {}
        Some(other) => {
            return Err(LoadError::Unsupported {
                file: file.to_string(),
                model_type: other.to_owned(),
                supported: SUPPORTED,
            });
        }
    }
    serde_json::from_value(value).map_err(|e| file_error(file, e.to_string()))
}

/// The number of a CUDA device's name, `None` for the CPU; an error if it is no device's name.
fn ordinal(device: &str) -> Result<Option<usize>, ()> {
    match device {
        "cpu" => Ok(None),
        "cuda" => Ok(Some(0)),
        other => {
            let number = other.strip_prefix("cuda:").ok_or(())?;
            number.parse().map(Some).map_err(drop)
        }
    }
}

/// Whether a text has the form of a device's name: `cpu`, `cuda` or `cuda:N`.
#[must_use]
pub fn is_device(name: &str) -> bool {
    ordinal(name).is_ok()
}

fn device(options: &Options) -> Result<Device, LoadError> {
    let error = |reason: String| LoadError::Device {
        device: options.device.clone(),
        reason,
    };
    let ordinal = ordinal(&options.device);
    let ordinal = ordinal.map_err(|()| error("is none of cpu, cuda and cuda:N".into()))?;
    let Some(ordinal) = ordinal else {
        return Ok(Device::Cpu);
    };
    if !candle_core::utils::cuda_is_available() {
        return Err(error(
            "this rerankd was built without CUDA; build it with --features cuda, or use --device cpu".into(),
        ));
    }
    if options.dtype != Dtype::F32 {
        let name = options.dtype.name();
        return Err(error(format!("runs f32 only so far, not {name}")));
    }
    Device::new_cuda(ordinal).map_err(|e| error(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Batch, Sequence};

    fn config(extra: &str) -> Config {
        let text = format!(
            r#"{{"model_type":"bert","vocab_size":9,"hidden_size":8,"num_hidden_layers":1,
            "num_attention_heads":2,"intermediate_size":16,"hidden_act":"gelu",
            "max_position_embeddings":16{extra}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_one_label_makes_a_reranker() {
        let classifier = r#","architectures":["BertForSequenceClassification"]"#;
        let one = config(&format!(r#"{classifier},"id2label":{{"0":"LABEL_0"}}"#));
        assert!(one.spec("bert", 16).is_ok());
        let two = config(classifier).spec("bert", 16).unwrap_err();
        assert!(two.contains("2 labels"), "{two}");
        // As sentence-transformers has it; whether there is a head is seen in the weights.
        let none = config(r#","architectures":["BertModel"],"num_labels":2"#);
        assert!(none.spec("bert", 16).is_ok());
    }

    /// Other devices run candle-transformers' models; on a CPU they must agree with the kernels.
    #[test]
    fn padded_and_packed_engines_give_the_same_logits() {
        let fixtures =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
        let cpu = Device::Cpu;
        for name in ["tiny-bert", "tiny-xlmr"] {
            let folder = fixtures.join(name);
            let shards = ["model-00001-of-00002", "model-00002-of-00002"];
            let weights: Vec<_> = match name {
                "tiny-bert" => vec![folder.join("model.safetensors")],
                _ => shards
                    .map(|s| folder.join(format!("{s}.safetensors")))
                    .into(),
            };
            let files = ModelFiles {
                name: name.into(),
                revision: None,
                note: None,
                dtype: Dtype::F32,
                config: ModelFile::Disk(folder.join("config.json")),
                weights: crate::engine::Weights::Safetensors(weights),
                others: std::collections::BTreeMap::new(),
            };
            let options = Options {
                device: "cpu".into(),
                dtype: Dtype::F32,
                threads: 2,
                instructions: "auto".into(),
            };
            let mut packed = load(&files, &options).unwrap();
            let config = read_config(&files.config).unwrap();
            let (spec, weights) = (packed.spec().clone(), &files.weights);
            let mut padded: Box<dyn Model> = match name {
                "tiny-bert" => Box::new(bert::Bert::load(&config, spec, weights, &cpu).unwrap()),
                _ => Box::new(XlmRoberta::load(&config, 1, spec, weights, &cpu).unwrap()),
            };
            let sequence = |length: usize| {
                let ids = (0..length).map(|i| (5 + (i * 37 + length) % 300) as u32);
                Sequence::new(ids.collect(), vec![0; length])
            };
            let batch = Batch::pack(&[5, 70, 6, 90, 41].map(sequence));
            let (a, b) = (
                packed.forward(&batch).unwrap(),
                padded.forward(&batch).unwrap(),
            );
            for (a, b) in a.iter().zip(&b) {
                assert!(
                    (a.values()[0] - b.values()[0]).abs() < 1e-4,
                    "{name}: {a:?} {b:?}"
                );
            }
        }
    }
}
