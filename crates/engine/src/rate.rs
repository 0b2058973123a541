//! How fast the machine multiplies matrices, and how much of that a model's batch needs: what an
//! engine's speed is measured against.

use std::time::Instant;

use candle_core::{Device, Tensor};

use crate::{Batch, Cost, Dtype};

use super::arch::{Arch, Relative};
use super::encoder::Layout;
use super::error::EngineError;

/// The machine's rate on all cores in GFLOP/s: the best of some single-precision products in the
/// shapes of a MiniLM's layers, by the `gemm` crate, as candle calls it.
///
/// # Errors
/// If candle fails.
pub fn sgemm_rate() -> Result<f64, EngineError> {
    let mut rates = Vec::new();
    for (rows, inputs, outputs) in [(4096, 384, 384), (4096, 384, 1536), (4096, 1536, 384)] {
        let a = Tensor::rand(-1f32, 1f32, (rows, inputs), &Device::Cpu)?;
        let b = Tensor::rand(-1f32, 1f32, (outputs, inputs), &Device::Cpu)?.t()?;
        let mut best: f64 = 0.0;
        for _ in 0..10 {
            let start = Instant::now();
            a.matmul(&b)?;
            let flops = (2 * rows * inputs * outputs) as f64;
            best = best.max(flops / start.elapsed().as_secs_f64() / 1e9);
        }
        rates.push(best);
    }
    Ok(rates.iter().sum::<f64>() / rates.len() as f64)
}

/// Weights of a layer.
fn layer_weights(arch: &Arch) -> usize {
    let (hidden, queries, keys) = (arch.hidden_size, arch.query_width(), arch.key_width());
    let gate = 2 + usize::from(arch.feed_forward.gated);
    hidden * (2 * queries + 2 * keys) + gate * hidden * arch.feed_forward.width
}

/// Operations of attention for each pair of tokens and unit of the queries.
fn products(arch: &Arch) -> usize {
    match arch.attention.relative {
        Relative::Disentangled(_) => 8,
        _ => 4,
    }
}

/// What a sequence costs, by its length: operations of attention against those of the weights.
pub(super) fn cost(arch: &Arch, dtype: Dtype) -> Cost {
    // How much longer an operation of attention takes than one of the weights: as measured with AVX2 in Qwen3-Reranker's
    // shape, 0.93 times as long in f32, and 1.7 times in int8, whose weights are more ahead with VNNI.
    let slower = match dtype {
        Dtype::Int8 => 2.0,
        _ => 1.0,
    };
    let weights = (2 * arch.layers * layer_weights(arch)) as f64;
    let layer = slower * (products(arch) * arch.query_width()) as f64 / weights;
    let reaches: Vec<usize> = (0..arch.layers)
        .filter_map(|layer| arch.attention.reach(layer))
        .collect();
    let far = arch.layers - reaches.len();
    Cost {
        far: far as f64 * layer,
        near: reaches.len() as f64 * layer,
        near_tokens: reaches.iter().max().map_or(0, |reach| 2 * reach + 1),
        causal: arch.attention.causal,
    }
}

/// Floating-point operations that a batch needs: two per weight and row of every linear
/// layer, four per pair of tokens and hidden unit of the attention (more where distances are multiplied too);
/// of the last layer only what the tokens need that the head reads, if it reads some only.
pub(super) fn flops(arch: &Arch, batch: &Batch) -> f64 {
    let (hidden, layers) = (arch.hidden_size, arch.layers);
    let layout = Layout::of(batch, arch);
    let tokens = layout.rows();
    let (queries, keys) = (arch.query_width(), arch.key_width());
    let (layer, products) = (layer_weights(arch), products(arch));
    let (attended, outputs) = (layout.attended(arch), layout.outputs());
    let (weights, attended) = match arch.head.pooling.is_of_tokens() {
        true => {
            let whole = (layers - 1) * layer * tokens;
            let last = 2 * hidden * keys * tokens + (layer - 2 * hidden * keys) * outputs;
            (whole + last, (layers - 1) * attended + tokens)
        }
        false => (layers * layer * tokens, layers * attended),
    };
    let decoder = arch.head.pooling.decoder().map_or(0, |decoder| {
        // A value of its own instead of four projections, and each head attends to hidden states.
        let weights = (layer + 2 * hidden * queries) * outputs;
        decoder.layers * (2 * weights + 4 * arch.attention.heads * hidden * tokens)
    });
    (2 * (weights + hidden * hidden * outputs) + products * queries * attended + decoder) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sequence;

    #[test]
    fn a_long_sequence_costs_more_than_its_tokens() {
        let mut arch = Arch::of_sizes(384, 6, 12);
        let of = |arch: &Arch, before, tokens| cost(arch, Dtype::F32).of(before, tokens);
        // 12 H² weights and 4 L H of attention: as much at 6 H tokens.
        assert!((of(&arch, 0, 6 * 384) / (2.0 * 6.0 * 384.0) - 1.0).abs() < 0.01);
        assert!((of(&arch, 0, 10) / 10.0 - 1.0).abs() < 0.01);
        let whole = of(&arch, 0, 4000);
        assert!((of(&arch, 0, 1000) + of(&arch, 1000, 4000) - whole).abs() < 1e-6);
        arch.attention.causal = true;
        assert!((of(&arch, 0, 6 * 384) / (1.5 * 6.0 * 384.0) - 1.0).abs() < 0.01);
    }

    #[test]
    fn flops_of_a_minilm_pair_are_what_its_shape_says() {
        let arch = Arch::of_sizes(384, 6, 12);
        let batch = Batch::pack([&Sequence::new(vec![0; 128], vec![0; 128])]);
        // 5 layers of 12 H² weights and one of 2 H², and the attention's 4 L² H each.
        let expected = 2.0 * 128.0 * 62.0 * 384.0 * 384.0 + 5.0 * 4.0 * 128.0 * 128.0 * 384.0;
        assert!((flops(&arch, &batch) / expected - 1.0).abs() < 0.005);
    }
}
