//! Linear layers on packed weights, with bias, activation and residual fused in.
//!
//! The weights lie in panels of as many outputs as two (or so) vectors hold, input by input, so
//! that the inner loop reads them in one stream: for each input, one vector load per vector of
//! outputs and one broadcast per row, all sums in registers (Goto and van de Geijn, 2008; here
//! without packing the rows, which are few and stay in the cache).

use super::Activation;
use super::elementwise::activate;
use super::simd::Simd;

/// A cache line of weights.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A buffer of f32 that starts on a cache line, so that no vector load crosses one.
#[derive(Debug, Default)]
pub(super) struct Aligned(Vec<Line>);

impl Aligned {
    pub(super) fn zeroed(length: usize) -> Self {
        Self(vec![Line([0.0; 16]); length.div_ceil(16)])
    }

    /// Makes room for `length` values; what was in it may be kept or not.
    pub(super) fn reserve(&mut self, length: usize) {
        if self.0.len() < length.div_ceil(16) {
            *self = Self::zeroed(length);
        }
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        let length = self.0.len() * 16;
        // SAFETY: a Line is 16 f32 without padding.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), length) }
    }
}

/// A linear layer's weights, packed once at load.
#[derive(Debug)]
pub(in crate::engine) struct Linear {
    /// `[panels, inputs, panel width]`, zero beyond the last output.
    panels: Aligned,
    /// `[panels * panel width]`
    bias: Aligned,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// Packs `weight`, `[outputs, inputs]`, and `bias`, `[outputs]`.
    pub(super) fn pack(weight: &[f32], bias: &[f32], panel_width: usize) -> Self {
        let outputs = bias.len();
        let inputs = weight.len() / outputs;
        let count = outputs.div_ceil(panel_width);
        let mut panels = Aligned::zeroed(count * inputs * panel_width);
        let packed = panels.as_mut_slice();
        for (o, row) in weight.chunks_exact(inputs).enumerate() {
            let start = o / panel_width * inputs * panel_width + o % panel_width;
            for (i, &w) in row.iter().enumerate() {
                packed[start + i * panel_width] = w;
            }
        }
        let mut padded = Aligned::zeroed(count * panel_width);
        padded.as_mut_slice()[..outputs].copy_from_slice(bias);
        Self {
            panels,
            bias: padded,
            inputs,
            outputs,
        }
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }
}

/// Rows in memory: row `i` starts at `start + i * stride`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<P> {
    pub(super) start: P,
    pub(super) stride: usize,
}

/// One linear layer over some rows: `out = activation(a · weightᵀ + bias) + residual`.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) layer: &'a Linear,
    pub(super) rows: usize,
    /// `[rows, inputs]`
    pub(super) input: Rows<*const f32>,
    /// `[rows, outputs]`
    pub(super) output: Rows<*mut f32>,
    pub(super) activation: Activation,
    /// `[rows, outputs]`; not the output itself.
    pub(super) residual: Option<Rows<*const f32>>,
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
pub(super) unsafe fn linear<S: Simd, const MR: usize, const NV: usize>(call: &Call<'_>) {
    let layer = call.layer;
    let (inputs, width) = (layer.inputs, NV * S::LANES);
    let blocks = inputs.div_ceil(INPUT_BLOCK);
    let panels = layer.outputs.div_ceil(width);
    let count = call.rows.div_ceil(MR);
    for block in 0..blocks {
        let range = inputs * block / blocks..inputs * (block + 1) / blocks;
        for panel in 0..panels {
            // The next panel of this block, or the first one of the next block.
            let (next, from) = match panel + 1 {
                next if next < panels => (next, range.start),
                _ => (0, range.end),
            };
            let next = layer
                .panels
                .as_ptr()
                .wrapping_add((next * inputs + from) * width);
            // Each tile asks for its share of it.
            let share = range.len() * width / 16 / count.max(1);
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
                    ahead: Ahead {
                        start: next.wrapping_add(t * share * 16),
                        lines: share.div_ceil(range.len().div_ceil(AHEAD_EVERY)),
                    },
                };
                // SAFETY: rows and panel are within the call's.
                with_rows!(rows, MR, R => unsafe { tile::<S, R, NV>(call, part) });
            }
        }
    }
}

/// A tile's place in the product.
#[derive(Clone, Copy)]
struct Part {
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

/// Inputs between two turns of asking for memory ahead: few enough to spread it, too many for the
/// compiler to unroll the loop between them.
const AHEAD_EVERY: usize = 16;

/// Memory that will be needed soon: asked for line by line while a product is computed, or each
/// panel of weights would come in at the speed of the last-level cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    start: *const f32,
    /// Lines to ask for with every [`AHEAD_EVERY`] inputs.
    lines: usize,
}

