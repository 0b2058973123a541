//! One batch's way through the encoder: phases, their items, and who writes what.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::super::linear::{Aligned, Call, Linear, Rows};
use super::super::team::Member;
use super::super::{Activation, LayerNorm, Scratch, attention};
use super::{Encoder, EncoderLayer};
use crate::types::Batch;

/// Rows in a block: enough to make the weights' way through the cache worth while, few enough for
/// the widest activations to stay in the second-level cache.
const BLOCK_ROWS: usize = 96;

#[derive(Debug, Default)]
pub(super) struct ThreadBuffers {
    attention: Scratch,
    /// `[block rows, intermediate size]`
    wide: Aligned,
    /// `[block rows, hidden size]`
    sum: Aligned,
    /// As `sum`, for the last layer's first tokens.
    first: Aligned,
    query: Aligned,
    context: Aligned,
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
    fn at(self, row: usize, stride: usize, column: usize) -> Rows<*mut f32> {
        let start = self.0.wrapping_add(row * stride + column);
        Rows { start, stride }
    }
}

impl Rows<*mut f32> {
    fn read(self) -> Rows<*const f32> {
        Rows {
            start: self.start.cast_const(),
            stride: self.stride,
        }
    }
}

/// One batch on its way.
pub(super) struct Pass<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) batch: &'a Batch,
    pub(super) positions: &'a [u32],
    pub(super) hidden: Shared,
    pub(super) projected: Shared,
    pub(super) context: Shared,
    pub(super) logits: Shared,
    pub(super) threads: &'a [Mutex<ThreadBuffers>],
}

