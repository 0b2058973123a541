//! What `benches/kernels.rs` times: each kernel by itself, on one thread, with made-up values.

use super::attention::Call as AttentionCall;
use super::linear::{Call, Rows};
use super::{Activation, Isa, LayerNorm, Quantised, Scratch};
use crate::types::Dtype;

/// The kernels of one instruction set. For the benchmark in this repository only.
#[derive(Debug, Clone, Copy)]
pub struct KernelBench(Isa);

impl KernelBench {
    /// Of every set that this CPU has, the best first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        Isa::available().into_iter().map(Self).collect()
    }

    /// The set's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// A linear layer `[rows, inputs]` to `[rows, outputs]` with GELU.
    pub fn linear(
        &self,
        dtype: Dtype,
        rows: usize,
        inputs: usize,
        outputs: usize,
    ) -> impl FnMut() + use<> {
        let (isa, mut quantised) = (self.0, Quantised::default());
        let layer = isa.pack(&values(inputs * outputs), &values(outputs), dtype);
        let (input, mut output) = (values(rows * inputs), vec![0.0; rows * outputs]);
        move || {
            let from = Rows {
                start: input.as_ptr(),
                stride: inputs,
            };
            let to = Rows {
                start: output.as_mut_ptr(),
                stride: outputs,
            };
            let call = Call {
                activation: Activation::Gelu,
                ..Call::plain(&layer, rows, from, to)
            };
            // SAFETY: the buffers have the call's shapes.
            unsafe { isa.linear(&call, &mut quantised) }
        }
    }

    /// Attention of one sequence of `length` tokens: queries, keys and values `[length, heads * size]`.
    pub fn attention(&self, length: usize, heads: usize, size: usize) -> impl FnMut() + use<> {
        let (isa, mut scratch) = (self.0, Scratch::default());
        let width = heads * size;
        let (projected, mut output) = (values(3 * length * width), vec![0.0; length * width]);
        move || {
            for head in 0..heads {
                let rows = |which| Rows {
                    start: projected.as_ptr().wrapping_add(which * width + head * size),
                    stride: 3 * width,
                };
                let call = AttentionCall {
                    queries: rows(0),
                    keys: rows(1),
                    values: rows(2),
                    output: Rows {
                        start: output.as_mut_ptr().wrapping_add(head * size),
                        stride: width,
                    },
                    length,
                    head_size: size,
                    from: 0,
                    to: length,
                };
                // SAFETY: the buffers have the call's shapes.
                unsafe { isa.attention(&call, &mut scratch) }
            }
        }
    }

    /// Layer normalisation of `[rows, width]`.
    pub fn layer_norm(&self, rows: usize, width: usize) -> impl FnMut() + use<> {
        let isa = self.0;
        let norm = LayerNorm {
            weight: values(width),
            bias: values(width),
            epsilon: 1e-12,
        };
        let (from, mut to) = (values(rows * width), vec![0.0; rows * width]);
        move || isa.layer_norm(&norm, &from, &mut to)
    }
}

/// Values about [-1, 1].
fn values(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| (i * 7919 % 2003) as f32 / 1001.0 - 1.0)
        .collect()
}
