//! A linear layer's weights as the kernels read them: in panels of as many outputs as a few
//! vectors hold, in one of several precisions.

use std::marker::PhantomData;

use half::{bf16, f16};

use super::Isa;
use super::int8::Int8;
use super::simd::Simd;
use crate::types::Dtype;

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A number for which all bits zero are 0, and any bits are a value.
pub(super) trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for f16 {}
impl Plain for bf16 {}
impl Plain for i8 {}
impl Plain for u8 {}

/// A buffer that starts on a cache line, so that no vector load crosses one.
#[derive(Debug)]
pub(super) struct Aligned<T = f32>(Vec<Line>, PhantomData<T>);

impl<T: Plain> Default for Aligned<T> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<T: Plain> Aligned<T> {
    pub(super) fn zeroed(length: usize) -> Self {
        let lines = (length * size_of::<T>()).div_ceil(64);
        Self(vec![Line([0; 64]); lines], PhantomData)
    }

    /// Makes room for `length` values; what was in it may be kept or not.
    pub(super) fn reserve(&mut self, length: usize) {
        if self.0.len() * 64 < length * size_of::<T>() {
            *self = Self::zeroed(length);
        }
    }

    pub(super) fn as_ptr(&self) -> *const T {
        self.0.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        let length = self.0.len() * 64 / size_of::<T>();
        // SAFETY: whole cache lines, whose bits are good values of a plain T.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), length) }
    }
}

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

/// A linear layer's weights, packed once at load.
#[derive(Debug)]
pub(in crate::engine) struct Linear {
    pub(super) panels: Panels,
    /// `[outputs]`, with room for whole panels.
    pub(super) bias: Aligned,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Linear {
    /// Packs `weight`, `[outputs, inputs]`, and `bias`, `[outputs]`.
    pub(super) fn pack(weight: &[f32], bias: &[f32], dtype: Dtype, isa: Isa) -> Self {
        let outputs = bias.len();
        let inputs = weight.len() / outputs;
        let width = isa.panel_width();
        let mut padded = Aligned::zeroed(outputs.next_multiple_of(width));
        padded.as_mut_slice()[..outputs].copy_from_slice(bias);
        Self {
            panels: match dtype {
                Dtype::F32 => Panels::F32(panels(weight, inputs, width)),
                Dtype::F16 => Panels::F16(panels(weight, inputs, width)),
                Dtype::Bf16 => Panels::Bf16(panels(weight, inputs, width)),
                Dtype::Int8 => Panels::Int8(Int8::pack(weight, inputs, isa)),
            },
            bias: padded,
            inputs,
            outputs,
        }
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
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
pub(in crate::engine) enum Table {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Table {
    /// Keeps `values` in the type of the weights; beside int8 weights, in f16.
    pub(in crate::engine) fn new(values: Vec<f32>, dtype: Dtype) -> Self {
        use half::slice::HalfFloatSliceExt;
        match dtype {
            Dtype::F32 => Self::F32(values),
            Dtype::F16 | Dtype::Int8 => {
                let mut kept = vec![f16::ZERO; values.len()];
                kept.convert_from_f32_slice(&values);
                Self::F16(kept)
            }
            Dtype::Bf16 => {
                let mut kept = vec![bf16::ZERO; values.len()];
                kept.convert_from_f32_slice(&values);
                Self::Bf16(kept)
            }
        }
    }

    /// Writes a row to `out`, `[hidden size]`.
    pub(super) fn read(&self, row: usize, out: &mut [f32]) {
        use half::slice::HalfFloatSliceExt;
        let range = row * out.len()..(row + 1) * out.len();
        match self {
            Self::F32(table) => out.copy_from_slice(&table[range]),
            Self::F16(table) => table[range].convert_to_f32_slice(out),
            Self::Bf16(table) => table[range].convert_to_f32_slice(out),
        }
    }
}
