//! A linear layer's weights as the kernels read them: in panels of as many outputs as a few
//! vectors hold, in one of several precisions.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::bf16::Pairs;
use super::buffer::{Aligned, Plain};
use super::epilogue::Epilogue;
use super::int8::Int8;
use super::linear::Call;
use super::rows::Raw;
use super::simd::Simd;
use super::tiles;
use super::{Dtype, Kernels, Rows, RowsMut, Scratch, Stored};

/// A floating-point type that weights are kept in; arithmetic is in f32.
pub(super) trait Weight: Plain + Default {
    /// Sums up to which the loop over the inputs is unrolled. With more, where weights must be
    /// converted, the compiler runs out of AVX2's registers.
    const FEW_SUMS: usize = 8;
    /// Converts a row.
    fn convert(from: &[f32], to: &mut [Self]);
    /// Reads a vector of weights.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
}

impl Weight for f32 {
    const FEW_SUMS: usize = 12;
    fn convert(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller's, here and below.
        unsafe { S::load(p) }
    }
}

impl Weight for f16 {
    fn convert(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: see f32.
        unsafe { S::load_f16(p) }
    }
}

impl Weight for bf16 {
    fn convert(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: see f32.
        unsafe { S::load_bf16(p) }
    }
}

/// Weights in panels: `[panels, inputs, panel width]`, zero beyond the last output; int8, and bfloat16 that
/// is multiplied as it is, have layouts of their own.
#[derive(Debug)]
pub(super) enum Panels {
    F32(Aligned<f32>),
    F16(Aligned<f16>),
    Bf16(Aligned<bf16>),
    Pairs(Pairs),
    Int8(Int8),
}

/// A linear layer's weights, packed once at load for the kernels that they are for.
#[derive(Debug)]
pub struct Linear {
    pub(super) kernels: Kernels,
    pub(super) panels: Panels,
    /// `[panels * panel width]`
    pub(super) bias: Aligned,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Whether each output is made of a gate and an up.
    pub(super) gated: bool,
}

/// A linear layer that is being packed, output by output, so that the weights need not be in memory
/// as they were.
#[derive(Debug)]
pub struct Packer {
    layer: Linear,
    /// Rows of weights packed so far.
    packed: usize,
    /// `[inputs]`: one output's weights in f32.
    row: Vec<f32>,
}

impl Packer {
    /// For a layer of `outputs` outputs with `inputs` weights each.
    ///
    /// # Panics
    /// If there are no inputs.
    #[must_use]
    pub fn new(kernels: Kernels, dtype: Dtype, inputs: usize, outputs: usize) -> Self {
        Self::empty(kernels, dtype, inputs, outputs, false)
    }

    /// For a layer whose outputs are `activation(gate) * up` (GeGLU, SwiGLU; Shazeer, 2020), each
    /// with `inputs` weights for its gate and as many for its up. All gates' weights are pushed
    /// before all ups'.
    ///
    /// # Panics
    /// If there are no inputs.
    #[must_use]
    pub fn gated(kernels: Kernels, dtype: Dtype, inputs: usize, outputs: usize) -> Self {
        Self::empty(kernels, dtype, inputs, outputs, true)
    }

    fn empty(kernels: Kernels, dtype: Dtype, inputs: usize, outputs: usize, gated: bool) -> Self {
        assert!(inputs > 0, "a layer without inputs");
        let table = kernels.0;
        let mut layer = Linear {
            kernels,
            panels: Panels::F32(Aligned::default()),
            bias: Aligned::default(),
            inputs,
            outputs,
            gated,
        };
        let width = match dtype {
            Dtype::Int8 => table.int8.panel_width,
            Dtype::Bf16 if table.bf16.is_some() => tiles::PANEL_WIDTH,
            _ => table.panel_width,
        };
        let room = layer.panel_count(width) * width;
        layer.panels = match dtype {
            Dtype::F32 => Panels::F32(Aligned::zeroed(room * inputs)),
            Dtype::F16 => Panels::F16(Aligned::zeroed(room * inputs)),
            Dtype::Bf16 if table.bf16.is_some() => Panels::Pairs(Pairs::zeroed(inputs, room)),
            Dtype::Bf16 => Panels::Bf16(Aligned::zeroed(room * inputs)),
            Dtype::Int8 => Panels::Int8(Int8::zeroed(inputs, room, false, table.int8)),
        };
        layer.bias = Aligned::zeroed(room);
        Self {
            layer,
            packed: 0,
            row: vec![0.0; inputs],
        }
    }

