//! A block of queries on its way through the keys that it sees.

use std::ops::Range;

use super::positions::Laid;
use super::{Bias, Call, KEYS_AT_ONCE, MOST_QUERIES};
use crate::ahead::Ahead;
use crate::elementwise::{polynomial, soften};
use crate::linear::{product, with_rows};
use crate::rows::Raw;
use crate::simd::Simd;

/// Queries in tiles as even as can be, and those of them that are a block's.
#[derive(Debug, Clone)]
pub(super) struct Tiles {
    pub(super) range: Range<usize>,
    /// All tiles, and all their queries.
    pub(super) count: usize,
    pub(super) queries: usize,
}

impl Tiles {
    fn start(&self, tile: usize) -> usize {
        self.queries * tile / self.count
    }

    /// The block's queries.
    fn all(&self) -> Range<usize> {
        self.start(self.range.start)..self.start(self.range.end)
    }

    /// Each tile's queries.
    fn each(&self) -> impl Iterator<Item = Range<usize>> {
        let tiles = self.range.clone();
        tiles.map(|tile| self.start(tile)..self.start(tile + 1))
    }
}

/// One block of queries, and the memory that it works on.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) call: &'a Call<'a>,
    /// `[panels, head size, width]`
    pub(super) keys: *const f32,
    /// `[panels, length, width]`
    pub(super) values: *const f32,
    /// What distances add, of disentangled attention.
    pub(super) laid: Option<Laid>,
    /// `[queries, stride]`
    pub(super) scores: *mut f32,
    pub(super) stride: usize,
    pub(super) tiles: Tiles,
}

/// A query's sum of weights so far, relative to e to the greatest score so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Total {
    greatest: f32,
    sum: f32,
}

impl Total {
    pub(super) const NOTHING: Self = Self {
        greatest: f32::NEG_INFINITY,
        sum: 0.0,
    };
}

/// What a query's output so far, and its next sum of values, are to be multiplied with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shares {
    pub(super) before: f32,
    pub(super) next: f32,
}

