//! PyTorch checkpoints (`.bin`): candle reads them; this refuses what candle would misread or
//! break at.

mod check;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use candle_core::DType;
use candle_core::pickle::PthTensors;
use rerankd_kernels::Stored;

use crate::Dtype;

use super::super::error::{LoadError, file_error};
use super::{EachRow, Found, Kind, Tensors, bytes_of};

/// What a file written by PyTorch before version 1.6 begins with: its magic number, pickled.
const BEFORE_1_6: [u8; 6] = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc];

/// How a checkpoint is written anew as safetensors.
const CONVERT: &str = "write the model anew with transformers, which makes a model.safetensors of it: \
    AutoModelForSequenceClassification.from_pretrained(FOLDER).save_pretrained(FOLDER)";

/// One checkpoint.
pub(super) struct Pickle {
    file: String,
    tensors: PthTensors,
}

impl Pickle {
    /// Opens a checkpoint and reads what is in it.
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
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
        check::check(path).map_err(|e| error(e.to_string()))?;
        let tensors = PthTensors::new(path, None).map_err(|e| error(e.to_string()))?;
        let file_size = std::fs::metadata(path)
            .map_err(|e| error(e.to_string()))?
            .len();
        for (name, info) in tensors.tensor_infos() {
            // Room for a tensor is made before it is read. PyTorch does not compress.
            let bytes = bytes_of(info.layout.dims(), info.dtype.size_in_bytes());
            if bytes.is_none_or(|bytes| bytes > file_size) {
                return Err(error(format!(
                    "tensor \"{name}\" would be larger than the file"
                )));
            }
            if info.layout.start_offset() > 0 {
                return Err(error(format!(
                    "tensor \"{name}\" is part of another's memory, which rerankd can't read; {CONVERT}"
                )));
            }
        }
        Ok(Self { file, tensors })
    }
}

impl Tensors for Pickle {
    fn file(&self) -> &str {
        &self.file
    }

    fn found(&self) -> HashMap<String, Found> {
        let infos = self.tensors.tensor_infos().iter();
        let found = infos.map(|(name, info)| {
            let found = Found {
                shape: info.layout.shape().dims().to_vec(),
                kind: match info.dtype {
                    DType::F32 | DType::F64 => Kind::Floats(Dtype::F32),
                    DType::F16 => Kind::Floats(Dtype::F16),
                    DType::BF16 => Kind::Floats(Dtype::Bf16),
                    _ => Kind::Other,
                },
            };
            (name.clone(), found)
        });
        found.collect()
    }

    fn rows(&self, name: &str, range: Range<usize>, each: &mut EachRow<'_>) -> Result<(), String> {
        let read = || -> candle_core::Result<Option<(usize, Vec<f32>)>> {
            let Some(tensor) = self.tensors.get(name)? else {
                return Ok(None);
            };
            let width = tensor.dims().last().copied().unwrap_or(1);
            let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            Ok(Some((width, values)))
        };
        let values = read().map_err(|error| error.to_string())?;
        let (width, values) = values.ok_or_else(|| format!("tensor \"{name}\" is missing"))?;
        let rows = values.chunks(width.max(1));
        let mut rows = rows.skip(range.start).take(range.len());
        rows.try_for_each(|row| each(Stored::Floats(row)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_tensor_that_is_larger_than_the_file_is_refused_before_there_is_room_for_it() {
        let storage =
            b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ";
        let shape = b"K\0(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft(J\xff\xff\xff\x7fK\x01t\x89Nt";
        let pickle = [
            b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n".as_slice(),
            storage,
            shape,
            b"Rs.",
        ];
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pytorch_model.bin");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        let stored = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        archive.start_file("m/data.pkl", stored).unwrap();
        archive.write_all(&pickle.concat()).unwrap();
        archive.finish().unwrap();
        let error = Pickle::open(&path).err().unwrap().to_string();
        assert!(
            error.contains("\"a\" would be larger than the file"),
            "{error}"
        );
    }
}
