//! One batch's way through the encoder: the items of each round, and what is done with one.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rerankd_kernels::{Bias, Dtype, Epilogue, KeyValues, Lead, Places, Rows, RowsMut, Scratch};

use super::super::arch::Pooling;
use super::Encoder;
use super::compression::Stage;
use super::layout::{Before, Layout};
use super::plan::parts;
use super::prefixes::Prefixes;
use super::relative::RelativeTables;
use super::rows::Hands;
use super::wanted::Wanted;
use super::workspace::{Activations, ThreadBuffers, WorkBuffers};

/// Rows in a block: enough to make the weights' way through the cache worth while, few enough for
/// the widest activations to stay in the second-level cache.
const BLOCK_ROWS: usize = 96;

/// One batch on its way.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) layout: &'a Layout,
    /// The parts of the way after the first.
    pub(super) later: &'a [Stage],
    pub(super) prefixes: &'a Prefixes,
    pub(super) relative: &'a RelativeTables,
    pub(super) threads: &'a [Mutex<ThreadBuffers>],
    pub(super) wanted: &'a Wanted<'a>,
}

/// What the head reads of some segments, `[outputs, hidden size]`; where that is of some tokens, with their
/// attention outputs, `[outputs, context width]`. What a decoder reads of them is of all tokens.
pub(super) struct Pooled<'a> {
    segments: Range<usize>,
    hidden: RowsMut<'a>,
    context: RowsMut<'a>,
}

/// Some queries of a segment.
#[derive(Clone, Copy)]
pub(super) struct Queries<'a> {
    /// `[queries, head size]`
    pub(super) rows: Rows<'a>,
    /// Where in the sequence the first of them stands.
    pub(super) first: usize,
}

/// What a segment's queries see in a layer.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    /// Keys and values of the tokens before it, `[tokens, 2 keys' width]`.
    before: Rows<'a>,
    /// Those of its own, likewise.
    own: Rows<'a>,
}

