//! The arithmetic of transformers on a CPU: linear layers, attention and normalisation, in
//! kernels for each instruction set, and the threads that share the work.
//!
//! The only crate with `unsafe`. It knows no model, no text and no file; `rerankd`'s engine calls it.
//! [`Kernels`] can be had only from what the CPU reports, so that holding one proves that its
//! instructions are there; [`RowsMut`] proves who writes where. So every public function is safe.

#![expect(
    unsafe_code,
    reason = "kernels on raw memory, each with its safety argument"
)]

mod attention;
mod buffer;
mod elementwise;
mod embedding;
mod int8;
mod linear;
mod operations;
mod rotary;
mod rows;
mod simd;
mod stored;
mod team;
mod weights;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use attention::{Bias, Disentangled, KeyValues, Places, RelativePositions};
pub use buffer::Buffer;
pub use elementwise::LayerNorm;
pub use embedding::Embedding;
pub use linear::Epilogue;
pub use rotary::Rotary;
pub use rows::{Rows, RowsMut};
pub use stored::Stored;
pub use team::{Lead, Team};
pub use weights::{Linear, Packer};

use int8::{Int8, Quantised};
use weights::Panels;

/// What weights are kept in. Arithmetic is in f32, but for int8's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Exact.
    F32,
    /// Half the memory; 11 bits of each weight.
    F16,
    /// Half the memory; 8 bits of each weight.
    Bf16,
    /// A quarter of the memory, and faster: weights quantised per output, activations per token.
    Int8,
}

impl Dtype {
    /// Its name in settings and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// The function that follows a linear layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// GELU with the exact error function.
    Gelu,
    /// GELU by tanh.
    GeluTanh,
    /// GELU by the logistic function: x σ(1.702 x).
    QuickGelu,
    /// x σ(x), also called Swish.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
    /// max(x, 0).
    Relu,
}

/// Buffers that one thread reuses from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    attention: attention::Buffers,
    quantised: Quantised,
    /// `[rows, panel width]`: a gated layer's sums between two turns.
    between: buffer::Aligned,
}

