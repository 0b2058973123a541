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

mod ahead;
mod attention;
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "for units that only x86-64 has so far")
)]
mod bf16;
mod buffer;
mod choice;
mod detect;
mod elementwise;
mod embedding;
mod epilogue;
mod int8;
mod linear;
mod operations;
mod rotary;
mod rows;
mod simd;
mod stored;
mod team;
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "for units that only x86-64 has so far")
)]
mod tiles;
mod weights;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use attention::{Bias, Disentangled, KeyValues, Places, RelativePositions};
pub use buffer::Buffer;
pub use choice::NoSuchKernels;
pub use elementwise::LayerNorm;
pub use embedding::Embedding;
pub use epilogue::Epilogue;
pub use rotary::Rotary;
pub use rows::{Rows, RowsMut};
pub use stored::Stored;
pub use team::{Lead, Team};
pub use weights::{Linear, Packer};

use bf16::{Bf16Table, Rounded};
use detect::Units;
use int8::{Int8, Quantised};
use weights::Panels;

/// What weights are kept in, and what their products are computed in: see [`Kernels::arithmetic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Exact.
    F32,
    /// Half the memory; 11 bits of each weight. Arithmetic is in f32.
    F16,
    /// Half the memory; 8 bits of each weight. On CPUs that multiply bfloat16 (AMX, AVX512_BF16) the inputs of a
    /// linear layer are rounded to as many bits, and their products are summed up in f32; on others, arithmetic is in
    /// f32.
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
    rounded: Rounded,
    /// `[rows, panel width]`: a gated layer's sums between two turns.
    between: buffer::Aligned,
}

