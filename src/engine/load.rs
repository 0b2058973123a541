//! Checks a model's weight files against its configuration, then hands them to candle.
//!
//! Tensors are known by the names that transformers gives them today. As transformers does, older
//! names are read too: `gamma` and `beta` of a LayerNorm, and the encoder's without the family's prefix.

use std::collections::HashMap;
use std::fmt::Display;

use candle_core::{DType, Device, Error, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::pickle;
use super::registry::Config;
use super::tensors::Tensors;
use super::{LoadError, Weights};

/// A tensor that a family needs: name and shape.
type Expected = (String, Vec<usize>);

/// Where a family's checkpoint keeps what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    /// Of embeddings and encoder.
    pub(super) encoder: &'static str,
    /// The head's dense layer.
    pub(super) dense: &'static str,
    /// The head's output.
    pub(super) output: &'static str,
    /// The id that RoBERTa's position ids skip.
    pub(super) padding_id: Option<u32>,
}

/// Opens the weights, checks that every tensor that the family needs is there with its shape and a
/// floating-point type, and returns a builder that reads them as f32.
pub(super) fn open(
    weights: &Weights,
    config: &Config,
    names: Names,
    device: &Device,
) -> Result<VarBuilder<'static>, LoadError> {
    let expected = &expected(config, names);
    let main = &weights.main();
    match weights {
        Weights::Safetensors(paths) => {
            let tensors = Tensors::open(paths)?;
            let found = tensors.found();
            builder(vec![tensors], &[found], expected, names, main, device)
        }
        Weights::Embedded(file) => {
            let tensors = Tensors::embedded(*file)?;
            let found = tensors.found();
            builder(vec![tensors], &[found], expected, names, main, device)
        }
        Weights::Pytorch(paths) => {
            let pickles = paths.iter().map(|path| pickle::open(path));
            let (pickles, found): (Vec<_>, Vec<_>) =
                pickles.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
            builder(pickles, &found, expected, names, main, device)
        }
    }
}

fn builder(
    backends: Vec<impl SimpleBackend + 'static>,
    found: &[HashMap<String, Found>],
    expected: &[Expected],
    names: Names,
    main: &str,
    device: &Device,
) -> Result<VarBuilder<'static>, LoadError> {
    let places = check(expected, found, names, main)?;
    let checkpoint = Checkpoint { backends, places };
    Ok(VarBuilder::from_backend(
        Box::new(checkpoint),
        DType::F32,
        device.clone(),
    ))
}

/// A checkpoint's tensors under today's names.
struct Checkpoint<B> {
    backends: Vec<B>,
    /// For each name the backend that has the tensor, and its name there.
    places: HashMap<String, (usize, String)>,
}

impl<B: SimpleBackend> Checkpoint<B> {
    fn place(&self, name: &str) -> candle_core::Result<(&B, &str)> {
        let place = self.places.get(name);
        let (i, stored) = place.ok_or_else(|| Error::CannotFindTensor { path: name.into() })?;
        Ok((&self.backends[*i], stored))
    }
}

impl<B: SimpleBackend> SimpleBackend for Checkpoint<B> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let (backend, stored) = self.place(name)?;
        backend.get(shape, stored, init, dtype, device)
    }

    fn get_unchecked(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let (backend, stored) = self.place(name)?;
        backend.get_unchecked(stored, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }
}

/// The names that a tensor may have in a checkpoint, today's first.
fn spellings(name: &str, names: Names) -> Vec<String> {
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

/// The file that a tensor is in, its shape, and its type as rerankd reads it.
pub(super) type Found = (String, Vec<usize>, Option<DType>);

pub(super) fn file_error(file: impl Display, reason: String) -> LoadError {
    LoadError::File {
        file: file.to_string(),
        reason,
    }
}

/// Finds every tensor that the family needs. Gives the backend that has it, and its name there.
fn check(
    expected: &[Expected],
    found: &[HashMap<String, Found>],
    names: Names,
    main: &str,
) -> Result<HashMap<String, (usize, String)>, LoadError> {
    let mut places = HashMap::new();
    for (tensor, shape) in expected {
        let stored = spellings(tensor, names).into_iter().find_map(|spelling| {
            let mut backends = found.iter().enumerate();
            backends.find_map(|(i, tensors)| Some((i, tensors.get_key_value(&spelling)?)))
        });
        let Some((i, (stored, (file, found_shape, dtype)))) = stored else {
            let hint = if tensor.starts_with("classifier.") {
                ": the folder holds an encoder without a classification head, not a cross-encoder"
            } else {
                ""
            };
            return Err(LoadError::MissingTensor {
                file: main.to_owned(),
                tensor: tensor.clone(),
                hint,
            });
        };
        if found_shape != shape {
            return Err(LoadError::WrongShape {
                file: file.clone(),
                tensor: stored.clone(),
                found: found_shape.clone(),
                expected: shape.clone(),
            });
        }
        if !matches!(
            dtype,
            Some(DType::F32 | DType::F16 | DType::BF16 | DType::F64)
        ) {
            return Err(file_error(
                file,
                format!("tensor \"{stored}\" is not of a floating-point type"),
            ));
        }
        places.insert(tensor.clone(), (i, stored.clone()));
    }
    Ok(places)
}

/// Shapes of what BERT and its descendants have: embeddings, encoder layers and the head.
fn expected(config: &Config, names: Names) -> Vec<Expected> {
    let (h, i) = (config.hidden_size, config.intermediate_size);
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
    let embeddings = format!("{}.embeddings", names.encoder);
    add(
        format!("{embeddings}.word_embeddings.weight"),
        &[config.vocab_size, h],
    );
    add(
        format!("{embeddings}.position_embeddings.weight"),
        &[config.max_position_embeddings, h],
    );
    add(
        format!("{embeddings}.token_type_embeddings.weight"),
        &[config.type_vocab_size, h],
    );
    add(format!("{embeddings}.LayerNorm.weight"), &[h]);
    add(format!("{embeddings}.LayerNorm.bias"), &[h]);
    for layer in 0..config.num_hidden_layers {
        let layer = format!("{}.encoder.layer.{layer}", names.encoder);
        for (name, outputs, inputs) in [
            ("attention.self.query", h, h),
            ("attention.self.key", h, h),
            ("attention.self.value", h, h),
            ("attention.output.dense", h, h),
            ("intermediate.dense", i, h),
            ("output.dense", h, i),
        ] {
            add(format!("{layer}.{name}.weight"), &[outputs, inputs]);
            add(format!("{layer}.{name}.bias"), &[outputs]);
        }
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            add(format!("{layer}.{name}.weight"), &[h]);
            add(format!("{layer}.{name}.bias"), &[h]);
        }
    }
    for (name, outputs) in [(names.dense, h), (names.output, 1)] {
        add(format!("{name}.weight"), &[outputs, h]);
        add(format!("{name}.bias"), &[outputs]);
    }
    tensors
}
