//! int8 products on aarch64: three ways, by what the CPU has.
//!
//! `sdot` and `usmmla` are assembly, since their intrinsics are not stable.

use std::arch::aarch64::*;
use std::arch::asm;

use super::dot::Dot;
use super::{QUAD, RUN};
use crate::rows::Raw;
use crate::simd::Neon;

/// A way that takes four outputs' quads of weights at once: signed by signed bytes.
pub(crate) trait Quads: Copy {
    /// Adds the products of a quad of weights of each of four outputs with quad `LANE` of `x`.
    ///
    /// # Safety
    /// The CPU has the instructions; no weight is -128.
    unsafe fn add<const LANE: i32>(sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t;
}

/// Without instructions for it: products in 16 bits, of which two fit, widened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widened;

impl Quads for Widened {
    #[inline(always)]
    unsafe fn add<const LANE: i32>(sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: every aarch64 CPU has NEON.
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_laneq_s32::<LANE>(vreinterpretq_s32_s8(x)));
            let first = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
            // 2 * 128 * 127 is less than 2^15.
            vpadalq_s16(sums, vpaddq_s16(first, vmull_high_s8(weights, x)))
        }
    }
}

/// `sdot` (FEAT_DotProd) multiplies 16 pairs of bytes and sums them by fours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DotProd;

impl Quads for DotProd {
    #[inline(always)]
    unsafe fn add<const LANE: i32>(
        mut sums: int32x4_t,
        weights: int8x16_t,
        x: int8x16_t,
    ) -> int32x4_t {
        // SAFETY: the caller vouches for the instruction, which changes nothing but `sums`.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.4b[{lane}]",
                sums = inout(vreg) sums,
                weights = in(vreg) weights,
                x = in(vreg) x,
                lane = const LANE,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }
}

/// Quad `LANE` of each row of `x`.
#[inline(always)]
unsafe fn quad<B: Quads, const LANE: i32, const R: usize, const NV: usize>(
    sums: &mut [[int32x4_t; NV]; R],
    x: [int8x16_t; R],
    weights: *const i8,
) {
    for j in 0..NV {
        // SAFETY: the caller vouches for a quad of weights of each output, and for the instructions.
        unsafe {
            let w = vld1q_s8(weights.add(j * 16));
            for (sums, x) in sums.iter_mut().zip(x) {
                sums[j] = B::add::<LANE>(sums[j], w, x);
            }
        }
    }
}

impl<B: Quads> Dot for Neon<B> {
    type I = int32x4_t;
    const UNROLLED: bool = true;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn zero() -> int32x4_t {
        // SAFETY: every aarch64 CPU has NEON.
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    unsafe fn to_float<const R: usize, const NV: usize>(
        sums: &[[int32x4_t; NV]; R],
        r: usize,
        j: usize,
    ) -> float32x4_t {
        // SAFETY: every aarch64 CPU has NEON.
        unsafe { vcvtq_f32_s32(sums[r][j]) }
    }
    #[inline(always)]
    unsafe fn store_u8(p: *mut u8, v: float32x4_t) {
        // SAFETY: the caller's.
        unsafe { store_u8(p, v, 0x8080_8080) }
    }
    #[inline(always)]
    unsafe fn dot<const R: usize, const NV: usize, const NARROW: usize>(
        sums: &mut [[int32x4_t; NV]; R],
        a: Raw<*const u8>,
        weights: *const i8,
        quads: usize,
    ) {
        let length = NV * 4 * QUAD;
        // SAFETY: the caller vouches for that many quads of each row and of the weights.
        unsafe {
            let mut x = [vdupq_n_s8(0); R];
            if quads == RUN / QUAD {
                for (r, x) in x.iter_mut().enumerate() {
                    *x = vld1q_s8(a.start.add(r * a.stride).cast());
                }
                quad::<B, 0, R, NV>(sums, x, weights);
                quad::<B, 1, R, NV>(sums, x, weights.add(length));
                quad::<B, 2, R, NV>(sums, x, weights.add(2 * length));
                quad::<B, 3, R, NV>(sums, x, weights.add(3 * length));
            } else {
                for n in 0..quads {
                    for (r, x) in x.iter_mut().enumerate() {
                        let from = a.start.add(r * a.stride + n * QUAD).cast::<i32>();
                        *x = vreinterpretq_s8_s32(vdupq_n_s32(from.read_unaligned()));
                    }
                    quad::<B, 0, R, NV>(sums, x, weights.add(n * length));
                }
            }
        }
    }
}

/// `usmmla` (FEAT_I8MM) multiplies eight bytes of two rows with eight of two outputs each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix;

/// What two outputs' weights for eight inputs are to be multiplied with, in one register.
const OCTET: usize = 8;

impl Dot for Neon<Matrix> {
    /// Of an even row and the next one: two by two outputs, `[half, row, output]`. An odd row's own are not used.
    type I = [int32x4_t; 2];
    const UNROLLED: bool = true;
    const TOGETHER: usize = OCTET;

