//! A linear layer's weights as the kernels read them: in panels of as many outputs as a few
//! vectors hold, in one of several precisions.

use half::{bf16, f16};

use super::buffer::{Aligned, Plain};
use super::int8::Int8;
use super::linear::{Call, Epilogue};
use super::simd::Simd;
use super::{Dtype, Kernels, Rows, RowsMut, Scratch};

/// A floating-point type that weights are kept in; arithmetic is in f32.
pub(super) trait Weight: Plain {
    /// Sums up to which the loop over the inputs is unrolled. With more, where weights must be
    /// converted, the compiler runs out of AVX2's registers.
    const FEW_SUMS: usize = 8;
    fn of(x: f32) -> Self;
    /// Reads a vector of weights.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
}

impl Weight for f32 {
    const FEW_SUMS: usize = 12;
    fn of(x: f32) -> Self {
        x
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller's, here and below.
        unsafe { S::load(p) }
    }
}

impl Weight for f16 {
    fn of(x: f32) -> Self {
        Self::from_f32(x)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: see f32.
        unsafe { S::load_f16(p) }
    }
}

impl Weight for bf16 {
    fn of(x: f32) -> Self {
        Self::from_f32(x)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: see f32.
        unsafe { S::load_bf16(p) }
    }
}

/// Weights in panels: `[panels, inputs, panel width]`, zero beyond the last output; int8 has a
/// layout of its own.
#[derive(Debug)]
pub(super) enum Panels {
    F32(Aligned<f32>),
    F16(Aligned<f16>),
    Bf16(Aligned<bf16>),
    Int8(Int8),
}

/// A linear layer's weights, packed once at load for the kernels that they are for.
#[derive(Debug)]
pub struct Linear {
    kernels: Kernels,
    pub(super) panels: Panels,
    /// `[outputs]`, with room for whole panels.
    pub(super) bias: Aligned,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Linear {
    /// Packs `weight`, `[outputs, inputs]`, and `bias`, `[outputs]`.
    ///
    /// # Panics
    /// If `weight` is not a whole number of inputs for each output.
    #[must_use]
    pub fn pack(kernels: Kernels, weight: &[f32], bias: &[f32], dtype: Dtype) -> Self {
        let (outputs, inputs) = (bias.len(), weight.len() / bias.len().max(1));
        assert!(
            inputs > 0 && weight.len() == outputs * inputs,
            "{} weights for {outputs} outputs",
            weight.len()
        );
        let width = match dtype {
            Dtype::Int8 => kernels.0.int8.panel_width,
            _ => kernels.0.panel_width,
        };
        let mut padded = Aligned::zeroed(outputs.next_multiple_of(width));
        padded.as_mut_slice()[..outputs].copy_from_slice(bias);
        Self {
            kernels,
            panels: match dtype {
                Dtype::F32 => Panels::F32(panels(weight, inputs, width)),
                Dtype::F16 => Panels::F16(panels(weight, inputs, width)),
                Dtype::Bf16 => Panels::Bf16(panels(weight, inputs, width)),
                Dtype::Int8 => Panels::Int8(Int8::pack(weight, inputs, kernels.0.int8)),
            },
            bias: padded,
            inputs,
            outputs,
        }
    }

    /// Values in a row of its output.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Writes `epilogue(input · weightᵀ + bias)` to `output`: `[rows, inputs]` to `[rows, outputs]`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn run(
        &self,
        input: Rows<'_>,
        epilogue: Epilogue<'_>,
        output: &mut RowsMut<'_>,
        scratch: &mut Scratch,
    ) {
        let rows = input.len();
        assert!(
            input.width() == self.inputs && (output.len(), output.width()) == (rows, self.outputs),
            "{rows}x{} to {}x{} by a layer of {}x{}",
            input.width(),
            output.len(),
            output.width(),
            self.inputs,
            self.outputs
        );
        if let Some(residual) = epilogue.residual {
            assert!(
                (residual.len(), residual.width()) == (rows, self.outputs),
                "a residual of {}x{} for {rows}x{}",
                residual.len(),
                residual.width(),
                self.outputs
            );
        }
        let call = Call {
            layer: self,
            rows,
            input: input.raw(),
            output: output.raw(),
            activation: epilogue.activation,
            residual: epilogue.residual.map(|rows| rows.raw()),
        };
        let table = self.kernels.0;
        // SAFETY: this CPU has the instructions, or there would be no such Kernels; the shapes have
        // been checked, and the output is borrowed for us alone. The weights are packed for this
        // table, int8 ones for its int8 kernel.
        unsafe {
            match &self.panels {
                Panels::Int8(weights) => {
                    (table.int8.linear)(&call, weights, &mut scratch.quantised)
                }
                _ => (table.linear)(&call),
            }
        }
    }
}

fn panels<W: Weight>(weight: &[f32], inputs: usize, width: usize) -> Aligned<W> {
    let count = (weight.len() / inputs).div_ceil(width);
    let mut panels = Aligned::zeroed(count * inputs * width);
    let packed = panels.as_mut_slice();
    for (o, row) in weight.chunks_exact(inputs).enumerate() {
        let start = o / width * inputs * width + o % width;
        for (i, &w) in row.iter().enumerate() {
            packed[start + i * width] = W::of(w);
        }
    }
    panels
}

/// An embedding table, `[rows, hidden size]`.
#[derive(Debug)]
pub struct Embedding(Kept);

#[derive(Debug)]
enum Kept {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Embedding {
    /// Keeps `values` in the type of the weights; beside int8 weights, in f16.
    #[must_use]
    pub fn new(values: Vec<f32>, dtype: Dtype) -> Self {
        use half::slice::HalfFloatSliceExt;
        Self(match dtype {
            Dtype::F32 => Kept::F32(values),
            Dtype::F16 | Dtype::Int8 => {
                let mut kept = vec![f16::ZERO; values.len()];
                kept.convert_from_f32_slice(&values);
                Kept::F16(kept)
            }
            Dtype::Bf16 => {
                let mut kept = vec![bf16::ZERO; values.len()];
                kept.convert_from_f32_slice(&values);
                Kept::Bf16(kept)
            }
        })
    }

    /// Writes a row to `out`, `[hidden size]`.
    ///
    /// # Panics
    /// If the table has no such row.
    pub fn read(&self, row: usize, out: &mut [f32]) {
        use half::slice::HalfFloatSliceExt;
        let range = row * out.len()..(row + 1) * out.len();
        match &self.0 {
            Kept::F32(table) => out.copy_from_slice(&table[range]),
            Kept::F16(table) => table[range].convert_to_f32_slice(out),
            Kept::Bf16(table) => table[range].convert_to_f32_slice(out),
        }
    }
}