impl Pass<'_> {
    /// Takes each group of segments through all layers on one thread; none needs what is computed of others.
    pub(super) fn groups(
        &self,
        lead: &mut Lead<'_>,
        groups: &[Range<usize>],
        pooled: RowsMut<'_>,
        context: RowsMut<'_>,
    ) {
        // Their rows are cut in the segments' order, and begun in the plan's.
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|&i| groups[i].start);
        let segments = order.iter().map(|&i| groups[i].clone()).collect();
        let parts = self.cut(segments, pooled, context);
        let mut items: Vec<_> = order.iter().zip(parts).collect();
        items.sort_by_key(|(i, _)| **i);
        lead.each(items, |thread, (_, pooled)| {
            let ThreadBuffers { group, work } = &mut *self.buffers(thread);
            self.group(pooled, group, work);
        });
    }

    fn group(&self, mut pooled: Pooled<'_>, group: &mut Activations, work: &mut WorkBuffers) {
        let (bounds, segments) = (&self.layout.bounds, pooled.segments.clone());
        let rows = bounds[segments.start]..bounds[segments.end];
        let size = self.encoder.hidden_size();
        let [queries, width] = self.widths();
        let mut hidden = group.hidden.rows(rows.len(), size);
        let mut projected = group.projected.rows(rows.len(), width);
        let blocks = parts(rows.len(), rows.len().div_ceil(BLOCK_ROWS));
        let hiddens = hidden.borrow().cut_rows(blocks.iter().map(Range::len));
        let outputs = projected.borrow().cut_rows(blocks.iter().map(Range::len));
        for ((block, mut hidden), projected) in blocks.iter().zip(hiddens).zip(outputs) {
            let tokens = rows.start + block.start..rows.start + block.end;
            self.embed(tokens.clone(), &mut hidden, work);
            let hands = &mut Hands::Own;
            self.project(0, tokens, hidden.read(), projected, work, hands);
        }
        for layer in 0..self.encoder.whole_layers() {
            if !self.wanted.still() {
                return;
            }
            let mut context = group.context.rows(rows.len(), queries);
            let lengths = segments.clone().map(|i| bounds[i + 1] - bounds[i]);
            let contexts = context.borrow().cut_rows(lengths);
            for (segment, context) in segments.clone().zip(contexts) {
                let own = bounds[segment] - rows.start..bounds[segment + 1] - rows.start;
                let own = projected.read().rows(own);
                let seen = self.seen(layer, segment, projected.read(), rows.start);
                for (head, mut output) in context.cut_columns(self.head_size()).enumerate() {
                    let rows = self.queries(own, head);
                    let first = self.layout.first[segment];
                    let queries = Queries { rows, first };
                    let scratch = &mut work.scratch;
                    self.attend(layer, queries, seen, head, &mut output, scratch);
                }
            }
            let hiddens = hidden.borrow().cut_rows(blocks.iter().map(Range::len));
            let outputs = projected.borrow().cut_rows(blocks.iter().map(Range::len));
            for ((block, mut hidden), projected) in blocks.iter().zip(hiddens).zip(outputs) {
                let tokens = rows.start + block.start..rows.start + block.end;
                let context = context.read().rows(block.clone());
                let (weights, hands) = (self.encoder.layer(layer), &mut Hands::Own);
                self.finish_layer(weights, context, &mut hidden, work, hands);
                self.project(layer + 1, tokens, hidden.read(), projected, work, hands);
            }
        }
        match self.encoder.arch.head.pooling {
            Pooling::First | Pooling::Last => {
                self.read_tokens(rows.start, hidden.read(), projected.read(), pooled, work);
            }
            Pooling::Decoder(_) => self.leave(hidden.read(), &mut pooled.hidden),
            Pooling::Mean => {
                let mut normed = group.context.rows(rows.len(), size);
                let rows = segments.map(|i| bounds[i] - rows.start..bounds[i + 1] - rows.start);
                for (i, rows) in rows.enumerate() {
                    let hidden = hidden.read().rows(rows.clone());
                    let mut normed = normed.borrow().split_rows(rows.len()).0;
                    self.mean(hidden, &mut normed, pooled.hidden.row(i));
                }
            }
        }
    }

    /// The mean of a sequence's hidden states, normalised if the encoder ends with a norm, for which there is room in
    /// `normed`.
    pub(super) fn mean(&self, hidden: Rows<'_>, normed: &mut RowsMut<'_>, mean: &mut [f32]) {
        let kernels = self.encoder.kernels;
        match &self.encoder.final_norm {
            Some(norm) => {
                kernels.layer_norm(norm, hidden, normed);
                kernels.mean(normed.read(), mean);
            }
            None => kernels.mean(hidden, mean),
        }
    }

    /// What is left of the last layer for the tokens that the head reads, and the head.
    pub(super) fn finish(
        &self,
        lead: &mut Lead<'_>,
        work: &mut WorkBuffers,
        pooled: RowsMut<'_>,
        context: RowsMut<'_>,
        outputs: &mut [f32],
    ) {
        let (arch, count) = (&self.encoder.arch, self.layout.outputs());
        if self.is_by_columns(count) {
            let outputs = RowsMut::new(outputs, arch.output_width());
            return self.finish_rows(pooled, context, outputs, work, &mut Hands::All(lead));
        }
        let blocks = parts(count, self.blocks(count, BLOCK_ROWS / 4));
        let lengths: Vec<usize> = blocks.iter().map(Range::len).collect();
        let outputs = RowsMut::new(outputs, arch.output_width()).cut_rows(lengths.clone());
        let (hiddens, contexts) = (pooled.cut_rows(lengths.clone()), context.cut_rows(lengths));
        let items = hiddens.zip(contexts).zip(outputs);
        lead.each(items, |thread, ((hidden, context), outputs)| {
            let work = &mut self.buffers(thread).work;
            self.finish_rows(hidden, context, outputs, work, &mut Hands::Own);
        });
    }

    fn finish_rows<'a>(
        &self,
        mut hidden: RowsMut<'a>,
        context: RowsMut<'a>,
        mut outputs: RowsMut<'_>,
        work: &mut WorkBuffers,
        hands: &mut Hands<'_, '_>,
    ) {
        let (encoder, arch) = (self.encoder, &self.encoder.arch);
        if arch.head.pooling.is_of_tokens() {
            let attended = context.read().columns(0..arch.query_width());
            let layer = encoder.layer(arch.layers - 1);
            self.finish_layer(layer, attended, &mut hidden, work, hands);
            if let Some(norm) = &encoder.final_norm {
                let mut normed = context.split_columns(arch.hidden_size).0;
                encoder.kernels.layer_norm(norm, hidden.read(), &mut normed);
                hidden = normed;
            }
        }
        self.head_steps(hidden.read(), &mut outputs, work);
    }

    /// Some queries of one head of one segment, whose projections are `projected`.
    pub(super) fn attend(
        &self,
        layer: usize,
        queries: Queries<'_>,
        seen: Seen<'_>,
        head: usize,
        output: &mut RowsMut<'_>,
        scratch: &mut Scratch,
    ) {
        let attention = &self.encoder.arch.attention;
        let places = Places {
            first: queries.first,
            reach: attention.reach(layer),
            causal: attention.causal,
            bias: match &self.encoder.layer(layer).disentangled {
                Some(positions) => Bias::Disentangled(positions.head(head)),
                None => self.relative.bias(head),
            },
            cap: attention.cap,
        };
        let parts = [seen.before, seen.own].map(|rows| self.keys_and_values(rows, head));
        let Encoder { kernels, dtype, .. } = self.encoder;
        kernels.attention(*dtype, queries.rows, parts, places, output, scratch);
    }

    /// One head's queries of some projections.
    pub(super) fn queries<'a>(&self, projected: Rows<'a>, head: usize) -> Rows<'a> {
        let start = head * self.head_size();
        projected.columns(start..start + self.head_size())
    }

    /// The keys and values that one head's queries meet, of those of all heads.
    fn keys_and_values<'a>(&self, all: Rows<'a>, head: usize) -> KeyValues<'a> {
        let arch = &self.encoder.arch;
        let (size, attention) = (self.head_size(), &arch.attention);
        let start = head * attention.key_heads / attention.heads * size;
        let at = |start: usize| all.columns(start..start + size);
        KeyValues {
            keys: at(start),
            values: at(start + arch.key_width()),
        }
    }

    /// What a segment's queries see in a layer, given the projections of the rows from `origin` on.
    pub(super) fn seen<'a>(
        &'a self,
        layer: usize,
        segment: usize,
        projected: Rows<'a>,
        origin: usize,
    ) -> Seen<'a> {
        let [queries, width] = self.widths();
        let all = projected.columns(queries..width);
        let own = self.layout.rows_of(segment);
        Seen {
            before: match &self.layout.before[segment] {
                Before::Nothing => all.rows(0..0),
                Before::Rows(rows) => all.rows(rows.clone()),
                Before::Kept(prefix) => {
                    Rows::new(self.prefixes.layer(*prefix, layer), width - queries)
                }
            },
            own: all.rows(own.start - origin..own.end - self.layout.unseen[segment] - origin),
        }
    }

    /// Keeps the keys and values of prefixes that were computed for other segments, and other batches.
    pub(super) fn keep(&self, layer: usize, projected: Rows<'_>) {
        let [queries, width] = self.widths();
        for &(segment, prefix) in &self.layout.keep {
            let rows = projected.rows(self.layout.rows_of(segment));
            let rows = rows.columns(queries..width);
            let values = (0..rows.len()).flat_map(|i| rows.row(i).iter().copied());
            self.prefixes.keep(prefix, layer, values.collect());
        }
    }

    pub(super) fn head_size(&self) -> usize {
        self.encoder.arch.attention.head_size
    }

    /// Of a token's queries, and of its queries, keys and values.
    pub(super) fn widths(&self) -> [usize; 2] {
        let arch = &self.encoder.arch;
        let queries = arch.query_width();
        [queries, queries + 2 * arch.key_width()]
    }

    /// The last layer's attention for the tokens of some segments that the head reads, given the hidden states and
    /// projections of the tokens from `origin` on.
    pub(super) fn read_tokens(
        &self,
        origin: usize,
        hidden: Rows<'_>,
        projected: Rows<'_>,
        mut pooled: Pooled<'_>,
        work: &mut WorkBuffers,
    ) {
        let (layer, size) = (self.encoder.arch.layers - 1, self.encoder.hidden_size());
        let outputs = self.layout.outputs_of(pooled.segments.clone());
        let reads = &self.layout.reads[outputs.clone()];
        for (i, row) in reads.iter().enumerate() {
            let from = hidden.row(row - origin);
            pooled.hidden.row(i).copy_from_slice(from);
        }
        let mut queries = work.query.rows(reads.len(), self.widths()[0]);
        let mut normed = work.normed.rows(reads.len(), size);
        let input = self.normalise_before(layer, pooled.hidden.read(), &mut normed);
        let (weights, scratch) = (self.encoder.layer(layer), &mut work.scratch);
        weights
            .query
            .run(input, Epilogue::default(), &mut queries, scratch);
        let places = reads.iter().map(|&row| self.layout.places[row]);
        let places: Vec<u32> = places.collect();
        self.place(layer, 0, &places, queries.borrow());
        let (mut contexts, mut answered) = (pooled.context, 0);
        for segment in pooled.segments {
            let seen = self.seen(layer, segment, projected, origin);
            let own = self.layout.outputs_of(segment..segment + 1);
            // Tokens that follow each other are answered together.
            for run in self.layout.reads[own].chunk_by(|a, b| a + 1 == *b) {
                let first = self.layout.first[segment] + run[0] - self.layout.bounds[segment];
                let (context, rest) = contexts.split_rows(run.len());
                contexts = rest;
                let rows = queries.read().rows(answered..answered + run.len());
                answered += run.len();
                let context = context.split_columns(self.widths()[0]).0;
                for (head, mut output) in context.cut_columns(self.head_size()).enumerate() {
                    let rows = self.queries(rows, head);
                    let queries = Queries { rows, first };
                    self.attend(layer, queries, seen, head, &mut output, scratch);
                }
            }
        }
    }

    /// Cuts the rows that the head reads by their segments, which follow each other from 0 on.
    pub(super) fn cut<'a>(
        &self,
        segments: Vec<Range<usize>>,
        hidden: RowsMut<'a>,
        context: RowsMut<'a>,
    ) -> impl Iterator<Item = Pooled<'a>> {
        let outputs = segments.iter().cloned();
        let outputs: Vec<usize> = outputs.map(|s| self.layout.outputs_of(s).len()).collect();
        let bounds = &self.layout.bounds;
        let read: Vec<usize> = match self.encoder.decoder {
            Some(_) => segments
                .iter()
                .map(|s| bounds[s.end] - bounds[s.start])
                .collect(),
            None => outputs.clone(),
        };
        let rows = hidden.cut_rows(read).zip(context.cut_rows(outputs));
        segments
            .into_iter()
            .zip(rows)
            .map(|(segments, (hidden, context))| Pooled {
                segments,
                hidden,
                context,
            })
    }

    /// The blocks of the whole batch's rows.
    pub(super) fn row_blocks(&self) -> Vec<Range<usize>> {
        let rows = self.layout.rows();
        parts(rows, self.blocks(rows, BLOCK_ROWS))
    }

    /// Whether rows are so few that the time goes into reading a layer's weights, and threads better share its
    /// outputs than its rows: as measured with two threads (docs/performance.md), by the size of a weight.
    pub(super) fn is_by_columns(&self, rows: usize) -> bool {
        let threads = self.encoder.team.threads();
        let few = match self.encoder.dtype {
            Dtype::F32 => 20,
            Dtype::F16 | Dtype::Bf16 | Dtype::Int8 => 10,
        };
        threads > 1 && rows <= few * threads
    }

    /// How many blocks to cut `rows` into: at most `most` rows each, and as many for each thread.
    pub(super) fn blocks(&self, rows: usize, most: usize) -> usize {
        let threads = self.encoder.team.threads();
        rows.div_ceil(most).next_multiple_of(threads).min(rows)
    }

    /// A thread's own buffers; nobody else asks for them.
    pub(super) fn buffers(&self, thread: usize) -> MutexGuard<'_, ThreadBuffers> {
        self.threads[thread]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
