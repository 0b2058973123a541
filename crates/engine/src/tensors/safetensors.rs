//! The tensors of a safetensors file, read one at a time when they are asked for.
//!
//! Nothing is mapped into memory: a file that is cut while it is read gives an error, where a map
//! would end the process. Format: u64 little-endian header length, JSON header, data
//! (<https://github.com/huggingface/safetensors#format>).
//!
//! Compact files hold matrices as 8-bit integers with a scale for each row, a quarter of f32's size
//! on disk. Tensor `NAME` of type I8 and shape `[rows, columns]` goes with `NAME.scale`, F32 and
//! `[rows]`: a weight is its integer times its row's scale. `training/compact.py` writes them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rerankd_kernels::Stored;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::super::error::{LoadError, file_error};
use super::super::files::Embedded;
use super::{EachRow, Found, Kind, Tensors};

/// A header takes some 13 times as much memory while it is read; a thousand tensors have 100,000 bytes.
const LONGEST_HEADER: u64 = 16 << 20;

/// Bytes that are read at once, unless a row has more.
const CHUNK: usize = 256 << 10;

/// One file.
#[derive(Debug)]
pub(super) struct Safetensors {
    file: String,
    source: Source,
    /// Where the data begin.
    data: u64,
    tensors: HashMap<String, TensorInfo>,
}

impl Safetensors {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(|e| file_error(path.display(), e.to_string()))?;
        Self::of(path.display().to_string(), Source::Disk(file))
    }

    /// Reads the header of a file within the binary.
    pub(super) fn embedded(file: Embedded) -> Result<Self, LoadError> {
        Self::of(file.name.to_owned(), Source::Embedded(file.bytes))
    }

    fn of(file: String, source: Source) -> Result<Self, LoadError> {
        let header = source.header();
        let (data, header) = header.map_err(|reason| file_error(&file, reason))?;
        let tensors = header.tensors().into_iter();
        Ok(Self {
            tensors: tensors.map(|(name, info)| (name, info.clone())).collect(),
            file,
            source,
            data,
        })
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, String> {
        let info = self.tensors.get(name);
        info.ok_or_else(|| format!("tensor \"{name}\" is missing"))
    }

    /// Calls `each` with each row of a tensor of 8-bit integers.
    fn integers(
        &self,
        name: &str,
        range: Range<usize>,
        each: &mut EachRow<'_>,
    ) -> Result<(), String> {
        let info = self.info(name)?;
        let wrong = |what: &str| format!("tensor \"{name}\" is of 8-bit integers, but {what}");
        let [rows, columns] = info.shape[..] else {
            return Err(wrong("no matrix"));
        };
        let scale = scale_of(name);
        let scales = self.info(&scale)?;
        if scales.dtype != Dtype::F32 || scales.shape != [rows] {
            return Err(wrong(&format!(
                "\"{scale}\" is not one F32 number for each row"
            )));
        }
        let mut values = Vec::new();
        self.floats(&scale, 0..1, f32::from_le_bytes, &mut |row| {
            if let Stored::Floats(row) = row {
                values.extend_from_slice(row);
            }
            Ok(())
        })?;
        let (mut scales, mut row) = (values.into_iter().skip(range.start), vec![0; columns]);
        self.bytes(name, range, &mut |bytes| {
            for (value, byte) in row.iter_mut().zip(bytes) {
                *value = byte.cast_signed();
            }
            each(Stored::Integers {
                values: &row,
                scale: scales.next().unwrap_or(f32::NAN),
            })
        })
    }

    /// Calls `each` with each row of a tensor of numbers of `N` bytes.
    fn floats<const N: usize>(
        &self,
        name: &str,
        range: Range<usize>,
        number: impl Fn([u8; N]) -> f32,
        each: &mut EachRow<'_>,
    ) -> Result<(), String> {
        let mut row = Vec::new();
        self.bytes(name, range, &mut |bytes| {
            row.clear();
            row.extend(bytes.as_chunks().0.iter().map(|&bytes| number(bytes)));
            each(Stored::Floats(&row))
        })
    }

    /// Calls `each` with the bytes of each row.
    fn bytes(
        &self,
        name: &str,
        range: Range<usize>,
        each: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let info = self.info(name)?;
        let (start, end) = info.data_offsets;
        let rows = match info.shape[..] {
            [rows, _, ..] => rows.max(1),
            _ => 1,
        };
        let width = ((end - start) / rows).max(1);
        let of_row = |row: usize| end.min(start + row.min(rows) * width);
        let (start, end) = (of_row(range.start), of_row(range.end));
        let step = (CHUNK / width).max(1) * width;
        let mut buffer = Vec::new();
        for at in (start..end).step_by(step) {
            let place = self.data + at as u64;
            let read = self.source.read(place, step.min(end - at), &mut buffer);
            let bytes = read.map_err(|error| {
                let reason = match error.kind() {
                    io::ErrorKind::UnexpectedEof => "the file was cut meanwhile".to_owned(),
                    _ => error.to_string(),
                };
                format!("tensor \"{name}\" can't be read: {reason}")
            })?;
            bytes.chunks(width).try_for_each(&mut *each)?;
        }
        Ok(())
    }
}

