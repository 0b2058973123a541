//! One batch's way through the encoder: the items of each round, and what is done with one.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rerankd_kernels::{Bias, Epilogue, Lead, Places, Rows, RowsMut, Scratch};

use super::super::arch::Pooling;
use super::Encoder;
use super::relative::RelativeTables;
use super::workspace::{Activations, ThreadBuffers, WorkBuffers};
use crate::Batch;

/// Rows in a block: enough to make the weights' way through the cache worth while, few enough for
/// the widest activations to stay in the second-level cache.
const BLOCK_ROWS: usize = 96;

/// One batch on its way.
pub(super) struct Pass<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) batch: &'a Batch,
    /// `[tokens]`
    pub(super) places: &'a [u32],
    pub(super) relative: &'a RelativeTables,
    pub(super) threads: &'a [Mutex<ThreadBuffers>],
}

/// What the head reads of some sequences, `[sequences, hidden size]`; where that is of first tokens, with their
/// attention outputs.
struct Pooled<'a> {
    sequences: Range<usize>,
    hidden: RowsMut<'a>,
    context: RowsMut<'a>,
}

/// Some queries of a sequence.
#[derive(Clone, Copy)]
struct Queries<'a> {
    /// `[queries, head size]`
    rows: Rows<'a>,
    /// Where in the sequence the first of them stands.
    first: usize,
}