impl Ahead {
    pub(super) const NOTHING: Self = Self {
        start: std::ptr::null(),
        lines: 0,
    };
}

/// `[R, NV * LANES]` sums over `inputs` inputs: rows of `a` times one panel.
///
/// # Safety
/// `a` is good for R rows of `inputs` values, `panel` for `inputs` lines of NV vectors.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, const R: usize, const NV: usize>(
    a: Rows<*const f32>,
    panel: *const f32,
    inputs: usize,
    ahead: Ahead,
) -> [[S::V; NV]; R] {
    // SAFETY: the function's own conditions.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; R];
        let (mut b, mut soon) = (panel, ahead.start);
        let mut i = 0;
        while i < inputs {
            for _ in 0..ahead.lines {
                S::prefetch(soon);
                soon = soon.wrapping_add(16);
            }
            let end = inputs.min(i + AHEAD_EVERY);
            if R * NV <= 12 {
                // With few sums per input, the loop itself would weigh.
                while i + 4 <= end {
                    for _ in 0..4 {
                        step::<S, R, NV>(&mut sums, a, b, i);
                        b = b.add(NV * S::LANES);
                        i += 1;
                    }
                }
            }
            while i < end {
                step::<S, R, NV>(&mut sums, a, b, i);
                b = b.add(NV * S::LANES);
                i += 1;
            }
        }
        sums
    }
}

/// One input of [`product`].
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const NV: usize>(
    sums: &mut [[S::V; NV]; R],
    a: Rows<*const f32>,
    b: *const f32,
    i: usize,
) {
    // SAFETY: see product.
    unsafe {
        let mut weights = [S::splat(0.0); NV];
        for (j, w) in weights.iter_mut().enumerate() {
            *w = S::load(b.add(j * S::LANES));
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = S::splat(*a.start.add(r * a.stride + i));
            for (sum, w) in sums.iter_mut().zip(weights) {
                *sum = S::fma(x, w, *sum);
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const NV: usize>(call: &Call<'_>, part: Part) {
    let (layer, width) = (call.layer, NV * S::LANES);
    let column = part.panel * width;
    let columns = (layer.outputs - column).min(width);
    // SAFETY: the rows and the panel are within the call's, the inputs within the layer's; a panel
    // that is not full goes through a buffer of its own.
    unsafe {
        let a = Rows {
            start: call
                .input
                .start
                .add(part.row * call.input.stride + part.from),
            stride: call.input.stride,
        };
        let b = layer
            .panels
            .as_ptr()
            .add((part.panel * layer.inputs + part.from) * width);
        let sums = product::<S, R, NV>(a, b, part.inputs, part.ahead);
        for (r, sums) in sums.into_iter().enumerate() {
            let row = part.row + r;
            let out = call.output.start.add(row * call.output.stride + column);
            let residual = call
                .residual
                .map(|rows| rows.start.add(row * rows.stride + column));
            if columns == width {
                finish::<S, NV>(sums, call, part, out, residual);
            } else {
                let (mut line, mut added) = ([0.0f32; 64], [0.0f32; 64]);
                std::ptr::copy_nonoverlapping(out, line.as_mut_ptr(), columns);
                if let Some(residual) = residual {
                    std::ptr::copy_nonoverlapping(residual, added.as_mut_ptr(), columns);
                }
                let residual = residual.map(|_| added.as_ptr());
                finish::<S, NV>(sums, call, part, line.as_mut_ptr(), residual);
                std::ptr::copy_nonoverlapping(line.as_ptr(), out, columns);
            }
        }
    }
}

/// Writes one row of a tile: adds what is there already, and at the end bias, activation and
/// residual.
#[inline(always)]
unsafe fn finish<S: Simd, const NV: usize>(
    sums: [S::V; NV],
    call: &Call<'_>,
    part: Part,
    out: *mut f32,
    residual: Option<*const f32>,
) {
    let bias = call
        .layer
        .bias
        .as_ptr()
        .wrapping_add(part.panel * NV * S::LANES);
    for (j, mut v) in sums.into_iter().enumerate() {
        // SAFETY: `out` and `residual` are good for NV vectors, the bias for all panels.
        unsafe {
            let offset = j * S::LANES;
            if !part.first {
                v = S::add(v, S::load(out.add(offset)));
            }
            if part.last {
                v = S::add(v, S::load(bias.add(offset)));
                v = activate::<S>(v, call.activation);
                if let Some(residual) = residual {
                    v = S::add(v, S::load(residual.add(offset)));
                }
            }
            S::store(out.add(offset), v);
        }
    }
}