/// The kernels of an instruction set that this CPU has.
#[derive(Clone, Copy)]
pub struct Kernels(&'static Table);

/// Writes a tile's sums: see `linear::finish_apart`.
type Finish = unsafe fn(&linear::Call<'_>, linear::Part, usize, *const f32, usize);

/// One instruction set's kernels.
struct Table {
    name: &'static str,
    /// Outputs in a panel of packed weights.
    panel_width: usize,
    linear: unsafe fn(&linear::Call<'_>),
    attention: unsafe fn(&attention::Call<'_>, &mut attention::Buffers),
    finish: Finish,
    /// As exact as what is rounded anyway needs.
    finish_coarse: Finish,
    layer_norm: unsafe fn(&LayerNorm, Rows<'_>, &mut RowsMut<'_>),
    activate: unsafe fn(Activation, &mut RowsMut<'_>),
    normalise_heads: unsafe fn(&LayerNorm, &mut RowsMut<'_>),
    rotate: unsafe fn(&Rotary, &[u32], &mut RowsMut<'_>),
    /// Where the CPU multiplies bfloat16.
    bf16: Option<Bf16Table>,
    int8: Int8Table,
}

/// The kernel of int8 weights, which may be another set's.
#[derive(Clone, Copy)]
struct Int8Table {
    /// What multiplies, as logs name it.
    arithmetic: &'static str,
    panel_width: usize,
    /// Inputs are padded to a multiple of it, with zeros.
    padding: usize,
    /// Inputs that lie together for each output.
    together: usize,
    /// Whether it sums up in 16 bits.
    sums_in_sixteen_bits: bool,
    linear: unsafe fn(&linear::Call<'_>, &Int8, &mut Quantised),
}

/// A set's kernel for int8, with rows per tile and vectors per panel.
macro_rules! int8_entry {
    ($simd:ty, $mr:literal, $nv:literal $(, $feature:literal)?; $arithmetic:literal) => {
        pub(super) const INT8: Int8Table = Int8Table {
            arithmetic: $arithmetic,
            panel_width: $nv * <$simd as Simd>::LANES,
            padding: int8::RUN,
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
     $(, $feature:literal, $int8_feature:literal)?; $arithmetic:literal) => {
        mod $module {
            use half::{bf16, f16};

            use super::simd::Simd;
            use super::{
                Activation, Int8, Int8Table, LayerNorm, Panels, Quantised, Rotary, Rows, RowsMut,
                Table, attention, elementwise, int8, linear, rotary, simd,
            };

            const PANEL_WIDTH: usize = $nv * <$simd>::LANES;

            int8_entry!($simd, $int8_mr, $nv $(, $int8_feature)?; $arithmetic);

            pub(super) const TABLE: Table = Table {
                name: stringify!($module),
                panel_width: PANEL_WIDTH,
                linear,
                finish: finish::<false>,
                finish_coarse: finish::<true>,
                attention,
                layer_norm,
                activate,
                normalise_heads,
                rotate,
                bf16: None,
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
                        Panels::Pairs(_) | Panels::Int8(_) => {
                            unreachable!("such weights have a kernel of their own")
                        }
                    }
                }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn finish<const COARSE: bool>(
                call: &linear::Call<'_>,
                part: linear::Part,
                rows: usize,
                sums: *const f32,
                width: usize,
            ) {
                // SAFETY: the caller's.
                unsafe { linear::finish_apart::<$simd, COARSE>(call, part, rows, sums, width) }
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
    "avx512f,avx512vnni";
    "int8 (vnni)"
);
#[cfg(target_arch = "x86_64")]
entries!(
    avx2,
    simd::Avx2<int8::Words>,
    6,
    2,
    3,
    "avx2,fma,f16c",
    "avx2,fma,f16c";
    "int8 (avx2)"
);
entries!(portable, simd::Portable, 4, 1, 4; "int8 (portable)");
#[cfg(target_arch = "aarch64")]
entries!(neon, simd::Neon<int8::Widened>, 6, 4, 4; "int8 (neon)");

/// A kernel for int8 alone, where a CPU without AVX-512 has VNNI.
#[cfg(target_arch = "x86_64")]
mod avx_vnni {
    use super::simd::{Avx2, Simd};
    use super::{Int8, Int8Table, Quantised, int8, linear};

    int8_entry!(Avx2<int8::Vnni>, 6, 2, "avx2,fma,f16c,avxvnni"; "int8 (avx-vnni)");
}

/// Kernels for int8 alone, where the CPU has more than NEON.
#[cfg(target_arch = "aarch64")]
mod neon_dotprod {
    use super::simd::{Neon, Simd};
    use super::{Int8, Int8Table, Quantised, int8, linear};

    int8_entry!(Neon<int8::DotProd>, 6, 4, "dotprod"; "int8 (dotprod)");
}
#[cfg(target_arch = "aarch64")]
mod neon_i8mm {
    use super::simd::{Neon, Simd};
    use super::{Int8, Int8Table, Quantised, int8, linear};

    int8_entry!(Neon<int8::Matrix>, 4, 4, "i8mm"; "int8 (i8mm)");
}

/// Tiles, and AVX-512 for all else.
#[cfg(target_arch = "x86_64")]
static AMX: Table = Table {
    name: "amx",
    bf16: Some(bf16::x86::AMX),
    int8: Int8Table {
        arithmetic: "int8 (amx)",
        padding: tiles::LINE,
        linear: int8_in_tiles,
        ..avx512::INT8
    },
    ..avx512::TABLE
};

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn int8_in_tiles(call: &linear::Call<'_>, weights: &Int8, quantised: &mut Quantised) {
    // SAFETY: the caller's; who has AMX has VNNI.
    unsafe {
        int8::linear_in_tiles::<simd::Avx512, tiles::AmxInt8, 12, 2>(call, weights, quantised);
    }
}

#[cfg(target_arch = "x86_64")]
static AVX512_WITH_BF16: Table = Table {
    bf16: Some(bf16::x86::AVX512),
    ..avx512::TABLE
};
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
#[cfg(target_arch = "x86_64")]
static AVX2_WITH_VNNI: Table = Table {
    int8: avx_vnni::INT8,
    ..avx2::TABLE
};
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

/// The tables for a CPU that has these units, the best first.
fn tables(units: Units) -> Vec<&'static Table> {
    let mut found: Vec<&'static Table> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if units.amx {
            found.push(&AMX);
        }
        if units.avx512 {
            found.push(match (units.bf16, units.vnni) {
                (true, _) => &AVX512_WITH_BF16,
                (false, true) => &AVX512,
                (false, false) => &AVX512_WITHOUT_VNNI,
            });
        }
        if units.avx2 {
            found.push(if units.avx_vnni {
                &AVX2_WITH_VNNI
            } else {
                &AVX2
            });
        }
    }
    #[cfg(target_arch = "aarch64")]
    found.push(match (units.i8mm, units.dotprod) {
        (true, _) => &NEON_I8MM,
        (false, true) => &NEON_DOTPROD,
        (false, false) => &NEON,
    });
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = units;
    found.push(&PORTABLE);
    found
}
