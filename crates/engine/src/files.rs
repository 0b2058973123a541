//! A model's files: on disk, or within the binary.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use crate::Dtype;

/// A file within the binary.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Embedded {
    /// Its name in messages.
    pub name: &'static str,
    /// What it holds.
    pub bytes: &'static [u8],
}

/// By its name: megabytes of weights say nothing in a log.
impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFile {
    /// On disk.
    Disk(PathBuf),
    /// Within the binary.
    Embedded(Embedded),
}

impl ModelFile {
    /// What the file holds.
    ///
    /// # Errors
    /// If a file on disk can't be read.
    pub fn read(&self) -> std::io::Result<Cow<'static, [u8]>> {
        match self {
            Self::Disk(path) => std::fs::read(path).map(Cow::Owned),
            Self::Embedded(file) => Ok(Cow::Borrowed(file.bytes)),
        }
    }
}

impl fmt::Display for ModelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(path) => path.display().fmt(f),
            Self::Embedded(file) => f.write_str(file.name),
        }
    }
}

/// A model's files, found but not yet read.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// The name that the model is served under unless the settings give another.
    pub name: String,
    /// The commit on the hub, if it came from there.
    pub revision: Option<String>,
    /// What whoever uses the model should know of it, in one line.
    pub note: Option<&'static str>,
    /// What the weights should be kept in on a CPU unless the settings say, if that is known; else see
    /// [`suits`](crate::suits).
    pub dtype: Option<Dtype>,
    /// config.json.
    pub config: ModelFile,
    /// The weights.
    pub weights: Weights,
    /// What modules.json puts behind the transformer, in its order; empty if the transformer has a head of its own.
    pub modules: Vec<Module>,
    /// What is wanted of it.
    pub task: Task,
    /// Of a model with a head for each of its layers, how many layers are computed; all if `None`.
    pub cutoff_layer: Option<usize>,
    /// How documents get shorter on their way through the layers, if that is wanted.
    pub compression: Option<Compression>,
    /// The other files that there are, by their names, such as tokenizer.json.
    pub others: BTreeMap<&'static str, ModelFile>,
}

/// A document's tokens that follow each other become one, of a model that was trained for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// The layers before which this is done, counted from 0; those that are not computed don't count.
    #[serde(default = "Compression::default_layers")]
    pub layers: Vec<usize>,
    /// How many become one.
    pub ratio: usize,
}

impl Compression {
    /// The ratios that there are models for; 1 changes nothing.
    pub const RATIOS: [usize; 4] = [1, 2, 4, 8];

    /// As the published code has it.
    fn default_layers() -> Vec<usize> {
        vec![8]
    }
}

/// What a model's outputs are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Task {
    /// A classification head: a row with a logit for each label.
    #[default]
    Labels,
    /// The vocabulary of a causal language model, at a sequence's last token: the logit of one token, less that of
    /// another if there is one. No other token's is computed.
    Answer {
        /// The token whose logit counts.
        token: u32,
        /// The token whose logit is taken off.
        minus: Option<u32>,
    },
    /// Hidden states, pooled or of each place that is read, through the modules behind the transformer: vectors, not
    /// normalised.
    Vectors,
}

/// A module that sentence-transformers puts behind a transformer, in a folder of its own.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its type, such as `sentence_transformers.sentence_transformer.modules.Dense`.
    pub kind: String,
    /// Its folder's name, such as `2_Dense`.
    pub path: String,
    /// Its config.json.
    pub config: ModelFile,
    /// Its weights, if it has any.
    pub weights: Option<Weights>,
}

#[cfg(test)]
impl ModelFiles {
    /// A model that has nothing but this config.json.
    pub(super) fn of_config(config: PathBuf) -> Self {
        Self {
            name: "model".into(),
            revision: None,
            note: None,
            dtype: None,
            config: ModelFile::Disk(config),
            weights: Weights::Safetensors(Vec::new()),
            modules: Vec::new(),
            task: Task::Labels,
            cutoff_layer: None,
            compression: None,
            others: BTreeMap::new(),
        }
    }
}

/// The files that hold the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weights {
    /// One safetensors file, or the shards that an index names.
    Safetensors(Vec<PathBuf>),
    /// One PyTorch checkpoint, or the shards that an index names.
    Pytorch(Vec<PathBuf>),
    /// One GGUF file.
    Gguf(PathBuf),
    /// One safetensors file within the binary.
    Embedded(Embedded),
}

impl Weights {
    /// The first file's name, for messages.
    pub(super) fn main(&self) -> String {
        let file = match self {
            Self::Safetensors(paths) | Self::Pytorch(paths) => {
                paths.first().map(|p| p.display().to_string())
            }
            Self::Gguf(path) => Some(path.display().to_string()),
            Self::Embedded(file) => Some(file.name.to_owned()),
        };
        file.unwrap_or_default()
    }
}
