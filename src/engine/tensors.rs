//! The tensors of safetensors files, read one at a time when they are asked for.
//!
//! Nothing is mapped into memory: a file that is cut while it is read gives an error, where a map
//! would end the process. Format: u64 little-endian header length, JSON header, data
//! (<https://github.com/huggingface/safetensors#format>).
//!
//! Compact files hold matrices as 8-bit integers with a scale for each row, a quarter of f32's size
//! on disk. Tensor `NAME` of type I8 and shape `[rows, columns]` goes with `NAME.scale`, F32 and
//! `[rows]`: a weight is its integer times its row's scale. `training/compact.py` writes them. All
//! numbers become f32 here; what weights are kept in is up to `engine.dtype`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Error, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::load::{Found, file_error};
use super::{Embedded, LoadError};

/// What the safetensors library allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// The tensors of all files of a model.
#[derive(Debug)]
pub(super) struct Tensors {
    sources: Vec<Source>,
    tensors: HashMap<String, Place>,
}

/// Where a tensor is.
#[derive(Debug)]
struct Place {
    source: usize,
    /// Its first byte in the file.
    start: u64,
    info: TensorInfo,
}

impl Place {
    fn bytes(&self) -> usize {
        let (start, end) = self.info.data_offsets;
        end - start
    }
}

impl Tensors {
    /// Opens files and reads their headers.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let sources = paths.iter().map(|path| Source::open(path));
        Self::of(sources.collect::<Result<_, _>>()?)
    }

    /// Reads the header of a file within the binary.
    pub(super) fn embedded(file: Embedded) -> Result<Self, LoadError> {
        Self::of(vec![Source::Embedded(file)])
    }

    fn of(sources: Vec<Source>) -> Result<Self, LoadError> {
        let mut tensors = HashMap::new();
        for (i, source) in sources.iter().enumerate() {
            let (data, header) = source.header()?;
            for (name, info) in header.tensors() {
                let place = Place {
                    source: i,
                    start: data + info.data_offsets.0 as u64,
                    info: info.clone(),
                };
                tensors.insert(name, place);
            }
        }
        Ok(Self { sources, tensors })
    }

    /// Each tensor's file, its shape, and its type as it is read.
    pub(super) fn found(&self) -> HashMap<String, Found> {
        let found = self.tensors.iter().map(|(name, place)| {
            let dtype = match place.info.dtype {
                Dtype::I8 if self.tensors.contains_key(&scale_of(name)) => Some(DType::F32),
                other => DType::try_from(other).ok(),
            };
            let file = self.sources[place.source].name();
            (name.clone(), (file, place.info.shape.clone(), dtype))
        });
        found.collect()
    }

    fn values(&self, name: &str, place: &Place) -> candle_core::Result<Vec<f32>> {
        match place.info.dtype {
            Dtype::F32 => self.read(name, place, f32::from_le_bytes),
            Dtype::F64 => self.read(name, place, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => self.read(name, place, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => self.read(name, place, |b| half::bf16::from_le_bytes(b).to_f32()),
            Dtype::I8 => self.scaled(name, place),
            other => Err(Error::msg(format!(
                "tensor \"{name}\" is of type {other:?}"
            ))),
        }
    }

    /// The values of a tensor of 8-bit integers.
    fn scaled(&self, name: &str, place: &Place) -> candle_core::Result<Vec<f32>> {
        let wrong = |what: &str| {
            Error::msg(format!(
                "tensor \"{name}\" is of 8-bit integers, but {what}"
            ))
        };
        let [rows, columns] = place.info.shape[..] else {
            return Err(wrong("no matrix"));
        };
        let scale = scale_of(name);
        let scales = self.tensors.get(&scale);
        let scales = scales.ok_or_else(|| wrong(&format!("\"{scale}\" is missing")))?;
        if scales.info.dtype != Dtype::F32 || scales.info.shape != [rows] {
            return Err(wrong(&format!(
                "\"{scale}\" is not one F32 number for each row"
            )));
        }
        let scales = self.read(&scale, scales, f32::from_le_bytes)?;
        let mut values = self.read(name, place, |b| f32::from(i8::from_le_bytes(b)))?;
        for (row, scale) in values.chunks_mut(columns.max(1)).zip(scales) {
            row.iter_mut().for_each(|value| *value *= scale);
        }
        Ok(values)
    }

    /// Reads numbers of `N` bytes.
    fn read<const N: usize>(
        &self,
        name: &str,
        place: &Place,
        number: impl Fn([u8; N]) -> f32,
    ) -> candle_core::Result<Vec<f32>> {
        let source = &self.sources[place.source];
        let mut values = Vec::with_capacity(place.bytes() / N);
        let mut chunk = vec![0; CHUNK.min(place.bytes())];
        for at in (0..place.bytes()).step_by(CHUNK) {
            let length = CHUNK.min(place.bytes() - at);
            let bytes = &mut chunk[..length];
            source
                .read(place.start + at as u64, bytes)
                .map_err(|error| self.unreadable(name, source, &error))?;
            let (numbers, _) = bytes.as_chunks::<N>();
            values.extend(numbers.iter().map(|&bytes| number(bytes)));
        }
        Ok(values)
    }

    fn unreadable(&self, name: &str, source: &Source, error: &io::Error) -> Error {
        // Whoever reports the error names the first file.
        let file = match self.sources.len() {
            1 => String::new(),
            _ => format!(" of {}", source.name()),
        };
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the file was cut meanwhile".to_owned(),
            _ => error.to_string(),
        };
        Error::msg(format!("tensor \"{name}\"{file} can't be read: {reason}"))
    }
}

