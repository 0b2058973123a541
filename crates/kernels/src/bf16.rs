//! Linear layers on CPUs that multiply bfloat16: weights rounded at load, inputs as they come, sums in f32. Rows and
//! panels lie as `tiles` has them, for AMX and for products in vectors alike.
//!
//! The inputs of a layer are not cut into blocks as f32's are. Sums that leave tile registers and come back cost about
//! 150 cycles, and a block small enough to stay in the first-level cache takes only 500.

#[cfg(test)]
pub(super) mod tests;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

use half::bf16;

use super::attention;
use super::buffer::Aligned;
use super::linear::{Call, Part};
use super::rows::Raw;
use super::tiles::{Cut, LINE, PANEL_WIDTH, Unit};

/// Inputs in a line of a tile; layers are padded to a multiple of it, with zeros.
pub(super) const STEP: usize = LINE / size_of::<bf16>();

/// The kernel of bfloat16 weights, where the CPU multiplies them.
#[derive(Clone, Copy)]
pub(super) struct Bf16Table {
    /// What multiplies, as logs name it.
    pub(super) arithmetic: &'static str,
    pub(super) linear: unsafe fn(&Call<'_>, &Pairs, &mut Rounded),
    pub(super) attention: unsafe fn(&attention::Call<'_>, &mut attention::Buffers),
}

/// Weights in bfloat16: `[panels, inputs / 2, 32, 2]`.
#[derive(Debug)]
pub(super) struct Pairs(Aligned<bf16>);

impl Pairs {
    /// Room for `rows` rows of weights, all of them 0.
    pub(super) fn zeroed(inputs: usize, rows: usize) -> Self {
        let room = rows.next_multiple_of(PANEL_WIDTH);
        Self(Aligned::zeroed(room * inputs.next_multiple_of(STEP)))
    }

    /// Writes an output's weights to place `o`.
    pub(super) fn put(&mut self, weights: &[f32], o: usize) {
        let padded = weights.len().next_multiple_of(STEP);
        let start = o / PANEL_WIDTH * padded * PANEL_WIDTH + o % PANEL_WIDTH * 2;
        let places = self.0.as_mut_slice()[start..].chunks_mut(PANEL_WIDTH * 2);
        for (place, pair) in places.zip(weights.chunks(2)) {
            for (place, &w) in place.iter_mut().zip(pair) {
                *place = bf16::from_f32(w);
            }
        }
    }

    /// The memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// Rows that are rounded, and sums, reused from call to call.
#[derive(Debug, Default)]
pub(super) struct Rounded {
    /// Tiles.
    values: Aligned<bf16>,
    /// `[rows of some tiles, 32]`
    sums: Aligned,
}

/// A unit that multiplies bfloat16.
pub(super) trait Rounds: Unit {
    /// Rounds the values of a line to the nearest.
    unsafe fn round(from: *const f32, to: *mut bf16);
    /// Rounds as many values of each of two rows, and lays them in pairs.
    unsafe fn pair(rows: [*const f32; 2], to: *mut bf16);
}

/// See [`Call`]; the layer's weights are `weights`.
///
/// # Safety
/// As `linear::linear`, with U's instructions.
#[inline(always)]
unsafe fn linear<U: Rounds>(call: &Call<'_>, weights: &Pairs, rounded: &mut Rounded) {
    if call.rows == 0 {
        return;
    }
    let layer = call.layer;
    let cut = Cut::new::<U>(call.rows, layer.inputs * size_of::<bf16>());
    let start = weights.0.as_ptr().cast::<u8>();
    let start = |panel| start.wrapping_add(panel * cut.panel_bytes());
    // SAFETY: the caller's; the panels are the layer's, and the buffers are made large enough for whole tiles.
    unsafe {
        rounded.values.reserve(cut.bytes() / size_of::<bf16>());
        rounded.sums.reserve(cut.sums::<U>());
        let (rows, sums) = (rounded.values.as_mut_ptr(), rounded.sums.as_mut_ptr());
        round_rows::<U>(call.input, layer.inputs, cut, rows);
        U::begin(cut.height);
        for panel in call.panels.clone() {
            let weights = [panel, call.panel_after(panel)].map(start);
            for turn in cut.turns::<U>() {
                U::product(turn.with_panel(cut, rows.cast_const().cast(), weights, sums.cast()));
                let part = Part::whole(turn.row, panel);
                (layer.kernels.0.finish_coarse)(call, part, turn.rows, sums, PANEL_WIDTH);
            }
        }
        U::end();
    }
}

/// Rounds rows of `width` values into tiles. What is in the last tile beyond them is left.
///
/// # Safety
/// The CPU has U's instructions; `from` is good for the rows, and there is room for the tiles.
#[inline(always)]
pub(super) unsafe fn round_rows<U: Rounds>(
    from: Raw<*const f32>,
    width: usize,
    cut: Cut,
    to: *mut bf16,
) {
    let (whole, rest) = (width / STEP, width % STEP);
    for row in 0..cut.rows {
        // SAFETY: the caller's.
        unsafe {
            let from = from.row(row);
            let to = to.byte_add(cut.row(row));
            for step in 0..whole {
                U::round(from.add(step * STEP), to.byte_add(step * cut.step()));
            }
            if rest > 0 {
                let to = to.byte_add(whole * cut.step());
                round_some::<U>(from.add(whole * STEP), rest, to);
            }
        }
    }
}

/// Rounds a line of which only `count` values are there; the others are 0.
///
/// # Safety
/// As [`Rounds::round`], of `count` values to read.
#[inline(always)]
pub(super) unsafe fn round_some<U: Rounds>(from: *const f32, count: usize, to: *mut bf16) {
    let mut line = [0.0; STEP];
    // SAFETY: the caller's.
    unsafe {
        std::ptr::copy_nonoverlapping(from, line.as_mut_ptr(), count);
        U::round(line.as_ptr(), to);
    }
}
