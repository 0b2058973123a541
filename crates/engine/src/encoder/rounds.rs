//! A batch of few sequences, taken through the layers by all threads together, layer by layer.

use std::ops::Range;

use rerankd_kernels::{Lead, RowsMut};

use super::super::arch::Pooling;
use super::pass::{Pass, Queries};
use super::plan::parts;
use super::rows::Hands;
use super::workspace::{Activations, WorkBuffers};

impl Pass<'_> {
    /// Takes the whole batch through the layers on all threads together.
    pub(super) fn rounds(
        &self,
        lead: &mut Lead<'_>,
        shared: &mut Activations,
        work: &mut WorkBuffers,
        pooled: RowsMut<'_>,
        context_of_read: RowsMut<'_>,
    ) {
        let (size, tokens) = (self.encoder.hidden_size(), self.layout.rows());
        let blocks = self.row_blocks();
        let lengths = || blocks.iter().map(Range::len);
        let hiddens = shared.hidden.rows(tokens, size).cut_rows(lengths());
        let outputs = shared.projected.rows(tokens, self.widths()[1]);
        let outputs = outputs.cut_rows(lengths());
        let items = blocks.iter().zip(hiddens).zip(outputs);
        lead.each(items, |thread, ((tokens, mut hidden), projected)| {
            let work = &mut self.buffers(thread).work;
            self.embed(tokens.clone(), &mut hidden, work);
            let (tokens, hands) = (tokens.clone(), &mut Hands::Own);
            self.project(0, tokens, hidden.read(), projected, work, hands);
        });
        let (mut pass, mut first) = (*self, 0);
        for stage in self.later {
            pass.layers(lead, first..stage.first, true, shared, work);
            if self.wanted.has_ended() {
                return;
            }
            pass.layout = &stage.layout;
            pass.begin(lead, stage, shared);
            first = stage.first;
        }
        pass.layers(
            lead,
            first..self.encoder.whole_layers(),
            false,
            shared,
            work,
        );
        if self.wanted.has_ended() {
            return;
        }
        pass.pool(lead, shared, pooled, context_of_read);
    }

    /// Takes the whole batch through some layers; `changes` if its rows are others after them.
    fn layers(
        &self,
        lead: &mut Lead<'_>,
        layers: Range<usize>,
        changes: bool,
        shared: &mut Activations,
        work: &mut WorkBuffers,
    ) {
        let (size, tokens) = (self.encoder.hidden_size(), self.layout.rows());
        let [queries, width] = self.widths();
        let mut hidden = shared.hidden.rows(tokens, size);
        let mut projected = shared.projected.rows(tokens, width);
        let mut context = shared.context.rows(tokens, queries);
        let blocks = self.row_blocks();
        let lengths = || blocks.iter().map(Range::len);
        // One item is a head of a segment, or a part of its queries where there are few.
        let (heads, segments) = (self.encoder.arch.attention.heads, self.layout.segments());
        let chunks = (4 * self.encoder.team.threads()).div_ceil(segments * heads);
        for layer in layers.clone() {
            if !self.wanted.still() {
                return;
            }
            let is_next = layer + 1 < layers.end || !changes;
            let contexts = context.borrow().cut_rows(self.layout.lengths());
            let items = contexts.enumerate().flat_map(|(segment, rows)| {
                let length = rows.len();
                let heads = rows.cut_columns(self.head_size()).enumerate();
                heads.flat_map(move |(head, rows)| {
                    let queries = parts(length, chunks.min(length));
                    let outputs = rows.cut_rows(queries.clone().into_iter().map(|q| q.len()));
                    let items = queries.into_iter().zip(outputs);
                    items.map(move |(queries, output)| (segment, head, queries, output))
                })
            });
            let projections = projected.read();
            self.keep(layer, projections);
            lead.each(items, |thread, (segment, head, queries, mut output)| {
                let work = &mut self.buffers(thread).work;
                let seen = self.seen(layer, segment, projections, 0);
                let first = self.layout.first[segment] + queries.start;
                let own = projections.rows(self.layout.rows_of(segment));
                let rows = self.queries(own, head).rows(queries);
                let (queries, scratch) = (Queries { rows, first }, &mut work.scratch);
                self.attend(layer, queries, seen, head, &mut output, scratch);
            });
            let weights = self.encoder.layer(layer);
            if self.is_by_columns(tokens) {
                let (context, mut hands) = (context.read(), Hands::All(lead));
                self.finish_layer(weights, context, &mut hidden, work, &mut hands);
                if is_next {
                    let (next, to) = (layer + 1, projected.borrow());
                    self.project(next, 0..tokens, hidden.read(), to, work, &mut hands);
                }
                continue;
            }
            let hiddens = hidden.borrow().cut_rows(lengths());
            let outputs = projected.borrow().cut_rows(lengths());
            let items = blocks.iter().zip(hiddens).zip(outputs);
            lead.each(items, |thread, ((block, mut hidden), projected)| {
                let (work, hands) = (&mut self.buffers(thread).work, &mut Hands::Own);
                let context = context.read().rows(block.clone());
                self.finish_layer(weights, context, &mut hidden, work, hands);
                if is_next {
                    let (next, tokens) = (layer + 1, block.clone());
                    self.project(next, tokens, hidden.read(), projected, work, hands);
                }
            });
        }
    }

    /// What the head reads of the whole batch.
    fn pool(
        &self,
        lead: &mut Lead<'_>,
        shared: &mut Activations,
        pooled: RowsMut<'_>,
        context_of_read: RowsMut<'_>,
    ) {
        let (size, tokens) = (self.encoder.hidden_size(), self.layout.rows());
        let hidden = shared.hidden.rows(tokens, size);
        let projected = shared.projected.rows(tokens, self.widths()[1]);
        let (segments, blocks) = (self.layout.segments(), self.row_blocks());
        match self.encoder.arch.head.pooling {
            Pooling::First | Pooling::Last => {
                self.keep(self.encoder.arch.layers - 1, projected.read());
                let parts = parts(segments, self.blocks(segments, segments));
                let items = self.cut(parts, pooled, context_of_read);
                lead.each(items, |thread, pooled| {
                    let work = &mut self.buffers(thread).work;
                    self.read_tokens(0, hidden.read(), projected.read(), pooled, work);
                });
            }
            Pooling::Decoder(_) => {
                let lengths = blocks.iter().map(Range::len);
                let items = blocks.iter().zip(pooled.cut_rows(lengths));
                lead.each(items, |_, (block, mut left)| {
                    self.leave(hidden.read().rows(block.clone()), &mut left);
                });
            }
            Pooling::Mean => {
                let normed = shared.context.rows(tokens, size);
                let normed = normed.cut_rows(self.layout.lengths());
                let means = pooled.cut_rows((0..segments).map(|_| 1));
                let items = normed.zip(means).enumerate();
                lead.each(items, |_, (i, (mut normed, mut mean))| {
                    let hidden = hidden.read().rows(self.layout.rows_of(i));
                    self.mean(hidden, &mut normed, mean.row(0));
                });
            }
        }
    }
}
