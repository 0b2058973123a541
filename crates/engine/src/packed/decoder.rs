//! Packing the decoder behind an encoder.

use rerankd_kernels::{Linear, Packer, Stored};

use super::super::encoder::{Decoder, DecoderLayer};
use super::super::error::LoadError;
use super::super::families::{At, DecoderNames};
use super::{As, Reader};

impl Reader<'_> {
    /// The decoder, if there is one. It sees one row for each sequence, as the head does.
    pub(super) fn decoder(&self) -> Result<Option<Decoder>, LoadError> {
        let (arch, names) = (&self.described.arch, self.described.names);
        let (Some(decoder), Some(of_decoder)) = (arch.head.pooling.decoder(), names.decoder) else {
            return Ok(None);
        };
        let layers = (0..decoder.layers).map(|i| self.decoder_layer(of_decoder, i));
        Ok(Some(Decoder {
            start: self.row(&names.encoder(names.word), decoder.start)?,
            layers: layers.collect::<Result<_, _>>()?,
            final_norm: self.norm_of_encoder(of_decoder.final_norm)?,
        }))
    }

    fn decoder_layer(&self, names: &DecoderNames, i: usize) -> Result<DecoderLayer, LoadError> {
        let arch = &self.described.arch;
        let how = self.plain(self.pooled_dtype(), false);
        let linear = |part| self.whole(names.layer(i, part), how);
        let norm = |part| self.norm_of_encoder(&names.layer(i, part));
        let gated = arch.feed_forward.gated;
        let wide = names.wide(gated).iter();
        let wide: Vec<_> = wide
            .map(|part| (names.layer(i, part), At::whole("")))
            .collect();
        Ok(DecoderLayer {
            own_norm: norm(names.own_norm)?,
            own_value: linear(names.own_value)?,
            own_output: linear(names.own_output)?,
            norm: norm(names.norm)?,
            query: linear(names.query)?,
            keys: self.turned(&names.layer(i, names.key), how)?,
            values: self.by_head(&names.layer(i, names.value), how)?,
            attention_output: linear(names.attention_output)?,
            output_norm: norm(names.output_norm)?,
            intermediate: self.linear(&wide, As { gated, ..how })?,
            output: linear(names.output)?,
        })
    }

    /// Each head's part of a linear layer.
    fn by_head(&self, name: &str, how: As) -> Result<Vec<Linear>, LoadError> {
        let of = self.described.arch.attention.heads;
        let part = |part| At { name: "", part, of };
        (0..of)
            .map(|head| self.linear(&[(name.to_owned(), part(head))], how))
            .collect()
    }

    /// The same, from its outputs to its inputs.
    fn turned(&self, name: &str, how: As) -> Result<Vec<Linear>, LoadError> {
        let arch = &self.described.arch;
        let (inputs, outputs) = (arch.attention.head_size, arch.hidden_size);
        let weights = self.values(name, "weight")?;
        let turn = |head: &[f32]| {
            let mut packer = Packer::new(self.kernels, how.dtype, inputs, outputs);
            for output in 0..outputs {
                let column = head.iter().skip(output).step_by(outputs);
                let column: Vec<f32> = column.copied().collect();
                packer.push(Stored::Floats(&column), how.factor);
            }
            packer.finish(&[])
        };
        Ok(weights.chunks_exact(inputs * outputs).map(turn).collect())
    }
}
