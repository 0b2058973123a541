//! The tensors in a file of weights: what there is, and its numbers, row by row.

mod gguf;
mod pickle;
mod safetensors;

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use rerankd_kernels::Stored;

use crate::Dtype;

use super::error::LoadError;
use super::files::Weights;

/// A file's tensors; threads may read several at once.
pub(super) trait Tensors: Sync {
    /// The file's name in messages.
    fn file(&self) -> &str;

    /// All of its tensors, by their names.
    fn found(&self) -> HashMap<String, Found>;

    /// Calls `each` with those of a tensor's rows that `range` has: of a matrix, or a vector as the only one.
    ///
    /// # Errors
    /// What is wrong with the tensor, or the first that `each` gave.
    fn rows(&self, name: &str, range: Range<usize>, each: &mut EachRow<'_>) -> Result<(), String>;
}

/// What is called with each row of a tensor.
pub(super) type EachRow<'a> = dyn FnMut(Stored<'_>) -> Result<(), String> + 'a;

/// What is known of a tensor before it is read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
}

/// What a tensor's numbers are read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Stored in this type, or in f64.
    Floats(Dtype),
    /// With a scale for each row.
    Integers,
    /// Nothing that weights could be.
    Other,
}

/// The bytes of numbers of `width` bytes in this shape, unless they are more than can be.
fn bytes_of(shape: &[usize], width: usize) -> Option<u64> {
    let bytes = shape.iter().try_fold(width, |a, &b| a.checked_mul(b));
    bytes.map(|bytes| bytes as u64)
}

/// Opens the files of weights; no values are read.
pub(super) fn open(weights: &Weights) -> Result<Vec<Box<dyn Tensors>>, LoadError> {
    match weights {
        Weights::Safetensors(paths) => {
            let open = |path: &PathBuf| {
                Ok(Box::new(safetensors::Safetensors::open(path)?) as Box<dyn Tensors>)
            };
            paths.iter().map(open).collect()
        }
        Weights::Embedded(file) => Ok(vec![Box::new(safetensors::Safetensors::embedded(*file)?)]),
        Weights::Gguf(path) => Ok(vec![Box::new(gguf::Gguf::open(path)?)]),
        Weights::Pytorch(paths) => {
            let open =
                |path: &PathBuf| Ok(Box::new(pickle::Pickle::open(path)?) as Box<dyn Tensors>);
            paths.iter().map(open).collect()
        }
    }
}
