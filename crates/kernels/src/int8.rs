//! Linear layers on int8 weights: weights quantised per output at load, activations per token as
//! they come, sums in 32 bits, the result in f32 again with bias, activation and residual as in
//! `linear`.
//!
//! A weight is `scale * q`, q in [-127, 127]. An activation is `least + step * q`, q in [0, 255],
//! with each token's own `least` and `step`: unsigned, since x86's instructions multiply unsigned
//! by signed bytes; with an offset, since GELU's outputs are hardly ever negative. The offset's
//! share of a product, `least * scale * Σ q`, is known but for `least`. What few activations are far
//! beyond the others (see `activations`) are summed up in more than one go.

mod activations;
mod dot;
#[cfg(target_arch = "aarch64")]
mod neon;

use super::buffer::Aligned;
use super::linear::{Ahead, Call, Part, finish_tile, with_rows};
use super::rows::Raw;
use super::{Int8Table, Stored};
use activations::Extra;
pub(super) use activations::Quantised;
pub(super) use dot::Dot;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::{DotProd, Matrix, Widened};

/// Inputs that are multiplied in one go; layers are padded to a multiple of it, with zeros.
const RUN: usize = 16;
/// Inputs that lie together for each output on most sets: what one instruction sums up.
const QUAD: usize = 4;
/// The most that lie together on any.
const MOST_TOGETHER: usize = 8;
/// Quads whose products are summed up in 16 bits before they are widened, where that is done. With
/// more, the products take less time and the weights' steps are coarser (for a MiniLM: 1.3 times as
/// coarse as they could be with 1, 1.7 with 2, 2.4 with 4).
const NARROW_QUADS: usize = 2;
/// Greatest sum of weights of one sign that may meet in a sum of 16 bits: 255 times this fits.
const SIXTEEN_BIT_SUM: i32 = 128;

/// Quantised weights.
#[derive(Debug)]
pub(super) struct Int8 {
    /// `[panels, inputs / 4, panel width, 4]`, with as many inputs together as the kernel takes
    panels: Aligned<i8>,
    /// `[panels * panel width]`
    scale: Aligned,
    /// `[panels * panel width]`: scale times the sum of the quantised weights.
    sum: Aligned,
}

impl Int8 {
    /// Room for `rows` rows of weights, all of them 0.
    pub(super) fn zeroed(inputs: usize, rows: usize, table: Int8Table) -> Self {
        let room = rows.next_multiple_of(table.panel_width);
        Self {
            panels: Aligned::zeroed(room * inputs.next_multiple_of(RUN)),
            scale: Aligned::zeroed(room),
            sum: Aligned::zeroed(room),
        }
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
        match weights {
            Stored::Integers { values, scale } if fits(values, table.sums_in_sixteen_bits) => {
                self.put(values, scale * factor, o, table);
            }
            _ => {
                weights.write(factor, row);
                let (scale, quantised) = quantise_weights(row, table.sums_in_sixteen_bits);
                self.put(&quantised, scale, o, table);
            }
        }
    }

    fn put(&mut self, quantised: &[i8], scale: f32, o: usize, table: Int8Table) {
        let (width, padded) = (table.panel_width, quantised.len().next_multiple_of(RUN));
        let together = table.together;
        let start = o / width * padded * width + o % width * together;
        let places = self.panels.as_mut_slice()[start..].chunks_mut(width * together);
        for (place, group) in places.zip(quantised.chunks(together)) {
            place[..group.len()].copy_from_slice(group);
        }
        let sum: i32 = quantised.iter().map(|&q| i32::from(q)).sum();
        self.scale.as_mut_slice()[o] = scale;
        self.sum.as_mut_slice()[o] = scale * sum as f32;
    }

    /// The memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.panels.bytes() + self.scale.bytes() + self.sum.bytes()
    }
}

/// Whether the kernel can take these integers: it negates some, and may sum up in 16 bits.
fn fits(values: &[i8], sixteen_bits: bool) -> bool {
    !values.contains(&i8::MIN) && (!sixteen_bits || greatest_sum(values) <= SIXTEEN_BIT_SUM)
}

/// One output's weights as scale and bytes. Where products are summed in 16 bits, the scale is
/// made so large that no sum can overflow, whatever the activations.
fn quantise_weights(row: &[f32], sixteen_bits: bool) -> (f32, Vec<i8>) {
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
        if !sixteen_bits {
            return (scale, quantised);
        }
        let worst = greatest_sum(&quantised);
        if worst <= SIXTEEN_BIT_SUM {
            return (scale, quantised);
        }
        // At least a little more each time, since rounding may keep a sum where it was.
        scale *= (worst as f32 / SIXTEEN_BIT_SUM as f32).max(1.002);
    }
}

