//! A model's weights, found in its files and checked against what its configuration asks for; their
//! values are read when they are asked for.
//!
//! Tensors are known by the names that transformers gives them today. As transformers does, older
//! names are read too: `gamma` and `beta` of a LayerNorm, and the encoder's without the family's prefix.

use std::collections::HashMap;

use rerankd_kernels::Stored;

use crate::Dtype;

use super::arch::{Arch, Position};
use super::error::{LoadError, file_error};
use super::families::{Described, Names};
use super::files::Weights;
use super::tensors::{self, Found, Kind, Tensors};

/// A model's weights under today's names.
pub(super) struct Checkpoint {
    files: Vec<Box<dyn Tensors>>,
    places: HashMap<String, Place>,
    /// Greatest magnitude that the type can take which they will be kept in.
    greatest: f32,
}

/// Where a tensor is.
struct Place {
    /// The file that has it.
    file: usize,
    /// Its name there.
    name: String,
    found: Found,
}

impl Checkpoint {
    /// Opens the weights, and finds every tensor that the model needs. Its values will be refused if
    /// `dtype` can't take them.
    ///
    /// # Errors
    /// If a tensor is missing, of another shape, or of no floating-point type.
    pub(super) fn open(
        weights: &Weights,
        described: &Described,
        dtype: Dtype,
    ) -> Result<Self, LoadError> {
        let files = tensors::open(weights)?;
        let mut found: Vec<_> = files.iter().map(|file| file.found()).collect();
        let mut places = HashMap::new();
        for (tensor, shape) in expected(&described.arch, described.names) {
            let place = spellings(&tensor, described.names)
                .into_iter()
                .find_map(|name| {
                    let mut files = found.iter_mut().enumerate();
                    let (file, found) =
                        files.find_map(|(i, found)| Some((i, found.remove(&name)?)))?;
                    Some(Place { file, name, found })
                });
            let Some(place) = place else {
                return Err(missing(weights.main(), tensor, described.names));
            };
            let file = files[place.file].file();
            if place.found.shape != shape {
                return Err(LoadError::WrongShape {
                    file: file.to_owned(),
                    tensor: place.name,
                    found: place.found.shape,
                    expected: shape,
                });
            }
            if place.found.kind == Kind::Other {
                let reason = format!("tensor \"{}\" is not of a floating-point type", place.name);
                return Err(file_error(file, reason));
            }
            places.insert(tensor, place);
        }
        Ok(Self {
            files,
            places,
            greatest: match dtype {
                Dtype::F16 | Dtype::Int8 => half::f16::MAX.to_f32(),
                Dtype::F32 | Dtype::Bf16 => f32::MAX,
            },
        })
    }

    /// Calls `each` with a tensor's rows: those of a matrix, or a vector as a whole. Rows that can't be
    /// kept are an error; int8 would hide them.
    pub(super) fn rows(
        &self,
        tensor: &str,
        mut each: impl FnMut(Stored<'_>),
    ) -> Result<(), LoadError> {
        let place = self.place(tensor)?;
        let (file, name) = (&self.files[place.file], &place.name);
        let read = file.rows(name, &mut |row| {
            let greatest = row.greatest();
            if greatest <= self.greatest {
                each(row);
                return Ok(());
            }
            Err(match greatest.is_finite() {
                true => format!(
                    "tensor \"{name}\" holds {greatest}, which is beyond f16's range; use dtype bf16 or f32"
                ),
                false => format!("tensor \"{name}\" holds a value that is not finite"),
            })
        });
        read.map_err(|reason| file_error(file.file(), reason))
    }

    /// A tensor's values, row after row.
    pub(super) fn values(&self, tensor: &str) -> Result<Vec<f32>, LoadError> {
        let shape = &self.place(tensor)?.found.shape;
        let mut values = Vec::with_capacity(shape.iter().product());
        self.rows(tensor, |row| {
            let start = values.len();
            values.resize(start + row.width(), 0.0);
            row.write(1.0, &mut values[start..]);
        })?;
        Ok(values)
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, tensor: &str) -> Result<&[usize], LoadError> {
        Ok(&self.place(tensor)?.found.shape)
    }

    /// Whether a tensor's rows are integers with a scale.
    pub(super) fn is_of_integers(&self, tensor: &str) -> Result<bool, LoadError> {
        Ok(self.place(tensor)?.found.kind == Kind::Integers)
    }

    fn place(&self, tensor: &str) -> Result<&Place, LoadError> {
        let main = || self.files.first().map(|file| file.file().to_owned());
        let missing = || LoadError::MissingTensor {
            file: main().unwrap_or_default(),
            tensor: tensor.to_owned(),
            hint: "",
        };
        self.places.get(tensor).ok_or_else(missing)
    }
}

fn missing(file: String, tensor: String, names: &Names) -> LoadError {
    let of_head = [names.dense, names.classifier]
        .iter()
        .any(|name| tensor.starts_with(name));
    LoadError::MissingTensor {
        file,
        tensor,
        hint: match of_head {
            true => {
                ": the folder holds an encoder without a classification head, not a cross-encoder"
            }
            false => "",
        },
    }
}

/// The names that a tensor may have in a checkpoint, today's first.
fn spellings(name: &str, names: &Names) -> Vec<String> {
    let prefix = format!("{}.", names.encoder);
    let mut spellings = vec![name.to_owned(), format!("{prefix}{name}")];
    spellings.extend(name.strip_prefix(&prefix).map(str::to_owned));
    let older = spellings.iter().filter_map(|name| {
        let (layer, parameter) = name.rsplit_once(".LayerNorm.")?;
        let parameter = match parameter {
            "weight" => "gamma",
            "bias" => "beta",
            _ => return None,
        };
        Some(format!("{layer}.LayerNorm.{parameter}"))
    });
    let older: Vec<String> = older.collect();
    spellings.extend(older);
    spellings
}

/// The tensors that a model needs, and their shapes.
fn expected(arch: &Arch, names: &Names) -> Vec<(String, Vec<usize>)> {
    let (h, wide) = (arch.hidden_size, arch.feed_forward.width);
    let Position::Learned { rows, .. } = arch.position;
    let mut tensors = Vec::new();
    for (name, rows) in [
        (names.word, arch.vocab_size),
        (names.position, rows),
        (names.token_type, arch.token_types),
    ] {
        tensors.push((format!("{}.weight", names.encoder(name)), vec![rows, h]));
    }
    let mut layer = |name: String, width: usize, weight: Vec<usize>| {
        tensors.push((format!("{name}.weight"), weight));
        tensors.push((format!("{name}.bias"), vec![width]));
    };
    layer(names.encoder(names.embeddings_norm), h, vec![h]);
    for i in 0..arch.layers {
        for (name, outputs, inputs) in [
            (names.query, h, h),
            (names.key, h, h),
            (names.value, h, h),
            (names.attention_output, h, h),
            (names.intermediate, wide, h),
            (names.output, h, wide),
        ] {
            layer(names.layer(i, name), outputs, vec![outputs, inputs]);
        }
        for name in [names.attention_norm, names.output_norm] {
            layer(names.layer(i, name), h, vec![h]);
        }
    }
    layer(names.dense.to_owned(), h, vec![h, h]);
    layer(names.classifier.to_owned(), 1, vec![1, h]);
    tensors
}
