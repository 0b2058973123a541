//! The inner loop of int8 products on each instruction set.

use super::super::rows::Raw;
use super::super::simd::{Portable, Simd};
use super::QUAD;

/// Vectors of `LANES` 32-bit sums.
pub(in super::super) trait Dot: Simd {
    type I: Copy;
    /// Whether the kernel wants to know how long a run is.
    const UNROLLED: bool;
    /// Whether it sums up in 16 bits, which the weights must then allow for.
    const SUMS_IN_SIXTEEN_BITS: bool = false;
    /// Whether its activations are signed bytes: 128 less than they would be.
    const SIGNED: bool = false;
    /// Inputs that lie together for each output: what one instruction sums up.
    const TOGETHER: usize = QUAD;

    unsafe fn zero() -> Self::I;
    /// Row `r`'s sums of vector `j`.
    unsafe fn to_float<const R: usize, const NV: usize>(
        sums: &[[Self::I; NV]; R],
        r: usize,
        j: usize,
    ) -> Self::V;
    /// Rounds to the nearest integers and writes them as `LANES` bytes; the values are in [0, 255].
    unsafe fn store_u8(p: *mut u8, v: Self::V);
    /// Adds the products of `groups` times `TOGETHER` inputs, at most a run: R rows of `a` times
    /// `[groups, NV * LANES, TOGETHER]` weights. NARROW groups at once are summed up in 16 bits, where
    /// that is done.
    unsafe fn dot<const R: usize, const NV: usize, const NARROW: usize>(
        sums: &mut [[Self::I; NV]; R],
        a: Raw<*const u8>,
        weights: *const i8,
        groups: usize,
    );
}

impl Dot for Portable {
    type I = [i32; 8];
    const UNROLLED: bool = false;

    #[inline(always)]
    unsafe fn zero() -> [i32; 8] {
        [0; 8]
    }
    #[inline(always)]
    unsafe fn to_float<const R: usize, const NV: usize>(
        sums: &[[[i32; 8]; NV]; R],
        r: usize,
        j: usize,
    ) -> [f32; 8] {
        sums[r][j].map(|s| s as f32)
    }
    #[inline(always)]
    unsafe fn store_u8(p: *mut u8, v: [f32; 8]) {
        // SAFETY: the caller vouches for eight bytes.
        unsafe {
            p.cast::<[u8; 8]>()
                .write_unaligned(v.map(|x| x.round_ties_even() as u8))
        }
    }
    #[inline(always)]
    unsafe fn dot<const R: usize, const NV: usize, const NARROW: usize>(
        sums: &mut [[[i32; 8]; NV]; R],
        a: Raw<*const u8>,
        weights: *const i8,
        quads: usize,
    ) {
        for quad in 0..quads {
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: a run of each row and of the weights.
                unsafe {
                    let x = a.start.add(r * a.stride + quad * QUAD);
                    let x = x.cast::<[u8; QUAD]>().read_unaligned().map(i32::from);
                    for (j, sums) in sums.iter_mut().enumerate() {
                        let w = weights.add((quad * NV + j) * Self::LANES * QUAD);
                        let w = w.cast::<[[i8; QUAD]; 8]>().read_unaligned();
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum += (0..QUAD).map(|i| x[i] * i32::from(w[i])).sum::<i32>();
                        }
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(in super::super) use x86::{Vnni, Words};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::super::simd::{Avx2, Avx512};
    use super::*;

    /// VNNI: `vpdpbusd` multiplies 64 pairs of bytes and sums them by fours.
    impl Dot for Avx512 {
        type I = __m512i;
        const UNROLLED: bool = false;

        #[inline(always)]
        unsafe fn zero() -> __m512i {
            // SAFETY: here and below, the caller runs on a CPU with these instructions and vouches
            // for the memory behind a pointer.
            unsafe { _mm512_setzero_si512() }
        }
        #[inline(always)]
        unsafe fn to_float<const R: usize, const NV: usize>(
            sums: &[[__m512i; NV]; R],
            r: usize,
            j: usize,
        ) -> __m512 {
            // SAFETY: see zero.
            unsafe { _mm512_cvtepi32_ps(sums[r][j]) }
        }
        #[inline(always)]
        unsafe fn store_u8(p: *mut u8, v: __m512) {
            // SAFETY: see zero.
            unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtusepi32_epi8(_mm512_cvtps_epu32(v))) }
        }
        #[inline(always)]
        unsafe fn dot<const R: usize, const NV: usize, const NARROW: usize>(
            sums: &mut [[__m512i; NV]; R],
            a: Raw<*const u8>,
            weights: *const i8,
            quads: usize,
        ) {
            for quad in 0..quads {
                // SAFETY: see zero.
                unsafe {
                    let mut w = [_mm512_setzero_si512(); NV];
                    for (j, w) in w.iter_mut().enumerate() {
                        *w = _mm512_loadu_si512(weights.add((quad * NV + j) * 64).cast());
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = a.start.add(r * a.stride + quad * QUAD);
                        let x = _mm512_set1_epi32(x.cast::<i32>().read_unaligned());
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = _mm512_dpbusd_epi32(*sum, x, w);
                        }
                    }
                }
            }
        }
    }

