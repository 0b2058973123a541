//! AMX: tile registers of 16 lines, by inline assembly, since stable Rust has no functions for it.

use std::arch::asm;
use std::mem::offset_of;

use super::super::ahead::Ahead;
use super::{LINE, PANEL_STEP, PANEL_WIDTH, Product, Run, Unit};

/// `tdpbf16ps`: products of bfloat16, sums in f32.
pub(in super::super) struct AmxBf16;

/// `tdpbusd`: products of unsigned and signed bytes, sums in 32 bits.
pub(in super::super) struct AmxInt8;

/// The shapes of tile registers, as LDTILECFG reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    line_bytes: [u16; 16],
    lines: [u8; 16],
}

impl Shapes {
    /// Sums in registers 0 to 3 and rows in 4 and 5, `height` lines each; weights in 6 and 7, 16 lines.
    fn of(height: usize) -> Self {
        let mut shapes = Self {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            line_bytes: [0; 16],
            lines: [0; 16],
        };
        shapes.line_bytes[..8].fill(64);
        shapes.lines[..6].fill(height as u8);
        shapes.lines[6..8].fill(16);
        shapes
    }
}

/// # Safety
/// The CPU has AMX, and the process may use it.
#[inline(always)]
unsafe fn begin(height: usize) {
    let shapes = Shapes::of(height);
    // SAFETY: the caller's. It reads 64 bytes, and the shapes are good ones for 1 to 16 lines. No other code uses tile
    // registers: neither the compiler nor its libraries know any.
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

/// # Safety
/// As `begin`.
#[inline(always)]
unsafe fn end() {
    // SAFETY: the caller's. Without it, the system would save tiles with every change of threads.
    unsafe {
        asm!(
            "tilerelease",
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        );
    }
}

/// Goes through a product's runs. `{rows}` and `{second}` are where a step's lines of the first and second tile start,
/// `{panel}` its weights; when all is done, `{rows}` and `{second}` are where these tiles' sums go, rows `{panel}` bytes
/// apart.
macro_rules! product {
    ($product:ident, [$($zero:expr),*], [$($step:expr),*], [$($store:expr),*]) => {
        asm!(
            $($zero,)*
            "2:",
            "mov {rows}, [{run}]",
            "mov {panel}, [{run} + {PANEL}]",
            "mov {steps}, [{run} + {STEPS}]",
            "add {run}, {RUN}",
            "test {steps}, {steps}",
            "jz 6f",
            "mov {second}, {steps}",
            "imul {second}, {tile}",
            "add {second}, {rows}",
            "3:",
            $($step,)*
            "mov {count}, [{product} + {ASKED}]",
            "test {count}, {count}",
            "jz 5f",
            "4:",
            "prefetcht1 [{ahead}]",
            "add {ahead}, 64",
            "dec {count}",
            "jnz 4b",
            "5:",
            "add {rows}, {tile}",
            "add {second}, {tile}",
            "add {panel}, {PANEL_STEP}",
            "dec {steps}",
            "jnz 3b",
            "6:",
            "lea {count}, [{product} + 2*{RUN}]",
            "cmp {run}, {count}",
            "jne 2b",
            "mov {rows}, [{product} + {SUMS}]",
            "mov {panel}, [{product} + {STRIDE}]",
            "mov {second}, [{product} + {HEIGHT}]",
            "imul {second}, {panel}",
            "add {second}, {rows}",
            $($store,)*
            product = in(reg) &raw const $product,
            run = inout(reg) &raw const $product => _,
            rows = out(reg) _,
            second = out(reg) _,
            panel = out(reg) _,
            steps = out(reg) _,
            count = out(reg) _,
            ahead = inout(reg) $product.ahead.start => _,
            tile = in(reg) $product.height * LINE,
            line = in(reg) LINE,
            wide = in(reg) PANEL_WIDTH * 4,
            PANEL = const offset_of!(Run, panel),
            STEPS = const offset_of!(Run, steps),
            RUN = const size_of::<Run>(),
            ASKED = const offset_of!(Product, ahead) + offset_of!(Ahead, lines),
            SUMS = const offset_of!(Product, sums),
            STRIDE = const offset_of!(Product, stride),
            HEIGHT = const offset_of!(Product, height),
            PANEL_STEP = const PANEL_STEP,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

macro_rules! unit {
    ($unit:ty, $multiply:literal) => {
        impl Unit for $unit {
            const ROWS: usize = 16;
            const TILES: usize = 2;

            #[inline(always)]
            unsafe fn begin(height: usize) {
                // SAFETY: the caller's, here and below.
                unsafe { begin(height) }
            }

            /// Two tiles of rows by two of weights: each of the four that a step loads is used twice, and four sums
            /// in turn hide how long a product takes. What is ahead is asked for into the second-level cache, since
            /// the first is full.
            #[inline(always)]
            unsafe fn product(product: Product) {
                // SAFETY: see begin. Tiles, panels and sums are as large as its shapes say; a hint never faults.
                unsafe {
                    if product.tiles == 2 {
                        product!(
                            product,
                            [
                                "tilezero tmm0",
                                "tilezero tmm1",
                                "tilezero tmm2",
                                "tilezero tmm3"
                            ],
                            [
                                "tileloadd tmm6, [{panel} + {wide}*1]",
                                "tileloadd tmm4, [{rows} + {line}*1]",
                                concat!($multiply, " tmm0, tmm4, tmm6"),
                                "tileloadd tmm7, [{panel} + {wide}*1 + 64]",
                                concat!($multiply, " tmm1, tmm4, tmm7"),
                                "tileloadd tmm5, [{second} + {line}*1]",
                                concat!($multiply, " tmm2, tmm5, tmm6"),
                                concat!($multiply, " tmm3, tmm5, tmm7")
                            ],
                            [
                                "tilestored [{rows} + {panel}*1], tmm0",
                                "tilestored [{rows} + {panel}*1 + 64], tmm1",
                                "tilestored [{second} + {panel}*1], tmm2",
                                "tilestored [{second} + {panel}*1 + 64], tmm3"
                            ]
                        );
                    } else {
                        product!(
                            product,
                            ["tilezero tmm0", "tilezero tmm1"],
                            [
                                "tileloadd tmm4, [{rows} + {line}*1]",
                                "tileloadd tmm6, [{panel} + {wide}*1]",
                                concat!($multiply, " tmm0, tmm4, tmm6"),
                                "tileloadd tmm7, [{panel} + {wide}*1 + 64]",
                                concat!($multiply, " tmm1, tmm4, tmm7")
                            ],
                            [
                                "tilestored [{rows} + {panel}*1], tmm0",
                                "tilestored [{rows} + {panel}*1 + 64], tmm1"
                            ]
                        );
                    }
                }
            }

            #[inline(always)]
            unsafe fn end() {
                // SAFETY: see begin.
                unsafe { end() }
            }
        }
    };
}

unit!(AmxBf16, "tdpbf16ps");
unit!(AmxInt8, "tdpbusd");