    /// Gives int8 weights a scale for every 64 inputs in place of one a row, and their activations finer
    /// steps: for models that lose their order by the coarser ones.
    #[must_use]
    pub fn in_blocks(mut self) -> Self {
        let layer = &mut self.layer;
        if let Panels::Int8(_) = layer.panels {
            let table = layer.kernels.0.int8;
            let room = layer.panel_count(table.panel_width) * table.panel_width;
            layer.panels = Panels::Int8(Int8::zeroed(layer.inputs, room, true, table));
        }
        self
    }

    /// Packs the next row of weights times `factor`. Integers go into an int8 layer as they are,
    /// unless its kernel needs coarser steps.
    ///
    /// # Panics
    /// If there are not as many weights as inputs, or the layer has all its rows.
    pub fn push(&mut self, weights: Stored<'_>, factor: f32) {
        let layer = &mut self.layer;
        assert!(
            self.packed < layer.weight_rows() && weights.width() == layer.inputs,
            "{} weights for row {} of a layer of {}x{}",
            weights.width(),
            self.packed,
            layer.inputs,
            layer.weight_rows()
        );
        let o = layer.place(self.packed);
        let (table, row) = (layer.kernels.0, &mut self.row);
        match &mut layer.panels {
            Panels::F32(panels) => pack(weights, factor, row, o, table.panel_width, panels),
            Panels::F16(panels) => pack(weights, factor, row, o, table.panel_width, panels),
            Panels::Bf16(panels) => pack(weights, factor, row, o, table.panel_width, panels),
            Panels::Pairs(panels) => {
                weights.write(factor, row);
                panels.put(row, o);
            }
            Panels::Int8(panels) => panels.pack(weights, factor, row, o, table.int8),
        }
        self.packed += 1;
    }

    /// The layer with its bias, one for each row of weights, in their order; an empty one is zeros.
    ///
    /// # Panics
    /// If a row of weights is missing, or some of the biases are.
    #[must_use]
    pub fn finish(mut self, bias: &[f32]) -> Linear {
        let rows = self.layer.weight_rows();
        assert!(
            self.packed == rows && (bias.is_empty() || bias.len() == rows),
            "{} rows of weights and {} biases for a layer of {rows}",
            self.packed,
            bias.len(),
        );
        for (row, value) in bias.iter().enumerate() {
            let place = self.layer.place(row);
            self.layer.bias.as_mut_slice()[place] = *value;
        }
        self.layer
    }
}

/// Writes weights to place `o` in the panels; `row` is room for them in f32.
fn pack<W: Weight>(
    weights: Stored<'_>,
    factor: f32,
    row: &mut [f32],
    o: usize,
    width: usize,
    panels: &mut Aligned<W>,
) {
    weights.write(factor, row);
    let mut converted = vec![W::default(); row.len()];
    W::convert(row, &mut converted);
    let start = o / width * row.len() * width + o % width;
    let places = panels.as_mut_slice()[start..].iter_mut().step_by(width);
    for (place, w) in places.zip(converted) {
        *place = w;
    }
}

impl Linear {
    /// Values in a row of its output.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Rows of its weights.
    fn weight_rows(&self) -> usize {
        self.outputs * if self.gated { 2 } else { 1 }
    }

    /// Outputs in a panel of `width` rows of weights.
    pub(super) fn panel_outputs(&self, width: usize) -> usize {
        width / if self.gated { 2 } else { 1 }
    }

    /// How many panels of `width` rows of weights there are.
    pub(super) fn panel_count(&self, width: usize) -> usize {
        self.outputs.div_ceil(self.panel_outputs(width))
    }

    /// Rows of weights in a panel.
    fn panel_width(&self) -> usize {
        let table = self.kernels.0;
        match self.panels {
            Panels::Int8(_) => table.int8.panel_width,
            Panels::Pairs(_) => tiles::PANEL_WIDTH,
            _ => table.panel_width,
        }
    }

