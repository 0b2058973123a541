//! What can go wrong in the engine.

use std::fmt::Display;

use rerankd_kernels::NoSuchKernels;

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
    #[error("{file}: model_type \"{model_type}\" is not supported: {hint}")]
    Unsupported {
        /// config.json.
        file: String,
        /// The type it names.
        model_type: String,
        /// What is supported in its place, and where all of that is listed.
        hint: String,
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
    /// Threads can't be pinned.
    #[error("engine.pin is true, but {0}")]
    Pin(String),
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
    /// Nobody waits for the outputs any more.
    #[error("nobody waits for the outputs")]
    Unwanted,
    /// The model gave another number of outputs than there were sequences.
    #[error("{outputs} outputs for {sequences} sequences")]
    OutputCount {
        /// Sequences in the batch.
        sequences: usize,
        /// Outputs returned.
        outputs: usize,
    },
}

/// Characters that are told of a reason: it may name a tensor, whose name may be of any length.
const LONGEST_REASON: usize = 1_000;

/// Something is wrong with a file.
pub(super) fn file_error(file: impl Display, reason: impl Into<String>) -> LoadError {
    let mut reason = reason.into();
    if let Some((end, _)) = reason.char_indices().nth(LONGEST_REASON) {
        reason.replace_range(end.., "...");
    }
    LoadError::File {
        file: file.to_string(),
        reason,
    }
}
