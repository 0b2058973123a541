//! GGUF files, as llama.cpp's converter writes them: one file of tensors under names of its own, of 32 bits down to
//! few. What they hold is read as 32-bit numbers, and kept in whatever type is asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::{Content, TensorInfo};
use rerankd_kernels::{Dtype, Stored};

use super::super::error::{LoadError, file_error};
use super::{EachRow, Found, Kind, Tensors, bytes_of};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Bytes that a header may have, which takes up to 32 times as much memory; Qwen's have 6 million.
const LONGEST_HEADER: u64 = 16 << 20;

/// One file.
pub(super) struct Gguf {
    file: String,
    source: File,
    /// Where its tensors begin.
    data: u64,
    /// By transformers' names.
    tensors: HashMap<String, TensorInfo>,
}

/// What transformers calls the tensors of some architectures, without `.weight` or `.bias`.
struct Names {
    /// What the converter calls them.
    architectures: &'static [&'static str],
    outside: &'static [(&'static str, &'static str)],
    /// What the names of layers begin with.
    layers: &'static str,
    inside: &'static [(&'static str, &'static str)],
}

/// Those whose files have all that a reranker needs: of BERT's the converter leaves the pooler out.
const NAMES: Names = Names {
    architectures: &["qwen2", "qwen3"],
    outside: &[
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("output", "lm_head"),
        ("cls.output", "score"),
    ],
    layers: "model.layers",
    inside: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
};

impl Names {
    /// A tensor's name in transformers, if it has one.
    fn of_today(&self, name: &str) -> Option<String> {
        let (part, parameter) = name.rsplit_once('.')?;
        let find = |names: &[(&str, &'static str)], part: &str| {
            let found = names.iter().find(|(name, _)| *name == part);
            found.map(|(_, today)| *today)
        };
        let Some((layer, part)) = part
            .strip_prefix("blk.")
            .and_then(|rest| rest.split_once('.'))
        else {
            return Some(format!("{}.{parameter}", find(self.outside, part)?));
        };
        let part = find(self.inside, part)?;
        Some(format!("{}.{layer}.{part}.{parameter}", self.layers))
    }
}

impl Gguf {
    /// Opens a file and reads what is in it.
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let file = path.display().to_string();
        let error = |reason: String| file_error(&file, reason);
        let source = File::open(path).map_err(|e| error(e.to_string()))?;
        let mut start = Vec::new();
        let read = (&source).take(LONGEST_HEADER).read_to_end(&mut start);
        read.map_err(|e| error(e.to_string()))?;
        // It divides by the alignment that the header names, whatever that is.
        let content = panic::catch_unwind(|| Content::read(&mut Cursor::new(&start)));
        let content = content.map_err(|_| error("its header makes no sense".into()))?;
        let content = content.map_err(|e| error(e.to_string()))?;
        let length = source.metadata().map_err(|e| error(e.to_string()))?.len();
        for (name, info) in &content.tensor_infos {
            // Room for a tensor is made before it is read.
            let bytes = bytes_of(info.shape.dims(), info.ggml_dtype.type_size());
            let bytes = bytes.map(|bytes| bytes / info.ggml_dtype.block_size() as u64);
            if bytes.is_none_or(|bytes| bytes > length) {
                return Err(error(format!(
                    "tensor \"{name}\" would be larger than the file"
                )));
            }
        }
        let architecture = content.metadata.get("general.architecture");
        let architecture = architecture.and_then(|value| value.to_string().ok());
        let architecture = architecture.map_or("", String::as_str);
        if !NAMES.architectures.contains(&architecture) {
            return Err(error(format!(
                "GGUF files of architecture \"{architecture}\" are not supported, only those of {}; name the folder of \
                 safetensors that it was made of",
                NAMES.architectures.join(" and ")
            )));
        }
        let renamed =
            |(name, info): (String, TensorInfo)| (NAMES.of_today(&name).unwrap_or(name), info);
        Ok(Self {
            data: content.tensor_data_offset,
            tensors: content.tensor_infos.into_iter().map(renamed).collect(),
            file,
            source,
        })
    }
}

impl Tensors for Gguf {
    fn file(&self) -> &str {
        &self.file
    }

    fn found(&self) -> HashMap<String, Found> {
        let found = self.tensors.iter().map(|(name, info)| {
            let found = Found {
                shape: info.shape.dims().to_vec(),
                // Numbers in blocks with a scale are most exact in f32.
                kind: Kind::Floats(match info.ggml_dtype {
                    GgmlDType::F16 => Dtype::F16,
                    GgmlDType::BF16 => Dtype::Bf16,
                    _ => Dtype::F32,
                }),
            };
            (name.clone(), found)
        });
        found.collect()
    }

    fn rows(&self, name: &str, range: Range<usize>, each: &mut EachRow<'_>) -> Result<(), String> {
        let wrong = |reason: String| format!("tensor \"{name}\" can't be read: {reason}");
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| wrong("it is missing".into()))?;
        let width = info.shape.dims().last().copied().unwrap_or(1).max(1);
        let (block, bytes) = (info.ggml_dtype.block_size(), info.ggml_dtype.type_size());
        if !width.is_multiple_of(block) {
            return Err(wrong(format!(
                "its rows of {width} are not of whole blocks of {block}"
            )));
        }
        let of_row = width / block * bytes;
        let last = range.end.min(info.shape.elem_count() / width);
        let step = (CHUNK / of_row).max(1);
        for first in (range.start..last).step_by(step) {
            let count = step.min(last - first);
            let mut stored = vec![0; count * of_row];
            let before = self.data.saturating_add(info.offset);
            let place = before.saturating_add((first * of_row) as u64);
            let read = self.source.read_exact_at(&mut stored, place);
            read.map_err(|e| wrong(e.to_string()))?;
            let values = || -> candle_core::Result<Vec<f32>> {
                let dims = vec![count * width];
                let tensor = qtensor_from_ggml(info.ggml_dtype, &stored, dims, &Device::Cpu)?;
                tensor.dequantize(&Device::Cpu)?.to_vec1()
            };
            let values = values().map_err(|e| wrong(e.to_string()))?;
            let mut rows = values.chunks(width);
            rows.try_for_each(|row| each(Stored::Floats(row)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(metadata: &[u8], tensors: &[u8], counts: [u64; 2]) -> String {
        let start = [b"GGUF".as_slice(), &3_u32.to_le_bytes()].concat();
        let counts = counts.map(u64::to_le_bytes).concat();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.gguf");
        std::fs::write(
            &path,
            [&start, &counts, metadata, tensors, &[0; 99]].concat(),
        )
        .unwrap();
        Gguf::open(&path).err().unwrap().to_string()
    }

    #[test]
    fn a_header_that_makes_no_sense_is_an_error() {
        let name = |name: &str| [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat();
        // A u32, 0.
        let alignment = [name("general.alignment"), vec![4, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert!(refused(&alignment, &[], [0, 1]).contains("no sense"));
        for dims in [[1 << 40, 32], [1 << 63, 1 << 63]] {
            let dims = dims.map(u64::to_le_bytes).concat();
            // Two dimensions, of f32, at 0.
            let tensor = [&name("a.weight"), &[2, 0, 0, 0][..], &dims, &[0; 12]].concat();
            assert!(refused(&[], &tensor, [1, 0]).contains("larger than the file"));
        }
    }
}
