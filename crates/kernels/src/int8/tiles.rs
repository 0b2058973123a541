//! The same products in tiles, for weights with one scale a row.
//!
//! What activations have beyond a byte becomes further steps: their inputs' weights are gathered from each panel, for
//! all rows of a call, with their signs turned where the products are to be subtracted.

#[cfg(test)]
mod tests;

use super::super::buffer::Aligned;
use super::super::linear::{Call, Part, Sums, finish_sums};
use super::super::tiles::{Cut, LINE, PANEL_WIDTH, Run, Unit};
use super::{Dot, Int8, QUAD, Quantised, RANGE};

/// Quads in a line of a tile.
const QUADS: usize = LINE / QUAD;
/// A quad's weights in a panel.
const WEIGHTS: usize = PANEL_WIDTH * QUAD;

/// What is at work beside the activations, reused from call to call.
#[derive(Debug, Default)]
pub(super) struct InTiles {
    /// `[rows of some tiles, 32]`
    sums: Aligned<i32>,
    further: Further,
}

/// Further steps, [`QUADS`] quads each.
#[derive(Debug, Default)]
struct Further {
    /// Which quad of the inputs each is, whether to subtract its products, and how many such there are before it.
    quads: Vec<(usize, bool, i32)>,
    /// `[tiles, steps, height]` lines.
    rows: Aligned<u8>,
    /// `[steps, 16, 32, 4]`
    panel: Aligned<i8>,
}

/// See [`Call`]; the layer's weights are `weights`, padded to whole lines.
///
/// # Safety
/// As `linear::linear`, with U's instructions too.
#[inline(always)]
pub(super) unsafe fn linear<S: Dot, U: Unit>(
    call: &Call<'_>,
    weights: &Int8,
    quantised: &mut Quantised,
    work: &mut InTiles,
) {
    if call.rows == 0 {
        return;
    }
    let layer = call.layer;
    let cut = Cut::new::<U>(call.rows, layer.inputs);
    let start = weights.panels.as_ptr().cast::<u8>();
    let start = |panel| start.wrapping_add(panel * cut.panel_bytes());
    work.sums.reserve(cut.sums::<U>());
    // SAFETY: the caller's; the panels are the layer's, and the buffers are made large enough for whole tiles.
    unsafe {
        quantised.fill::<S>(call, weights.padded, cut.height, cut.each(), RANGE);
        work.further.find(quantised, cut);
        let (rows, sums) = (quantised.values.as_ptr(), work.sums.as_mut_ptr());
        U::begin(cut.height);
        for panel in call.panels.clone() {
            work.further.gather(start(panel).cast());
            let panels = [panel, call.panel_after(panel)].map(start);
            let column = panel * PANEL_WIDTH;
            for turn in cut.turns::<U>() {
                let mut product = turn.with_panel(cut, rows, panels, sums.cast());
                product.runs[1] = work.further.run(turn.row);
                U::product(product);
                let sums = Dequantised {
                    sums,
                    step: quantised.step.as_ptr().add(turn.row),
                    least: quantised.least.as_ptr().add(turn.row),
                    scale: weights.scale.as_ptr().add(column),
                    of_weights: weights.sum.as_ptr().add(column),
                    bias: layer.bias.as_ptr().add(column),
                };
                let part = Part::whole(turn.row, panel);
                finish_sums::<S, _, true>(call, part, turn.rows, &sums, PANEL_WIDTH);
            }
        }
        U::end();
    }
}

impl Further {
    fn steps(&self) -> usize {
        self.quads.len().div_ceil(QUADS)
    }

    /// Finds what the activations have beyond a byte and lays it out as tiles.
    fn find(&mut self, quantised: &Quantised, cut: Cut) {
        self.quads.clear();
        let of_tiles = || (0..cut.tiles).map(|tile| quantised.extras(tile));
        for extra in of_tiles().flatten() {
            if !self.quads.contains(&extra.key()) {
                self.quads.push(extra.key());
            }
        }
        let steps = self.steps();
        let tile_bytes = steps * cut.height * LINE;
        self.panel.reserve(steps * QUADS * WEIGHTS);
        self.rows.reserve(cut.tiles * tile_bytes);
        let rows = &mut self.rows.as_mut_slice()[..cut.tiles * tile_bytes];
        rows.fill(0);
        for (tile, extras) in of_tiles().enumerate() {
            for extra in extras {
                let is_it = |key: &_| *key == extra.key();
                let Some(place) = self.quads.iter().position(is_it) else {
                    continue;
                };
                let step = tile * tile_bytes + place / QUADS * cut.height * LINE;
                for (row, values) in extra.values[..cut.height].iter().enumerate() {
                    let at = step + row * LINE + place % QUADS * QUAD;
                    rows[at..at + QUAD].copy_from_slice(&values[..QUAD]);
                }
            }
        }
    }

    /// Gathers the weights of a panel.
    ///
    /// # Safety
    /// The panel is one of the layer that the activations are for.
    #[inline(always)]
    unsafe fn gather(&mut self, panel: *const i8) {
        let places = self.panel.as_mut_slice().chunks_exact_mut(WEIGHTS);
        for (&(quad, negative, _), place) in self.quads.iter().zip(places) {
            // SAFETY: the caller's: the quad is one of the layer's inputs.
            let weights = unsafe { &*panel.add(quad * WEIGHTS).cast::<[i8; WEIGHTS]>() };
            place.copy_from_slice(weights);
            if negative {
                place.iter_mut().for_each(|w| *w = -*w);
            }
        }
    }

    /// The further steps of the tiles from a row on.
    fn run(&self, row: usize) -> Run {
        let steps = self.steps();
        Run {
            rows: self.rows.as_ptr().wrapping_add(row * steps * LINE),
            panel: self.panel.as_ptr().cast(),
            steps,
        }
    }
}

/// Sums of bytes as what they stand for.
struct Dequantised {
    /// `[rows, 32]`
    sums: *const i32,
    /// `[rows]`
    step: *const f32,
    least: *const f32,
    /// `[32]`
    scale: *const f32,
    of_weights: *const f32,
    bias: *const f32,
}

impl<S: Dot> Sums<S> for Dequantised {
    #[inline(always)]
    unsafe fn load(&self, row: usize, i: usize, _: usize) -> S::V {
        // SAFETY: a row's and a panel's whole vectors, whatever of them counts.
        unsafe {
            let sums = self.sums.add(row * PANEL_WIDTH + i).cast::<S::I>();
            let sums = S::to_float(&[[sums.read_unaligned()]], 0, 0);
            let step = S::mul(S::load(self.scale.add(i)), S::splat(*self.step.add(row)));
            let least = S::splat(*self.least.add(row));
            let offset = S::fma(
                S::load(self.of_weights.add(i)),
                least,
                S::load(self.bias.add(i)),
            );
            S::fma(sums, step, offset)
        }
    }
}
