//! Linear layers on int8 weights: weights quantised per output at load, activations per token as
//! they come, sums in 32 bits, the result in f32 again with bias, activation and residual as in
//! `linear`.
//!
//! A weight is `scale * q`, q in [-127, 127]. An activation is `least + step * q`, q in [0, 255],
//! with each token's own `least` and `step`: unsigned, since x86's instructions multiply unsigned
//! by signed bytes; with an offset, since GELU's outputs are hardly ever negative. The offset's
//! share of a product, `least * scale * Σ q`, is known but for `least`. What few activations are far
//! beyond the others (see `activations`) are summed up in more than one go.
//!
//! A model that one scale a row is too coarse for has one for every [`BLOCK`] inputs of a row, a narrower
//! range of activations and shorter sums in 16 bits: closer to the exact product, in more time.

mod activations;
mod dot;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
mod tests;
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "for units that only x86-64 has so far")
)]
pub(super) mod tiles;

use super::ahead::Ahead;
use super::buffer::Aligned;
use super::linear::{Call, Part, finish_tile, with_rows};
use super::rows::Raw;
use super::tiles::Unit;
use super::{Int8Table, Stored};
use activations::Extra;
pub(super) use activations::Quantised;
pub(super) use dot::Dot;
#[cfg(target_arch = "x86_64")]
pub(super) use dot::{Vnni, Words};
#[cfg(target_arch = "aarch64")]
pub(super) use neon::{DotProd, Matrix, Widened};

/// Inputs that are multiplied in one go; layers are padded to a multiple of it at least, with zeros.
pub(super) const RUN: usize = 16;
/// Inputs that lie together for each output on most sets: what one instruction sums up.
const QUAD: usize = 4;
/// The most that lie together on any.
const MOST_TOGETHER: usize = 8;
/// Inputs that share a scale where a row has more than one.
const BLOCK: usize = 64;
/// Quads whose products are summed up in 16 bits before they are widened, where that is done and a
/// row has one scale. With more, the products take less time and the weights' steps are coarser (for
/// a MiniLM: 1.3 times as coarse as they could be with 1, 1.7 with 2, 2.4 with 4).
const NARROW_QUADS: usize = 2;
/// Mean magnitudes of a token's activations that its bytes reach to where a row of weights has one
/// scale. Of 384 normally distributed ones the greatest is at about 4; outliers of MiniLM's residual
/// stream are at up to 40.
const RANGE: f32 = 16.0;
/// The same where it has more: of a decoder's activations, 1 in 100 is beyond it.
const BLOCK_RANGE: f32 = 6.0;
/// Greatest sum of weights of one sign that may meet in a sum of 16 bits: 255 times this fits.
const SIXTEEN_BIT_SUM: i32 = 128;

/// Quantised weights.
#[derive(Debug)]
pub(super) struct Int8 {
    /// `[panels, inputs / 4, panel width, 4]`, with as many inputs together as the kernel takes
    panels: Aligned<i8>,
    /// Inputs with the zeros that they are padded with.
    padded: usize,
    /// Whether a row has a scale for each block.
    in_blocks: bool,
    /// Inputs that share a scale, a multiple of [`RUN`]; the last block may have fewer.
    block: usize,
    /// `[panels, blocks, panel width]`
    scale: Aligned,
    /// `[panels * panel width]`: scale times the sum of the quantised weights.
    sum: Aligned,
}

impl Int8 {
    /// Room for `rows` rows of weights, all of them 0, with one scale each or one for each block.
    pub(super) fn zeroed(inputs: usize, rows: usize, in_blocks: bool, table: Int8Table) -> Self {
        let room = rows.next_multiple_of(table.panel_width);
        let padded = inputs.next_multiple_of(table.padding);
        let block = if in_blocks { BLOCK } else { padded };
        Self {
            panels: Aligned::zeroed(room * padded),
            padded,
            in_blocks,
            block,
            scale: Aligned::zeroed(room * padded.div_ceil(block)),
            sum: Aligned::zeroed(room),
        }
    }

