//! Linear layers on CPUs that multiply bfloat16: weights rounded at load, inputs as they come, sums in f32. Rows and
//! panels lie as `tiles` has them, for AMX and for products in vectors alike.
//!
//! The inputs of a layer are not cut into blocks as f32's are. Sums that leave tile registers and come back cost about
//! 150 cycles, and a block small enough to stay in the first-level cache takes only 500.

#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

use half::bf16;

use super::buffer::Aligned;
use super::linear::{Call, Part};
use super::tiles::{Cut, LINE, PANEL_WIDTH, Unit};

/// Inputs in a line of a tile; layers are padded to a multiple of it, with zeros.
const STEP: usize = LINE / size_of::<bf16>();

/// The kernel of bfloat16 weights, where the CPU multiplies them.
#[derive(Clone, Copy)]
pub(super) struct Bf16Table {
    /// What multiplies, as logs name it.
    pub(super) arithmetic: &'static str,
    pub(super) linear: unsafe fn(&Call<'_>, &Pairs, &mut Rounded),
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
trait Rounds: Unit {
    /// Rounds the values of a line to the nearest.
    unsafe fn round(from: *const f32, to: *mut bf16);
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
    let panels = layer.panel_count(PANEL_WIDTH);
    let start = weights.0.as_ptr().cast::<u8>();
    let start = |panel| start.wrapping_add(panel * cut.panel_bytes());
    // SAFETY: the caller's; the panels are the layer's, and the buffers are made large enough for whole tiles.
    unsafe {
        rounded.fill::<U>(call, cut);
        let (rows, sums) = (rounded.values.as_ptr(), rounded.sums.as_mut_ptr());
        U::begin(cut.height);
        for panel in 0..panels {
            let weights = [start(panel), start((panel + 1) % panels)];
            for turn in cut.turns::<U>() {
                U::product(turn.with_panel(cut, rows.cast(), weights, sums.cast()));
                let part = Part::whole(turn.row, panel);
                (layer.kernels.0.finish)(call, part, turn.rows, sums, PANEL_WIDTH);
            }
        }
        U::end();
    }
}

impl Rounded {
    /// Rounds the call's rows. What is in the last tile beyond them is multiplied and left.
    ///
    /// # Safety
    /// The CPU has U's instructions; the call's input is good for its rows.
    #[inline(always)]
    unsafe fn fill<U: Rounds>(&mut self, call: &Call<'_>, cut: Cut) {
        self.values.reserve(cut.bytes() / size_of::<bf16>());
        self.sums.reserve(cut.sums::<U>());
        let (whole, rest) = (call.layer.inputs / STEP, call.layer.inputs % STEP);
        for row in 0..call.rows {
            // SAFETY: a row of the call's, and a buffer made large enough for it.
            unsafe {
                let from = call.input.row(row);
                let to = self.values.as_mut_ptr().byte_add(cut.row(row));
                for step in 0..whole {
                    U::round(from.add(step * STEP), to.byte_add(step * cut.step()));
                }
                if rest > 0 {
                    let mut last = [0.0; STEP];
                    std::ptr::copy_nonoverlapping(from.add(whole * STEP), last.as_mut_ptr(), rest);
                    U::round(last.as_ptr(), to.byte_add(whole * cut.step()));
                }
            }
        }
    }
}
