//! An encoder on a CPU: a checkpoint's tensors, packed for the kernels as they are read.

use std::sync::Arc;

use metrics::histogram;
use rerankd_kernels::{Embedding, Kernels, LayerNorm, Linear, Packer, Team};

use crate::{Batch, Dtype, ModelSpec, Output};

use super::checkpoint::Checkpoint;
use super::encoder::{Embeddings, Encoder, EncoderLayer, Head, Workspace};
use super::error::{EngineError, LoadError};
use super::families::Described;
use super::{Model, rate};

/// A packed encoder and its buffers.
#[derive(Debug)]
pub(super) struct PackedEncoder {
    spec: ModelSpec,
    encoder: Encoder,
    space: Workspace,
}

impl PackedEncoder {
    /// Reads and packs a checkpoint.
    pub(super) fn load(
        described: &Described,
        checkpoint: &Checkpoint,
        dtype: Dtype,
        kernels: Kernels,
        team: Arc<Team>,
    ) -> Result<Self, LoadError> {
        let reader = Reader {
            described,
            checkpoint,
            kernels,
            dtype,
        };
        let encoder = reader.encoder(team)?;
        tracing::info!(
            instructions = kernels.name(),
            dtype = dtype.name(),
            threads = encoder.team.threads(),
            weight_bytes = encoder.weight_bytes(),
            "packed the weights"
        );
        Ok(Self {
            spec: described.spec(),
            encoder,
            space: Workspace::default(),
        })
    }
}

impl Model for PackedEncoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn weight_bytes(&self) -> usize {
        self.encoder.weight_bytes()
    }

    fn flops(&self, batch: &Batch) -> f64 {
        rate::flops(&self.encoder.arch, batch)
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError> {
        // Nothing is padded here; the metric says so for whoever watches it.
        histogram!("rerankd_padding_share").record(0.0);
        let logits = self.encoder.forward(batch, &mut self.space);
        Ok(logits.into_iter().map(Output::logit).collect())
    }
}

struct Reader<'a> {
    described: &'a Described,
    checkpoint: &'a Checkpoint,
    kernels: Kernels,
    dtype: Dtype,
}

impl Reader<'_> {
    fn values(&self, name: &str, parameter: &str) -> Result<Vec<f32>, LoadError> {
        self.checkpoint.values(&format!("{name}.{parameter}"))
    }

    /// Packs layers of the same inputs as one, with their outputs one after the other, all of them
    /// times `factor`.
    fn linear(&self, names: &[String], factor: f32, dtype: Dtype) -> Result<Linear, LoadError> {
        let weights = names.iter().map(|name| format!("{name}.weight"));
        let weights: Vec<String> = weights.collect();
        let (mut outputs, mut inputs) = (0, 0);
        for weight in &weights {
            if let [rows, columns] = *self.checkpoint.shape(weight)? {
                (outputs, inputs) = (outputs + rows, columns);
            }
        }
        let mut packer = Packer::new(self.kernels, dtype, inputs, outputs);
        for weight in &weights {
            self.checkpoint
                .rows(weight, |row| packer.push(row, factor))?;
        }
        let mut bias = Vec::with_capacity(outputs);
        for name in names {
            let values = self.values(name, "bias")?;
            bias.extend(values.iter().map(|b| b * factor));
        }
        Ok(packer.finish(&bias))
    }

    fn norm(&self, name: &str) -> Result<LayerNorm, LoadError> {
        Ok(LayerNorm::new(
            self.values(name, "weight")?,
            self.values(name, "bias")?,
            self.described.arch.norm.epsilon as f32,
        ))
    }

    fn encoder(&self, team: Arc<Team>) -> Result<Encoder, LoadError> {
        let (arch, names) = (&self.described.arch, self.described.names);
        let table = |name: &str| self.values(&names.encoder(name), "weight");
        let embeddings = Embeddings {
            word: self.words()?,
            position: table(names.position)?,
            token_type: table(names.token_type)?,
            norm: self.norm(&names.encoder(names.embeddings_norm))?,
        };
        let layers = (0..arch.layers).map(|i| self.layer(i));
        let dense = [names.dense.to_owned()];
        Ok(Encoder {
            kernels: self.kernels,
            team,
            arch: arch.clone(),
            embeddings,
            layers: layers.collect::<Result<_, _>>()?,
            head: Head {
                dense: self.linear(&dense, 1.0, self.first_tokens_dtype())?,
                weight: self.values(names.classifier, "weight")?,
                bias: self.values(names.classifier, "bias")?[0],
            },
        })
    }

    /// The word embeddings; integers are kept as they are, whatever the type of the weights.
    fn words(&self) -> Result<Embedding, LoadError> {
        let names = self.described.names;
        let table = format!("{}.weight", names.encoder(names.word));
        let (rows, width) = (
            self.described.arch.vocab_size,
            self.described.arch.hidden_size,
        );
        let mut words = match self.checkpoint.is_of_integers(&table)? {
            true => Embedding::of_integers(rows, width),
            false => Embedding::new(self.dtype, rows, width),
        };
        self.checkpoint.rows(&table, |row| words.push(row))?;
        Ok(words)
    }

    /// Of weights that see nothing but the first tokens: with so few rows int8 gains nothing there,
    /// and costs a good part of the accuracy, since no average over tokens comes after it.
    fn first_tokens_dtype(&self) -> Dtype {
        match self.dtype {
            Dtype::Int8 => Dtype::F16,
            other => other,
        }
    }

    fn layer(&self, i: usize) -> Result<EncoderLayer, LoadError> {
        let (arch, names) = (&self.described.arch, self.described.names);
        let at = |part: &str| names.layer(i, part);
        let most = match i + 1 == arch.layers {
            true => self.first_tokens_dtype(),
            false => self.dtype,
        };
        let plain = |part: &str| self.linear(&[at(part)], 1.0, most);
        let scale = (arch.head_size() as f32).sqrt().recip();
        Ok(EncoderLayer {
            query: self.linear(&[at(names.query)], scale, most)?,
            key_value: self.linear(&[at(names.key), at(names.value)], 1.0, self.dtype)?,
            attention_output: plain(names.attention_output)?,
            attention_norm: self.norm(&at(names.attention_norm))?,
            intermediate: plain(names.intermediate)?,
            output: plain(names.output)?,
            output_norm: self.norm(&at(names.output_norm))?,
        })
    }
}
