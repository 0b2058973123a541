//! What is done with some rows of hidden states, each without the others: embedding, projecting, all of a layer after
//! its attention, the head. One thread does it, or if there are few rows, one with all others as its [`Hands`].

use std::ops::Range;

use rerankd_kernels::{Epilogue, Lead, Linear, Rotary, Rows, RowsMut, Scratch};

use super::super::arch::{Order, Projection};
use super::pass::Pass;
use super::workspace::WorkBuffers;
use super::{EncoderLayer, HeadStep};

/// Who computes linear layers.
pub(super) enum Hands<'a, 'b> {
    /// The thread that asks.
    Own,
    /// All threads, each some of the outputs: where rows are so few that the time goes into reading weights, nobody
    /// need read all of them. The thread that leads asks.
    All(&'a mut Lead<'b>),
}

impl Pass<'_> {
    /// Runs a linear layer.
    fn run(
        &self,
        linear: &Linear,
        input: Rows<'_>,
        epilogue: Epilogue<'_>,
        output: &mut RowsMut<'_>,
        scratch: &mut Scratch,
        hands: &mut Hands<'_, '_>,
    ) {
        let Hands::All(lead) = hands else {
            return linear.run(input, epilogue, output, scratch);
        };
        let parts = linear.column_parts(self.encoder.team.threads());
        let outputs = output.borrow().cut_columns_by(parts.iter().map(Range::len));
        lead.each(
            parts.iter().zip(outputs),
            |thread, (columns, mut output)| {
                let scratch = &mut self.buffers(thread).work.scratch;
                let epilogue = epilogue.columns(columns.clone());
                linear.run_columns(columns.clone(), input, epilogue, &mut output, scratch);
            },
        );
    }

    /// Sums up and normalises some tokens' embeddings.
    pub(super) fn embed(
        &self,
        tokens: Range<usize>,
        hidden: &mut RowsMut<'_>,
        work: &mut WorkBuffers,
    ) {
        let (table, arch) = (&self.encoder.embeddings, &self.encoder.arch);
        let (width, count) = (arch.embeddings.width, tokens.len());
        let mut sum = work.sum.rows(count, width);
        let row = |id: u32| id as usize * width..(id as usize + 1) * width;
        let add = |out: &mut [f32], table: &[f32], id: u32| {
            if !table.is_empty() {
                out.iter_mut()
                    .zip(&table[row(id)])
                    .for_each(|(o, x)| *o += x);
            }
        };
        for (i, token) in tokens.enumerate() {
            let out = sum.row(i);
            table.word.read(self.layout.ids[token] as usize, out);
            add(out, &table.position, self.layout.places[token]);
            add(out, &table.token_type, self.layout.type_ids[token]);
            if arch.embeddings.scale != 1.0 {
                out.iter_mut().for_each(|x| *x *= arch.embeddings.scale);
            }
        }
        let kernels = self.encoder.kernels;
        let (sum, plain, scratch) = (sum.read(), Epilogue::default(), &mut work.scratch);
        let normalise = |from: Rows<'_>, to: &mut RowsMut<'_>| match &table.norm {
            Some(norm) => kernels.layer_norm(norm, from, to),
            None => copy(from, to),
        };
        match (&table.projection, arch.embeddings.projection) {
            (Some(linear), Some(Projection::BeforeNorm)) => {
                let mut projected = work.normed.rows(count, arch.hidden_size);
                linear.run(sum, plain, &mut projected, scratch);
                normalise(projected.read(), hidden);
            }
            (Some(linear), _) => {
                let mut normed = work.normed.rows(count, width);
                normalise(sum, &mut normed);
                linear.run(normed.read(), plain, hidden, scratch);
            }
            (None, _) => normalise(sum, hidden),
        }
    }

    /// A layer's queries, keys and values of some tokens, if there is such a layer; the queries are left out where
    /// only those are needed of tokens that the head reads.
    pub(super) fn project(
        &self,
        layer: usize,
        tokens: Range<usize>,
        hidden: Rows<'_>,
        projected: RowsMut<'_>,
        work: &mut WorkBuffers,
        hands: &mut Hands<'_, '_>,
    ) {
        let (encoder, size) = (self.encoder, self.encoder.hidden_size());
        if layer == encoder.arch.layers {
            return;
        }
        let weights = encoder.layer(layer);
        let (plain, scratch) = (Epilogue::default(), &mut work.scratch);
        let mut normed = work.normed.rows(hidden.len(), size);
        let hidden = self.normalise_before(layer, hidden, &mut normed);
        let (mut queries, mut rest) = projected.split_columns(encoder.arch.query_width());
        let linear = &weights.key_value;
        self.run(linear, hidden, plain, &mut rest, scratch, hands);
        let places = &self.layout.places[tokens];
        if layer < encoder.whole_layers() {
            let linear = &weights.query;
            self.run(linear, hidden, plain, &mut queries, scratch, hands);
            self.place(layer, 0, places, queries);
        }
        let keys = rest.split_columns(encoder.arch.key_width()).0;
        self.place(layer, 1, places, keys);
    }

    /// What is done with the queries (`which` 0) or keys (1) of tokens that stand at `places` before they meet.
    pub(super) fn place(&self, layer: usize, which: usize, places: &[u32], mut heads: RowsMut<'_>) {
        let kernels = self.encoder.kernels;
        if let Some(norms) = &self.encoder.layer(layer).head_norms {
            kernels.normalise_heads(&norms[which], &mut heads);
        }
        if let Some(rotary) = self.rotary(layer) {
            kernels.rotate(rotary, places, heads);
        }
    }

    /// What a layer's attention reads: the hidden states, or these normalised.
    pub(super) fn normalise_before<'a>(
        &self,
        layer: usize,
        hidden: Rows<'a>,
        normed: &'a mut RowsMut<'_>,
    ) -> Rows<'a> {
        let arch = &self.encoder.arch;
        let norm = self.encoder.layer(layer).attention_norm.as_ref();
        match norm.filter(|_| arch.norm.order != Order::After) {
            Some(norm) => {
                self.encoder.kernels.layer_norm(norm, hidden, normed);
                normed.read()
            }
            None => hidden,
        }
    }

    pub(super) fn rotary(&self, layer: usize) -> Option<&Rotary> {
        let local = self.encoder.arch.attention.reach(layer).is_some();
        self.relative.rotary(local)
    }

    /// All of a layer that comes after the attention, from `context` to `hidden`, row by row.
    pub(super) fn finish_layer(
        &self,
        layer: &EncoderLayer,
        context: Rows<'_>,
        hidden: &mut RowsMut<'_>,
        work: &mut WorkBuffers,
        hands: &mut Hands<'_, '_>,
    ) {
        let (arch, kernels) = (&self.encoder.arch, self.encoder.kernels);
        let (size, count) = (arch.hidden_size, context.len());
        let mut sum = work.sum.rows(count, size);
        let mut wide = work.wide.rows(count, layer.intermediate.outputs());
        let scratch = &mut work.scratch;
        let mut run =
            |linear: &Linear, input: Rows<'_>, then: Epilogue<'_>, output: &mut RowsMut<'_>| {
                self.run(linear, input, then, output, scratch, hands);
            };
        let activated = Epilogue::activate(arch.feed_forward.activation);
        let (attended, intermediate) = (&layer.attention_output, &layer.intermediate);
        if let Some([after_attention, after_output]) = &layer.norms_after {
            let mut normed = work.normed.rows(count, size);
            run(attended, context, Epilogue::default(), &mut sum);
            kernels.layer_norm(after_attention, sum.read(), &mut normed);
            add(normed.read(), hidden);
            kernels.layer_norm(&layer.output_norm, hidden.read(), &mut normed);
            run(intermediate, normed.read(), activated, &mut wide);
            run(&layer.output, wide.read(), Epilogue::default(), &mut sum);
            kernels.layer_norm(after_output, sum.read(), &mut normed);
            add(normed.read(), hidden);
            return;
        }
        run(attended, context, Epilogue::add(hidden.read()), &mut sum);
        match (arch.norm.order, &layer.attention_norm) {
            (Order::After, Some(norm)) => {
                kernels.layer_norm(norm, sum.read(), hidden);
                run(intermediate, hidden.read(), activated, &mut wide);
                let added = Epilogue::add(hidden.read());
                run(&layer.output, wide.read(), added, &mut sum);
                kernels.layer_norm(&layer.output_norm, sum.read(), hidden);
            }
            _ => {
                let mut normed = work.normed.rows(count, size);
                kernels.layer_norm(&layer.output_norm, sum.read(), &mut normed);
                run(intermediate, normed.read(), activated, &mut wide);
                let added = Epilogue::add(sum.read());
                run(&layer.output, wide.read(), added, hidden);
            }
        }
    }

    /// What the encoder leaves of some hidden states.
    pub(super) fn leave(&self, hidden: Rows<'_>, left: &mut RowsMut<'_>) {
        match &self.encoder.final_norm {
            Some(norm) => self.encoder.kernels.layer_norm(norm, hidden, left),
            None => copy(hidden, left),
        }
    }

    /// The head, from `[outputs, hidden size]` to `[outputs, width]`.
    pub(super) fn head_steps(
        &self,
        input: Rows<'_>,
        outputs: &mut RowsMut<'_>,
        work: &mut WorkBuffers,
    ) {
        let (kernels, count, mut width) = (self.encoder.kernels, input.len(), input.width());
        let (scratch, [from, to]) = (&mut work.scratch, &mut work.steps);
        let (mut from, mut to) = (from, to);
        copy(input, &mut from.rows(count, width));
        for step in &self.encoder.head {
            let given = from.rows(count, width);
            match step {
                HeadStep::Linear(linear, activation) => {
                    width = linear.outputs();
                    let activated = Epilogue::activate(*activation);
                    linear.run(given.read(), activated, &mut to.rows(count, width), scratch);
                }
                HeadStep::Cap(cap) => {
                    let to = &mut to.rows(count, width);
                    each(given.read(), to, |x| cap * (x / cap).tanh());
                }
                HeadStep::Scale(factor) => {
                    let to = &mut to.rows(count, width);
                    each(given.read(), to, |x| factor * x);
                }
                HeadStep::Norm(norm) => {
                    kernels.layer_norm(norm, given.read(), &mut to.rows(count, width));
                }
            }
            std::mem::swap(&mut from, &mut to);
        }
        copy(from.rows(count, width).read(), outputs);
    }
}

fn each(from: Rows<'_>, to: &mut RowsMut<'_>, function: impl Fn(f32) -> f32) {
    for i in 0..from.len() {
        let values = to.row(i).iter_mut().zip(from.row(i));
        values.for_each(|(to, from)| *to = function(*from));
    }
}

fn add(from: Rows<'_>, to: &mut RowsMut<'_>) {
    for i in 0..from.len() {
        let sums = to.row(i).iter_mut().zip(from.row(i));
        sums.for_each(|(sum, x)| *sum += x);
    }
}

pub(super) fn copy(from: Rows<'_>, to: &mut RowsMut<'_>) {
    for i in 0..from.len() {
        to.row(i).copy_from_slice(from.row(i));
    }
}