    /// Its outputs cut into at most `count` parts of whole panels, as even as can be: what
    /// [`Self::run_columns`] can compute by itself.
    #[must_use]
    pub fn column_parts(&self, count: usize) -> Vec<Range<usize>> {
        let width = self.panel_width();
        let (panels, of_panel) = (self.panel_count(width), self.panel_outputs(width));
        let count = count.min(panels);
        let bound = |i: usize| (panels * i / count * of_panel).min(self.outputs);
        (0..count).map(|i| bound(i)..bound(i + 1)).collect()
    }

    /// Where in the panels a row of weights lies. Half of each panel of a gated layer are gates, the
    /// other half their ups, so that both come out of one tile.
    fn place(&self, row: usize) -> usize {
        let width = self.panel_width();
        let of_panel = self.panel_outputs(width);
        let (half, output) = (row / self.outputs, row % self.outputs);
        output / of_panel * width + half * of_panel + output % of_panel
    }

    /// The memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let panels = match &self.panels {
            Panels::F32(panels) => panels.bytes(),
            Panels::F16(panels) => panels.bytes(),
            Panels::Bf16(panels) => panels.bytes(),
            Panels::Pairs(panels) => panels.bytes(),
            Panels::Int8(panels) => panels.bytes(),
        };
        panels + self.bias.bytes()
    }

    /// Writes `epilogue(input · weightᵀ + bias)` to `output`: `[rows, inputs]` to `[rows, outputs]`. A
    /// gated layer's epilogue is `activation(gate) * up + residual`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn run(
        &self,
        input: Rows<'_>,
        epilogue: Epilogue<'_>,
        output: &mut RowsMut<'_>,
        scratch: &mut Scratch,
    ) {
        self.run_columns(0..self.outputs, input, epilogue, output, scratch);
    }

    /// As [`Self::run`], of some outputs only, one of its [`Self::column_parts`]; output and residual have just
    /// these columns.
    ///
    /// # Panics
    /// If the shapes do not fit, or the columns are not those of whole panels.
    pub fn run_columns(
        &self,
        columns: Range<usize>,
        input: Rows<'_>,
        epilogue: Epilogue<'_>,
        output: &mut RowsMut<'_>,
        scratch: &mut Scratch,
    ) {
        let (rows, width) = (input.len(), columns.len());
        assert!(
            input.width() == self.inputs && (output.len(), output.width()) == (rows, width),
            "{rows}x{} to {}x{} by {width} outputs of a layer of {}x{}",
            input.width(),
            output.len(),
            output.width(),
            self.inputs,
            self.outputs
        );
        if let Some(residual) = epilogue.residual {
            assert!(
                (residual.len(), residual.width()) == (rows, width),
                "a residual of {}x{} for {rows}x{width}",
                residual.len(),
                residual.width(),
            );
        }
        let of_panel = self.panel_outputs(self.panel_width());
        let is_bound = |column: usize| column == self.outputs || column.is_multiple_of(of_panel);
        assert!(
            is_bound(columns.start) && is_bound(columns.end) && columns.end <= self.outputs,
            "{columns:?} are no whole panels of {of_panel} of {} outputs",
            self.outputs
        );
        let panel_width = self.kernels.0.panel_width;
        if self.gated {
            scratch.between.reserve(rows * panel_width);
        }
        // Kernels count columns from the layer's first.
        let output = output.raw();
        let residual = epilogue.residual.map(|rows| rows.raw());
        let call = Call {
            layer: self,
            panels: columns.start / of_panel..columns.end.div_ceil(of_panel),
            rows,
            input: input.raw(),
            output: Raw {
                start: output.start.wrapping_sub(columns.start),
                ..output
            },
            activation: epilogue.activation,
            residual: residual.map(|residual| Raw {
                start: residual.start.wrapping_sub(columns.start),
                ..residual
            }),
            between: Raw {
                start: scratch.between.as_mut_ptr(),
                stride: panel_width,
            },
        };
        let table = self.kernels.0;
        // SAFETY: this CPU has the instructions, or there would be no such Kernels; the shapes have
        // been checked, and the output is borrowed for us alone. The weights are packed for this
        // table, int8 ones for its int8 kernel, pairs for its kernel of bfloat16.
        unsafe {
            match (&self.panels, table.bf16) {
                (Panels::Pairs(weights), Some(bf16)) => {
                    (bf16.linear)(&call, weights, &mut scratch.rounded)
                }
                (Panels::Int8(weights), _) => {
                    (table.int8.linear)(&call, weights, &mut scratch.quantised)
                }
                _ => (table.linear)(&call),
            }
        }
    }
}
