//! One vector type per instruction set behind one trait, so that each kernel is written once.
//!
//! Every method must be called from a function compiled for the instruction set, into which it is
//! inlined; `kernels` has one such entry per set and picks it by what the CPU reports.

use half::{bf16, f16};

use super::rows::Raw;
use super::weights::Weight;

#[cfg(target_arch = "aarch64")]
mod neon;

/// A vector of `LANES` f32.
pub(super) trait Simd: Copy {
    const LANES: usize;
    /// Inputs that `steps` takes at once, where that is better than one by one.
    const INPUTS: usize = 1;
    type V: Copy;

    /// All lanes `x`.
    unsafe fn splat(x: f32) -> Self::V;
    /// `LANES` values from `p` on; no alignment needed.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Writes `LANES` values from `p` on; no alignment needed.
    unsafe fn store(p: *mut f32, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer.
    unsafe fn round(v: Self::V) -> Self::V;
    /// `2^n` for integral `n` from -126 to 127.
    unsafe fn pow2(n: Self::V) -> Self::V;
    /// Sum of the lanes.
    unsafe fn sum(v: Self::V) -> f32;
    /// Greatest lane.
    unsafe fn greatest(v: Self::V) -> f32;
    /// As `load`, from half-precision values.
    unsafe fn load_f16(p: *const f16) -> Self::V;
    /// As `load`, from bfloat16 values.
    unsafe fn load_bf16(p: *const bf16) -> Self::V;
    /// Writes the eight first values of eight rows as eight lines, `stride` apart, of one value of
    /// each row.
    #[inline(always)]
    unsafe fn transpose(rows: [*const f32; 8], out: *mut f32, stride: usize) {
        for i in 0..8 {
            // SAFETY: the caller vouches for rows and lines of eight values.
            unsafe {
                let line = rows.map(|row| *row.add(i));
                out.add(i * stride).cast::<Eight>().write_unaligned(line);
            }
        }
    }
    /// Asks for the cache line at `p`, which need not be readable.
    #[inline(always)]
    fn prefetch(_p: *const u8) {}
    /// Adds the products of input `i` of R rows with one line of NV vectors of weights.
    #[inline(always)]
    unsafe fn step<W: Weight, const R: usize, const NV: usize>(
        sums: &mut [[Self::V; NV]; R],
        a: Raw<*const f32>,
        weights: *const W,
        i: usize,
    ) {
        // SAFETY: the caller vouches for the input of each row and for the line.
        unsafe {
            let mut line = [Self::splat(0.0); NV];
            for (j, w) in line.iter_mut().enumerate() {
                *w = W::load::<Self>(weights.add(j * Self::LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = Self::splat(*a.start.add(r * a.stride + i));
                for (sum, w) in sums.iter_mut().zip(line) {
                    *sum = Self::fma(x, w, *sum);
                }
            }
        }
    }
    /// As `step`, of `INPUTS` inputs from `i` on and as many lines.
    #[inline(always)]
    unsafe fn steps<W: Weight, const R: usize, const NV: usize>(
        sums: &mut [[Self::V; NV]; R],
        a: Raw<*const f32>,
        weights: *const W,
        i: usize,
    ) {
        // SAFETY: the caller's.
        unsafe { Self::step::<W, R, NV>(sums, a, weights, i) }
    }
}

/// Plain Rust, eight lanes; the compiler makes of it what the target's baseline allows (NEON on
/// aarch64, SSE2 on x86-64).
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

type Eight = [f32; 8];

#[inline(always)]
fn zip(a: Eight, b: Eight, f: impl Fn(f32, f32) -> f32) -> Eight {
    let mut out = a;
    for (o, b) in out.iter_mut().zip(b) {
        *o = f(*o, b);
    }
    out
}

impl Simd for Portable {
    const LANES: usize = 8;
    type V = Eight;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Eight {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Eight {
        // SAFETY: the caller vouches for eight values; arrays of f32 may be read unaligned.
        unsafe { p.cast::<Eight>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Eight) {
        // SAFETY: as load.
        unsafe { p.cast::<Eight>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn add(a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul(a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: Eight, b: Eight, c: Eight) -> Eight {
        // mul_add is an instruction on aarch64, but a library call on the x86-64 baseline.
        if cfg!(target_arch = "aarch64") {
            let mut out = c;
            for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
                *o = a.mul_add(b, *o);
            }
            out
        } else {
            zip(zip(a, b, |a, b| a * b), c, |ab, c| ab + c)
        }
    }
    #[inline(always)]
    unsafe fn max(a: Eight, b: Eight) -> Eight {
        zip(a, b, f32::max)
    }
    #[inline(always)]
    unsafe fn min(a: Eight, b: Eight) -> Eight {
        zip(a, b, f32::min)
    }
    #[inline(always)]
    unsafe fn round(v: Eight) -> Eight {
        v.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn pow2(n: Eight) -> Eight {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn sum(v: Eight) -> f32 {
        v.iter().sum()
    }
    #[inline(always)]
    unsafe fn greatest(v: Eight) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Eight {
        // SAFETY: as load.
        unsafe { p.cast::<[f16; 8]>().read_unaligned().map(f16::to_f32) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Eight {
        // SAFETY: as load.
        unsafe { p.cast::<[bf16; 8]>().read_unaligned().map(bf16::to_f32) }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::marker::PhantomData;

    use half::{bf16, f16};

    use super::Simd;

    /// Forwards the trait's methods to intrinsics of one instruction set.
    macro_rules! vector {
        ($lanes:literal, $v:ty, $splat:ident, $load:ident, $store:ident, $add:ident,
         $mul:ident, $div:ident, $fma:ident, $max:ident, $min:ident) => {
            const LANES: usize = $lanes;
            type V = $v;
            #[inline(always)]
            fn prefetch(p: *const u8) {
                // SAFETY: a hint that never faults.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            }
            #[inline(always)]
            unsafe fn splat(x: f32) -> $v {
                // SAFETY: here and below, the caller runs on a CPU with these instructions and
                // vouches for the memory behind a pointer.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> $v {
                // SAFETY: see splat.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, v: $v) {
                // SAFETY: see splat.
                unsafe { $store(p, v) }
            }
            #[inline(always)]
            unsafe fn add(a: $v, b: $v) -> $v {
                // SAFETY: see splat.
                unsafe { $add(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: $v, b: $v) -> $v {
                // SAFETY: see splat.
                unsafe { $mul(a, b) }
            }
            #[inline(always)]
            unsafe fn div(a: $v, b: $v) -> $v {
                // SAFETY: see splat.
                unsafe { $div(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                // SAFETY: see splat.
                unsafe { $fma(a, b, c) }
            }
            #[inline(always)]
            unsafe fn max(a: $v, b: $v) -> $v {
                // SAFETY: see splat.
                unsafe { $max(a, b) }
            }
            #[inline(always)]
            unsafe fn min(a: $v, b: $v) -> $v {
                // SAFETY: see splat.
                unsafe { $min(a, b) }
            }
        };
    }

    /// AVX2 with FMA; B is what multiplies bytes.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Avx2<B>(PhantomData<B>);

    impl<B: Copy> Simd for Avx2<B> {
        vector!(
            8,
            __m256,
            _mm256_set1_ps,
            _mm256_loadu_ps,
            _mm256_storeu_ps,
            _mm256_add_ps,
            _mm256_mul_ps,
            _mm256_div_ps,
            _mm256_fmadd_ps,
            _mm256_max_ps,
            _mm256_min_ps
        );
        #[inline(always)]
        unsafe fn round(v: __m256) -> __m256 {
            // SAFETY: see splat.
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
        }
        #[inline(always)]
        unsafe fn pow2(n: __m256) -> __m256 {
            // SAFETY: see splat.
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            }
        }
        #[inline(always)]
        unsafe fn transpose(rows: [*const f32; 8], out: *mut f32, stride: usize) {
            // SAFETY: see splat; eight values of each row and line.
            unsafe {
                let v = rows.map(|row| _mm256_loadu_ps(row));
                // Pairs of rows, then fours, then the halves of all.
                let pair = |a, b| {
                    (
                        _mm256_unpacklo_ps(v[a], v[b]),
                        _mm256_unpackhi_ps(v[a], v[b]),
                    )
                };
                let pairs = [pair(0, 1), pair(2, 3), pair(4, 5), pair(6, 7)];
                let four = |(low, high): (__m256, __m256), (low2, high2): (__m256, __m256)| {
                    [
                        _mm256_shuffle_ps::<0x44>(low, low2),
                        _mm256_shuffle_ps::<0xee>(low, low2),
                        _mm256_shuffle_ps::<0x44>(high, high2),
                        _mm256_shuffle_ps::<0xee>(high, high2),
                    ]
                };
                let (front, back) = (four(pairs[0], pairs[1]), four(pairs[2], pairs[3]));
                for i in 0..4 {
                    let (a, b) = (front[i], back[i]);
                    _mm256_storeu_ps(out.add(i * stride), _mm256_permute2f128_ps::<0x20>(a, b));
                    let later = out.add((i + 4) * stride);
                    _mm256_storeu_ps(later, _mm256_permute2f128_ps::<0x31>(a, b));
                }
            }
        }
        #[inline(always)]
        unsafe fn sum(v: __m256) -> f32 {
            // SAFETY: see splat.
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
        #[inline(always)]
        unsafe fn greatest(v: __m256) -> f32 {
            // SAFETY: see splat.
            unsafe {
                let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
            }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const f16) -> __m256 {
            // SAFETY: see splat.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const bf16) -> __m256 {
            // SAFETY: see splat.
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
    }

    /// AVX-512F.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Avx512;

    impl Simd for Avx512 {
        vector!(
            16,
            __m512,
            _mm512_set1_ps,
            _mm512_loadu_ps,
            _mm512_storeu_ps,
            _mm512_add_ps,
            _mm512_mul_ps,
            _mm512_div_ps,
            _mm512_fmadd_ps,
            _mm512_max_ps,
            _mm512_min_ps
        );
        #[inline(always)]
        unsafe fn round(v: __m512) -> __m512 {
            // SAFETY: see splat.
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
        }
        #[inline(always)]
        unsafe fn pow2(n: __m512) -> __m512 {
            // SAFETY: see splat.
            unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
        }
        #[inline(always)]
        unsafe fn transpose(rows: [*const f32; 8], out: *mut f32, stride: usize) {
            // SAFETY: whoever has AVX-512 has AVX2; else the caller's.
            unsafe { Avx2::<()>::transpose(rows, out, stride) }
        }
        #[inline(always)]
        unsafe fn sum(v: __m512) -> f32 {
            // SAFETY: see splat.
            unsafe { _mm512_reduce_add_ps(v) }
        }
        #[inline(always)]
        unsafe fn greatest(v: __m512) -> f32 {
            // SAFETY: see splat.
            unsafe { _mm512_reduce_max_ps(v) }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const f16) -> __m512 {
            // SAFETY: see splat.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const bf16) -> __m512 {
            // SAFETY: see splat.
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
    }
}
