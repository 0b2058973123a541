//! The model: packed batches in, logits out. Synchronous; one thread owns it.
//!
//! Only this module names candle. `load` checks the files, `tensors` and `pickle` read the weights,
//! `registry` maps config.json to a family, `models` holds one file per family. On a CPU a family runs
//! packed on our own kernels (`rerankd-kernels`); elsewhere `padded` on candle-transformers. Called by `batch` and `app`.

mod encoder;
mod load;
mod models;
mod packed;
mod padded;
mod pickle;
mod rate;
mod registry;
mod tensors;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use rerankd_kernels::{Kernels, NoSuchKernels};

use crate::types::{Batch, Dtype, ModelSpec, Output};

pub use rate::{flops, sgemm_rate};
pub use registry::{Checked, check, check_weights, is_device, load};

/// Names of instruction sets in the settings; a CPU need not have each.
pub const INSTRUCTIONS: [&str; 4] = ["auto", "avx512", "avx2", "portable"];

/// A model of which the engine knows nothing but sequences in, outputs out: no text, no task.
pub trait Model: Send {
    /// What is known of the model.
    fn spec(&self) -> &ModelSpec;

    /// Runs a packed batch; one output per sequence, in the batch's order.
    ///
    /// # Errors
    /// [`EngineError`], for the whole batch.
    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError>;
}

/// Where and how the model runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Threads of the engine on a CPU.
    pub threads: usize,
    /// What the weights are kept in; on a CPU only.
    pub dtype: Dtype,
    /// `auto`, or the instruction set to use on a CPU: `avx512`, `avx2` or `portable`.
    pub instructions: String,
}

/// The instruction set that the model runs on; `None` if that is not a CPU's.
#[must_use]
pub fn instructions(options: &Options) -> Option<&'static str> {
    let kernels = Kernels::named(&options.instructions).ok()?;
    (options.device == "cpu").then(|| kernels.name())
}

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
    /// What the weights should be kept in on a CPU, unless the settings say.
    pub dtype: Dtype,
    /// config.json.
    pub config: ModelFile,
    /// The weights.
    pub weights: Weights,
    /// The other files that there are, by their names, such as tokenizer.json.
    pub others: BTreeMap<&'static str, ModelFile>,
}

/// The files that hold the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weights {
    /// One safetensors file, or the shards that an index names.
    Safetensors(Vec<PathBuf>),
    /// One PyTorch checkpoint, or the shards that an index names.
    Pytorch(Vec<PathBuf>),
    /// One safetensors file within the binary.
    Embedded(Embedded),
}

impl Weights {
    /// The first file's name, for messages.
    fn main(&self) -> String {
        let file = match self {
            Self::Safetensors(paths) | Self::Pytorch(paths) => {
                paths.first().map(|p| p.display().to_string())
            }
            Self::Embedded(file) => Some(file.name.to_owned()),
        };
        file.unwrap_or_default()
    }

    fn error(&self, error: &candle_core::Error) -> LoadError {
        LoadError::File {
            file: self.main(),
            reason: error.to_string(),
        }
    }
}

/// Why a model can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file can't be read or is malformed.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// config.json names an architecture that rerankd has no code for.
    #[error(
        "{file}: model_type \"{model_type}\" is not supported; rerankd runs sequence classifiers of the families {supported}"
    )]
    Unsupported {
        /// config.json.
        file: String,
        /// The type it names.
        model_type: String,
        /// The types there is code for.
        supported: &'static str,
    },
    /// A tensor that the configuration asks for is not in the weights.
    #[error("{file}: tensor \"{tensor}\" is missing{hint}")]
    MissingTensor {
        /// The weights.
        file: String,
        /// The tensor.
        tensor: String,
        /// What that may mean.
        hint: &'static str,
    },
    /// A tensor has not the shape that the configuration asks for.
    #[error(
        "{file}: tensor \"{tensor}\" has shape {found:?}, but config.json asks for {expected:?}"
    )]
    WrongShape {
        /// The file that holds the tensor.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that config.json implies.
        expected: Vec<usize>,
    },
    /// The CPU has not the instruction set.
    #[error(
        "engine.instructions is \"{asked}\", but it must be one of auto, {available} (what this CPU has)"
    )]
    Instructions {
        /// The set asked for.
        asked: String,
        /// Those that this CPU has.
        available: String,
    },
    /// The device is not there.
    #[error("engine.device \"{device}\": {reason}")]
    Device {
        /// The device asked for.
        device: String,
        /// Why it can't be had.
        reason: String,
    },
}

impl From<NoSuchKernels> for LoadError {
    fn from(error: NoSuchKernels) -> Self {
        Self::Instructions {
            asked: error.name,
            available: error.available.join(", "),
        }
    }
}

/// Why a batch has no outputs.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// candle reported an error.
    #[error("the model failed: {0}")]
    Candle(#[from] candle_core::Error),
    /// The model panicked.
    #[error("the model panicked")]
    Panicked,
    /// The model gave another number of outputs than there were sequences.
    #[error("{outputs} outputs for {sequences} sequences")]
    OutputCount {
        /// Sequences in the batch.
        sequences: usize,
        /// Outputs returned.
        outputs: usize,
    },
}
