//! Checks a model's weight files against its configuration, then hands them to candle.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, safetensors::MmapedSafetensors};
use candle_nn::VarBuilder;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::compact::{expand, scale_of};
use super::registry::Config;
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
            let tensors = map(paths)?;
            let views: HashMap<_, _> = tensors.tensors().into_iter().collect();
            let mut found = HashMap::new();
            for path in paths {
                // Each shard by itself, so that an error can name the file a tensor is in.
                for (name, view) in map(std::slice::from_ref(path))?.tensors() {
                    let tensor = describe(path.display().to_string(), &name, &view, &views);
                    found.insert(name, tensor);
                }
            }
            check(expected, &found, &paths[0].display().to_string())?;
            if views.keys().any(|name| is_compact(name, &views)) {
                return expanded(&views, weights, device);
            }
            Ok(VarBuilder::from_backend(
                Box::new(tensors),
                DType::F32,
                device.clone(),
            ))
        }
        Weights::Embedded(file) => {
            let tensors = SafeTensors::deserialize(file.bytes);
            let tensors = tensors.map_err(|e| file_error(file.name, e.to_string()))?;
            let views: HashMap<_, _> = tensors.tensors().into_iter().collect();
            let describe = |name, view| describe(file.name.to_owned(), name, view, &views);
            let found = views.iter().map(|(n, v)| (n.clone(), describe(n, v)));
            check(expected, &found.collect(), file.name)?;
            expanded(&views, weights, device)
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
            Ok(VarBuilder::from_backend(
                Box::new(tensors),
                DType::F32,
                device.clone(),
            ))
        }
    }
}

/// The file that a tensor is in, its shape, and its type as rerankd reads it.
type Found = (String, Vec<usize>, Option<DType>);

fn describe(
    file: String,
    name: &str,
    view: &TensorView<'_>,
    views: &HashMap<String, TensorView<'_>>,
) -> Found {
    let dtype = if is_compact(name, views) {
        Some(DType::F32)
    } else {
        DType::try_from(view.dtype()).ok()
    };
    (file, view.shape().to_vec(), dtype)
}

fn is_compact(name: &str, views: &HashMap<String, TensorView<'_>>) -> bool {
    let is_i8 = |view: &TensorView<'_>| view.dtype() == Dtype::I8;
    views.get(name).is_some_and(is_i8) && views.contains_key(&scale_of(name))
}

fn expanded(
    views: &HashMap<String, TensorView<'_>>,
    weights: &Weights,
    device: &Device,
) -> Result<VarBuilder<'static>, LoadError> {
    let tensors = expand(views, device).map_err(|e| weights.error(&e))?;
    Ok(VarBuilder::from_tensors(tensors, DType::F32, device))
}

pub(super) fn file_error(file: impl Display, reason: String) -> LoadError {
    LoadError::File {
        file: file.to_string(),
        reason,
    }
}

fn map(paths: &[PathBuf]) -> Result<MmapedSafetensors, LoadError> {
    for path in paths {
        check_length(path)?;
    }
    #[expect(unsafe_code, reason = "the memory map of the weights")]
    // SAFETY: the map is read while the model is built and dropped after it. As everywhere that
    // weights are mapped, the file must not be changed meanwhile; the hub cache never rewrites a
    // blob in place, and check_length has just seen the whole file.
    let mapped = unsafe { MmapedSafetensors::multi(paths) };
    mapped.map_err(|e| file_error(paths[0].display(), e.to_string()))
}

/// Refuses a safetensors file that ends too early, naming the first tensor that is cut.
///
/// Format: u64 little-endian header length, JSON header, data
/// (<https://github.com/huggingface/safetensors#format>).
fn check_length(path: &Path) -> Result<(), LoadError> {
    use std::io::Read;
    let io_error = |e: std::io::Error| file_error(path.display(), e.to_string());
    let mut file = std::fs::File::open(path).map_err(io_error)?;
    let length = file.metadata().map_err(io_error)?.len();
    let broken = |what: &str| {
        file_error(
            path.display(),
            format!("is not a whole safetensors file: {what} (the file has {length} bytes)"),
        )
    };
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix)
        .map_err(|_| broken("it ends within the header's length"))?;
    let header_length = u64::from_le_bytes(prefix);
    if header_length > length.saturating_sub(8) {
        return Err(broken("it ends within the header"));
    }
    let mut header = Vec::new();
    file.take(header_length)
        .read_to_end(&mut header)
        .map_err(io_error)?;
    let header: HashMap<String, serde_json::Value> = serde_json::from_slice(&header)
        .map_err(|e| broken(&format!("its header is no JSON: {e}")))?;
    let end = |info: &serde_json::Value| info["data_offsets"][1].as_u64();
    let mut tensors: Vec<(u64, &str)> = header
        .iter()
        .filter_map(|(name, info)| Some((end(info)?, name.as_str())))
        .collect();
    tensors.sort_unstable();
    match tensors
        .iter()
        .find(|(end, _)| 8 + header_length + end > length)
    {
        Some((end, name)) => Err(broken(&format!(
            "tensor \"{name}\" should end at byte {}",
            8 + header_length + end
        ))),
        None => Ok(()),
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