impl Block<'_> {
    /// Answers the block's queries.
    ///
    /// # Safety
    /// As [`super::attention`]; the memory holds what it should, and the scores' is for us alone.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const MR: usize, const NV: usize>(&self) {
        let width = NV * S::LANES;
        let seen = self.call.seen(self.tiles.all());
        if seen.is_empty() {
            // SAFETY: the function's own conditions.
            unsafe { self.call.answer_nothing(self.tiles.all()) };
            return;
        }
        let panels = seen.start / width..seen.end.div_ceil(width);
        let parts = panels.len().div_ceil(KEYS_AT_ONCE / width);
        let mut totals = [Total::NOTHING; MOST_QUERIES];
        let mut shares = [Shares::default(); MOST_QUERIES];
        for part in 0..parts {
            let at = |part| panels.start + panels.len() * part / parts;
            let panels = at(part)..at(part + 1);
            // SAFETY: the panels are among the keys', and fit into a row of scores.
            unsafe {
                match self.laid {
                    Some(laid) => self.score_with_positions::<S, NV>(laid, panels.clone()),
                    None => self.score::<S, MR, NV>(panels.clone()),
                }
                for (row, query) in self.tiles.all().enumerate() {
                    shares[row] = self.weigh::<S>(query, panels.clone(), width, &mut totals[row]);
                }
                let keys = panels.start * width..(panels.end * width).min(self.call.length);
                self.add::<S, MR, NV>(keys, &shares, part == 0);
            }
        }
    }

    /// Queries' products with the keys of some panels.
    #[inline(always)]
    unsafe fn score<S: Simd, const MR: usize, const NV: usize>(&self, panels: Range<usize>) {
        let width = NV * S::LANES;
        let first = self.tiles.all().start;
        for panel in panels.clone() {
            for tile in self.tiles.each() {
                let seen = self.call.seen(tile.clone());
                if seen.end <= panel * width || (panel + 1) * width <= seen.start {
                    continue;
                }
                // SAFETY: see run.
                unsafe {
                    let keys = self.keys.add(panel * self.call.head_size * width);
                    let column = (panel - panels.start) * width;
                    let to = self.scores.add((tile.start - first) * self.stride + column);
                    with_rows!(tile.len(), MR, R => self.score_tile::<S, R, NV>(tile.start, keys, to));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn score_tile<S: Simd, const R: usize, const NV: usize>(
        &self,
        query: usize,
        keys: *const f32,
        to: *mut f32,
    ) {
        // SAFETY: see run.
        unsafe {
            let queries = self.call.queries;
            let queries = Raw {
                start: queries.start.add(query * queries.stride),
                ..queries
            };
            let sums = product::<S, f32, R, NV>(queries, keys, self.call.head_size, Ahead::NOTHING);
            for (r, sums) in sums.into_iter().enumerate() {
                for (j, v) in sums.into_iter().enumerate() {
                    S::store(to.add(r * self.stride + j * S::LANES), v);
                }
            }
        }
    }

    /// As `score`, with what distances add.
    #[inline(always)]
    unsafe fn score_with_positions<S: Simd, const NV: usize>(
        &self,
        laid: Laid,
        panels: Range<usize>,
    ) {
        let width = NV * S::LANES;
        for panel in panels.clone() {
            // SAFETY: see run.
            unsafe {
                let keys = self.keys.add(panel * self.call.head_size * width);
                let to = self.scores.add((panel - panels.start) * width);
                let first = panel * width;
                laid.score::<S, NV>(self.call, self.tiles.all(), keys, first, to, self.stride);
            }
        }
    }

    /// Turns a query's scores with the keys of some panels into weights.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(
        &self,
        query: usize,
        panels: Range<usize>,
        width: usize,
        total: &mut Total,
    ) -> Shares {
        let row = query - self.tiles.all().start;
        // SAFETY: a row of scores, which is ours alone.
        unsafe {
            let scores = self.scores.add(row * self.stride);
            let scores = std::slice::from_raw_parts_mut(scores, panels.len() * width);
            weigh_row::<S, false>(self.call, query, scores, panels.start * width, total)
        }
    }

    /// Adds the values of some keys, by their weights, to the outputs.
    #[inline(always)]
    unsafe fn add<S: Simd, const MR: usize, const NV: usize>(
        &self,
        keys: Range<usize>,
        shares: &[Shares; MOST_QUERIES],
        first: bool,
    ) {
        let width = NV * S::LANES;
        let origin = self.tiles.all().start;
        for panel in 0..self.call.head_size.div_ceil(width) {
            for tile in self.tiles.each() {
                let seen = self.call.seen(tile.clone());
                let seen =
                    seen.start.clamp(keys.start, keys.end)..seen.end.clamp(keys.start, keys.end);
                let row = tile.start - origin;
                // SAFETY: see run.
                unsafe {
                    let weights = Raw {
                        start: self
                            .scores
                            .add(row * self.stride + seen.start - keys.start)
                            .cast_const(),
                        stride: self.stride,
                    };
                    let values = self
                        .values
                        .add((panel * self.call.length + seen.start) * width);
                    let shares = &shares[row..];
                    with_rows!(tile.len(), MR, R => {
                        let sums =
                            product::<S, f32, R, NV>(weights, values, seen.len(), Ahead::NOTHING);
                        self.write::<S, R, NV>(tile.start, panel, sums, shares, first);
                    });
                }
            }
        }
    }

    /// Writes a tile's sums to one panel of the output.
    #[inline(always)]
    unsafe fn write<S: Simd, const R: usize, const NV: usize>(
        &self,
        query: usize,
        panel: usize,
        sums: [[S::V; NV]; R],
        shares: &[Shares],
        first: bool,
    ) {
        let width = NV * S::LANES;
        let columns = (self.call.head_size - panel * width).min(width);
        // SAFETY: see run; a panel that is not full goes through a line of its own.
        unsafe {
            for (r, sums) in sums.into_iter().enumerate() {
                let output = self.call.output;
                let out = output
                    .start
                    .add((query + r) * output.stride + panel * width);
                let mut line = [0.0f32; 64];
                let to = if columns == width {
                    out
                } else {
                    std::ptr::copy_nonoverlapping(out, line.as_mut_ptr(), columns);
                    line.as_mut_ptr()
                };
                let (before, next) = (S::splat(shares[r].before), S::splat(shares[r].next));
                for (j, v) in sums.into_iter().enumerate() {
                    let to = to.add(j * S::LANES);
                    let mut v = S::mul(v, next);
                    if !first {
                        v = S::fma(S::load(to), before, v);
                    }
                    S::store(to, v);
                }
                if columns < width {
                    std::ptr::copy_nonoverlapping(line.as_ptr(), out, columns);
                }
            }
        }
    }
}

/// `2^x` for `x` of at least -120 and at most 0 or next to it; relative error below 2e-7, or where the result is rounded to
/// bfloat16 (`COARSE`), below 8e-5. A polynomial fitted to least relative error on [-1/2, 1/2].
#[inline(always)]
unsafe fn power_of_two<S: Simd, const COARSE: bool>(x: S::V) -> S::V {
    // SAFETY: here and below, the caller runs on a CPU with S's instructions.
    unsafe {
        let n = S::round(x);
        let r = S::fma(n, S::splat(-1.0), x);
        if COARSE {
            let terms = [5.517_167e-2, 0.242_611_1, 0.693_261, 0.999_928_1];
            return S::mul(polynomial::<S, 4>(r, terms), S::pow2(n));
        }
        let terms = [
            1.327_647_1e-3,
            9.675_541e-3,
            5.550_713e-2,
            0.240_221_2,
            0.693_146_94,
            1.000_000_1,
        ];
        S::mul(polynomial::<S, 6>(r, terms), S::pow2(n))
    }
}

/// Turns a query's scores with the keys from `first` on into weights.
///
/// # Safety
/// As [`weigh`].
#[inline(always)]
pub(super) unsafe fn weigh_row<S: Simd, const COARSE: bool>(
    call: &Call<'_>,
    query: usize,
    scores: &mut [f32],
    first: usize,
    total: &mut Total,
) -> Shares {
    let seen = call.seen(query..query + 1);
    let within = |key: usize| key.saturating_sub(first).min(scores.len());
    let seen = within(seen.start)..within(seen.end);
    if let Bias::ByDistance { values, center } = call.places.bias {
        let start = first + seen.start + center - (call.places.first + query);
        let biases = &values[start..start + seen.len()];
        for (score, bias) in scores[seen.clone()].iter_mut().zip(biases) {
            *score += bias;
        }
    }
    if let Some(cap) = call.places.cap {
        let whole = seen.start - seen.start % S::LANES..seen.end.next_multiple_of(S::LANES);
        // SAFETY: rows are whole vectors.
        unsafe { soften::<S>(&mut scores[whole], cap) }
    }
    // SAFETY: rows are whole vectors.
    unsafe { weigh::<S, COARSE>(scores, seen, total) }
}

/// Turns the scores that are `seen` into weights relative to the greatest so far; what lies beyond
/// them becomes 0 or next to it.
///
/// # Safety
/// The CPU has S's instructions; `scores` are whole vectors.
#[inline(always)]
unsafe fn weigh<S: Simd, const COARSE: bool>(
    scores: &mut [f32],
    seen: Range<usize>,
    total: &mut Total,
) -> Shares {
    if seen.is_empty() {
        scores.fill(0.0);
        return Shares {
            before: 1.0,
            next: 0.0,
        };
    }
    let whole = seen.start - seen.start % S::LANES..seen.end.next_multiple_of(S::LANES);
    if seen != (0..scores.len()) {
        scores[..whole.start].fill(0.0);
        scores[whole.start..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..whole.end].fill(f32::NEG_INFINITY);
        scores[whole.end..].fill(0.0);
    }
    let p = scores.as_mut_ptr();
    // SAFETY: the function's own conditions.
    unsafe {
        let mut greatest = S::splat(total.greatest);
        for i in whole.clone().step_by(S::LANES) {
            greatest = S::max(greatest, S::load(p.add(i)));
        }
        let greatest = S::greatest(greatest);
        let to_two = std::f32::consts::LOG2_E;
        let (scale, minus) = (S::splat(to_two), S::splat(-greatest * to_two));
        let mut sums = S::splat(0.0);
        for i in whole.step_by(S::LANES) {
            let x = S::fma(S::load(p.add(i)), scale, minus);
            // Far above where weights become subnormal, which would cost a hundred cycles each.
            let weight = power_of_two::<S, COARSE>(S::max(x, S::splat(-120.0)));
            S::store(p.add(i), weight);
            sums = S::add(sums, weight);
        }
        let before = match total.sum {
            0.0 => 0.0,
            sum => sum * (total.greatest - greatest).exp(),
        };
        let sum = before + S::sum(sums);
        *total = Total { greatest, sum };
        Shares {
            before: before / sum,
            next: 1.0 / sum,
        }
    }
}
