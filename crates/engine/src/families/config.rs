//! Reading config.json: its fields, checked, and what several families make of them alike.

use std::num::NonZeroUsize;

use rerankd_kernels::Activation;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::arch::Sizes;
use super::super::error::{LoadError, file_error};
use super::super::files::ModelFile;

/// config.json, or a module's. Errors say which field is wrong.
#[derive(Debug)]
pub(in super::super) struct Config(pub(super) Value);

impl Config {
    pub(super) fn read(file: &ModelFile) -> Result<Self, LoadError> {
        let text = file.read().map_err(|e| file_error(file, e.to_string()))?;
        let value = serde_json::from_slice(&text).map_err(|e| file_error(file, e.to_string()))?;
        Ok(Self(value))
    }

    /// What names the code that a model of the hub brings with it.
    pub(super) fn code(&self) -> String {
        format!("{} {}", self.0["auto_map"], self.0["_name_or_path"])
    }

    /// A field; `kind` says what it must be.
    pub(super) fn optional<T: DeserializeOwned>(
        &self,
        name: &str,
        kind: &str,
    ) -> Result<Option<T>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::deserialize(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(format!("{name} is {value}, but it must be {kind}")),
            },
        }
    }

    pub(super) fn required<T: DeserializeOwned>(
        &self,
        name: &str,
        kind: &str,
    ) -> Result<T, String> {
        let value = self.optional(name, kind)?;
        value.ok_or_else(|| format!("{name} is missing"))
    }

    /// A size.
    pub(super) fn size(&self, name: &str) -> Result<usize, String> {
        self.required(name, SIZE)
            .and_then(|size: NonZeroUsize| at_most(name, size.get(), MOST))
    }

    pub(super) fn size_or(&self, name: &str, default: usize) -> Result<usize, String> {
        self.size_within(name, default, MOST)
    }

    /// A size of at most so much.
    fn size_within(&self, name: &str, default: usize, most: usize) -> Result<usize, String> {
        let size: Option<NonZeroUsize> = self.optional(name, SIZE)?;
        at_most(name, size.map_or(default, NonZeroUsize::get), most)
    }

    pub(super) fn layers(&self, name: &str) -> Result<usize, String> {
        let layers: NonZeroUsize = self.required(name, SIZE)?;
        at_most(name, layers.get(), MOST_LAYERS)
    }

    /// The longest sequence in tokens.
    pub(super) fn positions(&self, name: &str, default: Option<usize>) -> Result<usize, String> {
        match default {
            Some(default) => self.size_within(name, default, MOST_POSITIONS),
            None => {
                let positions: NonZeroUsize = self.required(name, SIZE)?;
                at_most(name, positions.get(), MOST_POSITIONS)
            }
        }
    }

    /// A number above 0.
    pub(super) fn positive(&self, name: &str, default: f64) -> Result<f64, String> {
        let number = self.number(name, default)?;
        match number > 0.0 && number.is_finite() {
            true => Ok(number),
            false => Err(format!("{name} is {number}, but it must be above 0")),
        }
    }

    /// A size, or 0 or nothing.
    pub(super) fn size_or_none(&self, name: &str) -> Result<Option<usize>, String> {
        let size: Option<usize> = self.optional(name, "a whole number")?;
        let size = size.filter(|&size| size > 0);
        size.map(|size| at_most(name, size, MOST)).transpose()
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        Ok(self.optional(name, "true or false")?.unwrap_or(default))
    }

    pub(super) fn number(&self, name: &str, default: f64) -> Result<f64, String> {
        Ok(self.optional(name, "a number")?.unwrap_or(default))
    }

    /// `hidden_size`, and the heads that it is divided among.
    pub(super) fn width_and_heads(
        &self,
        width: &str,
        heads: &str,
    ) -> Result<(usize, usize), String> {
        let (hidden_size, count) = (self.size(width)?, self.size(heads)?);
        match hidden_size.is_multiple_of(count) {
            true => Ok((hidden_size, count)),
            false => Err(format!(
                "{width} {hidden_size} can't be divided among {count} attention heads"
            )),
        }
    }

    /// The sizes under the names that most families give them.
    pub(super) fn usual_sizes(&self) -> Result<Sizes, String> {
        self.sizes([
            "hidden_size",
            "num_attention_heads",
            "num_hidden_layers",
            "intermediate_size",
        ])
    }

    /// The sizes, of which `vocab_size` has that name everywhere.
    pub(super) fn sizes(&self, [width, heads, layers, wide]: [&str; 4]) -> Result<Sizes, String> {
        let (hidden_size, heads) = self.width_and_heads(width, heads)?;
        Ok(Sizes {
            hidden_size,
            heads,
            layers: self.layers(layers)?,
            vocab_size: self.size("vocab_size")?,
            wide: self.size(wide)?,
        })
    }

    /// An activation, of transformers' names for it.
    pub(super) fn activation(
        &self,
        name: &str,
        default: Option<&str>,
    ) -> Result<Activation, String> {
        let given: Option<String> = self.optional(name, "a text")?;
        let given = given.or_else(|| default.map(str::to_owned));
        let given = given.ok_or_else(|| format!("{name} is missing"))?;
        let known = ACTIVATIONS.iter().find(|(known, _)| *known == given);
        known.map(|(_, activation)| *activation).ok_or_else(|| {
            let known: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
            format!(
                "{name} \"{given}\" is not supported; rerankd has {}",
                known.join(", ")
            )
        })
    }

    /// Whether a class of transformers that it names is such.
    pub(super) fn has_architecture(&self, is: impl Fn(&str) -> bool) -> bool {
        let names = self.0["architectures"].as_array();
        let mut names = names.into_iter().flatten().filter_map(Value::as_str);
        names.any(is)
    }

    /// Whether it names a sequence classifier.
    pub(super) fn is_classifier(&self) -> bool {
        self.has_architecture(|name| name.ends_with("ForSequenceClassification"))
    }

    /// `layer_types` as transformers 5 writes it: which of the layers see all.
    pub(super) fn layer_types(&self, layers: usize) -> Result<Option<Vec<bool>>, String> {
        let types: Option<Vec<String>> = self.optional("layer_types", "a list of texts")?;
        let Some(types) = types else {
            return Ok(None);
        };
        if types.len() != layers {
            return Err(format!(
                "layer_types has {} entries for {layers} layers",
                types.len()
            ));
        }
        let global = |name: &String| match name.as_str() {
            "full_attention" => Ok(true),
            "sliding_attention" => Ok(false),
            other => Err(format!(
                "layer_types names \"{other}\", which is not supported"
            )),
        };
        types.iter().map(global).collect::<Result<_, _>>().map(Some)
    }

    /// The labels of a classifier's outputs. transformers' default is two when config.json names none; where it names
    /// no classifier either, sentence-transformers makes it one.
    pub(super) fn labels(&self) -> Result<Vec<String>, String> {
        let unnamed = |count: usize| (0..count).map(|i| format!("LABEL_{i}")).collect();
        if !self.is_classifier() {
            return Ok(unnamed(1));
        }
        let labels: Option<serde_json::Map<String, Value>> =
            self.optional("id2label", "an object")?;
        let Some(labels) = labels.filter(|labels| !labels.is_empty()) else {
            return Ok(unnamed(self.size_within("num_labels", 2, MOST_LABELS)?));
        };
        let label = |i: usize| match labels.get(&i.to_string()) {
            Some(Value::String(label)) => Ok(label.clone()),
            Some(other) => Ok(other.to_string()),
            None => Err(format!("id2label has no label {i}")),
        };
        (0..labels.len()).map(label).collect()
    }
}

