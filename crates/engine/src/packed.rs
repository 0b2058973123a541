//! An encoder on a CPU: a checkpoint's tensors, packed for the kernels as they are read.

mod decoder;
mod head;
mod positions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use metrics::histogram;
use rerankd_kernels::{Embedding, Kernels, LayerNorm, Linear, Packer, Rotary, Team};

use crate::{Batch, Cost, Dtype, ModelSpec, Output};

use super::arch::{Order, Projection, Relative, Step, StepKind};
use super::checkpoint::Checkpoint;
use super::encoder::{Distances, Embeddings, Encoder, EncoderLayer, Workspace};
use super::error::{EngineError, LoadError};
use super::families::{At, Described};
use super::{Model, rate};

/// A packed encoder and its buffers.
#[derive(Debug)]
pub(super) struct PackedEncoder {
    spec: ModelSpec,
    encoder: Encoder,
    dtype: Dtype,
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
            half: checkpoint.half(),
        };
        let encoder = reader.encoder(team)?;
        tracing::info!(
            instructions = kernels.name(),
            dtype = dtype.name(),
            arithmetic = kernels.arithmetic(dtype),
            threads = encoder.team.threads(),
            weight_bytes = encoder.weight_bytes(),
            "packed the weights"
        );
        Ok(Self {
            spec: described.spec(),
            encoder,
            dtype,
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

    fn cost(&self) -> Cost {
        rate::cost(&self.encoder.arch, self.dtype)
    }

    fn batch_cost(&self, batch: &Batch) -> f64 {
        self.encoder.batch_cost(batch, self.cost(), &self.space)
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError> {
        self.forward_while(batch, &|| true)
    }

    fn forward_while(
        &mut self,
        batch: &Batch,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<Output>, EngineError> {
        // Nothing is padded here; the metric says so for whoever watches it.
        histogram!("rerankd_padding_share").record(0.0);
        let outputs = self.encoder.forward(batch, &mut self.space, is_wanted);
        outputs.ok_or(EngineError::Unwanted)
    }

    fn reset(&mut self) {
        self.space = Workspace::default();
    }
}

struct Reader<'a> {
    described: &'a Described,
    checkpoint: &'a Checkpoint,
    kernels: Kernels,
    dtype: Dtype,
    /// What all weights are stored in, if that is half precision.
    half: Option<Dtype>,
}

/// How a linear layer is packed.
#[derive(Clone, Copy)]
struct As {
    /// All weights are multiplied with it.
    factor: f32,
    dtype: Dtype,
    bias: bool,
    gated: bool,
}

impl Reader<'_> {
    fn values(&self, name: &str, parameter: &str) -> Result<Vec<f32>, LoadError> {
        self.checkpoint.values(&format!("{name}.{parameter}"))
    }

    /// Packs linear layers, or parts of some, with the same inputs as one, with their outputs one after the other.
    fn linear(&self, layers: &[(String, At)], how: As) -> Result<Linear, LoadError> {
        let (mut outputs, mut inputs, mut parts) = (0, 0, Vec::new());
        for (name, at) in layers {
            let weight = format!("{name}.weight");
            if let [rows, columns] = *self.checkpoint.shape(&weight)? {
                let range = at.of_outputs(rows);
                (outputs, inputs) = (outputs + range.len(), columns);
                parts.push((name, weight, range));
            }
        }
        let dtype = self.without_loss(how.dtype, how.factor);
        let mut packer = match how.gated {
            true => Packer::gated(self.kernels, dtype, inputs, outputs / 2),
            false => Packer::new(self.kernels, dtype, inputs, outputs),
        };
        // What the residual stream of these holds differs by thousands; one scale a row lost their order.
        if self.described.arch.norm.root_mean_square {
            packer = packer.in_blocks();
        }
        let mut bias = Vec::new();
        for (name, weight, range) in parts {
            self.checkpoint
                .rows_within(&weight, range.clone(), |row| packer.push(row, how.factor))?;
            if how.bias {
                let values = self.values(name, "bias")?;
                bias.extend(values[range].iter().map(|b| b * how.factor));
            }
        }
        Ok(packer.finish(&bias))
    }

    /// The type to keep weights in that are multiplied with a factor. Those that are kept as they are stored would be
    /// rounded in half precision, unless the factor changes nothing but their exponents.
    fn without_loss(&self, dtype: Dtype, factor: f32) -> Dtype {
        const FRACTION: u32 = (1 << 23) - 1;
        match factor.to_bits() & FRACTION == 0 || self.half != Some(dtype) {
            true => dtype,
            false => Dtype::F32,
        }
    }

    fn whole(&self, name: String, how: As) -> Result<Linear, LoadError> {
        self.linear(&[(name, At::whole(""))], how)
    }

    fn plain(&self, dtype: Dtype, bias: bool) -> As {
        As {
            factor: 1.0,
            dtype,
            bias,
            gated: false,
        }
    }

    fn norm(&self, name: &str, epsilon: f64, bias: bool) -> Result<LayerNorm, LoadError> {
        let weight = self.values(name, "weight")?;
        let bias = match bias {
            true => self.values(name, "bias")?,
            false => vec![0.0; weight.len()],
        };
        Ok(LayerNorm::new(weight, bias, epsilon as f32))
    }

    /// One of the encoder's norms.
    fn norm_of_encoder(&self, name: &str) -> Result<LayerNorm, LoadError> {
        self.scaled_norm(name, 1.0)
    }

    /// One of the encoder's norms, whose outputs are multiplied with a factor if it takes no mean off.
    fn scaled_norm(&self, name: &str, factor: f32) -> Result<LayerNorm, LoadError> {
        let norm = &self.described.arch.norm;
        if !norm.root_mean_square {
            return self.norm(name, norm.epsilon, norm.bias);
        }
        let one = f32::from(u8::from(norm.less_one));
        let weight = self.values(name, "weight")?.into_iter();
        let weight = weight.map(|weight| (one + weight) * factor).collect();
        Ok(LayerNorm::root_mean_square(weight, norm.epsilon as f32))
    }

    fn encoder(&self, team: Arc<Team>) -> Result<Encoder, LoadError> {
        let (arch, names) = (&self.described.arch, self.described.names);
        let table = self.distance_table()?;
        let final_norm = || self.norm_of_encoder(&names.encoder(names.final_norm));
        // The last is a few rows of weights, and the logits their outputs.
        let is_linear = |step: &Step| matches!(step.kind, StepKind::Linear { .. });
        let last = arch.head.steps.iter().rposition(is_linear);
        let last = last.filter(|_| !arch.head.labels.is_empty());
        let head = arch.head.steps.iter().enumerate();
        let head = head.map(|(i, step)| self.step(step, Some(i) == last));
        let layers = self.layers(team.threads(), &table)?;
        Ok(Encoder {
            kernels: self.kernels,
            dtype: self.dtype,
            team,
            arch: arch.clone(),
            embeddings: self.embeddings()?,
            layers,
            final_norm: arch.has_final_norm().then(final_norm).transpose()?,
            distances: self.distances()?,
            decoder: self.decoder()?,
            head: head.collect::<Result<_, _>>()?,
        })
    }

    /// All layers, each by the thread that comes to it first. The threads are not the team's, which meanwhile may run
    /// another model.
    fn layers(&self, threads: usize, table: &[f32]) -> Result<Vec<EncoderLayer>, LoadError> {
        let count = self.described.arch.distinct_layers;
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut own = Vec::new();
            while !failed.load(Ordering::Relaxed) {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    break;
                }
                let layer = self.layer(i, table);
                failed.fetch_or(layer.is_err(), Ordering::Relaxed);
                own.push((i, layer));
            }
            own
        };
        let mut layers = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(work)).collect();
            let mut layers = work();
            for other in others {
                match other.join() {
                    Ok(own) => layers.extend(own),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            layers
        });
        layers.sort_unstable_by_key(|(i, _)| *i);
        layers.into_iter().map(|(_, layer)| layer).collect()
    }

    fn embeddings(&self) -> Result<Embeddings, LoadError> {
        let (arch, names) = (&self.described.arch, self.described.names);
        let table = |there: bool, name: &str| match there {
            true => self.values(&names.encoder(name), "weight"),
            false => Ok(Vec::new()),
        };
        let projection = arch.embeddings.projection.map(|projection| {
            let bias = projection == Projection::AfterNorm;
            let how = self.plain(Dtype::F32, bias);
            self.whole(names.encoder(names.projection), how)
        });
        let norm = || self.norm_of_encoder(&names.encoder(names.embeddings_norm));
        Ok(Embeddings {
            word: self.words()?,
            position: table(arch.embeddings.position.is_some(), names.position)?,
            token_type: table(arch.embeddings.token_types > 0, names.token_type)?,
            norm: arch.embeddings.norm.then(norm).transpose()?,
            projection: projection.transpose()?,
        })
    }

    /// The word embeddings; integers are kept as they are, whatever the type of the weights.
    fn words(&self) -> Result<Embedding, LoadError> {
        let (names, embeddings) = (self.described.names, &self.described.arch.embeddings);
        let table = format!("{}.weight", names.encoder(names.word));
        let (rows, width) = (embeddings.vocab_size, embeddings.width);
        let mut words = match self.checkpoint.is_of_integers(&table)? {
            true => Embedding::of_integers(rows, width),
            false => Embedding::new(self.dtype, rows, width),
        };
        self.checkpoint.rows(&table, |row| words.push(row))?;
        Ok(words)
    }

    fn distances(&self) -> Result<Distances, LoadError> {
        let names = self.described.names;
        Ok(match &self.described.arch.attention.relative {
            Relative::None | Relative::Disentangled(_) => Distances::None,
            Relative::Rotary(rotary) => {
                let of = |frequencies: &Vec<f32>| Rotary::new(frequencies, rotary.scale);
                Distances::Rotary {
                    global: of(&rotary.frequencies),
                    local: rotary.local_frequencies.as_ref().map(of),
                }
            }
            Relative::Alibi { slopes } => Distances::Slopes(slopes.clone()),
            &Relative::Buckets { rows, farthest } => Distances::Buckets {
                table: self.values(&names.encoder(names.relative), "weight")?,
                rows,
                farthest,
            },
        })
    }

    /// `table` is that of the distances, if there is one.
    fn layer(&self, i: usize, table: &[f32]) -> Result<EncoderLayer, LoadError> {
        let (arch, names) = (&self.described.arch, self.described.names);
        let at = |part: &str| names.layer(i, part);
        let part = |part: At| (at(part.name), part);
        let last = arch.weights_of(arch.layers - 1) == i;
        let alone = arch.distinct_layers == arch.layers;
        let dtype = match last && alone && arch.head.pooling.is_of_tokens() {
            true => self.pooled_dtype(),
            false => self.dtype,
        };
        let (attention, feed_forward) = (&arch.attention, &arch.feed_forward);
        // Or the norm of its heads is scaled.
        let factor = if attention.head_norm {
            1.0
        } else {
            arch.scale()
        };
        let query = As {
            factor,
            ..self.plain(dtype, attention.bias)
        };
        let head_norms = || {
            let query = self.scaled_norm(&at(names.query_norm), arch.scale())?;
            Ok::<_, LoadError>([query, self.norm_of_encoder(&at(names.key_norm))?])
        };
        let norms_after = || {
            let [attention, output] = [names.after_attention, names.after_output];
            let attention = self.norm_of_encoder(&at(attention))?;
            Ok::<_, LoadError>([attention, self.norm_of_encoder(&at(output))?])
        };
        let key_value = self.plain(self.dtype, attention.bias);
        let output = |name: &str, bias| {
            let how = As {
                factor: arch.residual_scale,
                ..self.plain(dtype, bias)
            };
            self.whole(at(name), how)
        };
        let mut intermediate = vec![part(names.first(feed_forward.gated))];
        intermediate.extend(feed_forward.gated.then(|| part(names.up)));
        let gated = As {
            gated: feed_forward.gated,
            ..self.plain(dtype, feed_forward.bias)
        };
        let attention_norm = || self.norm_of_encoder(&at(names.attention_norm));
        Ok(EncoderLayer {
            query: self.linear(&[part(names.query)], query)?,
            key_value: self.linear(&[part(names.key), part(names.value)], key_value)?,
            head_norms: attention.head_norm.then(head_norms).transpose()?,
            attention_output: output(names.attention_output, attention.output_bias)?,
            attention_norm: arch
                .has_attention_norm(i)
                .then(attention_norm)
                .transpose()?,
            intermediate: self.linear(&intermediate, gated)?,
            output: output(names.output, feed_forward.output_bias)?,
            output_norm: self.norm_of_encoder(&at(names.output_norm))?,
            norms_after: (arch.norm.order == Order::Around)
                .then(norms_after)
                .transpose()?,
            disentangled: self.positions(i, table)?,
        })
    }
}