impl Pass<'_> {
    /// Takes each group of sequences through all layers on one thread.
    pub(super) fn groups(
        &self,
        lead: &mut Lead<'_>,
        groups: &[Range<usize>],
        pooled: RowsMut<'_>,
        context: RowsMut<'_>,
    ) {
        // Their rows are cut in the sequences' order, and begun in the plan's.
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|&i| groups[i].start);
        let sequences = order.iter().map(|&i| groups[i].clone()).collect();
        let mut items: Vec<_> = order.iter().zip(cut(sequences, pooled, context)).collect();
        items.sort_by_key(|(i, _)| **i);
        lead.each(items, |thread, (_, pooled)| {
            let ThreadBuffers { group, work } = &mut *self.buffers(thread);
            self.group(pooled, group, work);
        });
    }

    fn group(&self, mut pooled: Pooled<'_>, group: &mut Activations, work: &mut WorkBuffers) {
        let (bounds, sequences) = (self.batch.bounds(), pooled.sequences.clone());
        let rows = bounds[sequences.start]..bounds[sequences.end];
        let size = self.encoder.hidden_size();
        let mut hidden = group.hidden.rows(rows.len(), size);
        let mut projected = group.projected.rows(rows.len(), 3 * size);
        let blocks = parts(rows.len(), rows.len().div_ceil(BLOCK_ROWS));
        let hiddens = hidden.borrow().cut_rows(blocks.iter().map(Range::len));
        let outputs = projected.borrow().cut_rows(blocks.iter().map(Range::len));
        for ((block, mut hidden), projected) in blocks.iter().zip(hiddens).zip(outputs) {
            let tokens = rows.start + block.start..rows.start + block.end;
            self.embed(tokens.clone(), &mut hidden, work);
            self.project(0, tokens, hidden.read(), projected, work);
        }
        for layer in 0..self.encoder.whole_layers() {
            let mut context = group.context.rows(rows.len(), size);
            let lengths = sequences.clone().map(|i| bounds[i + 1] - bounds[i]);
            let contexts = context.borrow().cut_rows(lengths);
            for (sequence, context) in sequences.clone().zip(contexts) {
                let start = bounds[sequence] - rows.start;
                let of_sequence = start..bounds[sequence + 1] - rows.start;
                let projected = projected.read().rows(of_sequence);
                for (head, mut output) in context.cut_columns(self.head_size()).enumerate() {
                    let rows = self.head(projected, 0, head);
                    let queries = Queries { rows, first: 0 };
                    let scratch = &mut work.scratch;
                    self.attend(layer, queries, projected, head, &mut output, scratch);
                }
            }
            let hiddens = hidden.borrow().cut_rows(blocks.iter().map(Range::len));
            let outputs = projected.borrow().cut_rows(blocks.iter().map(Range::len));
            for ((block, mut hidden), projected) in blocks.iter().zip(hiddens).zip(outputs) {
                let tokens = rows.start + block.start..rows.start + block.end;
                let context = context.read().rows(block.clone());
                self.finish_layer(self.encoder.layer(layer), context, &mut hidden, work);
                self.project(layer + 1, tokens, hidden.read(), projected, work);
            }
        }
        match self.encoder.arch.head.pooling {
            Pooling::First => {
                self.first_tokens(rows.start, hidden.read(), projected.read(), pooled, work);
            }
            Pooling::Mean => {
                let mut normed = group.context.rows(rows.len(), size);
                let rows = sequences.map(|i| bounds[i] - rows.start..bounds[i + 1] - rows.start);
                for (i, rows) in rows.enumerate() {
                    let hidden = hidden.read().rows(rows.clone());
                    let count = rows.len();
                    let mut normed = normed.borrow().split_rows(count).0;
                    self.mean(hidden, &mut normed, pooled.hidden.row(i));
                }
            }
        }
    }

    /// Takes the whole batch through the layers on all threads together.
    pub(super) fn rounds(
        &self,
        lead: &mut Lead<'_>,
        shared: &mut Activations,
        pooled: RowsMut<'_>,
        context_of_first: RowsMut<'_>,
    ) {
        let (size, tokens) = (self.encoder.hidden_size(), self.batch.tokens());
        let bounds = self.batch.bounds();
        let mut hidden = shared.hidden.rows(tokens, size);
        let mut projected = shared.projected.rows(tokens, 3 * size);
        let mut context = shared.context.rows(tokens, size);
        let blocks = parts(tokens, self.blocks(tokens, BLOCK_ROWS));
        let lengths = || blocks.iter().map(Range::len);
        let hiddens = hidden.borrow().cut_rows(lengths());
        let outputs = projected.borrow().cut_rows(lengths());
        let items = blocks.iter().zip(hiddens).zip(outputs);
        lead.each(items, |thread, ((tokens, mut hidden), projected)| {
            let work = &mut self.buffers(thread).work;
            self.embed(tokens.clone(), &mut hidden, work);
            self.project(0, tokens.clone(), hidden.read(), projected, work);
        });
        // One item is a head of a sequence, or a part of its queries where there are few.
        let heads = self.encoder.arch.attention.heads;
        let chunks = (4 * self.encoder.team.threads()).div_ceil(self.batch.sequences() * heads);
        for layer in 0..self.encoder.whole_layers() {
            let contexts = context.borrow().cut_rows(self.batch.lengths());
            let items = contexts.enumerate().flat_map(|(sequence, rows)| {
                let length = rows.len();
                let heads = rows.cut_columns(self.head_size()).enumerate();
                heads.flat_map(move |(head, rows)| {
                    let queries = parts(length, chunks.min(length));
                    let outputs = rows.cut_rows(queries.clone().into_iter().map(|q| q.len()));
                    let items = queries.into_iter().zip(outputs);
                    items.map(move |(queries, output)| (sequence, head, queries, output))
                })
            });
            let projections = projected.read();
            lead.each(items, |thread, (sequence, head, queries, mut output)| {
                let work = &mut self.buffers(thread).work;
                let projected = projections.rows(bounds[sequence]..bounds[sequence + 1]);
                let first = queries.start;
                let rows = self.head(projected, 0, head).rows(queries);
                let (queries, scratch) = (Queries { rows, first }, &mut work.scratch);
                self.attend(layer, queries, projected, head, &mut output, scratch);
            });
            let hiddens = hidden.borrow().cut_rows(lengths());
            let outputs = projected.borrow().cut_rows(lengths());
            let items = blocks.iter().zip(hiddens).zip(outputs);
            lead.each(items, |thread, ((block, mut hidden), projected)| {
                let work = &mut self.buffers(thread).work;
                let context = context.read().rows(block.clone());
                self.finish_layer(self.encoder.layer(layer), context, &mut hidden, work);
                self.project(layer + 1, block.clone(), hidden.read(), projected, work);
            });
        }
        let sequences = self.batch.sequences();
        match self.encoder.arch.head.pooling {
            Pooling::First => {
                let parts = parts(sequences, self.blocks(sequences, sequences));
                let items = cut(parts, pooled, context_of_first);
                lead.each(items, |thread, pooled| {
                    let work = &mut self.buffers(thread).work;
                    self.first_tokens(0, hidden.read(), projected.read(), pooled, work);
                });
            }
            Pooling::Mean => {
                let normed = context.cut_rows(self.batch.lengths());
                let means = pooled.cut_rows((0..sequences).map(|_| 1));
                let items = normed.zip(means).enumerate();
                lead.each(items, |_, (i, (mut normed, mut mean))| {
                    let hidden = hidden.read().rows(bounds[i]..bounds[i + 1]);
                    self.mean(hidden, &mut normed, mean.row(0));
                });
            }
        }
    }

    /// The mean of a sequence's hidden states, normalised if the encoder ends with a norm, for which there is room in
    /// `normed`.
    fn mean(&self, hidden: Rows<'_>, normed: &mut RowsMut<'_>, mean: &mut [f32]) {
        let kernels = self.encoder.kernels;
        match &self.encoder.final_norm {
            Some(norm) => {
                kernels.layer_norm(norm, hidden, normed);
                kernels.mean(normed.read(), mean);
            }
            None => kernels.mean(hidden, mean),
        }
    }

    /// What is left of the last layer for first tokens, and the head.
    pub(super) fn finish(
        &self,
        lead: &mut Lead<'_>,
        pooled: RowsMut<'_>,
        context: RowsMut<'_>,
        logits: &mut [f32],
    ) {
        let (encoder, sequences) = (self.encoder, self.batch.sequences());
        let (layer, labels) = (
            encoder.layer(encoder.arch.layers - 1),
            encoder.arch.head.labels.len(),
        );
        let blocks = parts(sequences, self.blocks(sequences, BLOCK_ROWS / 4));
        let lengths: Vec<usize> = blocks.iter().map(Range::len).collect();
        let logits = RowsMut::new(logits, labels).cut_rows(lengths);
        let items = cut(blocks, pooled, context).zip(logits);
        lead.each(items, |thread, (mut pooled, mut logits)| {
            let work = &mut self.buffers(thread).work;
            if encoder.arch.head.pooling == Pooling::First {
                self.finish_layer(layer, pooled.context.read(), &mut pooled.hidden, work);
                if let Some(norm) = &encoder.final_norm {
                    let hidden = pooled.hidden.read();
                    encoder
                        .kernels
                        .layer_norm(norm, hidden, &mut pooled.context);
                    pooled.hidden = pooled.context;
                }
            }
            self.head_steps(pooled.hidden.read(), &mut logits, work);
        });
    }

    /// Some queries of one head of one sequence, whose projections are `projected`.
    fn attend(
        &self,
        layer: usize,
        queries: Queries<'_>,
        projected: Rows<'_>,
        head: usize,
        output: &mut RowsMut<'_>,
        scratch: &mut Scratch,
    ) {
        let (keys, values) = (self.head(projected, 1, head), self.head(projected, 2, head));
        let disentangled = &self.encoder.layer(layer).disentangled;
        let places = Places {
            first: queries.first,
            reach: self.encoder.arch.attention.reach(layer),
            bias: match disentangled {
                Some(positions) => Bias::Disentangled(positions.head(head)),
                None => self.relative.bias(head),
            },
        };
        let kernels = self.encoder.kernels;
        kernels.attention(queries.rows, keys, values, places, output, scratch);
    }

    /// One head's queries, keys or values (`which` 0, 1 or 2) of some projections.
    fn head<'a>(&self, projected: Rows<'a>, which: usize, head: usize) -> Rows<'a> {
        let start = which * self.encoder.hidden_size() + head * self.head_size();
        projected.columns(start..start + self.head_size())
    }

    fn head_size(&self) -> usize {
        self.encoder.arch.head_size()
    }

    /// The last layer's attention for the first tokens of some sequences, given the hidden states and
    /// projections of the tokens from `origin` on.
    fn first_tokens(
        &self,
        origin: usize,
        hidden: Rows<'_>,
        projected: Rows<'_>,
        mut pooled: Pooled<'_>,
        work: &mut WorkBuffers,
    ) {
        let (layer, size) = (self.encoder.arch.layers - 1, self.encoder.hidden_size());
        let bounds = self.batch.bounds();
        let count = pooled.hidden.len();
        for (i, sequence) in pooled.sequences.clone().enumerate() {
            let from = hidden.row(bounds[sequence] - origin);
            pooled.hidden.row(i).copy_from_slice(from);
        }
        let mut queries = work.query.rows(count, size);
        let mut normed = work.normed.rows(count, size);
        let input = self.normalise_before(layer, pooled.hidden.read(), &mut normed);
        let (weights, scratch) = (self.encoder.layer(layer), &mut work.scratch);
        weights
            .query
            .run(input, Epilogue::default(), &mut queries, scratch);
        if let Some(rotary) = self.rotary(layer) {
            let places = pooled.sequences.clone().map(|i| self.places[bounds[i]]);
            let places: Vec<u32> = places.collect();
            self.encoder
                .kernels
                .rotate(rotary, &places, queries.borrow());
        }
        let contexts = pooled.context.cut_rows((0..count).map(|_| 1));
        for ((i, sequence), context) in pooled.sequences.enumerate().zip(contexts) {
            let of_sequence = bounds[sequence] - origin..bounds[sequence + 1] - origin;
            let projected = projected.rows(of_sequence);
            let query = queries.read().rows(i..i + 1);
            for (head, mut output) in context.cut_columns(self.head_size()).enumerate() {
                let rows = self.head(query, 0, head);
                let query = Queries { rows, first: 0 };
                self.attend(layer, query, projected, head, &mut output, scratch);
            }
        }
    }

    /// How many blocks to cut `rows` into: at most `most` rows each, and as many for each thread.
    fn blocks(&self, rows: usize, most: usize) -> usize {
        let threads = self.encoder.team.threads();
        rows.div_ceil(most).next_multiple_of(threads).min(rows)
    }

    /// A thread's own buffers; nobody else asks for them.
    fn buffers(&self, thread: usize) -> MutexGuard<'_, ThreadBuffers> {
        self.threads[thread]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts the rows that the head reads by their sequences, which follow each other from 0 on.
fn cut<'a>(
    sequences: Vec<Range<usize>>,
    hidden: RowsMut<'a>,
    context: RowsMut<'a>,
) -> impl Iterator<Item = Pooled<'a>> {
    let counts: Vec<usize> = sequences.iter().map(Range::len).collect();
    let rows = hidden
        .cut_rows(counts.clone())
        .zip(context.cut_rows(counts));
    sequences
        .into_iter()
        .zip(rows)
        .map(|(sequences, (hidden, context))| Pooled {
            sequences,
            hidden,
            context,
        })
}

/// `0..whole` cut into `count` parts as even as can be.
fn parts(whole: usize, count: usize) -> Vec<Range<usize>> {
    (0..count)
        .map(|i| whole * i / count..whole * (i + 1) / count)
        .collect()
}