    #[inline(always)]
    unsafe fn zero() -> [int32x4_t; 2] {
        // SAFETY: every aarch64 CPU has NEON.
        unsafe { [vdupq_n_s32(0); 2] }
    }
    #[inline(always)]
    unsafe fn to_float<const R: usize, const NV: usize>(
        sums: &[[[int32x4_t; 2]; NV]; R],
        r: usize,
        j: usize,
    ) -> float32x4_t {
        // SAFETY: every aarch64 CPU has NEON.
        unsafe {
            let [first, second] = sums[r & !1][j].map(|half| vreinterpretq_s64_s32(half));
            let row = match r % 2 {
                0 => vzip1q_s64(first, second),
                _ => vzip2q_s64(first, second),
            };
            vcvtq_f32_s32(vreinterpretq_s32_s64(row))
        }
    }
    #[inline(always)]
    unsafe fn store_u8(p: *mut u8, v: float32x4_t) {
        // SAFETY: the caller's.
        unsafe { store_u8(p, v, 0) }
    }
    #[inline(always)]
    unsafe fn dot<const R: usize, const NV: usize, const NARROW: usize>(
        sums: &mut [[[int32x4_t; 2]; NV]; R],
        a: Raw<*const u8>,
        weights: *const i8,
        octets: usize,
    ) {
        let length = NV * 4 * OCTET;
        // SAFETY: the caller vouches for that many octets of each row and of the weights.
        unsafe {
            // The octets of an even row and of the next one; of a last row alone, twice its own.
            let row = |r: usize| a.start.add(r.min(R - 1) * a.stride);
            let mut x = [vdupq_n_u8(0); R];
            if octets == RUN / OCTET {
                let mut next = [vdupq_n_u8(0); R];
                for r in (0..R).step_by(2) {
                    let rows = [row(r), row(r + 1)];
                    let [even, odd] = rows.map(|row| vreinterpretq_u64_u8(vld1q_u8(row)));
                    x[r] = vreinterpretq_u8_u64(vzip1q_u64(even, odd));
                    next[r] = vreinterpretq_u8_u64(vzip2q_u64(even, odd));
                }
                octet::<R, NV>(sums, x, weights);
                octet::<R, NV>(sums, next, weights.add(length));
            } else {
                for n in 0..octets {
                    for r in (0..R).step_by(2) {
                        let [even, odd] =
                            [row(r), row(r + 1)].map(|row| vld1_u8(row.add(n * OCTET)));
                        x[r] = vcombine_u8(even, odd);
                    }
                    octet::<R, NV>(sums, x, weights.add(n * length));
                }
            }
        }
    }
}

/// One octet of each pair of rows, the even ones of `x`.
#[inline(always)]
unsafe fn octet<const R: usize, const NV: usize>(
    sums: &mut [[[int32x4_t; 2]; NV]; R],
    x: [uint8x16_t; R],
    weights: *const i8,
) {
    for j in 0..NV {
        for half in 0..2 {
            // SAFETY: the caller vouches for an octet of weights of each output, and for the instruction.
            unsafe {
                let w = vld1q_s8(weights.add((2 * j + half) * 16));
                for r in (0..R).step_by(2) {
                    sums[r][j][half] = usmmla(sums[r][j][half], x[r], w);
                }
            }
        }
    }
}

/// Adds the products of two rows of `x` with two outputs' weights, eight inputs each.
///
/// # Safety
/// The CPU has FEAT_I8MM.
#[inline(always)]
unsafe fn usmmla(mut sums: int32x4_t, x: uint8x16_t, weights: int8x16_t) -> int32x4_t {
    // SAFETY: the caller vouches for the instruction, which changes nothing but `sums`.
    unsafe {
        asm!(
            "usmmla {sums:v}.4s, {x:v}.16b, {weights:v}.16b",
            sums = inout(vreg) sums,
            x = in(vreg) x,
            weights = in(vreg) weights,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Writes four rounded values in [0, 255], with these bits flipped.
///
/// # Safety
/// `p` is good for four bytes.
#[inline(always)]
unsafe fn store_u8(p: *mut u8, v: float32x4_t, flipped: u32) {
    // SAFETY: every aarch64 CPU has NEON; the caller vouches for the memory.
    unsafe {
        let words = vmovn_u32(vcvtnq_u32_f32(v));
        let bytes = vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words)));
        p.cast::<u32>()
            .write_unaligned(vget_lane_u32::<0>(bytes) ^ flipped);
    }
}
