//! The hot path on a CPU: kernels for each instruction set, picked by what the CPU reports.
//!
//! The only place where `unsafe` is allowed.

#![expect(
    unsafe_code,
    reason = "kernels on raw memory, each with its safety argument"
)]

mod attention;
mod bench;
mod elementwise;
mod encoder;
mod int8;
mod linear;
mod simd;
mod team;
mod weights;

#[cfg(test)]
mod tests;

pub use bench::KernelBench;
pub(super) use elementwise::LayerNorm;
pub(super) use encoder::{Embeddings, Encoder, EncoderLayer, Head, Workspace};
pub(super) use team::Team;
pub(super) use weights::{Linear, Table};

use attention::Scratch;
use int8::Quantised;
use weights::Panels;

use super::LoadError;
use crate::types::Dtype;

/// What follows a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// Nothing.
    None,
    /// GELU with the exact error function.
    Gelu,
    /// GELU by tanh.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

/// An instruction set with kernels of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// Rows per tile and vectors per panel of each set: as many sums as its registers hold beside a
/// panel's vectors and a broadcast. For int8, rows and features of their own.
macro_rules! entries {
    ($module:ident, $simd:ty, $mr:literal, $nv:literal, $int8_mr:literal
     $(, $feature:literal, $int8_feature:literal)?) => {
        mod $module {
            use half::{bf16, f16};

            use super::simd::Simd;
            use super::{Panels, Quantised, Scratch, attention, elementwise, int8, linear, simd};

            pub(super) const PANEL_WIDTH: usize = $nv * <$simd>::LANES;

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn linear(call: &linear::Call<'_>) {
                // SAFETY: the caller's.
                unsafe {
                    match &call.layer.panels {
                        Panels::F32(p) => linear::linear::<$simd, f32, $mr, $nv>(call, p.as_ptr()),
                        Panels::F16(p) => linear::linear::<$simd, f16, $mr, $nv>(call, p.as_ptr()),
                        Panels::Bf16(p) => linear::linear::<$simd, bf16, $mr, $nv>(call, p.as_ptr()),
                        Panels::Int8(_) => unreachable!("int8 weights have a kernel of their own"),
                    }
                }
            }

            $(#[target_feature(enable = $int8_feature)])?
            pub(super) unsafe fn int8(
                call: &linear::Call<'_>,
                weights: &int8::Int8,
                quantised: &mut Quantised,
            ) {
                // SAFETY: the caller's.
                unsafe { int8::linear::<$simd, $int8_mr, $nv>(call, weights, quantised) }
            }

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn attention(call: &attention::Call, scratch: &mut Scratch) {
                // SAFETY: the caller's.
                unsafe { attention::attention::<$simd, $mr, $nv>(call, scratch) }
            }

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn layer_norm(
                norm: &elementwise::LayerNorm,
                from: &[f32],
                to: &mut [f32],
            ) {
                // SAFETY: the caller's.
                unsafe { elementwise::layer_norm::<$simd>(norm, from, to) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
entries!(
    avx512,
    simd::Avx512,
    12,
    2,
    12,
    "avx512f",
    "avx512f,avx512vnni"
);
#[cfg(target_arch = "x86_64")]
entries!(avx2, simd::Avx2, 6, 2, 3, "avx2,fma,f16c", "avx2,fma,f16c");
entries!(portable, simd::Portable, 4, 1, 4);

/// Calls a function of the instruction set's module.
macro_rules! dispatch {
    ($isa:expr, $($path:tt)*) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::$($path)*,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::$($path)*,
            Isa::Portable => portable::$($path)*,
        }
    };
}

impl Isa {
    /// Every set that this CPU has, the best first.
    pub(super) fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                found.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                found.push(Self::Avx2);
            }
        }
        found.push(Self::Portable);
        found
    }

    /// The set of this name, or the best one for `auto`; the error says which there are.
    pub(super) fn named(name: &str) -> Result<Self, LoadError> {
        let available = Self::available();
        if name == "auto" {
            return Ok(available[0]);
        }
        let found = available.iter().copied().find(|isa| isa.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
            LoadError::Instructions {
                asked: name.to_owned(),
                available: names.join(", "),
            }
        })
    }

    /// Its name in settings and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// Outputs in a panel of packed weights.
    fn panel_width(self) -> usize {
        dispatch!(self, PANEL_WIDTH)
    }

    /// The set whose int8 kernel to use: AVX-512 has one only with VNNI.
    fn for_int8(self) -> Self {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx512 && !is_x86_feature_detected!("avx512vnni") {
            return Self::Avx2;
        }
        self
    }

    /// Whether its int8 kernel sums up in 16 bits.
    fn sums_in_sixteen_bits(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => true,
            _ => false,
        }
    }

    /// Packs a linear layer's weights, `[outputs, inputs]`, and bias, `[outputs]`.
    pub(super) fn pack(self, weight: &[f32], bias: &[f32], dtype: Dtype) -> Linear {
        Linear::pack(weight, bias, dtype, self)
    }

    /// Runs a linear layer.
    ///
    /// # Safety
    /// As [`linear::linear`]; that the CPU has the instructions is what [`Isa::available`] says.
    unsafe fn linear(self, call: &linear::Call<'_>, quantised: &mut Quantised) {
        // SAFETY: the caller's.
        unsafe {
            match &call.layer.panels {
                Panels::Int8(weights) => dispatch!(weights.isa, int8(call, weights, quantised)),
                _ => dispatch!(self, linear(call)),
            }
        }
    }

    /// Runs one head's attention.
    ///
    /// # Safety
    /// As [`attention::attention`].
    unsafe fn attention(self, call: &attention::Call, scratch: &mut Scratch) {
        // SAFETY: the caller's.
        unsafe { dispatch!(self, attention(call, scratch)) }
    }

    /// Normalises the rows of `from` to `to`.
    fn layer_norm(self, norm: &LayerNorm, from: &[f32], to: &mut [f32]) {
        // SAFETY: the CPU has the instructions, see available.
        unsafe { dispatch!(self, layer_norm(norm, from, to)) }
    }
}
