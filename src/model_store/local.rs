//! A folder in the Hugging Face layout.

use std::path::Path;

use crate::engine::ModelFiles;

use super::{StoreError, collect};

pub(super) fn find(folder: &Path) -> Result<ModelFiles, StoreError> {
    let files = collect(
        |file| folder.join(file).is_file(),
        |file| {
            let path = folder.join(file);
            path.is_file()
                .then_some(path)
                .ok_or_else(|| StoreError::MissingFile {
                    place: folder.display().to_string(),
                    file: file.to_owned(),
                    hint: "",
                })
        },
    )?;
    let name = folder.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name);
    Ok(ModelFiles {
        name: name.map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned()),
        ..files
    })
}
