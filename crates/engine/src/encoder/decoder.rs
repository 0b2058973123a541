//! The first position of a decoder behind the encoder. It has been given one token, so that its attention to itself is
//! that token's value; and as it is one query, neither keys nor values are made of what is encoded: where a head's
//! score is `q · (K e)`, it is `(Kᵀ q) · e`, and the sum of weighted values `V e` is `V` times that of `e`.

use std::ops::Range;

use rerankd_kernels::{Dtype, Epilogue, KeyValues, LayerNorm, Lead, Linear, Places, Rows, RowsMut};

use super::pass::Pass;
use super::plan::parts;
use super::rows::copy;
use super::workspace::WorkBuffers;

/// Sequences in a block.
const BLOCK: usize = 24;

/// A decoder's weights, as far as the first position needs them.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// `[hidden size]`: the embedding of the token that it is given.
    pub(crate) start: Vec<f32>,
    pub(crate) layers: Vec<DecoderLayer>,
    pub(crate) final_norm: LayerNorm,
}

/// One layer's weights.
#[derive(Debug)]
pub(crate) struct DecoderLayer {
    pub(crate) own_norm: LayerNorm,
    pub(crate) own_value: Linear,
    pub(crate) own_output: Linear,
    pub(crate) norm: LayerNorm,
    pub(crate) query: Linear,
    /// `[heads]`: from a head's query to what is multiplied with what is encoded.
    pub(crate) keys: Vec<Linear>,
    /// `[heads]`: from a mean of what is encoded to a head's.
    pub(crate) values: Vec<Linear>,
    pub(crate) attention_output: Linear,
    pub(crate) output_norm: LayerNorm,
    pub(crate) intermediate: Linear,
    pub(crate) output: Linear,
}

impl Decoder {
    pub(super) fn bytes(&self) -> usize {
        let layers = self.layers.iter().map(DecoderLayer::bytes).sum::<usize>();
        size_of_val(&self.start[..]) + layers + self.final_norm.bytes()
    }
}

impl DecoderLayer {
    fn bytes(&self) -> usize {
        let linears = [
            &self.own_value,
            &self.own_output,
            &self.query,
            &self.attention_output,
            &self.intermediate,
            &self.output,
        ];
        let heads = self.keys.iter().chain(&self.values);
        let linears = linears.into_iter().chain(heads).map(Linear::bytes);
        let norms = [&self.own_norm, &self.norm, &self.output_norm];
        linears.sum::<usize>() + norms.map(LayerNorm::bytes).iter().sum::<usize>()
    }
}

impl Pass<'_> {
    /// What the decoder says first of each sequence, whose tokens are `encoded`, and the head. `states` is room for
    /// `[sequences, hidden size]`.
    pub(super) fn answer(
        &self,
        lead: &mut Lead<'_>,
        decoder: &Decoder,
        encoded: Rows<'_>,
        states: RowsMut<'_>,
        outputs: &mut [f32],
    ) {
        let (arch, count) = (&self.encoder.arch, self.layout.outputs());
        let blocks = parts(count, self.blocks(count, BLOCK));
        let lengths = || blocks.iter().map(Range::len);
        let states = states.split_columns(arch.hidden_size).0.cut_rows(lengths());
        let outputs = RowsMut::new(outputs, arch.output_width()).cut_rows(lengths());
        let items = blocks.iter().zip(states).zip(outputs);
        lead.each(items, |thread, ((block, mut state), mut outputs)| {
            let work = &mut self.buffers(thread).work;
            (0..block.len()).for_each(|i| state.row(i).copy_from_slice(&decoder.start));
            for layer in &decoder.layers {
                self.decode(layer, block.clone(), encoded, &mut state, work);
            }
            let mut normed = work.normed.rows(block.len(), arch.hidden_size);
            let kernels = self.encoder.kernels;
            kernels.layer_norm(&decoder.final_norm, state.read(), &mut normed);
            copy(normed.read(), &mut state);
            self.head_steps(state.read(), &mut outputs, work);
        });
    }

    /// One layer of the decoder for some sequences.
    fn decode(
        &self,
        layer: &DecoderLayer,
        sequences: Range<usize>,
        encoded: Rows<'_>,
        state: &mut RowsMut<'_>,
        work: &mut WorkBuffers,
    ) {
        let (arch, kernels) = (&self.encoder.arch, self.encoder.kernels);
        let (count, size, head) = (sequences.len(), arch.hidden_size, arch.attention.head_size);
        let WorkBuffers {
            scratch,
            wide,
            sum,
            normed,
            query,
            steps: [asked, found],
        } = work;
        let [mut sum, mut normed] = [sum, normed].map(|buffer| buffer.rows(count, size));
        let mut heads = query.rows(count, arch.query_width());
        let [mut asked, mut found] =
            [asked, found].map(|buffer| buffer.rows(count, arch.attention.heads * size));
        let plain = Epilogue::default();
        kernels.layer_norm(&layer.own_norm, state.read(), &mut normed);
        layer
            .own_value
            .run(normed.read(), plain, &mut heads, scratch);
        let added = Epilogue::add(state.read());
        layer.own_output.run(heads.read(), added, &mut sum, scratch);
        kernels.layer_norm(&layer.norm, sum.read(), &mut normed);
        layer.query.run(normed.read(), plain, &mut heads, scratch);
        let of_heads = asked.borrow().cut_columns(size);
        for (i, (key, mut asked)) in layer.keys.iter().zip(of_heads).enumerate() {
            let query = heads.read().columns(i * head..(i + 1) * head);
            key.run(query, plain, &mut asked, scratch);
        }
        for (i, sequence) in sequences.enumerate() {
            let rows = self.layout.rows_of(sequence);
            let seen = encoded.rows(rows.start..rows.end - self.layout.unseen[sequence]);
            let seen = KeyValues {
                keys: seen,
                values: seen,
            };
            let asked = Rows::new(asked.read().row(i), size);
            let mut found = RowsMut::new(found.row(i), size);
            let parts = [seen.rows(0..0), seen];
            let places = Places::default();
            kernels.attention(Dtype::F32, asked, parts, places, &mut found, scratch);
        }
        let of_heads = heads.borrow().cut_columns(head);
        for (i, (value, mut head)) in layer.values.iter().zip(of_heads).enumerate() {
            let found = found.read().columns(i * size..(i + 1) * size);
            value.run(found, plain, &mut head, scratch);
        }
        let added = Epilogue::add(sum.read());
        let output = &layer.attention_output;
        output.run(heads.read(), added, state, scratch);
        kernels.layer_norm(&layer.output_norm, state.read(), &mut normed);
        let mut wide = wide.rows(count, layer.intermediate.outputs());
        let activated = Epilogue::activate(arch.feed_forward.activation);
        layer
            .intermediate
            .run(normed.read(), activated, &mut wide, scratch);
        let added = Epilogue::add(state.read());
        layer.output.run(wide.read(), added, &mut sum, scratch);
        copy(sum.read(), state);
    }
}
