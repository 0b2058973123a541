//! An encoder over padded rectangles, of candle-transformers' layers: each has a span at level trace, so that
//! a profile of a device shows where its time goes.

use candle_core::{D, Device, Module, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_transformers::models::with_tracing::{Embedding, LayerNorm, Linear};
use rerankd_kernels::Activation;

use super::super::arch::{Arch, Order, Pooling, Relative, Step, StepKind};
use super::super::checkpoint::Checkpoint;
use super::super::error::LoadError;
use super::super::families::{Described, Names};
use super::Padded;

/// The encoder with its classification head.
pub(super) struct Encoder {
    arch: Arch,
    word: Embedding,
    position: Embedding,
    token_type: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
    head: Vec<(Linear, Activation)>,
    /// Bytes of all weights.
    pub(super) bytes: usize,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

impl Encoder {
    /// Reads a checkpoint to the device.
    pub(super) fn load(
        described: &Described,
        checkpoint: &Checkpoint,
        device: &Device,
    ) -> Result<Self, LoadError> {
        let (arch, names) = (&described.arch, described.names);
        let mut reader = Reader {
            checkpoint,
            device,
            epsilon: arch.norm.epsilon,
            bytes: 0,
        };
        let mut table = |name: &str| -> Result<_, LoadError> {
            let tensor = reader.tensor(&names.encoder(name), "weight")?;
            Embedding::from_weights(tensor).map_err(|error| reader.error(name, &error))
        };
        let (word, position) = (table(names.word)?, table(names.position)?);
        let token_type = table(names.token_type)?;
        let layers = (0..arch.layers).map(|i| reader.layer(names, i));
        let layers = layers.collect::<Result<_, _>>()?;
        let head = arch.head.steps.iter().map(|step| {
            let activation = match step.kind {
                StepKind::Linear { activation, .. } => activation,
                StepKind::Norm { .. }
                | StepKind::Answer { .. }
                | StepKind::Cap(_)
                | StepKind::Scale(_) => Activation::None,
            };
            Ok((reader.linear(&step.tensor)?, activation))
        });
        let head = head.collect::<Result<_, LoadError>>()?;
        Ok(Self {
            layers,
            head,
            word,
            position,
            token_type,
            norm: reader.norm(&names.encoder(names.embeddings_norm))?,
            arch: arch.clone(),
            bytes: reader.bytes,
        })
    }

    /// Logits of one rectangle, `[sequences, labels]`.
    pub(super) fn forward(&self, input: &Padded) -> candle_core::Result<Tensor> {
        // [sequences, tokens, hidden size]
        let embedded = self.word.forward(&input.ids)?;
        let embedded = (embedded + self.position.forward(&input.places)?)?;
        let embedded = (embedded + self.token_type.forward(&input.type_ids)?)?;
        let mut hidden = self.norm.forward(&embedded)?;
        for layer in &self.layers {
            hidden = self.layer(layer, &hidden, &input.mask)?;
        }
        let mut state = hidden.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?; // [sequences, hidden size]
        for (linear, activation) in &self.head {
            state = activate(&linear.forward(&state)?, *activation)?;
        }
        Ok(state)
    }

    fn layer(&self, layer: &Layer, hidden: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
        let (sequences, tokens, width) = hidden.dims3()?;
        let (heads, size) = (self.arch.attention.heads, self.arch.attention.head_size);
        // [sequences, heads, tokens, head size]
        let project = |linear: &Linear| {
            let projected = linear.forward(hidden)?;
            let cut = projected.reshape((sequences, tokens, heads, size))?;
            cut.transpose(1, 2)?.contiguous()
        };
        let (query, key) = (project(&layer.query)?, project(&layer.key)?);
        let scale = (size as f64).sqrt().recip();
        // [sequences, heads, tokens, tokens]
        let scores = (query.matmul(&key.transpose(D::Minus2, D::Minus1)?)? * scale)?;
        let shares = softmax_last_dim(&scores.broadcast_add(mask)?)?;
        let context = shares.matmul(&project(&layer.value)?)?.transpose(1, 2)?;
        let context = context.contiguous()?.reshape((sequences, tokens, width))?;
        let attended = (layer.attention_output.forward(&context)? + hidden)?;
        let hidden = layer.attention_norm.forward(&attended)?;
        let wide = layer.intermediate.forward(&hidden)?;
        let wide = activate(&wide, self.arch.feed_forward.activation)?;
        let output = (layer.output.forward(&wide)? + hidden)?;
        layer.output_norm.forward(&output)
    }
}

fn activate(values: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
    match activation {
        Activation::None => Ok(values.clone()),
        Activation::Gelu => values.gelu_erf(),
        Activation::GeluTanh => values.gelu(),
        Activation::QuickGelu => values * candle_nn::ops::sigmoid(&(values * 1.702)?)?,
        Activation::Relu => values.relu(),
        Activation::Silu => values.silu(),
        Activation::Tanh => values.tanh(),
    }
}

/// Whether a model has nothing that BERT has not.
pub(super) fn is_like_bert(arch: &Arch) -> bool {
    let attention = &arch.attention;
    let linear = |step: &Step| {
        matches!(
            step.kind,
            StepKind::Linear {
                bias: true,
                residual: false,
                ..
            }
        )
    };
    attention.relative == Relative::None
        && attention.local.is_none()
        && attention.bias
        && attention.output_bias
        && !arch.feed_forward.gated
        && arch.feed_forward.bias
        && arch.feed_forward.output_bias
        && arch.norm.bias
        && arch.norm.order == Order::After
        && arch.embeddings.projection.is_none()
        && arch.embeddings.position.is_some()
        && arch.embeddings.token_types > 0
        && arch.distinct_layers == arch.layers
        && arch.head.pooling == Pooling::First
        && arch.head.steps.iter().all(linear)
        && !arch.head.labels.is_empty()
}

struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    epsilon: f64,
    /// Of what has been read.
    bytes: usize,
}

impl Reader<'_> {
    fn tensor(&mut self, name: &str, parameter: &str) -> Result<Tensor, LoadError> {
        let name = format!("{name}.{parameter}");
        let values = self.checkpoint.values(&name)?;
        self.bytes += size_of_val(&values[..]);
        let tensor = Tensor::from_vec(values, self.checkpoint.shape(&name)?, self.device);
        tensor.map_err(|error| self.error(&name, &error))
    }

    fn error(&self, name: &str, error: &candle_core::Error) -> LoadError {
        LoadError::Device {
            device: format!("{:?}", self.device.location()),
            reason: format!("tensor \"{name}\": {error}"),
        }
    }

    fn linear(&mut self, name: &str) -> Result<Linear, LoadError> {
        let weight = self.tensor(name, "weight")?;
        let bias = self.tensor(name, "bias")?;
        Ok(Linear::from_weights(weight, Some(bias)))
    }

    fn norm(&mut self, name: &str) -> Result<LayerNorm, LoadError> {
        let weight = self.tensor(name, "weight")?;
        let bias = self.tensor(name, "bias")?;
        Ok(LayerNorm::new(weight, bias, self.epsilon))
    }

    fn layer(&mut self, names: &Names, i: usize) -> Result<Layer, LoadError> {
        let at = |part: &str| names.layer(i, part);
        Ok(Layer {
            query: self.linear(&at(names.query.name))?,
            key: self.linear(&at(names.key.name))?,
            value: self.linear(&at(names.value.name))?,
            attention_output: self.linear(&at(names.attention_output))?,
            attention_norm: self.norm(&at(names.attention_norm))?,
            intermediate: self.linear(&at(names.intermediate.name))?,
            output: self.linear(&at(names.output))?,
            output_norm: self.norm(&at(names.output_norm))?,
        })
    }
}
