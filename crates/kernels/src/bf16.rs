//! Linear layers on CPUs that multiply bfloat16: weights rounded at load, inputs as they come, sums in f32.
//!
//! Such a CPU multiplies two neighbouring inputs by their weights and adds both products to a sum, so the two weights
//! of an output lie together: a panel is `[inputs / 2, 32 outputs, 2]`. Rounded rows lie in tiles, `[steps, rows of the
//! tile, 32 inputs]`, in which each row of a step is a cache line: what is read for a step is one stream, whatever the
//! width of the rows. Both are what tile registers (AMX) take, and products in vectors take them as well.
//!
//! The inputs of a layer are not cut into blocks as f32's are. Sums that leave tile registers and come back cost about
//! 150 cycles, and a block small enough to stay in the first-level cache only takes 500.

#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

use half::bf16;

use super::ahead::Ahead;
use super::buffer::Aligned;
use super::linear::{Call, Part};

/// Outputs in a panel: two vectors, or tiles side by side.
pub(super) const PANEL_WIDTH: usize = 32;
/// Inputs in a row of a tile; layers are padded to a multiple of it, with zeros.
const STEP: usize = 32;

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
    /// `[tiles, steps, rows of a tile, 32]`
    values: Aligned<bf16>,
    /// `[rows of some tiles, 32]`
    sums: Aligned,
}

/// What multiplies bfloat16.
///
/// # Safety
/// All methods want a CPU with its instructions.
trait Unit {
    /// Most rows in a tile.
    const ROWS: usize;
    /// Most tiles that are multiplied by a panel at once.
    const TILES: usize;

    /// Rounds 32 values to the nearest bfloat16.
    unsafe fn round(from: *const f32, to: *mut bf16);
    /// Gets ready for tiles of `height` rows; nothing else may be done with its registers until `end`.
    unsafe fn begin(height: usize);
    /// Multiplies some tiles by a panel.
    unsafe fn product(product: Product);
    /// Gives back what `begin` took.
    unsafe fn end();
}

/// Some tiles times a panel.
#[derive(Clone, Copy)]
struct Product {
    /// `[tiles, steps, height, 32]`
    a: *const bf16,
    tiles: usize,
    height: usize,
    steps: usize,
    /// Pairs of inputs in all steps but those that are padded, at most 16 a step.
    pairs: usize,
    /// `[steps, 16, 32, 2]`
    panel: *const bf16,
    /// `[tiles, height, 32]`, to write.
    sums: *mut f32,
    /// What to ask for meanwhile, every step.
    ahead: Ahead,
}

/// See [`Call`]; the layer's weights are `weights`.
///
/// # Safety
/// As `linear::linear`, with U's instructions.
#[inline(always)]
unsafe fn linear<U: Unit>(call: &Call<'_>, weights: &Pairs, rounded: &mut Rounded) {
    if call.rows == 0 {
        return;
    }
    let layer = call.layer;
    let steps = layer.inputs.div_ceil(STEP);
    // Tiles of one height, the least that makes no more of them: few rows take little time, and one shape will do.
    let tiles = call.rows.div_ceil(U::ROWS);
    let height = call.rows.div_ceil(tiles);
    let turns = tiles.div_ceil(U::TILES);
    let length = steps * STEP * PANEL_WIDTH;
    let panels = layer.panel_count(PANEL_WIDTH);
    let start = |panel| weights.0.as_ptr().wrapping_add(panel * length);
    // SAFETY: the caller's; the panels are the layer's, and the buffers are made large enough for whole tiles.
    unsafe {
        rounded.fill::<U>(call, tiles, height, steps);
        U::begin(height);
        for panel in 0..panels {
            let next = start((panel + 1) % panels);
            for turn in 0..turns {
                let tile = turn * U::TILES;
                let row = tile * height;
                let product = Product {
                    a: rounded.values.as_ptr().add(row * steps * STEP),
                    tiles: U::TILES.min(tiles - tile),
                    height,
                    steps,
                    pairs: layer.inputs.div_ceil(2),
                    panel: start(panel),
                    sums: rounded.sums.as_mut_ptr(),
                    ahead: Ahead::each_step(next.cast(), length * 2, turn, turns, steps),
                };
                U::product(product);
                let rows = (product.tiles * height).min(call.rows - row);
                let part = Part::whole(row, panel);
                (layer.kernels.0.finish)(call, part, rows, rounded.sums.as_ptr(), PANEL_WIDTH);
            }
        }
        U::end();
    }
}

impl Rounded {
    /// Rounds the call's rows. What is in a tile beyond the last of them is multiplied and left.
    ///
    /// # Safety
    /// The CPU has U's instructions; the call's input is good for its rows.
    #[inline(always)]
    unsafe fn fill<U: Unit>(&mut self, call: &Call<'_>, tiles: usize, height: usize, steps: usize) {
        self.values.reserve(tiles * height * steps * STEP);
        self.sums
            .reserve(U::TILES.min(tiles) * height * PANEL_WIDTH);
        let (whole, rest) = (call.layer.inputs / STEP, call.layer.inputs % STEP);
        for row in 0..call.rows {
            let line = row / height * steps * height + row % height;
            // SAFETY: a row of the call's, and a buffer made large enough for it.
            unsafe {
                let from = call.input.row(row);
                let to = self.values.as_mut_ptr().add(line * STEP);
                for step in 0..whole {
                    U::round(from.add(step * STEP), to.add(step * height * STEP));
                }
                if rest > 0 {
                    let mut last = [0.0; STEP];
                    std::ptr::copy_nonoverlapping(from.add(whole * STEP), last.as_mut_ptr(), rest);
                    U::round(last.as_ptr(), to.add(whole * height * STEP));
                }
            }
        }
    }
}
