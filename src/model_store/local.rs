//! A folder in the Hugging Face layout.

use std::path::Path;

use crate::engine::ModelFiles;

use super::{StoreError, collect, is_lfs_pointer};

pub(super) fn find(folder: &Path) -> Result<ModelFiles, StoreError> {
    let files = collect(&folder.display().to_string(), |file| {
        let path = folder.join(file);
        if is_lfs_pointer(&path) {
            return Err(StoreError::LfsPointer {
                file: path.display().to_string(),
            });
        }
        Ok(path.is_file().then_some(path))
    })?;
    Ok(ModelFiles {
        name: name(folder),
        ..files
    })
}

pub(super) fn name(folder: &Path) -> String {
    let name = folder.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name);
    name.map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned())
}
