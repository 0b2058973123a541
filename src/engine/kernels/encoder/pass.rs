//! One batch's way through the encoder: phases, their items, and who writes what.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::super::int8::Quantised;
use super::super::linear::{Call, Rows};
use super::super::team::Member;
use super::super::{LayerNorm, Scratch, attention};
use super::plan::Plan;
use super::state::{Activations, Shared, State, ThreadBuffers, WorkBuffers};
use super::{Encoder, EncoderLayer};
use crate::types::Batch;

/// Rows in a block: enough to make the weights' way through the cache worth while, few enough for
/// the widest activations to stay in the second-level cache.
const BLOCK_ROWS: usize = 96;

/// One batch on its way.
pub(super) struct Pass<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) batch: &'a Batch,
    pub(super) plan: &'a Plan,
    pub(super) positions: &'a [u32],
    /// All threads' activations, unless groups keep their own.
    pub(super) shared: State,
    pub(super) first: Shared,
    pub(super) first_context: Shared,
    pub(super) logits: Shared,
    pub(super) threads: &'a [Mutex<ThreadBuffers>],
}

impl Pass<'_> {
    /// What every thread does.
    pub(super) fn walk(&self, member: &mut Member<'_>) {
        let buffers = &self.threads[member.index()];
        let mut buffers = buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let ThreadBuffers { group, work } = &mut *buffers;
        if self.plan.whole_groups {
            member.phase(self.plan.groups.len(), |i| {
                self.group(self.plan.groups[i].clone(), group, work);
            });
        } else {
            self.phases(member, work);
        }
        let blocks = self.blocks(self.batch.pairs(), BLOCK_ROWS / 4);
        member.phase(blocks, |i| {
            self.finish(part(self.batch.pairs(), blocks, i), work)
        });
    }

    /// Takes a group of sequences through all layers.
    fn group(&self, sequences: Range<usize>, group: &mut Activations, work: &mut WorkBuffers) {
        let bounds = &self.batch.cu_seqlens;
        let rows = bounds[sequences.start]..bounds[sequences.end];
        let state = group.of(rows.clone(), self.encoder.hidden_size());
        let blocks = rows.len().div_ceil(BLOCK_ROWS);
        let block = |i| {
            let block = part(rows.len(), blocks, i);
            rows.start + block.start..rows.start + block.end
        };
        for i in 0..blocks {
            self.embed(&state, block(i), work);
            self.project(&state, 0, block(i), &mut work.quantised);
        }
        for layer in 0..self.encoder.layers.len() - 1 {
            for sequence in sequences.clone() {
                let length = bounds[sequence + 1] - bounds[sequence];
                for head in 0..self.encoder.attention_heads {
                    self.attend(&state, sequence, head, 0..length, &mut work.attention);
                }
            }
            for i in 0..blocks {
                self.rest_of_layer(&state, layer, block(i), work);
            }
        }
        self.first_tokens(&state, sequences, work);
    }

    /// Takes the whole batch through the layers together with the other threads.
    fn phases(&self, member: &mut Member<'_>, work: &mut WorkBuffers) {
        let (state, tokens) = (&self.shared, self.batch.tokens());
        let blocks = self.blocks(tokens, BLOCK_ROWS);
        member.phase(blocks, |i| {
            let rows = part(tokens, blocks, i);
            self.embed(state, rows.clone(), work);
            self.project(state, 0, rows, &mut work.quantised);
        });
        // One item is a head of a sequence, or a chunk of its queries where there are few.
        let heads = self.encoder.attention_heads;
        let items = self.batch.pairs() * heads;
        let chunks = (4 * self.encoder.team.threads()).div_ceil(items);
        for layer in 0..self.encoder.layers.len() - 1 {
            member.phase(items * chunks, |i| {
                let (sequence, head) = (i / chunks / heads, i / chunks % heads);
                let bounds = &self.batch.cu_seqlens[sequence..];
                let queries = part(bounds[1] - bounds[0], chunks, i % chunks);
                self.attend(state, sequence, head, queries, &mut work.attention);
            });
            member.phase(blocks, |i| {
                self.rest_of_layer(state, layer, part(tokens, blocks, i), work);
            });
        }
        let threads = self.blocks(self.batch.pairs(), self.batch.pairs());
        member.phase(threads, |i| {
            self.first_tokens(state, part(self.batch.pairs(), threads, i), work);
        });
    }

    /// How many blocks to cut `rows` into: at most `most` rows each, and as many for each thread.
    fn blocks(&self, rows: usize, most: usize) -> usize {
        let threads = self.encoder.team.threads();
        rows.div_ceil(most).next_multiple_of(threads).min(rows)
    }

    fn embed(&self, state: &State, rows: Range<usize>, work: &mut WorkBuffers) {
        let (size, table) = (self.encoder.hidden_size(), &self.encoder.embeddings);
        work.sum.reserve(rows.len() * size);
        let sum = &mut work.sum.as_mut_slice()[..rows.len() * size];
        let row = |id: u32| id as usize * size..(id as usize + 1) * size;
        for (token, out) in rows.clone().zip(sum.chunks_exact_mut(size)) {
            table.word.read(self.batch.ids[token] as usize, out);
            let position = &table.position[row(self.positions[token])];
            let kind = &table.token_type[row(self.batch.type_ids[token])];
            for ((o, p), t) in out.iter_mut().zip(position).zip(kind) {
                *o += p + t;
            }
        }
        let start = state.hidden(rows.start).start;
        // SAFETY: the block's own rows of the hidden states.
        let to = unsafe { std::slice::from_raw_parts_mut(start, rows.len() * size) };
        self.encoder.isa.layer_norm(&table.norm, sum, to);
    }

    /// A layer's queries, keys and values of some rows; the last layer's queries are left out.
    fn project(&self, state: &State, layer: usize, rows: Range<usize>, quantised: &mut Quantised) {
        let input = state.hidden(rows.start).read();
        let weights = &self.encoder.layers[layer];
        if layer + 1 < self.encoder.layers.len() {
            let output = state.projected(rows.start, 0, 0);
            let call = Call::plain(&weights.query, rows.len(), input, output);
            self.linear(&call, quantised);
        }
        let output = state.projected(rows.start, 1, 0);
        let call = Call::plain(&weights.key_value, rows.len(), input, output);
        self.linear(&call, quantised);
    }

    /// Some queries of one head of one sequence.
    fn attend(
        &self,
        state: &State,
        sequence: usize,
        head: usize,
        queries: Range<usize>,
        scratch: &mut Scratch,
    ) {
        if queries.is_empty() {
            return;
        }
        let bounds = &self.batch.cu_seqlens[sequence..];
        let head_size = self.head_size();
        let column = head * head_size;
        let call = attention::Call {
            queries: state.projected(bounds[0], 0, column).read(),
            keys: state.projected(bounds[0], 1, column).read(),
            values: state.projected(bounds[0], 2, column).read(),
            output: state.context(bounds[0], column),
            length: bounds[1] - bounds[0],
            head_size,
            from: queries.start,
            to: queries.end,
        };
        // SAFETY: the sequence's rows; only this item writes its queries' part of the output.
        unsafe { self.encoder.isa.attention(&call, scratch) }
    }

    fn head_size(&self) -> usize {
        self.encoder.hidden_size() / self.encoder.attention_heads
    }

    /// What of a layer comes after the attention, and the next layer's projections.
    fn rest_of_layer(
        &self,
        state: &State,
        layer: usize,
        rows: Range<usize>,
        work: &mut WorkBuffers,
    ) {
        let (context, hidden) = (state.context(rows.start, 0), state.hidden(rows.start));
        self.finish_layer(
            &self.encoder.layers[layer],
            context,
            hidden,
            rows.len(),
            work,
        );
        self.project(state, layer + 1, rows, &mut work.quantised);
    }

    /// The last layer's attention for the first tokens of some sequences.
    fn first_tokens(&self, state: &State, sequences: Range<usize>, work: &mut WorkBuffers) {
        let Some(layer) = self.encoder.layers.last() else {
            return;
        };
        let (size, head_size, rows) = (
            self.encoder.hidden_size(),
            self.head_size(),
            sequences.len(),
        );
        work.query.reserve(rows * size);
        let query = Rows {
            start: work.query.as_mut_ptr(),
            stride: size,
        };
        let first = self.first.at(sequences.start, size, 0);
        for (row, sequence) in sequences.clone().enumerate() {
            let from = state.hidden(self.batch.cu_seqlens[sequence]).start;
            // SAFETY: a row of the hidden states, which nobody writes in this phase, and the
            // sequence's own row of the first tokens.
            unsafe { from.copy_to_nonoverlapping(first.start.add(row * size), size) }
        }
        let call = Call::plain(&layer.query, rows, first.read(), query);
        self.linear(&call, &mut work.quantised);
        for (row, sequence) in sequences.enumerate() {
            let bounds = &self.batch.cu_seqlens[sequence..];
            for column in (0..size).step_by(head_size) {
                let start = query.start.wrapping_add(row * size + column);
                let call = attention::Call {
                    queries: Rows {
                        start: start.cast_const(),
                        stride: size,
                    },
                    keys: state.projected(bounds[0], 1, column).read(),
                    values: state.projected(bounds[0], 2, column).read(),
                    output: self.first_context.at(sequence, size, column),
                    length: bounds[1] - bounds[0],
                    head_size,
                    from: 0,
                    to: 1,
                };
                // SAFETY: one query of this thread's buffer against the sequence's rows.
                unsafe { self.encoder.isa.attention(&call, &mut work.attention) }
            }
        }
    }

    /// The rest of the last layer, and the head, for the first tokens of some sequences.
    fn finish(&self, sequences: Range<usize>, work: &mut WorkBuffers) {
        let Some(layer) = self.encoder.layers.last() else {
            return;
        };
        let (size, rows) = (self.encoder.hidden_size(), sequences.len());
        let first = self.first.at(sequences.start, size, 0);
        let context = self.first_context.at(sequences.start, size, 0);
        self.finish_layer(layer, context, first, rows, work);
        work.query.reserve(rows * size);
        let output = Rows {
            start: work.query.as_mut_ptr(),
            stride: size,
        };
        let head = &self.encoder.head;
        let call = Call::plain(&head.dense, rows, first.read(), output);
        self.linear(&call, &mut work.quantised);
        let dense = work.query.as_mut_slice().chunks_exact(size);
        for (sequence, dense) in sequences.zip(dense) {
            let products = dense.iter().zip(&head.weight).map(|(x, w)| x.tanh() * w);
            // SAFETY: the logit is this item's own.
            unsafe { *self.logits.0.add(sequence) = products.sum::<f32>() + head.bias }
        }
    }

    /// All of a layer that comes after the attention, from `context` to `hidden`, row by row.
    fn finish_layer(
        &self,
        layer: &EncoderLayer,
        context: Rows<*mut f32>,
        hidden: Rows<*mut f32>,
        rows: usize,
        buffers: &mut WorkBuffers,
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
        let call = Call {
            residual,
            ..Call::plain(&layer.attention_output, rows, context.read(), sum)
        };
        self.linear(&call, &mut buffers.quantised);
        self.normalise(&layer.attention_norm, sum, hidden, rows);
        let call = Call {
            activation: self.encoder.activation,
            ..Call::plain(&layer.intermediate, rows, hidden.read(), wide)
        };
        self.linear(&call, &mut buffers.quantised);
        let call = Call {
            residual,
            ..Call::plain(&layer.output, rows, wide.read(), sum)
        };
        self.linear(&call, &mut buffers.quantised);
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

    /// Runs a linear layer on rows that this item may write.
    fn linear(&self, call: &Call<'_>, quantised: &mut Quantised) {
        // SAFETY: the callers pass rows of buffers that they have made large enough and that are
        // theirs alone in this phase.
        unsafe { self.encoder.isa.linear(call, quantised) }
    }
}

/// Part `i` of `0..whole` cut into `parts` as even as can be.
fn part(whole: usize, parts: usize, i: usize) -> Range<usize> {
    whole * i / parts..whole * (i + 1) / parts
}