impl Pass<'_> {
    /// What every thread does.
    pub(super) fn walk(&self, member: &mut Member<'_>) {
        let buffers = &self.threads[member.index()];
        let mut buffers = buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = &self.encoder.layers;
        let blocks = self.blocks(self.batch.tokens(), BLOCK_ROWS);
        member.phase(blocks, |block| {
            let rows = part(self.batch.tokens(), blocks, block);
            self.embed(rows.clone(), &mut buffers);
            self.project(0, rows);
        });
        for layer in 0..layers.len() - 1 {
            let (items, chunks) = self.attention_items();
            member.phase(items, |item| {
                self.attend(item, chunks, &mut buffers.attention)
            });
            member.phase(blocks, |block| {
                let rows = part(self.batch.tokens(), blocks, block);
                let (context, hidden) = (
                    self.rows(self.context, &rows),
                    self.rows(self.hidden, &rows),
                );
                self.finish_layer(&layers[layer], context, hidden, rows.len(), &mut buffers);
                self.project(layer + 1, rows);
            });
        }
        let groups = self.blocks(self.batch.pairs(), BLOCK_ROWS / 4);
        member.phase(groups, |group| {
            self.last_layer(part(self.batch.pairs(), groups, group), &mut buffers);
        });
    }

    /// How many blocks to cut `rows` into: at most `most` rows each, and as many for each thread.
    fn blocks(&self, rows: usize, most: usize) -> usize {
        let threads = self.encoder.team.threads();
        rows.div_ceil(most).next_multiple_of(threads).min(rows)
    }

    fn rows(&self, buffer: Shared, rows: &Range<usize>) -> Rows<*mut f32> {
        buffer.at(rows.start, self.encoder.hidden_size(), 0)
    }

    fn embed(&self, rows: Range<usize>, buffers: &mut ThreadBuffers) {
        let (size, table) = (self.encoder.hidden_size(), &self.encoder.embeddings);
        buffers.sum.reserve(rows.len() * size);
        let sum = &mut buffers.sum.as_mut_slice()[..rows.len() * size];
        for (token, out) in rows.clone().zip(sum.chunks_exact_mut(size)) {
            let row = |table: &'_ [f32], id: u32| -> Range<usize> {
                let start = id as usize * size;
                debug_assert!(start + size <= table.len());
                start..start + size
            };
            let word = &table.word[row(&table.word, self.batch.ids[token])];
            let position = &table.position[row(&table.position, self.positions[token])];
            let kind = &table.token_type[row(&table.token_type, self.batch.type_ids[token])];
            for (((o, w), p), t) in out.iter_mut().zip(word).zip(position).zip(kind) {
                *o = w + p + t;
            }
        }
        let start = self.rows(self.hidden, &rows).start;
        // SAFETY: the block's own rows of the hidden states.
        let to = unsafe { std::slice::from_raw_parts_mut(start, rows.len() * size) };
        self.encoder.isa.layer_norm(&table.norm, sum, to);
    }

    /// A layer's queries, keys and values of some rows; the last layer's queries are left out.
    fn project(&self, layer: usize, rows: Range<usize>) {
        let size = self.encoder.hidden_size();
        let input = self.rows(self.hidden, &rows).read();
        let weights = &self.encoder.layers[layer];
        if layer + 1 < self.encoder.layers.len() {
            let output = self.projected.at(rows.start, 3 * size, 0);
            self.linear(
                &weights.query,
                rows.len(),
                input,
                output,
                Activation::None,
                None,
            );
        }
        let output = self.projected.at(rows.start, 3 * size, size);
        self.linear(
            &weights.key_value,
            rows.len(),
            input,
            output,
            Activation::None,
            None,
        );
    }

    /// Items of the attention's phase, and into how many chunks each head's queries are cut.
    fn attention_items(&self) -> (usize, usize) {
        let heads = self.batch.pairs() * self.encoder.attention_heads;
        let wanted = 4 * self.encoder.team.threads();
        let chunks = wanted.div_ceil(heads);
        (heads * chunks, chunks)
    }

    /// One head of one sequence, or a chunk of its queries.
    fn attend(&self, item: usize, chunks: usize, scratch: &mut Scratch) {
        let heads = self.encoder.attention_heads;
        let (sequence, head, chunk) = (item / chunks / heads, item / chunks % heads, item % chunks);
        let bounds = &self.batch.cu_seqlens[sequence..];
        let (start, length) = (bounds[0], bounds[1] - bounds[0]);
        let (size, head_size) = self.sizes();
        let queries = part(length, chunks, chunk);
        let column = head * head_size;
        let (keys, values) = self.keys_values(start, column);
        let call = attention::Call {
            queries: self.projected.at(start, 3 * size, column).read(),
            keys,
            values,
            output: self.context.at(start, size, column),
            length,
            head_size,
            from: queries.start,
            to: queries.end,
        };
        if !queries.is_empty() {
            // SAFETY: the sequence's rows; only this item writes its queries' part of the output.
            unsafe { self.encoder.isa.attention(&call, scratch) }
        }
    }

    /// Hidden size and head size.
    fn sizes(&self) -> (usize, usize) {
        let size = self.encoder.hidden_size();
        (size, size / self.encoder.attention_heads)
    }

    /// A head's keys and values of a sequence.
    fn keys_values(&self, start: usize, column: usize) -> (Rows<*const f32>, Rows<*const f32>) {
        let size = self.encoder.hidden_size();
        let at = |place: usize| {
            self.projected
                .at(start, 3 * size, place * size + column)
                .read()
        };
        (at(1), at(2))
    }

    /// All of a layer that comes after the attention, from `context` to `hidden`, row by row.
    fn finish_layer(
        &self,
        layer: &EncoderLayer,
        context: Rows<*mut f32>,
        hidden: Rows<*mut f32>,
        rows: usize,
        buffers: &mut ThreadBuffers,
    ) {
        let (size, wide) = (self.encoder.hidden_size(), layer.intermediate.outputs());
        buffers.sum.reserve(rows * size);
        buffers.wide.reserve(rows * wide);
        let sum = Rows {
            start: buffers.sum.as_mut_ptr(),
            stride: size,
        };
        let wide = Rows {
            start: buffers.wide.as_mut_ptr(),
            stride: wide,
        };
        let residual = Some(hidden.read());
        let none = Activation::None;
        self.linear(
            &layer.attention_output,
            rows,
            context.read(),
            sum,
            none,
            residual,
        );
        self.normalise(&layer.attention_norm, sum, hidden, rows);
        let activation = self.encoder.activation;
        self.linear(
            &layer.intermediate,
            rows,
            hidden.read(),
            wide,
            activation,
            None,
        );
        self.linear(&layer.output, rows, wide.read(), sum, none, residual);
        self.normalise(&layer.output_norm, sum, hidden, rows);
    }

    fn normalise(&self, norm: &LayerNorm, from: Rows<*mut f32>, to: Rows<*mut f32>, rows: usize) {
        let length = rows * norm.weight.len();
        // SAFETY: both are this item's own, `rows` rows without gaps, and do not overlap.
        let (from, to) = unsafe {
            (
                std::slice::from_raw_parts(from.start, length),
                std::slice::from_raw_parts_mut(to.start, length),
            )
        };
        self.encoder.isa.layer_norm(norm, from, to);
    }

    /// The last layer and the head, for the first tokens of some sequences.
    fn last_layer(&self, sequences: Range<usize>, buffers: &mut ThreadBuffers) {
        let Some(layer) = self.encoder.layers.last() else {
            return;
        };
        let ((size, head_size), rows) = (self.sizes(), sequences.len());
        for buffer in [&mut buffers.first, &mut buffers.query, &mut buffers.context] {
            buffer.reserve(rows * size);
        }
        let at = |buffer: &mut Aligned| Rows {
            start: buffer.as_mut_ptr(),
            stride: size,
        };
        let (first, query) = (at(&mut buffers.first), at(&mut buffers.query));
        let context = at(&mut buffers.context);
        for (row, sequence) in sequences.clone().enumerate() {
            let from = self
                .hidden
                .at(self.batch.cu_seqlens[sequence], size, 0)
                .start;
            // SAFETY: a row of the hidden states, which nobody writes in this phase.
            unsafe { from.copy_to_nonoverlapping(first.start.add(row * size), size) }
        }
        self.linear(
            &layer.query,
            rows,
            first.read(),
            query,
            Activation::None,
            None,
        );
        for (row, sequence) in sequences.clone().enumerate() {
            let bounds = &self.batch.cu_seqlens[sequence..];
            for column in (0..size).step_by(head_size) {
                let (keys, values) = self.keys_values(bounds[0], column);
                let own = |rows: Rows<*mut f32>| Rows {
                    start: rows.start.wrapping_add(row * size + column),
                    stride: size,
                };
                let call = attention::Call {
                    queries: own(query).read(),
                    keys,
                    values,
                    output: own(context),
                    length: bounds[1] - bounds[0],
                    head_size,
                    from: 0,
                    to: 1,
                };
                // SAFETY: one query of this thread's buffer against the sequence's rows.
                unsafe { self.encoder.isa.attention(&call, &mut buffers.attention) }
            }
        }
        self.finish_layer(layer, context, first, rows, buffers);
        let head = &self.encoder.head;
        self.linear(
            &head.dense,
            rows,
            first.read(),
            query,
            Activation::None,
            None,
        );
        for (row, sequence) in sequences.enumerate() {
            // SAFETY: a row of this thread's buffer; the logit is this item's own.
            unsafe {
                let start = query.start.add(row * size);
                let dense = std::slice::from_raw_parts(start, size);
                let products = dense.iter().zip(&head.weight).map(|(x, w)| x.tanh() * w);
                *self.logits.0.add(sequence) = products.sum::<f32>() + head.bias;
            }
        }
    }

    /// Runs a linear layer on rows that this item may write.
    fn linear(
        &self,
        layer: &Linear,
        rows: usize,
        input: Rows<*const f32>,
        output: Rows<*mut f32>,
        activation: Activation,
        residual: Option<Rows<*const f32>>,
    ) {
        let call = Call {
            layer,
            rows,
            input,
            output,
            activation,
            residual,
        };
        // SAFETY: the callers pass rows of buffers that they have made large enough and that are
        // theirs alone in this phase.
        unsafe { self.encoder.isa.linear(&call) }
    }
}

/// Part `i` of `0..whole` cut into `parts` as even as can be.
fn part(whole: usize, parts: usize, i: usize) -> Range<usize> {
    whole * i / parts..whole * (i + 1) / parts
}