    /// How AVX2's vectors multiply quads of bytes.
    pub(in super::super::super) trait Quads: Copy {
        const UNROLLED: bool;
        const SUMS_IN_SIXTEEN_BITS: bool;

        /// As [`Dot::dot`].
        unsafe fn dot<const R: usize, const NV: usize, const NARROW: usize>(
            sums: &mut [[__m256i; NV]; R],
            a: Raw<*const u8>,
            weights: *const i8,
            quads: usize,
        );
    }

    impl<B: Quads> Dot for Avx2<B> {
        type I = __m256i;
        const UNROLLED: bool = B::UNROLLED;
        const SUMS_IN_SIXTEEN_BITS: bool = B::SUMS_IN_SIXTEEN_BITS;

        #[inline(always)]
        unsafe fn zero() -> __m256i {
            // SAFETY: see Avx512's.
            unsafe { _mm256_setzero_si256() }
        }
        #[inline(always)]
        unsafe fn to_float<const R: usize, const NV: usize>(
            sums: &[[__m256i; NV]; R],
            r: usize,
            j: usize,
        ) -> __m256 {
            // SAFETY: see zero.
            unsafe { _mm256_cvtepi32_ps(sums[r][j]) }
        }
        #[inline(always)]
        unsafe fn store_u8(p: *mut u8, v: __m256) {
            // SAFETY: see zero.
            unsafe {
                let wide = _mm256_cvtps_epi32(v);
                let (low, high) = (
                    _mm256_castsi256_si128(wide),
                    _mm256_extracti128_si256::<1>(wide),
                );
                let words = _mm_packs_epi32(low, high);
                _mm_storel_epi64(p.cast(), _mm_packus_epi16(words, words));
            }
        }
        #[inline(always)]
        unsafe fn dot<const R: usize, const NV: usize, const NARROW: usize>(
            sums: &mut [[__m256i; NV]; R],
            a: Raw<*const u8>,
            weights: *const i8,
            quads: usize,
        ) {
            // SAFETY: the caller's.
            unsafe { B::dot::<R, NV, NARROW>(sums, a, weights, quads) }
        }
    }

    /// A quad's weights.
    #[inline(always)]
    unsafe fn weights_of<const NV: usize>(weights: *const i8, quad: usize) -> [__m256i; NV] {
        // SAFETY: see Avx512's.
        std::array::from_fn(|j| unsafe {
            _mm256_loadu_si256(weights.add((quad * NV + j) * 32).cast())
        })
    }

    /// `vpmaddubsw` sums pairs of products in 16 bits. The weights are scaled so that those of NARROW quads fit there;
    /// only then they are widened.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super::super) struct Words;

    impl Quads for Words {
        const UNROLLED: bool = true;
        const SUMS_IN_SIXTEEN_BITS: bool = true;

        #[inline(always)]
        unsafe fn dot<const R: usize, const NV: usize, const NARROW: usize>(
            sums: &mut [[__m256i; NV]; R],
            a: Raw<*const u8>,
            weights: *const i8,
            quads: usize,
        ) {
            // SAFETY: see Avx512's.
            unsafe {
                let ones = _mm256_set1_epi16(1);
                for start in (0..quads).step_by(NARROW) {
                    let mut short = [[_mm256_setzero_si256(); NV]; R];
                    for quad in start..quads.min(start + NARROW) {
                        let w = weights_of::<NV>(weights, quad);
                        for (r, short) in short.iter_mut().enumerate() {
                            let x = a.start.add(r * a.stride + quad * QUAD);
                            let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                            for (short, w) in short.iter_mut().zip(w) {
                                let products = _mm256_maddubs_epi16(x, w);
                                *short = match quad - start {
                                    0 => products,
                                    _ => _mm256_add_epi16(*short, products),
                                };
                            }
                        }
                    }
                    for (sums, short) in sums.iter_mut().zip(short) {
                        for (sum, short) in sums.iter_mut().zip(short) {
                            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(short, ones));
                        }
                    }
                }
            }
        }
    }

    /// AVX-VNNI: `vpdpbusd` on 32 pairs of bytes.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super::super) struct Vnni;

    impl Quads for Vnni {
        const UNROLLED: bool = false;
        const SUMS_IN_SIXTEEN_BITS: bool = false;

        #[inline(always)]
        unsafe fn dot<const R: usize, const NV: usize, const NARROW: usize>(
            sums: &mut [[__m256i; NV]; R],
            a: Raw<*const u8>,
            weights: *const i8,
            quads: usize,
        ) {
            for quad in 0..quads {
                // SAFETY: see Avx512's.
                unsafe {
                    let w = weights_of::<NV>(weights, quad);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = a.start.add(r * a.stride + quad * QUAD);
                        let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = _mm256_dpbusd_avx_epi32(*sum, x, w);
                        }
                    }
                }
            }
        }
    }
}
