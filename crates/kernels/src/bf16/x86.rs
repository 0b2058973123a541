//! What multiplies bfloat16 on x86-64: tile registers (AMX), or vectors of AVX-512.

use std::arch::x86_64::*;

use half::bf16;

use super::super::attention;
use super::super::linear::{Call, with_rows};
use super::super::simd::Avx512;
use super::super::tiles::{AmxBf16, LINE, PANEL_WIDTH, Product, Unit};
use super::{Bf16Table, Pairs, Rounded, Rounds, linear};

pub(in super::super) const AMX: Bf16Table = Bf16Table {
    arithmetic: "bf16 (amx)",
    linear: tiles,
    attention: attention_in_tiles,
};

pub(in super::super) const AVX512: Bf16Table = Bf16Table {
    arithmetic: "bf16 (avx512)",
    linear: vectors,
    attention: attention_in_vectors,
};

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tiles(call: &Call<'_>, weights: &Pairs, rounded: &mut Rounded) {
    // SAFETY: the caller's.
    unsafe { linear::<AmxBf16>(call, weights, rounded) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn vectors(call: &Call<'_>, weights: &Pairs, rounded: &mut Rounded) {
    // SAFETY: the caller's.
    unsafe { linear::<Dots>(call, weights, rounded) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn attention_in_tiles(call: &attention::Call<'_>, buffers: &mut attention::Buffers) {
    // SAFETY: the caller's.
    unsafe { attention::tiles::attention::<Avx512, AmxBf16>(call, buffers) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn attention_in_vectors(call: &attention::Call<'_>, buffers: &mut attention::Buffers) {
    // SAFETY: the caller's.
    unsafe { attention::tiles::attention::<Avx512, Dots>(call, buffers) }
}

/// `vdpbf16ps`: a vector's pairs times a pair of inputs, broadcast.
struct Dots;

/// Rounds 32 values: one cache line of bfloat16.
///
/// # Safety
/// The CPU has AVX512_BF16; the pointers are good for 32 values.
#[inline(always)]
unsafe fn round(from: *const f32, to: *mut bf16) {
    // SAFETY: the caller's.
    unsafe {
        let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
        let both: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
        _mm512_storeu_si512(to.cast(), both);
    }
}

/// Rounds 32 values of each of two rows, and lays them in pairs.
///
/// # Safety
/// As `round`, of both rows.
#[inline(always)]
unsafe fn pair([even, odd]: [*const f32; 2], to: *mut bf16) {
    for i in [0, 16] {
        // SAFETY: the caller's.
        unsafe {
            let low: __m256i =
                std::mem::transmute(_mm512_cvtneps_pbh(_mm512_loadu_ps(even.add(i))));
            let high: __m256i =
                std::mem::transmute(_mm512_cvtneps_pbh(_mm512_loadu_ps(odd.add(i))));
            let high = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high));
            let pairs = _mm512_or_si512(_mm512_cvtepu16_epi32(low), high);
            _mm512_storeu_si512(to.add(2 * i).cast(), pairs);
        }
    }
}

macro_rules! rounds {
    ($($unit:ty),*) => {$(
        impl Rounds for $unit {
            #[inline(always)]
            unsafe fn round(from: *const f32, to: *mut bf16) {
                // SAFETY: the caller's; who has AMX has AVX512_BF16.
                unsafe { round(from, to) }
            }
            #[inline(always)]
            unsafe fn pair(rows: [*const f32; 2], to: *mut bf16) {
                // SAFETY: see round.
                unsafe { pair(rows, to) }
            }
        }
    )*};
}
rounds!(AmxBf16, Dots);

impl Unit for Dots {
    const ROWS: usize = 12;
    const TILES: usize = 1;

    #[inline(always)]
    unsafe fn begin(_: usize) {}
    #[inline(always)]
    unsafe fn product(product: Product) {
        const MOST: usize = Dots::ROWS;
        // SAFETY: the caller's.
        with_rows!(product.height, MOST, R => unsafe { dots::<R>(product) });
    }
    #[inline(always)]
    unsafe fn end() {}
}

/// R rows times a panel; all sums are in registers.
#[inline(always)]
unsafe fn dots<const R: usize>(product: Product) {
    /// Pairs of inputs in a line.
    const PAIRS: usize = LINE / 4;
    let mut ahead = product.ahead;
    // The compiler must not know: it would unroll the loop and load all of a step's inputs first.
    let pairs = std::hint::black_box(PAIRS);
    // SAFETY: the caller vouches for a tile of R rows, a panel, and R rows of sums; all start on cache lines.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        let [run, _] = product.runs;
        for step in 0..run.steps {
            let rows = run.rows.add(step * R * LINE);
            let panel = run.panel.add(step * PAIRS * PANEL_WIDTH * 4);
            ahead.ask::<Avx512>();
            for pair in 0..pairs {
                let line = panel.add(pair * PANEL_WIDTH * 4).cast::<__m512bh>();
                let weights = [line.read(), line.add(1).read()];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = rows.add(r * LINE + pair * 4).cast::<i32>().read();
                    let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(x));
                    for (sum, w) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbf16_ps(*sum, x, w);
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let to = product.sums.add(r * product.stride);
            to.cast::<[__m512; 2]>().write(sums);
        }
    }
}
