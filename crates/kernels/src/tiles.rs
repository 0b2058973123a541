//! Products of rows and panels in tiles, as matrix units compute them.
//!
//! A line of a tile is 64 bytes: 32 inputs in bfloat16, or 64 in int8. A step multiplies the lines of a tile's rows, by
//! as many inputs, with 16 lines of a panel. Each of these has, for 32 outputs, the weights of the two, or four, inputs
//! whose products are added to a sum at once. So rows lie as `[tiles, steps, rows of the tile]` lines, panels as `[steps,
//! 16, 32 outputs]` weights of four bytes: what is read for a step is one stream, whatever the width of the rows.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
pub(super) mod trap;

#[cfg(target_arch = "x86_64")]
pub(super) use amx::{AmxBf16, AmxInt8};

use std::ops::Range;

use super::ahead::Ahead;

/// Outputs in a panel: two tiles side by side.
pub(super) const PANEL_WIDTH: usize = 32;
/// Bytes in a line of a tile.
pub(super) const LINE: usize = 64;
/// Bytes of a panel that a step reads.
pub(super) const PANEL_STEP: usize = 16 * PANEL_WIDTH * 4;

/// What multiplies tiles.
///
/// # Safety
/// All methods want a CPU with its instructions.
pub(super) trait Unit {
    /// Most rows in a tile.
    const ROWS: usize;
    /// Most tiles that are multiplied by a panel at once.
    const TILES: usize;

    /// Gets ready for tiles of `height` rows; nothing else may be done with its registers until `end`.
    unsafe fn begin(height: usize);
    /// Multiplies some tiles by a panel.
    unsafe fn product(product: Product);
    /// Gives back what `begin` took.
    unsafe fn end();
}

/// Some tiles times a panel.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Product {
    /// Two runs of steps, of which the second may have none: what the first one lacks.
    pub(super) runs: [Run; 2],
    pub(super) tiles: usize,
    pub(super) height: usize,
    /// `[tiles, height, 32 outputs]` sums of four bytes, to write; those of a row lie `stride` bytes beyond those of the
    /// one before.
    pub(super) sums: *mut u8,
    pub(super) stride: usize,
    /// What to ask for meanwhile, every step.
    pub(super) ahead: Ahead,
}

/// Some steps of a product.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Run {
    /// `[tiles, steps, height]` lines.
    pub(super) rows: *const u8,
    /// `[steps, 16, 32 outputs, 4]` bytes.
    pub(super) panel: *const u8,
    pub(super) steps: usize,
}

impl Run {
    pub(super) const NONE: Self = Self {
        rows: std::ptr::null(),
        panel: std::ptr::null(),
        steps: 0,
    };
}

/// How a layer's rows are cut into tiles: all of one height, the least that makes no more of them. One shape will do
/// then, and a few rows take as little time as they can.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) rows: usize,
    pub(super) height: usize,
    pub(super) tiles: usize,
    pub(super) steps: usize,
}

impl Cut {
    /// Of at least one row, of `bytes` bytes.
    pub(super) fn new<U: Unit>(rows: usize, bytes: usize) -> Self {
        let tiles = rows.div_ceil(U::ROWS);
        Self {
            rows,
            height: rows.div_ceil(tiles),
            tiles,
            steps: bytes.div_ceil(LINE),
        }
    }

    /// The bytes of all tiles.
    pub(super) fn bytes(self) -> usize {
        self.tiles * self.height * self.steps * LINE
    }

    /// The bytes of a panel.
    pub(super) fn panel_bytes(self) -> usize {
        self.steps * PANEL_STEP
    }

    /// Sums of a turn.
    pub(super) fn sums<U: Unit>(self) -> usize {
        U::TILES.min(self.tiles) * self.height * PANEL_WIDTH
    }

    /// Where a row's first line lies, in bytes; those of the other steps follow `height` lines apart.
    pub(super) fn row(self, row: usize) -> usize {
        (row / self.height * self.steps * self.height + row % self.height) * LINE
    }

    /// From one step's line of a row to the next, in bytes.
    pub(super) fn step(self) -> usize {
        self.height * LINE
    }

    /// Each tile's rows.
    pub(super) fn each(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.rows)
            .step_by(self.height)
            .map(move |row| row..self.rows.min(row + self.height))
    }

    /// What is multiplied with a panel at a time: the first row, and the tiles.
    pub(super) fn turns<U: Unit>(self) -> impl Iterator<Item = Turn> {
        let turns = self.tiles.div_ceil(U::TILES);
        (0..turns).map(move |turn| {
            let tile = turn * U::TILES;
            let tiles = U::TILES.min(self.tiles - tile);
            let row = tile * self.height;
            Turn {
                row,
                rows: (tiles * self.height).min(self.rows - row),
                tiles,
                turn,
                turns,
            }
        })
    }
}

/// Tiles that are multiplied with a panel at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) row: usize,
    /// Without those that only fill the last tile.
    pub(super) rows: usize,
    pub(super) tiles: usize,
    turn: usize,
    turns: usize,
}

impl Turn {
    /// Its product with a panel; the one that follows is asked for.
    ///
    /// # Safety
    /// Rows, panels and sums are as `cut` says.
    #[inline(always)]
    pub(super) unsafe fn with_panel(
        self,
        cut: Cut,
        rows: *const u8,
        [panel, next]: [*const u8; 2],
        sums: *mut u8,
    ) -> Product {
        let run = Run {
            // SAFETY: the caller's.
            rows: unsafe { rows.add(self.row * cut.steps * LINE) },
            panel,
            steps: cut.steps,
        };
        Product {
            runs: [run, Run::NONE],
            tiles: self.tiles,
            height: cut.height,
            sums,
            stride: PANEL_WIDTH * 4,
            ahead: Ahead::each_step(next, cut.panel_bytes(), self.turn, self.turns, cut.steps),
        }
    }
}
