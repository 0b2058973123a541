//! Checks a model's weight files against its configuration, then hands them to candle.

use std::collections::HashMap;
use std::fmt::Display;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

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
    match weights {
        Weights::Safetensors(paths) => {
            let main = paths.first().map(|path| path.display().to_string());
            let tensors = Tensors::open(paths)?;
            check(expected, &tensors.found(), &main.unwrap_or_default())?;
            Ok(builder(tensors, device))
        }
        Weights::Embedded(file) => {
            let tensors = Tensors::embedded(*file)?;
            check(expected, &tensors.found(), file.name)?;
            Ok(builder(tensors, device))
        }
        Weights::Pytorch(path) => {
            let file = path.display().to_string();
            let file_error = |e: candle_core::Error| file_error(&file, e.to_string());
            let tensors = candle_core::pickle::PthTensors::new(path, None).map_err(file_error)?;
            let found = tensors
                .tensor_infos()
                .iter()
                .map(|(name, info)| {
                    let shape = info.layout.shape().dims().to_vec();
                    (name.clone(), (file.clone(), shape, Some(info.dtype)))
                })
                .collect();
            check(expected, &found, &file)?;
            Ok(builder(tensors, device))
        }
    }
}

fn builder(tensors: impl SimpleBackend + 'static, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(tensors), DType::F32, device.clone())
}

/// The file that a tensor is in, its shape, and its type as rerankd reads it.
pub(super) type Found = (String, Vec<usize>, Option<DType>);

pub(super) fn file_error(file: impl Display, reason: String) -> LoadError {
    LoadError::File {
        file: file.to_string(),
        reason,
    }
}

fn check(
    expected: &[Expected],
    found: &HashMap<String, Found>,
    main: &str,
) -> Result<(), LoadError> {
    for (tensor, shape) in expected {
        let Some((file, found_shape, dtype)) = found.get(tensor) else {
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
                tensor: tensor.clone(),
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
                format!("tensor \"{tensor}\" is not of a floating-point type"),
            ));
        }
    }
    Ok(())
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
