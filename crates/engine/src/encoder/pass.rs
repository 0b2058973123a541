//! One batch's way through the encoder: the items of each round, and what is done with one.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rerankd_kernels::{Epilogue, Lead, Places, Rows, RowsMut, Scratch};

use super::workspace::{Activations, ThreadBuffers, WorkBuffers};
use super::{Encoder, EncoderLayer};
use crate::Batch;

/// Rows in a block: enough to make the weights' way through the cache worth while, few enough for
/// the widest activations to stay in the second-level cache.
const BLOCK_ROWS: usize = 96;

/// One batch on its way.
pub(super) struct Pass<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) batch: &'a Batch,
    /// `[tokens]`
    pub(super) positions: &'a [u32],
    pub(super) threads: &'a [Mutex<ThreadBuffers>],
}

/// Some sequences' first tokens: hidden states and attention outputs, `[sequences, hidden size]`.
struct FirstTokens<'a> {
    sequences: Range<usize>,
    hidden: RowsMut<'a>,
    context: RowsMut<'a>,
}

impl Pass<'_> {
    /// Takes each group of sequences through all layers on one thread.
    pub(super) fn groups(
        &self,
        lead: &mut Lead<'_>,
        groups: &[Range<usize>],
        first: RowsMut<'_>,
        context: RowsMut<'_>,
    ) {
        // Their rows are cut in the sequences' order, and begun in the plan's.
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|&i| groups[i].start);
        let sequences = order.iter().map(|&i| groups[i].clone()).collect();
        let mut items: Vec<_> = order.iter().zip(cut(sequences, first, context)).collect();
        items.sort_by_key(|(i, _)| **i);
        lead.each(items, |thread, (_, first)| {
            let ThreadBuffers { group, work } = &mut *self.buffers(thread);
            self.group(first, group, work);
        });
    }

    fn group(&self, first: FirstTokens<'_>, group: &mut Activations, work: &mut WorkBuffers) {
        let (bounds, sequences) = (self.batch.bounds(), first.sequences.clone());
        let rows = bounds[sequences.start]..bounds[sequences.end];
        let size = self.encoder.hidden_size();
        let mut hidden = group.hidden.rows(rows.len(), size);
        let mut projected = group.projected.rows(rows.len(), 3 * size);
        let blocks = parts(rows.len(), rows.len().div_ceil(BLOCK_ROWS));
        let hiddens = hidden.borrow().cut_rows(blocks.iter().map(Range::len));
        let outputs = projected.borrow().cut_rows(blocks.iter().map(Range::len));
        for ((block, mut hidden), projected) in blocks.iter().zip(hiddens).zip(outputs) {
            let tokens = rows.start + block.start..rows.start + block.end;
            self.embed(tokens, &mut hidden, work);
            self.project(0, hidden.read(), projected, work);
        }
        for layer in 0..self.encoder.layers.len() - 1 {
            let mut context = group.context.rows(rows.len(), size);
            let lengths = sequences.clone().map(|i| bounds[i + 1] - bounds[i]);
            let contexts = context.borrow().cut_rows(lengths);
            for (sequence, context) in sequences.clone().zip(contexts) {
                let start = bounds[sequence] - rows.start;
                let of_sequence = start..bounds[sequence + 1] - rows.start;
                let projected = projected.read().rows(of_sequence);
                for (head, mut output) in context.cut_columns(self.head_size()).enumerate() {
                    let queries = self.head(projected, 0, head);
                    self.attend(queries, projected, head, &mut output, &mut work.scratch);
                }
            }
            let hiddens = hidden.borrow().cut_rows(blocks.iter().map(Range::len));
            let outputs = projected.borrow().cut_rows(blocks.iter().map(Range::len));
            for ((block, mut hidden), projected) in blocks.iter().zip(hiddens).zip(outputs) {
                let context = context.read().rows(block.clone());
                self.finish_layer(&self.encoder.layers[layer], context, &mut hidden, work);
                self.project(layer + 1, hidden.read(), projected, work);
            }
        }
        self.first_tokens(rows.start, hidden.read(), projected.read(), first, work);
    }

    /// Takes the whole batch through the layers on all threads together.
    pub(super) fn rounds(
        &self,
        lead: &mut Lead<'_>,
        shared: &mut Activations,
        first: RowsMut<'_>,
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
            self.project(0, hidden.read(), projected, work);
        });
        // One item is a head of a sequence, or a part of its queries where there are few.
        let heads = self.encoder.arch.attention.heads;
        let chunks = (4 * self.encoder.team.threads()).div_ceil(self.batch.sequences() * heads);
        for layer in 0..self.encoder.layers.len() - 1 {
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
                let queries = self.head(projected, 0, head).rows(queries);
                self.attend(queries, projected, head, &mut output, &mut work.scratch);
            });
            let hiddens = hidden.borrow().cut_rows(lengths());
            let outputs = projected.borrow().cut_rows(lengths());
            let contexts = blocks
                .iter()
                .map(|block| context.read().rows(block.clone()));
            let items = contexts.zip(hiddens).zip(outputs);
            lead.each(items, |thread, ((context, mut hidden), projected)| {
                let work = &mut self.buffers(thread).work;
                self.finish_layer(&self.encoder.layers[layer], context, &mut hidden, work);
                self.project(layer + 1, hidden.read(), projected, work);
            });
        }
        let pairs = self.batch.sequences();
        let items = cut(
            parts(pairs, self.blocks(pairs, pairs)),
            first,
            context_of_first,
        );
        lead.each(items, |thread, first| {
            let work = &mut self.buffers(thread).work;
            self.first_tokens(0, hidden.read(), projected.read(), first, work);
        });
    }

    /// The rest of the last layer, and the head, for the first tokens.
    pub(super) fn finish(
        &self,
        lead: &mut Lead<'_>,
        first: RowsMut<'_>,
        context: RowsMut<'_>,
        logits: &mut [f32],
    ) {
        let Some(layer) = self.encoder.layers.last() else {
            return;
        };
        let (pairs, size) = (self.batch.sequences(), self.encoder.hidden_size());
        let blocks = parts(pairs, self.blocks(pairs, BLOCK_ROWS / 4));
        let logits =
            RowsMut::new(logits, 1).cut_rows(blocks.iter().map(Range::len).collect::<Vec<_>>());
        let items = cut(blocks, first, context).zip(logits);
        let head = &self.encoder.head;
        lead.each(items, |thread, (mut first, mut logits)| {
            let work = &mut self.buffers(thread).work;
            self.finish_layer(layer, first.context.read(), &mut first.hidden, work);
            let mut dense = work.query.rows(first.hidden.len(), size);
            let input = first.hidden.read();
            head.dense
                .run(input, Epilogue::default(), &mut dense, &mut work.scratch);
            for i in 0..dense.len() {
                let products = dense
                    .row(i)
                    .iter()
                    .zip(&head.weight)
                    .map(|(x, w)| x.tanh() * w);
                logits.row(i)[0] = products.sum::<f32>() + head.bias;
            }
        });
    }

    /// Sums up and normalises some tokens' embeddings.
    fn embed(&self, tokens: Range<usize>, hidden: &mut RowsMut<'_>, work: &mut WorkBuffers) {
        let (size, table) = (self.encoder.hidden_size(), &self.encoder.embeddings);
        let mut sum = work.sum.rows(tokens.len(), size);
        let row = |id: u32| id as usize * size..(id as usize + 1) * size;
        for (i, token) in tokens.enumerate() {
            let out = sum.row(i);
            table.word.read(self.batch.ids()[token] as usize, out);
            let position = &table.position[row(self.positions[token])];
            let kind = &table.token_type[row(self.batch.type_ids()[token])];
            for ((o, p), t) in out.iter_mut().zip(position).zip(kind) {
                *o += p + t;
            }
        }
        let kernels = self.encoder.kernels;
        kernels.layer_norm(&table.norm, sum.read(), hidden);
    }

    /// A layer's queries, keys and values of some rows; the last layer's queries are left out.
    fn project(
        &self,
        layer: usize,
        hidden: Rows<'_>,
        projected: RowsMut<'_>,
        work: &mut WorkBuffers,
    ) {
        let weights = &self.encoder.layers[layer];
        let (mut queries, mut rest) = projected.split_columns(self.encoder.hidden_size());
        let (plain, scratch) = (Epilogue::default(), &mut work.scratch);
        if layer + 1 < self.encoder.layers.len() {
            weights.query.run(hidden, plain, &mut queries, scratch);
        }
        weights.key_value.run(hidden, plain, &mut rest, scratch);
    }

    /// Some queries of one head of one sequence, whose projections are `projected`.
    fn attend(
        &self,
        queries: Rows<'_>,
        projected: Rows<'_>,
        head: usize,
        output: &mut RowsMut<'_>,
        scratch: &mut Scratch,
    ) {
        let (keys, values) = (self.head(projected, 1, head), self.head(projected, 2, head));
        let kernels = self.encoder.kernels;
        kernels.attention(queries, keys, values, Places::default(), output, scratch);
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
        mut first: FirstTokens<'_>,
        work: &mut WorkBuffers,
    ) {
        let Some(layer) = self.encoder.layers.last() else {
            return;
        };
        let bounds = self.batch.bounds();
        for (i, sequence) in first.sequences.clone().enumerate() {
            let from = hidden.row(bounds[sequence] - origin);
            first.hidden.row(i).copy_from_slice(from);
        }
        let mut queries = work
            .query
            .rows(first.hidden.len(), self.encoder.hidden_size());
        let input = first.hidden.read();
        layer
            .query
            .run(input, Epilogue::default(), &mut queries, &mut work.scratch);
        let contexts = first.context.cut_rows(first.sequences.clone().map(|_| 1));
        for ((i, sequence), context) in first.sequences.enumerate().zip(contexts) {
            let of_sequence = bounds[sequence] - origin..bounds[sequence + 1] - origin;
            let projected = projected.rows(of_sequence);
            let query = queries.read().rows(i..i + 1);
            for (head, mut output) in context.cut_columns(self.head_size()).enumerate() {
                let query = self.head(query, 0, head);
                self.attend(query, projected, head, &mut output, &mut work.scratch);
            }
        }
    }

    /// All of a layer that comes after the attention, from `context` to `hidden`, row by row.
    fn finish_layer(
        &self,
        layer: &EncoderLayer,
        context: Rows<'_>,
        hidden: &mut RowsMut<'_>,
        work: &mut WorkBuffers,
    ) {
        let (size, kernels) = (self.encoder.hidden_size(), self.encoder.kernels);
        let mut sum = work.sum.rows(context.len(), size);
        let mut wide = work.wide.rows(context.len(), layer.intermediate.outputs());
        let scratch = &mut work.scratch;
        let attended = &layer.attention_output;
        attended.run(context, Epilogue::add(hidden.read()), &mut sum, scratch);
        kernels.layer_norm(&layer.attention_norm, sum.read(), hidden);
        let activated = Epilogue::activate(self.encoder.arch.feed_forward.activation);
        layer
            .intermediate
            .run(hidden.read(), activated, &mut wide, scratch);
        layer
            .output
            .run(wide.read(), Epilogue::add(hidden.read()), &mut sum, scratch);
        kernels.layer_norm(&layer.output_norm, sum.read(), hidden);
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

/// Cuts the first tokens' rows by their sequences, which follow each other from 0 on.
fn cut<'a>(
    sequences: Vec<Range<usize>>,
    hidden: RowsMut<'a>,
    context: RowsMut<'a>,
) -> impl Iterator<Item = FirstTokens<'a>> {
    let counts: Vec<usize> = sequences.iter().map(Range::len).collect();
    let rows = hidden
        .cut_rows(counts.clone())
        .zip(context.cut_rows(counts));
    sequences
        .into_iter()
        .zip(rows)
        .map(|(sequences, (hidden, context))| FirstTokens {
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