    /// Quads whose products are summed up in 16 bits, where that is done.
    fn narrow_quads(&self) -> usize {
        if self.in_blocks { 1 } else { NARROW_QUADS }
    }

    /// Writes weights times `factor` to place `o` in the panels; `row` is room for them in f32.
    pub(super) fn pack(
        &mut self,
        weights: Stored<'_>,
        factor: f32,
        row: &mut [f32],
        o: usize,
        table: Int8Table,
    ) {
        let narrow = table.sums_in_sixteen_bits.then_some(self.narrow_quads());
        let inputs = weights.width();
        match weights {
            // All blocks of the row have its scale then.
            Stored::Integers { values, scale } if fits(values, narrow) => {
                let scales = vec![scale * factor; inputs.div_ceil(self.block)];
                self.put(values, &scales, o, table);
            }
            _ => {
                weights.write(factor, row);
                let blocks = row.chunks(self.block);
                let (scales, quantised): (Vec<_>, Vec<_>) =
                    blocks.map(|block| quantise_weights(block, narrow)).unzip();
                self.put(&quantised.concat(), &scales, o, table);
            }
        }
    }

    fn put(&mut self, quantised: &[i8], scales: &[f32], o: usize, table: Int8Table) {
        let (width, padded) = (table.panel_width, self.padded);
        let (panel, column, together) = (o / width, o % width, table.together);
        let start = panel * padded * width + column * together;
        let places = self.panels.as_mut_slice()[start..].chunks_mut(width * together);
        for (place, group) in places.zip(quantised.chunks(together)) {
            place[..group.len()].copy_from_slice(group);
        }
        let start = panel * padded.div_ceil(self.block) * width + column;
        let places = self.scale.as_mut_slice()[start..].iter_mut();
        let mut total = 0.0;
        for ((place, scale), block) in places
            .step_by(width)
            .zip(scales)
            .zip(quantised.chunks(self.block))
        {
            let sum: i32 = block.iter().map(|&q| i32::from(q)).sum();
            total += scale * sum as f32;
            *place = *scale;
        }
        self.sum.as_mut_slice()[o] = total;
    }

    /// The memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.panels.bytes() + self.scale.bytes() + self.sum.bytes()
    }
}

/// Whether the kernel can take these integers: it negates some, and may sum up `narrow` quads in 16
/// bits.
fn fits(values: &[i8], narrow: Option<usize>) -> bool {
    let fits = |quads| greatest_sum(values, quads) <= SIXTEEN_BIT_SUM;
    !values.contains(&i8::MIN) && narrow.is_none_or(fits)
}

/// Weights as scale and bytes. Where the products of `narrow` quads are summed in 16 bits, the scale
/// is made so large that no sum can overflow, whatever the activations.
fn quantise_weights(row: &[f32], narrow: Option<usize>) -> (f32, Vec<i8>) {
    /// Added to a small number, it leaves the nearest integer (the even one of two) in the low bits.
    const ROUNDS: f32 = 1.5 * (1 << 23) as f32;
    let greatest = row.iter().fold(0.0f32, |a, w| a.max(w.abs()));
    if greatest == 0.0 {
        return (0.0, vec![0; row.len()]);
    }
    let mut scale = greatest / 127.0;
    loop {
        let quantise = |w: &f32| ((w / scale).clamp(-127.0, 127.0) + ROUNDS).to_bits() as i8;
        let quantised: Vec<i8> = row.iter().map(quantise).collect();
        let Some(narrow) = narrow else {
            return (scale, quantised);
        };
        let worst = greatest_sum(&quantised, narrow);
        if worst <= SIXTEEN_BIT_SUM {
            return (scale, quantised);
        }
        // At least a little more each time, since rounding may keep a sum where it was.
        scale *= (worst as f32 / SIXTEEN_BIT_SUM as f32).max(1.002);
    }
}

