//! Linear layers on packed weights, with bias, activation and residual fused in.
//!
//! The weights lie in panels of as many outputs as two (or so) vectors hold, input by input, so
//! that the inner loop reads them in one stream: for each input, one vector load per vector of
//! outputs and one broadcast per row, all sums in registers (Goto and van de Geijn, 2008; here
//! without packing the rows, which are few and stay in the cache).
//!
//! A panel of a gated layer is half gates, half their ups, so that a tile has what it takes to finish.

use std::ops::Range;

use super::ahead::{AHEAD_EVERY, Ahead};
use super::elementwise::activate;
use super::rows::Raw;
use super::simd::Simd;
use super::weights::{Panels, Weight};
use super::{Activation, Linear};

/// Some outputs of a linear layer over some rows: `out = activation(a · weightᵀ + bias) + residual`; of a gated one,
/// `activation(gate) * up + residual`.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) layer: &'a Linear,
    /// Of the layer's panels, those whose outputs are computed.
    pub(super) panels: Range<usize>,
    pub(super) rows: usize,
    /// `[rows, inputs]`
    pub(super) input: Raw<*const f32>,
    /// `[rows, outputs]`, of which only the panels' are there.
    pub(super) output: Raw<*mut f32>,
    pub(super) activation: Activation,
    /// The same; not the output itself.
    pub(super) residual: Option<Raw<*const f32>>,
    /// `[rows, panel width]`: where a gated layer's sums are between two turns, since the output has no room for
    /// gates and ups.
    pub(super) between: Raw<*mut f32>,
}

impl Call<'_> {
    /// The panel whose turn it is after one; after the last, the first.
    pub(super) fn panel_after(&self, panel: usize) -> usize {
        match panel + 1 < self.panels.end {
            true => panel + 1,
            false => self.panels.start,
        }
    }
}

/// Inputs that are summed up before the next panel's turn: what of rows and panel then stays in
/// the first-level cache.
const INPUT_BLOCK: usize = 512;

