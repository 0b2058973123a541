//! A folder in the Hugging Face layout.

use std::path::{Path, PathBuf};

use crate::engine::{ModelFile, ModelFiles, Weights};

use super::{StoreError, is_lfs_pointer, shards};

pub(super) fn find(folder: &Path) -> Result<ModelFiles, StoreError> {
    let missing = |file: &str, hint| StoreError::MissingFile {
        place: folder.display().to_string(),
        file: file.to_owned(),
        hint,
    };
    let file = |name: &str| match folder.join(name) {
        path if is_lfs_pointer(&path) => Err(StoreError::LfsPointer {
            file: path.display().to_string(),
        }),
        path => Ok::<Option<PathBuf>, _>(path.is_file().then_some(path)),
    };
    let need = |name: &str, hint| file(name)?.ok_or_else(|| missing(name, hint));
    let config = need("config.json", "; is this a model folder?")?;
    let tokenizer = need(
        "tokenizer.json",
        "; rerankd needs the fast tokenizer's file, which transformers writes with \
         AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)",
    )?;
    let weights = if let Some(single) = file("model.safetensors")? {
        Weights::Safetensors(vec![single])
    } else if let Some(index) = file("model.safetensors.index.json")? {
        let paths = shards(&index)?
            .iter()
            .map(|name| need(name, ", though model.safetensors.index.json names it"))
            .collect::<Result<_, _>>()?;
        Weights::Safetensors(paths)
    } else if let Some(checkpoint) = file("pytorch_model.bin")? {
        Weights::Pytorch(checkpoint)
    } else {
        return Err(missing(
            "model.safetensors",
            " (and so are model.safetensors.index.json and pytorch_model.bin)",
        ));
    };
    let name = folder.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name);
    Ok(ModelFiles {
        name: name.map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned()),
        revision: None,
        note: None,
        config: ModelFile::Disk(config),
        tokenizer: ModelFile::Disk(tokenizer),
        tokenizer_config: file("tokenizer_config.json")?.map(ModelFile::Disk),
        weights,
    })
}
