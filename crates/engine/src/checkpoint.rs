//! A model's weights, found in its files and checked against what its configuration asks for; their
//! values are read when they are asked for.
//!
//! Tensors are known by the names that transformers gives them today. As transformers does, older
//! names are read too: `gamma` and `beta` of a LayerNorm, and the encoder's without the family's prefix.

mod expected;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use rerankd_kernels::Stored;

use crate::Dtype;

use super::error::{LoadError, file_error};
use super::families::{Described, Names};
use super::files::{ModelFiles, Weights};
use super::tensors::{self, Found, Kind, Tensors};
use expected::expected;

/// A model's weights under today's names.
pub(super) struct Checkpoint {
    files: Vec<Box<dyn Tensors>>,
    places: HashMap<String, Place>,
    /// How many layers the weights hold, if that is more than are used.
    pub(super) layers: Option<usize>,
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
        model: &ModelFiles,
        described: &Described,
        dtype: Dtype,
    ) -> Result<Self, LoadError> {
        let mut files = tensors::open(&model.weights)?;
        let mut found: Vec<_> = files.iter().map(|file| file.found()).collect();
        for module in &model.modules {
            let Some(weights) = &module.weights else {
                continue;
            };
            for file in tensors::open(weights)? {
                let tensors = file.found().into_iter();
                let tensors =
                    tensors.map(|(name, found)| (format!("{}/{name}", module.path), found));
                found.push(tensors.collect());
                files.push(file);
            }
        }
        let mut places = HashMap::new();
        for (tensor, shape) in expected(&described.arch, described.names) {
            let place = spellings(&tensor, described.names)
                .into_iter()
                .find_map(|name| {
                    let mut files = found.iter_mut().enumerate();
                    let (file, found) =
                        files.find_map(|(i, found)| Some((i, found.remove(&name)?)))?;
                    // A module's file does not name its folder.
                    let name = name.rsplit('/').next().unwrap_or(&name).to_owned();
                    Some(Place { file, name, found })
                });
            let Some(place) = place else {
                return Err(missing(model, tensor, described));
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
            layers: unused_layers(&found, described),
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
    pub(super) fn rows(&self, tensor: &str, each: impl FnMut(Stored<'_>)) -> Result<(), LoadError> {
        self.rows_within(tensor, 0..usize::MAX, each)
    }

    /// As [`rows`](Self::rows), but for those of a range only.
    pub(super) fn rows_within(
        &self,
        tensor: &str,
        range: Range<usize>,
        mut each: impl FnMut(Stored<'_>),
    ) -> Result<(), LoadError> {
        let place = self.place(tensor)?;
        let (file, name) = (&self.files[place.file], &place.name);
        let read = file.rows(name, range, &mut |row| {
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

    /// The half-precision type that all of the model's matrices are stored in, if there is one.
    pub(super) fn half(&self) -> Option<Dtype> {
        let matrices = self.places.values().filter(|p| p.found.shape.len() > 1);
        let all_are = |kind| matrices.clone().all(|p| p.found.kind == kind);
        let mut halves = [Dtype::F16, Dtype::Bf16].into_iter();
        halves.find(|&dtype| all_are(Kind::Floats(dtype)))
    }

    /// How many bytes the weights take at least if their matrices are kept in a type. Where one is stored in a smaller
    /// type, it may stay so.
    pub(super) fn least_bytes(&self, dtype: Dtype) -> u64 {
        let bytes = self.places.values().map(|place| {
            let stored = match place.found.kind {
                Kind::Floats(stored) => stored,
                Kind::Integers | Kind::Other => Dtype::Int8,
            };
            let width = match place.found.shape.len() {
                0 | 1 => 1,
                _ => width(dtype).min(width(stored)),
            };
            place.found.shape.iter().product::<usize>() as u64 * width
        });
        bytes.sum()
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

/// Bytes of a number.
fn width(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::F32 => 4,
        Dtype::F16 | Dtype::Bf16 => 2,
        Dtype::Int8 => 1,
    }
}

/// How many layers there are, if that is more than config.json says: transformers leaves the others out, and so does
/// this. That may be meant, or config.json is another model's.
fn unused_layers(unused: &[HashMap<String, Found>], described: &Described) -> Option<usize> {
    if described.cut {
        return None;
    }
    let names = described.names;
    let layers = match names.decoder {
        // Whose layers may have the same name.
        Some(_) => format!("{}.{}.", names.encoder, names.layers),
        None => format!("{}.", names.layers),
    };
    let number = |name: &String| {
        let (_, rest) = name.split_once(&layers)?;
        rest.split('.').next()?.parse::<usize>().ok()
    };
    let last = unused
        .iter()
        .flat_map(|names| names.keys())
        .filter_map(number);
    let last = last.max().filter(|&last| last >= described.arch.layers);
    last.map(|last| last + 1)
}

fn missing(model: &ModelFiles, tensor: String, described: &Described) -> LoadError {
    let file = model.weights.main();
    if let Some((module, name)) = tensor.split_once('/') {
        let folder = Path::new(&file).parent().unwrap_or(Path::new(""));
        let path = folder.join(module).join("model.safetensors");
        return LoadError::MissingTensor {
            file: path.display().to_string(),
            tensor: name.to_owned(),
            hint: ": the module's file is missing, or has other tensors than its config.json asks for",
        };
    }
    let mut steps = described.arch.head.steps.iter();
    LoadError::MissingTensor {
        file,
        hint: match steps.any(|step| tensor.starts_with(&step.tensor)) {
            true if matches!(model.weights, Weights::Gguf(_)) => {
                ": the GGUF file has no head, without which scores would mean nothing; take the original repository, or a \
                 file that was made with its head"
            }
            true if tensor.starts_with("lm_head") => {
                ": the weights lack the table that the answer is read from; perhaps it is the word embeddings' \
                 (tie_word_embeddings true in config.json)"
            }
            true => {
                ": the folder holds an encoder without a classification head, not a cross-encoder"
            }
            false => "",
        },
        tensor,
    }
}

/// The names that a tensor may have in a checkpoint, today's first.
fn spellings(name: &str, names: &Names) -> Vec<String> {
    let prefix = format!("{}.", names.encoder);
    let mut spellings = vec![name.to_owned(), format!("{prefix}{name}")];
    spellings.extend(name.strip_prefix(&prefix).map(str::to_owned));
    if !names.word_elsewhere.is_empty() && name == format!("{prefix}{}.weight", names.word) {
        spellings.push(format!("{}.weight", names.word_elsewhere));
    }
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