/// The greatest sum of weights of one sign that a 16-bit sum of [`dot`]'s AVX2 kernel holds: every
/// first, or second, pair of `narrow` quads.
fn greatest_sum(quantised: &[i8], narrow: usize) -> i32 {
    let mut greatest = 0;
    for narrow in quantised.chunks(narrow * QUAD) {
        for pair in 0..QUAD / 2 {
            let (mut positive, mut negative) = (0, 0);
            for (i, &q) in narrow.iter().enumerate() {
                if i % QUAD / 2 == pair {
                    positive += i32::from(q.max(0));
                    negative -= i32::from(q.min(0));
                }
            }
            greatest = greatest.max(positive).max(negative);
        }
    }
    greatest
}

/// See [`Call`]; the layer's weights are `weights`.
///
/// # Safety
/// As `linear::linear`.
#[inline(always)]
pub(super) unsafe fn linear<S: Dot, const MR: usize, const NV: usize>(
    call: &Call<'_>,
    weights: &Int8,
    quantised: &mut Quantised,
) {
    // SAFETY: the caller's.
    unsafe {
        match weights.narrow_quads() {
            1 if S::SUMS_IN_SIXTEEN_BITS => in_vectors::<S, MR, NV, 1>(call, weights, quantised),
            _ => in_vectors::<S, MR, NV, NARROW_QUADS>(call, weights, quantised),
        }
    }
}

/// As `linear`, in U's tiles where each row of weights has one scale: with a scale for every step of a tile, what becomes
/// of the sums would take longer than the products.
///
/// # Safety
/// As `linear::linear`, with U's instructions too.
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "for units that only x86-64 has so far")
)]
#[inline(always)]
pub(super) unsafe fn linear_in_tiles<S: Dot, U: Unit, const MR: usize, const NV: usize>(
    call: &Call<'_>,
    weights: &Int8,
    quantised: &mut Quantised,
) {
    if weights.in_blocks {
        // SAFETY: the caller's, here and below.
        return unsafe { linear::<S, MR, NV>(call, weights, quantised) };
    }
    let mut work = std::mem::take(&mut quantised.in_tiles);
    // SAFETY: see above.
    unsafe { tiles::linear::<S, U>(call, weights, quantised, &mut work) }
    quantised.in_tiles = work;
}

#[inline(always)]
unsafe fn in_vectors<S: Dot, const MR: usize, const NV: usize, const NARROW: usize>(
    call: &Call<'_>,
    weights: &Int8,
    quantised: &mut Quantised,
) {
    let (inputs, width) = (weights.padded, NV * S::LANES);
    let count = call.rows.div_ceil(MR);
    let range = match weights.in_blocks {
        true => BLOCK_RANGE,
        false => RANGE,
    };
    let scale = (inputs <= weights.block).then(|| weights.scale.as_ptr());
    // SAFETY: the caller's; the panels are the layer's.
    unsafe {
        let tiles = (0..count).map(|t| call.rows * t / count..call.rows * (t + 1) / count);
        quantised.fill::<S>(call, inputs, 1, tiles, range);
        for panel in call.panels.clone() {
            let start = |panel| weights.panels.as_ptr().wrapping_add(panel * inputs * width);
            let next = start(call.panel_after(panel));
            for t in 0..count {
                let row = call.rows * t / count;
                let rows = call.rows * (t + 1) / count - row;
                let ahead = Ahead::share(next.cast(), inputs * width, t, count, inputs);
                with_rows!(rows, MR, R => {
                    let a = Raw {
                        start: quantised.values.as_ptr().add(row * inputs),
                        stride: inputs,
                    };
                    let products = product::<S, R, NV, NARROW>(
                        a, weights, panel, inputs, quantised.extras(t), ahead,
                    );
                    let sums = with_offset::<S, R, NV>(
                        products, weights, scale, quantised, row, panel,
                    );
                    finish_tile::<S, R, NV>(sums, call, Part::whole(row, panel));
                });
            }
        }
    }
}

