//! Buffers of a batch's activations, and who may write to them.

use std::ops::Range;

use super::super::Scratch;
use super::super::int8::Quantised;
use super::super::linear::Rows;
use super::super::weights::Aligned;

/// Hidden states, projections and attention outputs of some tokens.
#[derive(Debug, Default)]
pub(super) struct Activations {
    /// `[tokens, hidden size]`
    hidden: Aligned,
    /// `[tokens, 3 * hidden size]`: queries, keys, values.
    projected: Aligned,
    /// `[tokens, hidden size]`
    context: Aligned,
}

impl Activations {
    /// Makes room for the tokens of some rows of the batch.
    pub(super) fn of(&mut self, rows: Range<usize>, size: usize) -> State {
        self.hidden.reserve(rows.len() * size);
        self.projected.reserve(rows.len() * 3 * size);
        self.context.reserve(rows.len() * size);
        State {
            origin: rows.start,
            size,
            hidden: Shared(self.hidden.as_mut_ptr()),
            projected: Shared(self.projected.as_mut_ptr()),
            context: Shared(self.context.as_mut_ptr()),
        }
    }
}

/// Where the activations of the batch's rows are, from row `origin` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    origin: usize,
    size: usize,
    hidden: Shared,
    projected: Shared,
    context: Shared,
}

impl State {
    pub(super) fn hidden(&self, row: usize) -> Rows<*mut f32> {
        self.hidden.at(row - self.origin, self.size, 0)
    }

    pub(super) fn context(&self, row: usize, column: usize) -> Rows<*mut f32> {
        self.context.at(row - self.origin, self.size, column)
    }

    /// Queries, keys or values (`which` 0, 1 or 2).
    pub(super) fn projected(&self, row: usize, which: usize, column: usize) -> Rows<*mut f32> {
        let column = which * self.size + column;
        self.projected.at(row - self.origin, 3 * self.size, column)
    }
}

#[derive(Debug, Default)]
pub(super) struct ThreadBuffers {
    /// Of a group that this thread takes through all layers.
    pub(super) group: Activations,
    pub(super) work: WorkBuffers,
}

#[derive(Debug, Default)]
pub(super) struct WorkBuffers {
    pub(super) attention: Scratch,
    /// A linear layer's input, where the weights are int8.
    pub(super) quantised: Quantised,
    /// `[block rows, intermediate size]`
    pub(super) wide: Aligned,
    /// `[block rows, hidden size]`
    pub(super) sum: Aligned,
    /// `[sequences, hidden size]`: the first tokens' queries, later the head's dense layer.
    pub(super) query: Aligned,
}

/// A buffer that all threads write to, each its own part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared(pub(super) *mut f32);

// SAFETY: who writes where is settled by phases and items: within a phase an item writes only rows
// (or a head's columns of them) that no other item reads or writes.
unsafe impl Send for Shared {}
// SAFETY: as Send.
unsafe impl Sync for Shared {}

impl Shared {
    /// Row `row` of `stride` values, from column `column` on.
    pub(super) fn at(self, row: usize, stride: usize, column: usize) -> Rows<*mut f32> {
        let start = self.0.wrapping_add(row * stride + column);
        Rows { start, stride }
    }
}

impl Rows<*mut f32> {
    pub(super) fn read(self) -> Rows<*const f32> {
        Rows {
            start: self.start.cast_const(),
            stride: self.stride,
        }
    }
}
