//! PyTorch checkpoints (`.bin`): candle reads them; this refuses what candle would misread.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::pickle::PthTensors;

use super::LoadError;
use super::load::{Found, file_error};

/// What a file written by PyTorch before version 1.6 begins with: its magic number, pickled.
const BEFORE_1_6: [u8; 6] = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc];

/// How a checkpoint is written anew as safetensors.
const CONVERT: &str = "write the model anew with transformers, which makes a model.safetensors of it: \
    AutoModelForSequenceClassification.from_pretrained(FOLDER).save_pretrained(FOLDER)";

/// Opens a checkpoint and says what is in it.
pub(super) fn open(path: &Path) -> Result<(PthTensors, HashMap<String, Found>), LoadError> {
    let file = path.display().to_string();
    let error = |reason: String| file_error(&file, reason);
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BEFORE_1_6.len() as u64).read_to_end(&mut start))
        .map_err(|e| error(e.to_string()))?;
    if start == BEFORE_1_6 {
        return Err(error(format!(
            "is in the format of PyTorch before 1.6, which rerankd can't read; {CONVERT}"
        )));
    }
    let tensors = PthTensors::new(path, None).map_err(|e| error(e.to_string()))?;
    let mut found = HashMap::new();
    for (name, info) in tensors.tensor_infos() {
        if info.layout.start_offset() > 0 {
            return Err(error(format!(
                "tensor \"{name}\" is part of another's memory, which rerankd can't read; {CONVERT}"
            )));
        }
        let shape = info.layout.shape().dims().to_vec();
        found.insert(name.clone(), (file.clone(), shape, Some(info.dtype)));
    }
    Ok((tensors, found))
}
