//! What multiplies bfloat16 on x86-64: tile registers (AMX), or vectors of AVX-512.

use std::arch::asm;
use std::arch::x86_64::*;

use half::bf16;

use super::super::linear::{Call, with_rows};
use super::super::simd::{Avx512, Simd};
use super::{Bf16Table, PANEL_WIDTH, Pairs, Product, Rounded, STEP, Unit, linear};

pub(in super::super) const AMX: Bf16Table = Bf16Table {
    arithmetic: "bf16 (amx)",
    linear: tiles,
};

pub(in super::super) const AVX512: Bf16Table = Bf16Table {
    arithmetic: "bf16 (avx512)",
    linear: vectors,
};

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tiles(call: &Call<'_>, weights: &Pairs, rounded: &mut Rounded) {
    // SAFETY: the caller's.
    unsafe { linear::<Amx>(call, weights, rounded) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn vectors(call: &Call<'_>, weights: &Pairs, rounded: &mut Rounded) {
    // SAFETY: the caller's.
    unsafe { linear::<Dots>(call, weights, rounded) }
}

/// `vdpbf16ps`: a vector's pairs times a pair of inputs, broadcast.
struct Dots;

/// `tdpbf16ps`: 16 rows of 32 inputs times the weights of 16 outputs, in at most 16 cycles.
struct Amx;

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

impl Unit for Dots {
    const ROWS: usize = 12;
    const TILES: usize = 1;

    #[inline(always)]
    unsafe fn round(from: *const f32, to: *mut bf16) {
        // SAFETY: the caller's, here and below.
        unsafe { round(from, to) }
    }
    #[inline(always)]
    unsafe fn begin(_: usize) {}
    #[inline(always)]
    unsafe fn product(product: Product) {
        const MOST: usize = Dots::ROWS;
        // SAFETY: see round.
        with_rows!(product.height, MOST, R => unsafe { dots::<R>(product) });
    }
    #[inline(always)]
    unsafe fn end() {}
}

/// R rows times a panel; all sums are in registers.
#[inline(always)]
unsafe fn dots<const R: usize>(product: Product) {
    let Product {
        mut a,
        mut panel,
        mut ahead,
        ..
    } = product;
    // SAFETY: the caller vouches for a tile of R rows, a panel, and R rows of sums.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        let mut left = product.pairs;
        for _ in 0..product.steps {
            ahead.ask::<Avx512>();
            // A count that the compiler doesn't know: it would unroll the loop and load all inputs first.
            for pair in 0..left.min(STEP / 2) {
                let line = panel.add(pair * PANEL_WIDTH * 2).cast::<__m512bh>();
                let weights = [line.read(), line.add(1).read()];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = a.add(r * STEP + pair * 2).cast::<i32>().read();
                    let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(x));
                    for (sum, w) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbf16_ps(*sum, x, w);
                    }
                }
            }
            left = left.saturating_sub(STEP / 2);
            a = a.add(R * STEP);
            panel = panel.add(STEP * PANEL_WIDTH);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                Avx512::store(product.sums.add(r * PANEL_WIDTH + j * 16), sum);
            }
        }
    }
}

/// The shapes of tile registers, as LDTILECFG reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    line_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Sums in registers 0 to 3 and rows in 4 and 5, `height` lines each; weights in 6 and 7, 16 lines.
    fn of(height: usize) -> Self {
        let mut shapes = Self {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            line_bytes: [0; 16],
            rows: [0; 16],
        };
        shapes.line_bytes[..8].fill(64);
        shapes.rows[..6].fill(height as u8);
        shapes.rows[6..8].fill(16);
        shapes
    }
}

impl Unit for Amx {
    const ROWS: usize = 16;
    const TILES: usize = 2;

    #[inline(always)]
    unsafe fn round(from: *const f32, to: *mut bf16) {
        // SAFETY: the caller's, here and below.
        unsafe { round(from, to) }
    }

    #[inline(always)]
    unsafe fn begin(height: usize) {
        let shapes = Shapes::of(height);
        // SAFETY: see round. It reads 64 bytes, and the shapes are good ones for 1 to 16 lines. No other code uses tile
        // registers: the compiler knows none, and what follows until `end` calls nothing but our own kernels.
        unsafe {
            asm!(
                "ldtilecfg [{shapes}]",
                shapes = in(reg) &raw const shapes,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Two tiles of rows by two of weights: each of the four that a step loads is used twice, and four sums in turn
    /// hide how long a product takes. What is ahead is asked for into the second-level cache, since the first is full.
    #[inline(always)]
    unsafe fn product(product: Product) {
        let tile = product.height * 64;
        // SAFETY: see round. Tiles, panel and sums are as large as the shapes that `begin` has set; a hint never faults.
        unsafe {
            if product.tiles == 2 {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm6, [{panel} + {wide}*1]",
                    "tileloadd tmm4, [{a} + {line}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{panel} + {wide}*1 + 64]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{second} + {line}*1]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "mov {count}, {lines}",
                    "test {count}, {count}",
                    "jz 4f",
                    "3:",
                    "prefetcht1 [{ahead}]",
                    "add {ahead}, 64",
                    "dec {count}",
                    "jnz 3b",
                    "4:",
                    "add {a}, {tile}",
                    "add {second}, {tile}",
                    "add {panel}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {wide}*1], tmm0",
                    "tilestored [{sums} + {wide}*1 + 64], tmm1",
                    "tilestored [{below} + {wide}*1], tmm2",
                    "tilestored [{below} + {wide}*1 + 64], tmm3",
                    a = inout(reg) product.a => _,
                    second = inout(reg) product.a.byte_add(product.steps * tile) => _,
                    panel = inout(reg) product.panel => _,
                    steps = inout(reg) product.steps => _,
                    ahead = inout(reg) product.ahead.start => _,
                    count = out(reg) _,
                    lines = in(reg) product.ahead.lines,
                    tile = in(reg) tile,
                    line = in(reg) 64usize,
                    wide = in(reg) 128usize,
                    sums = in(reg) product.sums,
                    below = in(reg) product.sums.add(product.height * PANEL_WIDTH),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            } else {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "2:",
                    "tileloadd tmm4, [{a} + {line}*1]",
                    "tileloadd tmm6, [{panel} + {wide}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{panel} + {wide}*1 + 64]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "mov {count}, {lines}",
                    "test {count}, {count}",
                    "jz 4f",
                    "3:",
                    "prefetcht1 [{ahead}]",
                    "add {ahead}, 64",
                    "dec {count}",
                    "jnz 3b",
                    "4:",
                    "add {a}, {tile}",
                    "add {panel}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {wide}*1], tmm0",
                    "tilestored [{sums} + {wide}*1 + 64], tmm1",
                    a = inout(reg) product.a => _,
                    panel = inout(reg) product.panel => _,
                    steps = inout(reg) product.steps => _,
                    ahead = inout(reg) product.ahead.start => _,
                    count = out(reg) _,
                    lines = in(reg) product.ahead.lines,
                    tile = in(reg) tile,
                    line = in(reg) 64usize,
                    wide = in(reg) 128usize,
                    sums = in(reg) product.sums,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    }

    #[inline(always)]
    unsafe fn end() {
        // SAFETY: see round. Without it, the system would save tiles with every change of threads.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
    }
}
