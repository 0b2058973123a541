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

/// Runs `$call::<S, R, NV>` with `R` the number of rows, a constant.
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
    let (inputs, width) = (call.layer.inputs, NV * S::LANES);
    let blocks = inputs.div_ceil(INPUT_BLOCK);
    for block in 0..blocks {
        let range = inputs * block / blocks..inputs * (block + 1) / blocks;
        let place = Place {
            first: block == 0,
            last: block + 1 == blocks,
        };
        for panel in 0..call.layer.outputs.div_ceil(width) {
            let count = call.rows.div_ceil(MR);
            for t in 0..count {
                let row = call.rows * t / count;
                let rows = call.rows * (t + 1) / count - row;
                // SAFETY: rows and panel are within the call's.
                with_rows!(rows, MR, R => unsafe {
                    tile::<S, R, NV>(call, row, panel, range.start, range.len(), place);
                });
            }
        }
    }
}

/// Which part of the sum over the inputs a tile computes.
#[derive(Clone, Copy)]
struct Place {
    first: bool,
    last: bool,
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
) -> [[S::V; NV]; R] {
    // SAFETY: the function's own conditions.
    unsafe {
        let zero = S::splat(0.0);
        let mut sums = [[zero; NV]; R];
        let mut b = panel;
        for i in 0..inputs {
            let mut weights = [zero; NV];
            for (j, w) in weights.iter_mut().enumerate() {
                *w = S::load(b.add(j * S::LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = S::splat(*a.start.add(r * a.stride + i));
                for (sum, w) in sums.iter_mut().zip(weights) {
                    *sum = S::fma(x, w, *sum);
                }
            }
            b = b.add(NV * S::LANES);
        }
        sums
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const NV: usize>(
    call: &Call<'_>,
    row: usize,
    panel: usize,
    from: usize,
    inputs: usize,
    place: Place,
) {
    let width = NV * S::LANES;
    let layer = call.layer;
    let columns = (layer.outputs - panel * width).min(width);
    // SAFETY: the rows and the panel are within the call's, `from + inputs` within the layer's
    // inputs; a panel that is not full goes through a buffer of its own.
    unsafe {
        let a = Rows {
            start: call.input.start.add(row * call.input.stride + from),
            stride: call.input.stride,
        };
        let b = layer
            .panels
            .as_ptr()
            .add((panel * layer.inputs + from) * width);
        let sums = product::<S, R, NV>(a, b, inputs);
        for (r, sums) in sums.into_iter().enumerate() {
            let column = panel * width;
            let out = call
                .output
                .start
                .add((row + r) * call.output.stride + column);
            let residual = call
                .residual
                .map(|rows| rows.start.add((row + r) * rows.stride + column));
            if columns == width {
                finish::<S, NV>(sums, layer, column, out, residual, call.activation, place);
            } else {
                let (mut line, mut added) = ([0.0f32; 64], [0.0f32; 64]);
                std::ptr::copy_nonoverlapping(out, line.as_mut_ptr(), columns);
                if let Some(residual) = residual {
                    std::ptr::copy_nonoverlapping(residual, added.as_mut_ptr(), columns);
                }
                let residual = residual.map(|_| added.as_ptr());
                let buffer = line.as_mut_ptr();
                finish::<S, NV>(
                    sums,
                    layer,
                    column,
                    buffer,
                    residual,
                    call.activation,
                    place,
                );
                std::ptr::copy_nonoverlapping(buffer, out, columns);
            }
        }
    }
}

/// Writes one row of a tile: adds what is there already, and at the end bias, activation and
/// residual.
#[inline(always)]
unsafe fn finish<S: Simd, const NV: usize>(
    sums: [S::V; NV],
    layer: &Linear,
    column: usize,
    out: *mut f32,
    residual: Option<*const f32>,
    activation: Activation,
    place: Place,
) {
    for (j, mut v) in sums.into_iter().enumerate() {
        // SAFETY: `out` and `residual` are good for NV vectors, the bias for all panels.
        unsafe {
            let offset = j * S::LANES;
            if !place.first {
                v = S::add(v, S::load(out.add(offset)));
            }
            if place.last {
                v = S::add(v, S::load(layer.bias.as_ptr().add(column + offset)));
                v = activate::<S>(v, activation);
                if let Some(residual) = residual {
                    v = S::add(v, S::load(residual.add(offset)));
                }
            }
            S::store(out.add(offset), v);
        }
    }
}
