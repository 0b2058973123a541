//! Activations as bytes, with a step of each token's own.
//!
//! In the residual stream of a trained encoder a few channels are ten and more times as large as the
//! rest (Dettmers et al., "LLM.int8()", 2022); a step that reaches them leaves the rest a few bits. So
//! the range ends at a multiple of the token's mean magnitude, and what is beyond it is kept as
//! further bytes for the same inputs: exact to the same step, for the price of a few more products.

use std::ops::Range;

use super::super::buffer::Aligned;
use super::super::linear::Call;
use super::super::rows::Raw;
use super::super::tiles::LINE;
use super::tiles::InTiles;
use super::{Dot, MOST_TOGETHER};

/// Most rows in a tile.
const TILE_ROWS: usize = 16;

/// Quantised activations, reused from call to call.
#[derive(Debug, Default)]
pub(crate) struct Quantised {
    /// `[rows, inputs]`, padded; or in tiles, which have their rows' lines side by side.
    pub(super) values: Aligned<u8>,
    /// `[rows]`
    pub(super) step: Aligned,
    /// `[rows]`
    pub(super) least: Aligned,
    extras: Vec<Extra>,
    /// Where each tile's extras end.
    ends: Vec<usize>,
    pub(super) in_tiles: InTiles,
}

/// Further bytes for one group of inputs of a tile's rows.
#[derive(Debug)]
pub(super) struct Extra {
    pub(super) group: usize,
    /// Whether to subtract their products.
    pub(super) negative: bool,
    /// How many such there are already for this group and sign.
    turn: i32,
    pub(super) values: [[u8; MOST_TOGETHER]; TILE_ROWS],
}

/// Where the bytes of a row lie: line by line.
#[derive(Clone, Copy)]
struct Lines {
    start: *mut u8,
    /// From a line to the next, in bytes.
    apart: usize,
}

impl Lines {
    /// Where an input's byte lies.
    #[inline(always)]
    fn place(self, input: usize) -> *mut u8 {
        self.start
            .wrapping_add(input / LINE * self.apart + input % LINE)
    }
}

impl Extra {
    /// What no two extras of a tile have in common.
    pub(super) fn key(&self) -> (usize, bool, i32) {
        (self.group, self.negative, self.turn)
    }
}

impl Quantised {
    /// Quantises the call's rows, which are cut into `tiles`, to bytes that reach to `range` times their
    /// mean magnitude. They lie in tiles of `height`, or one after the other if that is 1; only in the latter case
    /// may they be padded to what is no whole number of lines.
    ///
    /// # Safety
    /// The CPU has S's instructions; the call's input is good for its rows.
    #[inline(always)]
    pub(super) unsafe fn fill<S: Dot>(
        &mut self,
        call: &Call<'_>,
        padded: usize,
        height: usize,
        tiles: impl Iterator<Item = Range<usize>>,
        range: f32,
    ) {
        self.values
            .reserve(call.rows.next_multiple_of(height) * padded);
        self.step.reserve(call.rows);
        self.least.reserve(call.rows);
        self.extras.clear();
        self.ends.clear();
        for rows in tiles {
            for row in rows.clone() {
                let start = row / height * height * padded + row % height * LINE;
                // SAFETY: the buffers have just been made large enough.
                unsafe {
                    let to = Lines {
                        start: self.values.as_mut_ptr().add(start),
                        apart: height * LINE,
                    };
                    self.fill_row::<S>(call, to, padded, range, row, row - rows.start);
                }
            }
            let start = self.ends.last().copied().unwrap_or(0);
            self.extras[start..].sort_unstable_by_key(|extra| extra.group);
            self.ends.push(self.extras.len());
        }
    }

    /// A tile's extras, in the order of their groups.
    #[inline(always)]
    pub(super) fn extras(&self, tile: usize) -> &[Extra] {
        let start = tile.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.extras[start..self.ends[tile]]
    }

    #[inline(always)]
    unsafe fn fill_row<S: Dot>(
        &mut self,
        call: &Call<'_>,
        to: Lines,
        padded: usize,
        range: f32,
        row: usize,
        row_in_tile: usize,
    ) {
        let inputs = call.layer.inputs;
        let Raw { start, stride } = call.input;
        let whole = inputs - inputs % S::LANES;
        // SAFETY: a row of the call's, and buffers made large enough for it.
        unsafe {
            let from = start.add(row * stride);
            let rest = std::slice::from_raw_parts(from.add(whole), inputs - whole);
            let (mut least, mut greatest) = (S::splat(*from), S::splat(*from));
            let mut magnitudes = S::splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                let x = S::load(from.add(i));
                least = S::min(least, x);
                greatest = S::max(greatest, x);
                magnitudes = S::add(magnitudes, S::max(x, S::mul(x, S::splat(-1.0))));
            }
            let greatest = rest.iter().fold(S::greatest(greatest), |a, &x| a.max(x));
            let negated = S::greatest(S::mul(least, S::splat(-1.0)));
            let least = rest.iter().fold(-negated, |a, &x| a.min(x));
            let sum = rest.iter().fold(S::sum(magnitudes), |a, x| a + x.abs());
            let range = range * sum / inputs as f32;
            let outliers = greatest > range || least < -range;
            let (least, greatest) = (least.max(-range), greatest.min(range));
            let step = (greatest - least) / 255.0;
            let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
            *self.step.as_mut_ptr().add(row) = step;
            // What a byte of 0 stands for.
            *self.least.as_mut_ptr().add(row) = least + if S::SIGNED { 128.0 * step } else { 0.0 };
            let (factor, offset) = (S::splat(inverse), S::splat(-least * inverse));
            for i in (0..whole).step_by(S::LANES) {
                let steps = S::fma(S::load(from.add(i)), factor, offset);
                let within = S::min(S::max(steps, S::splat(0.0)), S::splat(255.0));
                S::store_u8(to.place(i), within);
            }
            for (i, x) in rest.iter().enumerate() {
                let q = ((x - least) * inverse).round_ties_even() as u8;
                *to.place(whole + i) = if S::SIGNED { q ^ 0x80 } else { q };
            }
            // Met by weights of zero, but never by what an earlier call left.
            for i in inputs..padded {
                *to.place(i) = 0;
            }
            if outliers {
                let all = std::slice::from_raw_parts(from, inputs);
                let tile = self.ends.last().copied().unwrap_or(0);
                for (i, x) in all.iter().enumerate() {
                    if *x > greatest || *x < least {
                        let steps = ((x - least) * inverse).round_ties_even() as i32;
                        self.add::<S>(tile, row_in_tile, i, steps - steps.clamp(0, 255));
                    }
                }
            }
        }
    }

    /// Adds `steps` to what a row of the tile whose extras start at `tile` has at `input`.
    fn add<S: Dot>(&mut self, tile: usize, row: usize, input: usize, steps: i32) {
        let (group, negative) = (input / S::TOGETHER, steps < 0);
        let most = if S::SIGNED { 127 } else { 255 };
        let (mut left, mut turn) = (steps.unsigned_abs(), 0);
        while left > 0 {
            let value = left.min(most) as u8;
            left -= u32::from(value);
            let same = |e: &Extra| e.key() == (group, negative, turn);
            let place = match self.extras[tile..].iter().position(same) {
                Some(place) => tile + place,
                None => {
                    self.extras.push(Extra {
                        group,
                        negative,
                        turn,
                        values: [[0; MOST_TOGETHER]; TILE_ROWS],
                    });
                    self.extras.len() - 1
                }
            };
            self.extras[place].values[row][input % S::TOGETHER] = value;
            turn += 1;
        }
    }
}
