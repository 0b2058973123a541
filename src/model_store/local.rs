//! A folder in the Hugging Face layout.

use std::path::Path;

use crate::engine::{ModelFiles, Weights};

use super::{StoreError, collect, is_lfs_pointer};

/// A model's files, of which the weights may be a GGUF file of any name.
pub(super) fn find(folder: &Path, gguf: Option<&Path>) -> Result<ModelFiles, StoreError> {
    let mut files = collect(&folder.display().to_string(), |file| {
        let path = match (gguf, file) {
            (Some(gguf), "model.safetensors") => gguf.to_owned(),
            _ => folder.join(file),
        };
        if is_lfs_pointer(&path) {
            return Err(StoreError::LfsPointer {
                file: path.display().to_string(),
            });
        }
        Ok(path.is_file().then_some(path))
    })?;
    if let Some(gguf) = gguf {
        files.weights = Weights::Gguf(gguf.to_owned());
    }
    Ok(ModelFiles {
        name: name(gguf.unwrap_or(folder)),
        ..files
    })
}

/// A folder's name, or a file's without its ending.
pub(super) fn name(folder: &Path) -> String {
    let name = folder.canonicalize().ok();
    let name = match folder.is_file() {
        true => folder.file_stem(),
        false => name.as_deref().and_then(Path::file_name),
    };
    name.map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned())
}
