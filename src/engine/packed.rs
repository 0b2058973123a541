//! BERT and its descendants on a CPU: a checkpoint's tensors, packed for the kernels.

use candle_core::Device;
use candle_nn::VarBuilder;
use metrics::histogram;
use rerankd_kernels::{Activation, Embedding, Kernels, LayerNorm, Linear, Team};

use crate::types::{Batch, Dtype, ModelSpec, Output};

use super::encoder::{Embeddings, Encoder, EncoderLayer, Head, Workspace};
use super::load::{Names, open};
use super::registry::{Config, HiddenActivation};
use super::{EngineError, LoadError, Model, Options, Weights};

/// A packed encoder and its buffers.
#[derive(Debug)]
pub(super) struct PackedEncoder {
    spec: ModelSpec,
    encoder: Encoder,
    space: Workspace,
}

impl PackedEncoder {
    /// Checks and packs a checkpoint.
    pub(super) fn load(
        config: &Config,
        spec: ModelSpec,
        weights: &Weights,
        names: Names,
        options: &Options,
    ) -> Result<Self, LoadError> {
        let vb = open(weights, config, names, &Device::Cpu)?;
        let activation = match config.hidden_activation()? {
            HiddenActivation::Gelu => Activation::Gelu,
            HiddenActivation::GeluTanh => Activation::GeluTanh,
            HiddenActivation::Relu => Activation::Relu,
        };
        let team = Team::new(options.threads).map_err(|e| LoadError::Device {
            device: "cpu".into(),
            reason: e.to_string(),
        })?;
        let kernels = Kernels::named(&options.instructions)?;
        let reader = Reader {
            vb,
            kernels,
            dtype: options.dtype,
            config,
        };
        let encoder = reader.encoder(names, activation, team);
        let encoder = encoder.map_err(|e| weights.error(&e))?;
        tracing::info!(
            instructions = kernels.name(),
            dtype = options.dtype.name(),
            threads = options.threads,
            "packed the weights"
        );
        Ok(Self {
            spec,
            encoder,
            space: Workspace::default(),
        })
    }
}

impl Model for PackedEncoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError> {
        // Nothing is padded here; the metric says so for whoever watches it.
        histogram!("rerankd_padding_share").record(0.0);
        let logits = self.encoder.forward(batch, &mut self.space);
        Ok(logits.into_iter().map(Output::logit).collect())
    }
}

struct Reader<'a> {
    vb: VarBuilder<'a>,
    kernels: Kernels,
    dtype: Dtype,
    config: &'a Config,
}

impl Reader<'_> {
    /// A tensor's values. Those that are not finite are refused here, since int8 would hide them.
    fn values(&self, name: &str, shape: &[usize]) -> candle_core::Result<Vec<f32>> {
        let values: Vec<f32> = self.vb.get(shape, name)?.flatten_all()?.to_vec1()?;
        let greatest = match self.dtype {
            Dtype::F16 | Dtype::Int8 => half::f16::MAX.to_f32(),
            Dtype::F32 | Dtype::Bf16 => f32::MAX,
        };
        match values.iter().find(|x| !x.is_finite() || x.abs() > greatest) {
            None => Ok(values),
            Some(x) if x.is_finite() => Err(candle_core::Error::msg(format!(
                "tensor \"{name}\" holds {x}, which is beyond f16's range; use dtype bf16 or f32"
            ))),
            Some(_) => Err(candle_core::Error::msg(format!(
                "tensor \"{name}\" holds a value that is not finite"
            ))),
        }
    }

    /// Reads layers of the same inputs as one, with their outputs one after the other.
    fn linear(
        &self,
        names: &[&str],
        outputs: usize,
        inputs: usize,
        scale: f32,
        dtype: Dtype,
    ) -> candle_core::Result<Linear> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for name in names {
            weight.extend(self.values(&format!("{name}.weight"), &[outputs, inputs])?);
            bias.extend(self.values(&format!("{name}.bias"), &[outputs])?);
        }
        for value in weight.iter_mut().chain(&mut bias) {
            *value *= scale;
        }
        Ok(Linear::pack(self.kernels, &weight, &bias, dtype))
    }

    fn norm(&self, name: &str) -> candle_core::Result<LayerNorm> {
        let shape = [self.config.hidden_size];
        Ok(LayerNorm::new(
            self.values(&format!("{name}.weight"), &shape)?,
            self.values(&format!("{name}.bias"), &shape)?,
            self.config.layer_norm_eps as f32,
        ))
    }

    fn encoder(
        &self,
        names: Names,
        activation: Activation,
        team: Team,
    ) -> candle_core::Result<Encoder> {
        let (config, h) = (self.config, self.config.hidden_size);
        let place = format!("{}.embeddings", names.encoder);
        let table = |name: &str, rows: usize| {
            self.values(&format!("{place}.{name}_embeddings.weight"), &[rows, h])
        };
        let embeddings = Embeddings {
            word: Embedding::new(table("word", config.vocab_size)?, self.dtype),
            position: table("position", config.max_position_embeddings)?,
            token_type: table("token_type", config.type_vocab_size)?,
            norm: self.norm(&format!("{place}.LayerNorm"))?,
            padding_id: names.padding_id,
        };
        let layer = |i| {
            let last = i + 1 == config.num_hidden_layers;
            self.layer(&format!("{}.encoder.layer.{i}", names.encoder), last)
        };
        let layers = (0..config.num_hidden_layers).map(layer);
        Ok(Encoder {
            kernels: self.kernels,
            team,
            embeddings,
            layers: layers.collect::<Result<_, _>>()?,
            head: Head {
                dense: self.linear(&[names.dense], h, h, 1.0, self.first_tokens_dtype())?,
                weight: self.values(&format!("{}.weight", names.output), &[1, h])?,
                bias: self.values(&format!("{}.bias", names.output), &[1])?[0],
            },
            attention_heads: config.num_attention_heads,
            activation,
        })
    }

    /// Of weights that see nothing but the first tokens: with so few rows int8 gains nothing there,
    /// and costs a good part of the accuracy, since no average over tokens comes after it.
    fn first_tokens_dtype(&self) -> Dtype {
        match self.dtype {
            Dtype::Int8 => Dtype::F16,
            other => other,
        }
    }

    fn layer(&self, name: &str, last: bool) -> candle_core::Result<EncoderLayer> {
        let (h, wide) = (self.config.hidden_size, self.config.intermediate_size);
        let at = |part: &str| format!("{name}.{part}");
        let scale = ((h / self.config.num_attention_heads) as f32)
            .sqrt()
            .recip();
        let (key, value) = (at("attention.self.key"), at("attention.self.value"));
        let most = if last {
            self.first_tokens_dtype()
        } else {
            self.dtype
        };
        Ok(EncoderLayer {
            query: self.linear(&[&at("attention.self.query")], h, h, scale, most)?,
            key_value: self.linear(&[&key, &value], h, h, 1.0, self.dtype)?,
            attention_output: self.linear(&[&at("attention.output.dense")], h, h, 1.0, most)?,
            attention_norm: self.norm(&at("attention.output.LayerNorm"))?,
            intermediate: self.linear(&[&at("intermediate.dense")], wide, h, 1.0, most)?,
            output: self.linear(&[&at("output.dense")], h, wide, 1.0, most)?,
            output_norm: self.norm(&at("output.LayerNorm"))?,
        })
    }
}
