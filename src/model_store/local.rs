//! A folder in the Hugging Face layout.

use std::path::Path;

use crate::engine::{ModelFile, ModelFiles, Weights};
use crate::types::Dtype;

use super::{StoreError, shards};

pub(super) fn find(folder: &Path) -> Result<ModelFiles, StoreError> {
    let missing = |file: &str, hint| StoreError::MissingFile {
        place: folder.display().to_string(),
        file: file.to_owned(),
        hint,
    };
    let need = |file: &str, hint| {
        let path = folder.join(file);
        path.is_file()
            .then_some(path)
            .ok_or_else(|| missing(file, hint))
    };
    let config = need("config.json", "; is this a model folder?")?;
    let tokenizer = need(
        "tokenizer.json",
        "; rerankd needs the fast tokenizer's file, which transformers writes with \
         AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)",
    )?;
    let file = |name: &str| Some(folder.join(name)).filter(|p| p.is_file());
    let weights = if let Some(single) = file("model.safetensors") {
        Weights::Safetensors(vec![single])
    } else if let Some(index) = file("model.safetensors.index.json") {
        let paths = shards(&index)?
            .iter()
            .map(|name| need(name, ", though model.safetensors.index.json names it"))
            .collect::<Result<_, _>>()?;
        Weights::Safetensors(paths)
    } else if let Some(checkpoint) = file("pytorch_model.bin") {
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
        dtype: Dtype::F32,
        config: ModelFile::Disk(config),
        tokenizer: ModelFile::Disk(tokenizer),
        tokenizer_config: file("tokenizer_config.json").map(ModelFile::Disk),
        weights,
    })
}
