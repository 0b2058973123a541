//! NEON, which every aarch64 CPU has.

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

use half::{bf16, f16};

use super::Simd;
use crate::rows::Raw;
use crate::weights::Weight;

/// Four lanes. `B` says how bytes are multiplied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon<B>(PhantomData<B>);

impl<B: Copy> Neon<B> {
    /// Input `LANE` of the four that `rows` hold.
    #[inline(always)]
    unsafe fn lane<W: Weight, const LANE: i32, const R: usize, const NV: usize>(
        sums: &mut [[float32x4_t; NV]; R],
        rows: [float32x4_t; R],
        weights: *const W,
    ) {
        for j in 0..NV {
            // SAFETY: see splat; the caller vouches for four lines of weights.
            unsafe {
                let w = W::load::<Self>(weights.add((LANE as usize * NV + j) * 4));
                for (sums, x) in sums.iter_mut().zip(rows) {
                    sums[j] = vfmaq_laneq_f32::<LANE>(sums[j], w, x);
                }
            }
        }
    }
}

impl<B: Copy> Simd for Neon<B> {
    const LANES: usize = 4;
    const INPUTS: usize = 4;
    type V = float32x4_t;

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        // SAFETY: here and below, every aarch64 CPU has NEON, and the caller vouches for the memory
        // behind a pointer.
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        // SAFETY: see splat.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: float32x4_t) {
        // SAFETY: see splat.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see splat.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see splat.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see splat.
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: see splat.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see splat.
        unsafe { vmaxq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see splat.
        unsafe { vminq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn round(v: float32x4_t) -> float32x4_t {
        // SAFETY: see splat.
        unsafe { vrndnq_f32(v) }
    }
    #[inline(always)]
    unsafe fn pow2(n: float32x4_t) -> float32x4_t {
        // SAFETY: see splat.
        unsafe {
            let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        }
    }
    #[inline(always)]
    unsafe fn sum(v: float32x4_t) -> f32 {
        // SAFETY: see splat.
        unsafe { vaddvq_f32(v) }
    }
    #[inline(always)]
    unsafe fn greatest(v: float32x4_t) -> f32 {
        // SAFETY: see splat.
        unsafe { vmaxvq_f32(v) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> float32x4_t {
        // SAFETY: see splat.
        unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> float32x4_t {
        // SAFETY: see splat.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: [*const f32; 8], out: *mut f32, stride: usize) {
        for (row, i) in [(0, 0), (0, 4), (4, 0), (4, 4)] {
            // SAFETY: see splat; eight values of each row and line.
            unsafe {
                let halves = |a, b| {
                    let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
                    let both = [vtrn1q_f64(a, b), vtrn2q_f64(a, b)];
                    both.map(|half| vreinterpretq_f32_f64(half))
                };
                let v: [_; 4] = std::array::from_fn(|j| vld1q_f32(rows[row + j].add(i)));
                let [even, even2] = [(0, 1), (2, 3)].map(|(a, b)| vtrn1q_f32(v[a], v[b]));
                let [odd, odd2] = [(0, 1), (2, 3)].map(|(a, b)| vtrn2q_f32(v[a], v[b]));
                let ([first, third], [second, fourth]) = (halves(even, even2), halves(odd, odd2));
                for (n, line) in [first, second, third, fourth].into_iter().enumerate() {
                    vst1q_f32(out.add((i + n) * stride + row), line);
                }
            }
        }
    }
    #[inline(always)]
    fn prefetch(p: *const u8) {
        // SAFETY: a hint that never faults.
        unsafe {
            asm!("prfm pldl1keep, [{0}]", in(reg) p, options(nomem, nostack, preserves_flags));
        }
    }
    /// A row's inputs are read as a vector, whose lanes are multiplied one after the other: a broadcast
    /// of each would take a turn of the unit that multiplies.
    #[inline(always)]
    unsafe fn steps<W: Weight, const R: usize, const NV: usize>(
        sums: &mut [[float32x4_t; NV]; R],
        a: Raw<*const f32>,
        weights: *const W,
        i: usize,
    ) {
        // SAFETY: see splat; four inputs of each row and as many lines.
        unsafe {
            let mut rows = [vdupq_n_f32(0.0); R];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = vld1q_f32(a.start.add(r * a.stride + i));
            }
            Self::lane::<W, 0, R, NV>(sums, rows, weights);
            Self::lane::<W, 1, R, NV>(sums, rows, weights);
            Self::lane::<W, 2, R, NV>(sums, rows, weights);
            Self::lane::<W, 3, R, NV>(sums, rows, weights);
        }
    }
}