/// `[R, NV * LANES]` sums over the inputs: rows of `a`, and what is beyond their bytes, times one
/// panel. They are times the weights' scales if there are several blocks.
#[inline(always)]
unsafe fn product<S: Dot, const R: usize, const NV: usize, const NARROW: usize>(
    a: Raw<*const u8>,
    weights: &Int8,
    panel: usize,
    inputs: usize,
    extras: &[Extra],
    mut ahead: Ahead,
) -> [[S::V; NV]; R] {
    let (width, blocks) = (NV * S::LANES, inputs.div_ceil(weights.block));
    let mut extras = extras.iter().peekable();
    // SAFETY: the caller's; the panel is one of the layer's, with its scales.
    unsafe {
        let start = weights.panels.as_ptr().add(panel * inputs * width);
        let mut values = [[S::splat(0.0); NV]; R];
        for block in 0..blocks {
            let from = block * weights.block;
            let to = inputs.min(from + weights.block);
            let mut sums = [[S::zero(); NV]; R];
            for i in (from..to).step_by(RUN) {
                ahead.ask::<S>();
                let a = Raw {
                    start: a.start.add(i),
                    stride: a.stride,
                };
                // A kernel that need not know the length of a run is better off with a loop that the
                // compiler can't unroll: it would load all activations first and run out of registers.
                let groups = match S::UNROLLED {
                    true => RUN / S::TOGETHER,
                    false => (inputs - i).min(RUN) / S::TOGETHER,
                };
                S::dot::<R, NV, NARROW>(&mut sums, a, start.add(i * width), groups);
            }
            while let Some(extra) = extras.next_if(|extra| extra.group * S::TOGETHER < to) {
                add_extra::<S, R, NV, NARROW>(&mut sums, extra, start);
            }
            if blocks == 1 {
                for (r, values) in values.iter_mut().enumerate() {
                    for (j, value) in values.iter_mut().enumerate() {
                        *value = S::to_float(&sums, r, j);
                    }
                }
                return values;
            }
            let scales = weights.scale.as_ptr();
            let scales = scales.add((panel * blocks + block) * width);
            for j in 0..NV {
                let scale = S::load(scales.add(j * S::LANES));
                for (r, values) in values.iter_mut().enumerate() {
                    values[j] = S::fma(S::to_float(&sums, r, j), scale, values[j]);
                }
            }
        }
        values
    }
}

/// Adds what of a tile's activations is beyond a byte.
#[inline(always)]
unsafe fn add_extra<S: Dot, const R: usize, const NV: usize, const NARROW: usize>(
    sums: &mut [[S::I; NV]; R],
    extra: &Extra,
    panel: *const i8,
) {
    let values = Raw {
        start: extra.values.as_ptr().cast(),
        stride: MOST_TOGETHER,
    };
    let length = NV * S::LANES * S::TOGETHER;
    // SAFETY: the group is one of the panel's, of at most 128 bytes.
    unsafe {
        let weights = panel.add(extra.group * length);
        if extra.negative {
            let mut negated = [0i8; 128];
            for (i, w) in negated[..length].iter_mut().enumerate() {
                *w = -*weights.add(i);
            }
            S::dot::<R, NV, NARROW>(sums, values, negated.as_ptr(), 1);
        } else {
            S::dot::<R, NV, NARROW>(sums, values, weights, 1);
        }
    }
}

/// A tile's products times the activations' steps, and the weights' `scale` if they are not yet, with the
/// share of their offset; without the bias.
#[inline(always)]
unsafe fn with_offset<S: Dot, const R: usize, const NV: usize>(
    products: [[S::V; NV]; R],
    weights: &Int8,
    scale: Option<*const f32>,
    quantised: &Quantised,
    row: usize,
    panel: usize,
) -> [[S::V; NV]; R] {
    // SAFETY: the tile's rows and the panel's outputs.
    unsafe {
        let mut values = products;
        for (j, column) in (0..NV).map(|j| (j, (panel * NV + j) * S::LANES)) {
            let sum = S::load(weights.sum.as_ptr().add(column));
            let scale = match scale {
                Some(scale) => S::load(scale.add(column)),
                None => S::splat(1.0),
            };
            for (r, values) in values.iter_mut().enumerate() {
                let step = S::splat(*quantised.step.as_ptr().add(row + r));
                let least = S::splat(*quantised.least.as_ptr().add(row + r));
                let products = S::mul(values[j], S::mul(step, scale));
                values[j] = S::fma(least, sum, products);
            }
        }
        values
    }
}