/// The kernels of an instruction set that this CPU has.
#[derive(Clone, Copy)]
pub struct Kernels(&'static Table);

/// One instruction set's kernels.
struct Table {
    name: &'static str,
    /// Outputs in a panel of packed weights.
    panel_width: usize,
    linear: unsafe fn(&linear::Call<'_>),
    attention: unsafe fn(&attention::Call<'_>, &mut attention::Buffers),
    finish: unsafe fn(&linear::Call<'_>, linear::Part, usize, *const f32, usize),
    layer_norm: unsafe fn(&LayerNorm, Rows<'_>, &mut RowsMut<'_>),
    activate: unsafe fn(Activation, &mut RowsMut<'_>),
    normalise_heads: unsafe fn(&LayerNorm, &mut RowsMut<'_>),
    rotate: unsafe fn(&Rotary, &[u32], &mut RowsMut<'_>),
    int8: Int8Table,
}

/// The kernel of int8 weights, which may be another set's.
#[derive(Clone, Copy)]
struct Int8Table {
    panel_width: usize,
    /// Inputs that lie together for each output.
    together: usize,
    /// Whether it sums up in 16 bits.
    sums_in_sixteen_bits: bool,
    linear: unsafe fn(&linear::Call<'_>, &Int8, &mut Quantised),
}

/// A set's kernel for int8, with rows per tile and vectors per panel.
macro_rules! int8_entry {
    ($simd:ty, $mr:literal, $nv:literal $(, $feature:literal)?) => {
        pub(super) const INT8: Int8Table = Int8Table {
            panel_width: $nv * <$simd as Simd>::LANES,
            together: <$simd as int8::Dot>::TOGETHER,
            sums_in_sixteen_bits: <$simd as int8::Dot>::SUMS_IN_SIXTEEN_BITS,
            linear: int8,
        };

        $(#[target_feature(enable = $feature)])?
        unsafe fn int8(call: &linear::Call<'_>, weights: &Int8, quantised: &mut Quantised) {
            // SAFETY: the caller's.
            unsafe { int8::linear::<$simd, $mr, $nv>(call, weights, quantised) }
        }
    };
}

/// Rows per tile and vectors per panel of each set: as many sums as its registers hold beside a
/// panel's vectors and a broadcast. For int8, rows and features of their own.
macro_rules! entries {
    ($module:ident, $simd:ty, $mr:literal, $nv:literal, $int8_mr:literal
     $(, $feature:literal, $int8_feature:literal)?) => {
        mod $module {
            use half::{bf16, f16};

            use super::simd::Simd;
            use super::{
                Activation, Int8, Int8Table, LayerNorm, Panels, Quantised, Rotary, Rows, RowsMut,
                Table, attention, elementwise, int8, linear, rotary, simd,
            };

            const PANEL_WIDTH: usize = $nv * <$simd>::LANES;

            int8_entry!($simd, $int8_mr, $nv $(, $int8_feature)?);

            pub(super) const TABLE: Table = Table {
                name: stringify!($module),
                panel_width: PANEL_WIDTH,
                linear,
                finish,
                attention,
                layer_norm,
                activate,
                normalise_heads,
                rotate,
                int8: INT8,
            };

            $(#[target_feature(enable = $feature)])?
            unsafe fn linear(call: &linear::Call<'_>) {
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

            $(#[target_feature(enable = $feature)])?
            unsafe fn finish(
                call: &linear::Call<'_>,
                part: linear::Part,
                rows: usize,
                sums: *const f32,
                width: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { linear::finish_apart::<$simd>(call, part, rows, sums, width) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn attention(call: &attention::Call<'_>, buffers: &mut attention::Buffers) {
                // SAFETY: the caller's.
                unsafe { attention::attention::<$simd, $mr, $nv>(call, buffers) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn layer_norm(
                norm: &LayerNorm,
                from: Rows<'_>,
                to: &mut RowsMut<'_>,
            ) {
                // SAFETY: the caller's.
                unsafe { elementwise::layer_norm::<$simd>(norm, from, to) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn activate(activation: Activation, rows: &mut RowsMut<'_>) {
                // SAFETY: the caller's.
                unsafe { elementwise::activate_rows::<$simd>(activation, rows) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn normalise_heads(norm: &LayerNorm, heads: &mut RowsMut<'_>) {
                // SAFETY: the caller's.
                unsafe { elementwise::normalise_heads::<$simd>(norm, heads) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn rotate(rotary: &Rotary, places: &[u32], heads: &mut RowsMut<'_>) {
                // SAFETY: the caller's.
                unsafe { rotary::rotate::<$simd>(rotary, places, heads) }
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
#[cfg(target_arch = "aarch64")]
entries!(neon, simd::Neon<int8::Widened>, 6, 4, 4);

/// Kernels for int8 alone, where the CPU has more than NEON.
#[cfg(target_arch = "aarch64")]
mod neon_dotprod {
    use super::simd::{Neon, Simd};
    use super::{Int8, Int8Table, Quantised, int8, linear};

    int8_entry!(Neon<int8::DotProd>, 6, 4, "dotprod");
}
#[cfg(target_arch = "aarch64")]
mod neon_i8mm {
    use super::simd::{Neon, Simd};
    use super::{Int8, Int8Table, Quantised, int8, linear};

    int8_entry!(Neon<int8::Matrix>, 4, 4, "i8mm");
}

/// AVX-512 without VNNI has no kernel for int8 of its own.
#[cfg(target_arch = "x86_64")]
static AVX512_WITHOUT_VNNI: Table = Table {
    int8: avx2::INT8,
    ..avx512::TABLE
};
#[cfg(target_arch = "x86_64")]
static AVX512: Table = avx512::TABLE;
#[cfg(target_arch = "x86_64")]
static AVX2: Table = avx2::TABLE;
#[cfg(target_arch = "aarch64")]
static NEON: Table = neon::TABLE;
#[cfg(target_arch = "aarch64")]
static NEON_DOTPROD: Table = Table {
    int8: neon_dotprod::INT8,
    ..neon::TABLE
};
#[cfg(target_arch = "aarch64")]
static NEON_I8MM: Table = Table {
    int8: neon_i8mm::INT8,
    ..neon::TABLE
};
static PORTABLE: Table = portable::TABLE;

/// The instruction set that was asked for is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuchKernels {
    /// The set that was asked for.
    pub name: String,
    /// Those that this CPU has, the best first.
    pub available: Vec<&'static str>,
}

impl fmt::Display for NoSuchKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, available) = (&self.name, self.available.join(", "));
        write!(
            f,
            "\"{name}\" is none of auto, {available} (what this CPU has)"
        )
    }
}

impl std::error::Error for NoSuchKernels {}

impl Kernels {
    /// The best that this CPU has.
    #[must_use]
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this CPU has, the best first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            if avx2 && is_x86_feature_detected!("avx512f") {
                found.push(match is_x86_feature_detected!("avx512vnni") {
                    true => Self(&AVX512),
                    false => Self(&AVX512_WITHOUT_VNNI),
                });
            }
            if avx2 {
                found.push(Self(&AVX2));
            }
        }
        #[cfg(target_arch = "aarch64")]
        found.push(if std::arch::is_aarch64_feature_detected!("i8mm") {
            Self(&NEON_I8MM)
        } else if std::arch::is_aarch64_feature_detected!("dotprod") {
            Self(&NEON_DOTPROD)
        } else {
            Self(&NEON)
        });
        found.push(Self(&PORTABLE));
        found
    }

    /// Those of this name, or the best for `auto`.
    ///
    /// # Errors
    /// If this CPU has none of that name; the error says which it has.
    pub fn named(name: &str) -> Result<Self, NoSuchKernels> {
        if name == "auto" {
            return Ok(Self::detect());
        }
        let available = Self::available();
        let found = available
            .iter()
            .copied()
            .find(|kernels| kernels.name() == name);
        found.ok_or_else(|| NoSuchKernels {
            name: name.to_owned(),
            available: available.iter().map(|kernels| kernels.name()).collect(),
        })
    }

    /// Whether products with weights of this type are computed in f32: a weight that the type takes without loss then
    /// counts as it would in f32.
    #[must_use]
    pub fn multiply_in_f32(self, dtype: Dtype) -> bool {
        dtype != Dtype::Int8
    }

    /// The instruction set's name in settings and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}