/// The name of a tensor's scales.
fn scale_of(name: &str) -> String {
    format!("{name}.scale")
}

impl SimpleBackend for Tensors {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            return Err(Error::UnexpectedShape {
                msg: format!("shape mismatch for {name}"),
                expected: shape,
                got: tensor.shape().clone(),
            });
        }
        Ok(tensor)
    }

    fn get_unchecked(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let place = self.tensors.get(name);
        let place = place.ok_or_else(|| Error::CannotFindTensor { path: name.into() })?;
        let values = self.values(name, place)?;
        Tensor::from_vec(values, &place.info.shape[..], device)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}

/// A file to read from.
#[derive(Debug)]
enum Source {
    Disk { path: PathBuf, file: File },
    Embedded(Embedded),
}

impl Source {
    fn open(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(|e| file_error(path.display(), e.to_string()))?;
        Ok(Self::Disk {
            path: path.to_owned(),
            file,
        })
    }

    fn name(&self) -> String {
        match self {
            Self::Disk { path, .. } => path.display().to_string(),
            Self::Embedded(file) => file.name.to_owned(),
        }
    }

    fn length(&self) -> io::Result<u64> {
        match self {
            Self::Disk { file, .. } => Ok(file.metadata()?.len()),
            Self::Embedded(file) => Ok(file.bytes.len() as u64),
        }
    }

    /// Fills a buffer from a place in the file; a file that ends before is an error.
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Disk { file, .. } => file.read_exact_at(buffer, at),
            Self::Embedded(file) => {
                let from = usize::try_from(at).ok();
                let bytes = from.and_then(|from| file.bytes.get(from..)?.get(..buffer.len()));
                buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    /// Where the data begin, and what the header says of them. Refuses a file that ends too early,
    /// naming the first tensor that is cut.
    fn header(&self) -> Result<(u64, Metadata), LoadError> {
        let length = self.length();
        let length = length.map_err(|e| file_error(self.name(), e.to_string()))?;
        let broken = |what: &str| {
            file_error(
                self.name(),
                format!("is not a whole safetensors file: {what} (the file has {length} bytes)"),
            )
        };
        let mut prefix = [0; 8];
        self.read(0, &mut prefix)
            .map_err(|_| broken("it ends within the header's length"))?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > length.saturating_sub(8) {
            return Err(broken("it ends within the header"));
        }
        if header_length > LONGEST_HEADER {
            return Err(broken("its header is too long"));
        }
        let mut header = vec![0; header_length as usize];
        self.read(8, &mut header)
            .map_err(|_| broken("it ends within the header"))?;
        let header: Metadata = serde_json::from_slice(&header)
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