/// The name of a tensor's scales.
fn scale_of(name: &str) -> String {
    format!("{name}.scale")
}

impl Tensors for Safetensors {
    fn file(&self) -> &str {
        &self.file
    }

    fn found(&self) -> HashMap<String, Found> {
        let found = self.tensors.iter().map(|(name, info)| {
            let kind = match info.dtype {
                Dtype::F32 | Dtype::F64 => Kind::Floats(crate::Dtype::F32),
                Dtype::F16 => Kind::Floats(crate::Dtype::F16),
                Dtype::BF16 => Kind::Floats(crate::Dtype::Bf16),
                Dtype::I8 if self.tensors.contains_key(&scale_of(name)) => Kind::Integers,
                _ => Kind::Other,
            };
            let shape = info.shape.clone();
            (name.clone(), Found { shape, kind })
        });
        found.collect()
    }

    fn rows(&self, name: &str, range: Range<usize>, each: &mut EachRow<'_>) -> Result<(), String> {
        match self.info(name)?.dtype {
            Dtype::F32 => self.floats(name, range, f32::from_le_bytes, each),
            Dtype::F64 => self.floats(name, range, |b| f64::from_le_bytes(b) as f32, each),
            Dtype::F16 => self.floats(name, range, |b| half::f16::from_le_bytes(b).to_f32(), each),
            Dtype::BF16 => {
                self.floats(name, range, |b| half::bf16::from_le_bytes(b).to_f32(), each)
            }
            Dtype::I8 => self.integers(name, range, each),
            other => Err(format!("tensor \"{name}\" is of type {other:?}")),
        }
    }
}

/// Where the bytes are.
#[derive(Debug)]
enum Source {
    Disk(File),
    Embedded(&'static [u8]),
}

impl Source {
    fn length(&self) -> io::Result<u64> {
        match self {
            Self::Disk(file) => Ok(file.metadata()?.len()),
            Self::Embedded(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// `length` bytes from a place in the file on, which may be read to `buffer`; a file that ends
    /// before is an error.
    fn read<'a>(&self, at: u64, length: usize, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        match self {
            Self::Disk(file) => {
                buffer.resize(length, 0);
                file.read_exact_at(buffer, at)?;
                Ok(buffer)
            }
            Self::Embedded(bytes) => {
                let from = usize::try_from(at).ok();
                let bytes = from.and_then(|from| bytes.get(from..)?.get(..length));
                Ok(bytes.ok_or(io::ErrorKind::UnexpectedEof)?)
            }
        }
    }

    /// Where the data begin, and what the header says of them. Refuses a file that ends too early,
    /// naming the first tensor that is cut.
    fn header(&self) -> Result<(u64, Metadata), String> {
        let length = self.length();
        let length = length.map_err(|e| e.to_string())?;
        let broken = |what: &str| {
            format!("is not a whole safetensors file: {what} (the file has {length} bytes)")
        };
        let mut buffer = Vec::new();
        let prefix = self.read(0, 8, &mut buffer).ok();
        let prefix = prefix.and_then(|prefix| prefix.try_into().ok());
        let prefix = prefix.ok_or_else(|| broken("it ends within the header's length"))?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > length.saturating_sub(8) {
            return Err(broken("it ends within the header"));
        }
        if header_length > LONGEST_HEADER {
            return Err(broken("its header is too long"));
        }
        let header = self
            .read(8, header_length as usize, &mut buffer)
            .map_err(|_| broken("it ends within the header"))?;
        let header: Metadata = serde_json::from_slice(header)
            .map_err(|e| broken(&format!("its header is wrong: {e}")))?;
        let data = 8 + header_length;
        let mut tensors: Vec<(u64, String)> = header
            .tensors()
            .into_iter()
            .map(|(name, info)| (data + info.data_offsets.1 as u64, name))
            .collect();
        tensors.sort_unstable();
        match tensors.iter().find(|(end, _)| *end > length) {
            Some((end, name)) => Err(broken(&format!(
                "tensor \"{name}\" should end at byte {end}"
            ))),
            None if data + header.data_len() as u64 != length => {
                Err(broken("it has more data than its header tells of"))
            }
            None => Ok((data, header)),
        }
    }
}