/// The greatest sum of weights of one sign that a 16-bit sum of [`dot`]'s AVX2 kernel holds: every
/// first, or second, pair of [`NARROW_QUADS`] quads.
fn greatest_sum(quantised: &[i8]) -> i32 {
    let mut greatest = 0;
    for narrow in quantised.chunks(NARROW_QUADS * QUAD) {
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
    let (inputs, width) = (call.layer.inputs.next_multiple_of(RUN), NV * S::LANES);
    let panels = call.layer.panel_count(width);
    let count = call.rows.div_ceil(MR);
    // SAFETY: the caller's; the panels are the layer's.
    unsafe {
        quantised.fill::<S>(call, inputs, count);
        for panel in 0..panels {
            let start = |panel| weights.panels.as_ptr().wrapping_add(panel * inputs * width);
            let next = start((panel + 1) % panels);
            for t in 0..count {
                let row = call.rows * t / count;
                let rows = call.rows * (t + 1) / count - row;
                let ahead = Ahead::share(next.cast(), inputs * width, t, count, inputs);
                with_rows!(rows, MR, R => {
                    let a = Raw {
                        start: quantised.values.as_ptr().add(row * inputs),
                        stride: inputs,
                    };
                    let mut sums = product::<S, R, NV>(a, start(panel), inputs, ahead);
                    for extra in quantised.extras(t) {
                        add_extra::<S, R, NV>(&mut sums, extra, start(panel));
                    }
                    let sums = dequantise::<S, R, NV>(sums, weights, quantised, row, panel);
                    finish_tile::<S, R, NV>(sums, call, Part::whole(row, panel));
                });
            }
        }
    }
}

/// `[R, NV * LANES]` sums over the inputs: rows of `a` times one panel.
#[inline(always)]
unsafe fn product<S: Dot, const R: usize, const NV: usize>(
    a: Raw<*const u8>,
    panel: *const i8,
    inputs: usize,
    mut ahead: Ahead,
) -> [[S::I; NV]; R] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[S::zero(); NV]; R];
        for i in (0..inputs).step_by(RUN) {
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
            S::dot(&mut sums, a, panel.add(i * NV * S::LANES), groups);
        }
        sums
    }
}

/// Adds what of a tile's activations is beyond a byte.
#[inline(always)]
unsafe fn add_extra<S: Dot, const R: usize, const NV: usize>(
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
            S::dot(sums, values, negated.as_ptr(), 1);
        } else {
            S::dot(sums, values, weights, 1);
        }
    }
}

/// A tile's sums in f32, without the bias.
#[inline(always)]
unsafe fn dequantise<S: Dot, const R: usize, const NV: usize>(
    sums: [[S::I; NV]; R],
    weights: &Int8,
    quantised: &Quantised,
    row: usize,
    panel: usize,
) -> [[S::V; NV]; R] {
    // SAFETY: the tile's rows and the panel's outputs.
    unsafe {
        let mut values = [[S::splat(0.0); NV]; R];
        for (j, column) in (0..NV).map(|j| (j, (panel * NV + j) * S::LANES)) {
            let scale = S::load(weights.scale.as_ptr().add(column));
            let sum = S::load(weights.sum.as_ptr().add(column));
            for r in 0..R {
                let step = S::splat(*quantised.step.as_ptr().add(row + r));
                let least = S::splat(*quantised.least.as_ptr().add(row + r));
                let products = S::mul(S::to_float(&sums, r, j), S::mul(step, scale));
                values[r][j] = S::fma(least, sum, products);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_of_sixteen_bits_can_overflow() {
        let rows: [Vec<f32>; 4] = [
            vec![1.0; 40],
            vec![-0.3; 16],
            (0..100).map(|i| ((i * 37) % 41) as f32 - 20.0).collect(),
            vec![0.0; 8],
        ];
        for row in rows {
            let (scale, quantised) = quantise_weights(&row, true);
            assert!(greatest_sum(&quantised) <= SIXTEEN_BIT_SUM);
            for (w, q) in row.iter().zip(&quantised) {
                assert!((w - scale * f32::from(*q)).abs() <= 0.5001 * scale);
            }
        }
    }

    #[test]
    fn integers_are_taken_as_they_are_where_the_kernel_can() {
        let table = |sums_in_sixteen_bits| Int8Table {
            sums_in_sixteen_bits,
            ..crate::portable::INT8
        };
        let inputs = 20;
        let unlike: Vec<i8> = (0..20i32).map(|i| (i * 12 - 120) as i8).collect();
        for (values, sixteen_bits, as_they_are) in [
            (unlike.clone(), false, true),
            // Finer than what is made of them: their greatest is not 127.
            (vec![3; inputs], false, true),
            (vec![3; inputs], true, true),
            (unlike, true, false),
            (vec![i8::MIN; inputs], false, false),
        ] {
            let table = table(sixteen_bits);
            let mut packed = Int8::zeroed(inputs, 1, table);
            let stored = Stored::Integers {
                values: &values,
                scale: 0.5,
            };
            packed.pack(stored, 0.25, &mut vec![0.0; inputs], 0, table);
            let scale = packed.scale.as_mut_slice()[0];
            assert_eq!(scale == 0.125, as_they_are, "{values:?}");
            let mut sum = 0.0;
            for (i, &value) in values.iter().enumerate() {
                let at = i / QUAD * table.panel_width * QUAD + i % QUAD;
                let q = packed.panels.as_mut_slice()[at];
                sum += scale * f32::from(q);
                let off = (scale * f32::from(q) - 0.125 * f32::from(value)).abs();
                assert!(off <= if as_they_are { 0.0 } else { 0.51 * scale });
            }
            assert!((packed.sum.as_mut_slice()[0] - sum).abs() < 1e-3);
        }
    }

    #[test]
    fn without_that_limit_the_greatest_weight_is_127() {
        let (scale, quantised) = quantise_weights(&[0.5, -2.0, 1.0], false);
        assert_eq!(quantised, [32, -127, 64]);
        assert!((scale - 2.0 / 127.0).abs() < 1e-7);
    }
}
