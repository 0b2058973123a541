//! Compact safetensors: matrices as 8-bit integers with a scale for each row, a quarter of f32's
//! size on disk. Tensor `NAME` of type I8 and shape `[rows, columns]` goes with `NAME.scale`, F32 and
//! `[rows]`: a weight is its integer times its row's scale. Everything else is stored as usual.
//!
//! Written by `training/compact.py`. Read once at load into f32, after which the weights are like any
//! others; what they are kept in is up to `engine.dtype`.

use std::collections::HashMap;

use candle_core::{Device, Error, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// The name of a tensor's scales.
pub(super) fn scale_of(name: &str) -> String {
    format!("{name}.scale")
}

/// Reads all tensors, the compact ones expanded to f32.
pub(super) fn expand(
    views: &HashMap<String, TensorView<'_>>,
    device: &Device,
) -> candle_core::Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::with_capacity(views.len());
    for (name, view) in views {
        let tensor = if view.dtype() == Dtype::I8 {
            rows(name, view, views, device)?
        } else {
            candle_core::safetensors::Load::load(view, device)?
        };
        tensors.insert(name.clone(), tensor);
    }
    Ok(tensors)
}

fn rows(
    name: &str,
    view: &TensorView<'_>,
    views: &HashMap<String, TensorView<'_>>,
    device: &Device,
) -> candle_core::Result<Tensor> {
    let wrong = |what: &str| {
        Error::msg(format!(
            "tensor \"{name}\" is of 8-bit integers, but {what}"
        ))
    };
    let [rows, columns] = *view.shape() else {
        return Err(wrong("no matrix"));
    };
    let scale = scale_of(name);
    let scales = views
        .get(&scale)
        .ok_or_else(|| wrong(&format!("\"{scale}\" is missing")))?;
    if scales.dtype() != Dtype::F32 || scales.shape() != [rows] {
        return Err(wrong(&format!(
            "\"{scale}\" is not one F32 number for each row"
        )));
    }
    let scales = scales.data().chunks_exact(4);
    let scales = scales.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let values: Vec<f32> = scales
        .zip(view.data().chunks_exact(columns.max(1)))
        .flat_map(|(scale, row)| row.iter().map(move |&x| f32::from(x.cast_signed()) * scale))
        .collect();
    Tensor::from_vec(values, (rows, columns), device)
}