/// Evaluates `$body` with `$r` a constant: the number of rows, at most `$max`.
macro_rules! with_rows {
    ($rows:expr, $max:ident, $r:ident => $body:expr) => {
        with_rows!(@ $rows, $max, $r, $body, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $rows:expr, $max:ident, $r:ident, $body:expr, $($n:literal)*) => {
        match $rows {
            $($n if $n <= $max => {
                const $r: usize = $n;
                $body
            })*
            other => unreachable!("{other} rows in a tile of at most {}", $max),
        }
    };
}
pub(super) use with_rows;

/// See [`Call`].
///
/// # Safety
/// The CPU has S's instructions; the call's pointers are good for its rows; nobody else uses the
/// output meanwhile.
#[inline(always)]
pub(super) unsafe fn linear<S: Simd, W: Weight, const MR: usize, const NV: usize>(
    call: &Call<'_>,
    panels: *const W,
) {
    let layer = call.layer;
    let (inputs, width) = (layer.inputs, NV * S::LANES);
    let blocks = inputs.div_ceil(INPUT_BLOCK);
    let panel_count = call.panels.len();
    let turns = blocks * panel_count;
    // A block of inputs goes through all panels; of a gated layer, a panel through all blocks.
    let place = |turn: usize| {
        let (block, panel) = match layer.gated {
            true => (turn % blocks, turn / blocks),
            false => (turn / panel_count, turn % panel_count),
        };
        let range = inputs * block / blocks..inputs * (block + 1) / blocks;
        (block, call.panels.start + panel, range)
    };
    let count = call.rows.div_ceil(MR);
    for turn in 0..turns {
        let (block, panel, range) = place(turn);
        let (_, next, from) = place((turn + 1) % turns);
        let next = panels.wrapping_add((next * inputs + from.start) * width);
        let bytes = from.len() * width * size_of::<W>();
        let ahead = |t| Ahead::share(next.cast(), bytes, t, count, range.len());
        for t in 0..count {
            let row = call.rows * t / count;
            let rows = call.rows * (t + 1) / count - row;
            let part = Part {
                row,
                panel,
                from: range.start,
                inputs: range.len(),
                first: block == 0,
                last: block + 1 == blocks,
                ahead: ahead(t),
            };
            // SAFETY: rows and panel are within the call's.
            with_rows!(rows, MR, R => unsafe { tile::<S, W, R, NV>(call, panels, part) });
        }
    }
}

/// A tile's place in the product.
#[derive(Clone, Copy)]
pub(super) struct Part {
    row: usize,
    panel: usize,
    /// The inputs summed up in this turn.
    from: usize,
    inputs: usize,
    /// Whether it is the first turn, and the last.
    first: bool,
    last: bool,
    ahead: Ahead,
}

impl Part {
    /// Of a product that is summed up in one turn, elsewhere.
    pub(super) fn whole(row: usize, panel: usize) -> Self {
        Self {
            row,
            panel,
            from: 0,
            inputs: 0,
            first: true,
            last: true,
            ahead: Ahead::NOTHING,
        }
    }
}

/// `[R, NV * LANES]` sums over `inputs` inputs: rows of `a` times one panel.
///
/// # Safety
/// `a` is good for R rows of `inputs` values, `panel` for `inputs` lines of NV vectors.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, W: Weight, const R: usize, const NV: usize>(
    a: Raw<*const f32>,
    panel: *const W,
    inputs: usize,
    mut ahead: Ahead,
) -> [[S::V; NV]; R] {
    // SAFETY: the function's own conditions.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; R];
        let mut b = panel;
        let mut i = 0;
        while i < inputs {
            ahead.ask::<S>();
            let end = inputs.min(i + AHEAD_EVERY);
            if S::INPUTS == 1 && R * NV <= W::FEW_SUMS {
                // With few sums per input, the loop itself would weigh.
                while i + 4 <= end {
                    for _ in 0..4 {
                        S::step::<W, R, NV>(&mut sums, a, b, i);
                        b = b.add(NV * S::LANES);
                        i += 1;
                    }
                }
            }
            while S::INPUTS > 1 && i + S::INPUTS <= end {
                S::steps::<W, R, NV>(&mut sums, a, b, i);
                b = b.add(S::INPUTS * NV * S::LANES);
                i += S::INPUTS;
            }
            while i < end {
                S::step::<W, R, NV>(&mut sums, a, b, i);
                b = b.add(NV * S::LANES);
                i += 1;
            }
        }
        sums
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, W: Weight, const R: usize, const NV: usize>(
    call: &Call<'_>,
    panels: *const W,
    part: Part,
) {
    // SAFETY: the rows and the panel are within the call's, the inputs within the layer's.
    unsafe {
        let a = Raw {
            start: call
                .input
                .start
                .add(part.row * call.input.stride + part.from),
            stride: call.input.stride,
        };
        let b = panels.add((part.panel * call.layer.inputs + part.from) * NV * S::LANES);
        let sums = product::<S, W, R, NV>(a, b, part.inputs, part.ahead);
        finish_tile::<S, R, NV>(sums, call, part);
    }
}

/// Writes a tile's sums with all that follows them.
///
/// # Safety
/// The part's rows and panel are within the call's.
#[inline(always)]
pub(super) unsafe fn finish_tile<S: Simd, const R: usize, const NV: usize>(
    sums: [[S::V; NV]; R],
    call: &Call<'_>,
    part: Part,
) {
    let (layer, width) = (call.layer, NV * S::LANES);
    let column = part.panel * width;
    let bias = layer.bias.as_ptr().wrapping_add(column);
    let apart = layer.gated || call.activation != Activation::None;
    // SAFETY: the caller's; the bias is good for all panels, the output for `columns` of this one, `between` for a
    // gated layer's whole panel.
    unsafe {
        let (between, columns) = match layer.gated {
            true => (call.between.from(part.row, 0), width),
            false => {
                let columns = (layer.outputs - column).min(width);
                (call.output.from(part.row, column), columns)
            }
        };
        if part.last && apart {
            // A copy, whose address is given away: the sums themselves can then stay in registers.
            let mut whole = sums;
            if !part.first {
                for (r, sums) in whole.iter_mut().enumerate() {
                    for (offset, v) in (0..).step_by(S::LANES).zip(sums) {
                        let left = columns.saturating_sub(offset).min(S::LANES);
                        *v = S::add(*v, load::<S>(between.row(r).add(offset), left));
                    }
                }
            }
            let table = layer.kernels.0;
            let finish = match layer.panels {
                Panels::Int8(_) => table.finish_coarse,
                _ => table.finish,
            };
            return finish(call, part, R, whole.as_ptr().cast(), width);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let (row, out) = (part.row + r, between.row(r));
            let residual = call.residual.map(|rows| rows.row(row).wrapping_add(column));
            if columns == width {
                finish::<S, NV>(sums, part, bias, out, residual);
            } else {
                let (mut line, mut added) = ([0.0f32; 64], [0.0f32; 64]);
                std::ptr::copy_nonoverlapping(out, line.as_mut_ptr(), columns);
                if let Some(residual) = residual {
                    std::ptr::copy_nonoverlapping(residual, added.as_mut_ptr(), columns);
                }
                let residual = residual.map(|_| added.as_ptr());
                finish::<S, NV>(sums, part, bias, line.as_mut_ptr(), residual);
                std::ptr::copy_nonoverlapping(line.as_ptr(), out, columns);
            }
        }
    }
}

/// Writes one row of a tile: adds what is there already, and at the end bias and residual.
#[inline(always)]
unsafe fn finish<S: Simd, const NV: usize>(
    sums: [S::V; NV],
    part: Part,
    bias: *const f32,
    out: *mut f32,
    residual: Option<*const f32>,
) {
    for (j, mut v) in sums.into_iter().enumerate() {
        // SAFETY: `out` and `residual` are good for NV vectors, the bias for all panels.
        unsafe {
            let offset = j * S::LANES;
            if !part.first {
                v = S::add(v, S::load(out.add(offset)));
            }
            if part.last {
                v = S::add(v, S::load(bias.add(offset)));
                if let Some(residual) = residual {
                    v = S::add(v, S::load(residual.add(offset)));
                }
            }
            S::store(out.add(offset), v);
        }
    }
}

/// Writes a tile of `rows` rows whose sums are whole, `[rows, width]`, with all that follows them. A
/// function of its own, not inlined for each size of a tile: that many copies of all activations took the
/// compiler minutes. `COARSE` as in `elementwise`.
///
/// # Safety
/// The CPU has S's instructions; the part's rows and panel are within the call's.
#[inline(always)]
pub(super) unsafe fn finish_apart<S: Simd, const COARSE: bool>(
    call: &Call<'_>,
    part: Part,
    rows: usize,
    sums: *const f32,
    width: usize,
) {
    let bias = call.layer.bias.as_ptr().wrapping_add(part.panel * width);
    let sums = WithBias { sums, width, bias };
    // SAFETY: the caller's.
    unsafe { finish_sums::<S, _, COARSE>(call, part, rows, &sums, width) }
}

/// Where a tile's sums come from.
pub(super) trait Sums<S: Simd> {
    /// `count` of a row's sums, at most a vector, with the bias: those from output `i` of the panel on.
    ///
    /// # Safety
    /// As [`Simd::load`], of `count` values.
    unsafe fn load(&self, row: usize, i: usize, count: usize) -> S::V;
}

/// `[rows, width]` sums, and a panel's bias.
struct WithBias {
    sums: *const f32,
    width: usize,
    bias: *const f32,
}

impl<S: Simd> Sums<S> for WithBias {
    #[inline(always)]
    unsafe fn load(&self, row: usize, i: usize, count: usize) -> S::V {
        // SAFETY: the caller's, of both.
        unsafe {
            let sums = load::<S>(self.sums.add(row * self.width + i), count);
            S::add(sums, load::<S>(self.bias.add(i), count))
        }
    }
}

/// Writes a tile of `rows` rows whose sums are whole, with activation, gate and residual.
///
/// # Safety
/// The CPU has S's instructions; the part's rows and panel are within the call's; there are the tile's sums.
#[inline(always)]
pub(super) unsafe fn finish_sums<S: Simd, F: Sums<S>, const COARSE: bool>(
    call: &Call<'_>,
    part: Part,
    rows: usize,
    sums: &F,
    width: usize,
) {
    let layer = call.layer;
    let of_panel = layer.panel_outputs(width);
    let column = part.panel * of_panel;
    let columns = (layer.outputs - column).min(of_panel);
    // SAFETY: there are sums for `width` outputs, output and residual are good for `columns`.
    unsafe {
        for r in 0..rows {
            let row = part.row + r;
            let out = call.output.row(row).wrapping_add(column);
            for i in (0..columns).step_by(S::LANES) {
                let count = (columns - i).min(S::LANES);
                let mut v = activate::<S, COARSE>(sums.load(r, i, count), call.activation);
                if layer.gated {
                    v = S::mul(v, sums.load(r, of_panel + i, count));
                }
                if let Some(residual) = call.residual {
                    v = S::add(
                        v,
                        load::<S>(residual.row(row).wrapping_add(column + i), count),
                    );
                }
                store::<S>(out.add(i), v, count);
            }
        }
    }
}

/// The first `count` values of a vector; 0 beyond.
///
/// # Safety
/// As [`Simd::load`], of `count` values, at most a vector.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(p: *const f32, count: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        if count == S::LANES {
            return S::load(p);
        }
        let mut line = [0.0f32; 16];
        std::ptr::copy_nonoverlapping(p, line.as_mut_ptr(), count);
        S::load(line.as_ptr())
    }
}

/// Writes the first `count` values of a vector.
///
/// # Safety
/// As [`Simd::store`], of `count` values, at most a vector.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(p: *mut f32, v: S::V, count: usize) {
    // SAFETY: the caller's.
    unsafe {
        if count == S::LANES {
            return S::store(p, v);
        }
        let mut line = [0.0f32; 16];
        S::store(line.as_mut_ptr(), v);
        std::ptr::copy_nonoverlapping(line.as_ptr(), p, count);
    }
}