/// A head's size, whose halves are turned against each other.
pub(super) fn even(size: usize) -> Result<usize, String> {
    match size.is_multiple_of(2) {
        true => Ok(size),
        false => Err(format!(
            "heads of {size} values (head_dim, or hidden_size over num_attention_heads) can't be rotated, whose size must be even"
        )),
    }
}

/// `[size / 2]`: the angles of a rotary embedding's steps, in the reference's precision, since they are multiplied with
/// places of thousands.
pub(super) fn frequencies(theta: f64, size: usize) -> Vec<f32> {
    let power = |i: usize| f64::from(theta as f32).powf(f64::from(i as f32 / size as f32)) as f32;
    (0..size).step_by(2).map(|i| 1.0 / power(i)).collect()
}

/// transformers' names of activations.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
];

/// A number that a file gives, unless it is beyond what any model has: what is made of it takes memory and time before
/// a tensor is asked for.
pub(super) fn at_most(name: &str, number: usize, most: usize) -> Result<usize, String> {
    match number <= most {
        true => Ok(number),
        false => Err(format!("{name} is {number}, but it must be at most {most}")),
    }
}

const MOST: usize = 1 << 24;
const MOST_LAYERS: usize = 1000;
const MOST_POSITIONS: usize = 1 << 20;
pub(super) const MOST_LABELS: usize = 1000;
const SIZE: &str = "a whole number above 0";
