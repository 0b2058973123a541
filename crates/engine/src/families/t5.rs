//! T5 and mT5 as rerankers that judge a pair by what the decoder says first: the logit of a token, or of one less
//! that of another (castorini/monot5-*, RankT5). Behind the encoder alone, modules may stand as behind any other.
//!
//! Raffel et al., 2019 (<https://arxiv.org/abs/1910.10683>), Xue et al., 2020 (<https://arxiv.org/abs/2010.11934>);
//! checkpoint names and defaults as transformers' `T5ForConditionalGeneration` and `MT5ForConditionalGeneration`.

use rerankd_kernels::Activation;

use super::super::arch::{
    Arch, Attention, Decoder, Embeddings, FeedForward, Head, Norm, Order, Pooling, Relative, Step,
    StepKind,
};
use super::{At, Config, Family, Names, bert};

const NAMES: Names = Names {
    encoder: "encoder",
    word: "embed_tokens",
    word_elsewhere: "shared",
    position: "",
    token_type: "",
    embeddings_norm: "",
    relative: "block.0.layer.0.SelfAttention.relative_attention_bias",
    final_norm: "final_layer_norm",
    layers: "block",
    query: At::whole("layer.0.SelfAttention.q"),
    key: At::whole("layer.0.SelfAttention.k"),
    value: At::whole("layer.0.SelfAttention.v"),
    attention_output: "layer.0.SelfAttention.o",
    attention_norm: "layer.0.layer_norm",
    intermediate: At::whole("layer.1.DenseReluDense.wi"),
    gate: At::whole("layer.1.DenseReluDense.wi_0"),
    up: At::whole("layer.1.DenseReluDense.wi_1"),
    output: "layer.1.DenseReluDense.wo",
    output_norm: "layer.1.layer_norm",
    vocabulary: "lm_head",
    decoder: Some(&DecoderNames {
        layers: "decoder.block",
        final_norm: "decoder.final_layer_norm",
        own_norm: "layer.0.layer_norm",
        own_value: "layer.0.SelfAttention.v",
        own_output: "layer.0.SelfAttention.o",
        norm: "layer.1.layer_norm",
        query: "layer.1.EncDecAttention.q",
        key: "layer.1.EncDecAttention.k",
        value: "layer.1.EncDecAttention.v",
        attention_output: "layer.1.EncDecAttention.o",
        output_norm: "layer.2.layer_norm",
        intermediate: "layer.2.DenseReluDense.wi",
        gated: ["layer.2.DenseReluDense.wi_0", "layer.2.DenseReluDense.wi_1"],
        output: "layer.2.DenseReluDense.wo",
    }),
    ..bert::NAMES
};

/// Where checkpoints keep a decoder behind the encoder; parts are within a layer. It has no biases.
#[derive(Debug)]
pub(in super::super) struct DecoderNames {
    /// What the names of layers begin with.
    layers: &'static str,
    /// Behind the layers.
    pub(in super::super) final_norm: &'static str,
    /// Of the attention to itself, whose queries and keys nobody needs at the first position.
    pub(in super::super) own_norm: &'static str,
    pub(in super::super) own_value: &'static str,
    pub(in super::super) own_output: &'static str,
    /// Of the attention to what is encoded.
    pub(in super::super) norm: &'static str,
    pub(in super::super) query: &'static str,
    pub(in super::super) key: &'static str,
    pub(in super::super) value: &'static str,
    pub(in super::super) attention_output: &'static str,
    /// Of the feed-forward part.
    pub(in super::super) output_norm: &'static str,
    intermediate: &'static str,
    gated: [&'static str; 2],
    pub(in super::super) output: &'static str,
}

impl DecoderNames {
    /// A part of a layer.
    pub(in super::super) fn layer(&self, layer: usize, part: &str) -> String {
        format!("{}.{layer}.{part}", self.layers)
    }

    /// The first linear layer of the feed-forward part; of a gated one, what the activation is applied to, and what
    /// that multiplies.
    pub(in super::super) fn wide(&self, gated: bool) -> &[&'static str] {
        match gated {
            true => &self.gated,
            false => std::slice::from_ref(&self.intermediate),
        }
    }
}

const VERIFIED: &str = "transformers 5.23";

pub(super) const T5: Family = Family {
    name: "T5",
    model_types: &["t5"],
    code: &[],
    examples: &[
        "castorini/monot5-base-msmarco",
        "castorini/monot5-large-msmarco",
        "castorini/monot5-3b-msmarco",
    ],
    verified: VERIFIED,
    read: |config| {
        let tied = config.flag("tie_word_embeddings", true)?;
        // Files of transformers 5 say of all models that they are tied, and which of them are in truth.
        let tied = config.flag("scale_decoder_outputs", tied)?;
        read(config, "relu", tied)
    },
    names: NAMES,
};

pub(super) const MT5: Family = Family {
    name: "mT5",
    model_types: &["mt5"],
    code: &[],
    examples: &[
        "unicamp-dl/mt5-base-mmarco-v2",
        "google/mt5-base fine-tuned as RankT5",
    ],
    verified: VERIFIED,
    read: |config| read(config, "gated-gelu", false),
    names: NAMES,
};

/// With the vocabulary's table `tied` to the word embeddings, the decoder's state is scaled.
fn read(config: &Config, feed_forward: &str, tied: bool) -> Result<Arch, String> {
    if config.is_classifier() {
        return Err(
            "T5's classification heads are not supported, only a token's logit as a score".into(),
        );
    }
    let (hidden_size, heads) = (config.size("d_model")?, config.size("num_heads")?);
    let (layers, vocab_size) = (config.layers("num_layers")?, config.size("vocab_size")?);
    let decoder = Decoder {
        layers: match config.0.get("num_decoder_layers") {
            None | Some(serde_json::Value::Null) => layers,
            Some(_) => config.layers("num_decoder_layers")?,
        },
        start: start(config, vocab_size)?,
    };
    let rows = config.size_or("relative_attention_num_buckets", 32)?;
    let farthest = config.size_or("relative_attention_max_distance", 128)?;
    if rows < 4 || !rows.is_multiple_of(2) || farthest <= rows / 4 {
        return Err(format!(
            "relative_attention_num_buckets is {rows}, and relative_attention_max_distance {farthest}, but the first \
             must be even and at least 4, and the other more than a quarter of it"
        ));
    }
    let (activation, gated) = activation(config, feed_forward)?;
    let scale = Step {
        tensor: String::new(),
        kind: StepKind::Scale((hidden_size as f32).powf(-0.5)),
    };
    Ok(Arch {
        hidden_size,
        layers,
        distinct_layers: layers,
        embeddings: Embeddings {
            vocab_size,
            token_types: 0,
            position: None,
            width: hidden_size,
            projection: None,
            norm: false,
            scale: 1.0,
            tied,
        },
        longest: config.positions("n_positions", Some(512))?,
        norm: Norm {
            epsilon: config.positive("layer_norm_epsilon", 1e-6)?,
            bias: false,
            order: Order::Before,
            root_mean_square: true,
            less_one: false,
        },
        attention: Attention {
            heads,
            key_heads: heads,
            head_size: config.size("d_kv")?,
            bias: false,
            output_bias: false,
            head_norm: false,
            causal: false,
            scale: Some(1.0),
            cap: None,
            relative: Relative::Buckets { rows, farthest },
            local: None,
        },
        feed_forward: FeedForward {
            width: config.size("d_ff")?,
            activation,
            gated,
            bias: false,
            output_bias: false,
        },
        residual_scale: 1.0,
        compression: None,
        head: Head {
            pooling: Pooling::Decoder(decoder),
            steps: tied.then_some(scale).into_iter().collect(),
            labels: config.labels()?,
        },
    })
}

/// The token that the decoder is given.
fn start(config: &Config, vocab_size: usize) -> Result<u32, String> {
    let kind = "a token's id";
    let start: Option<u32> = config.optional("decoder_start_token_id", kind)?;
    let start = match start {
        Some(start) => start,
        None => config.optional("pad_token_id", kind)?.unwrap_or(0),
    };
    match (start as usize) < vocab_size {
        true => Ok(start),
        false => Err(format!(
            "decoder_start_token_id is {start}, which is beyond vocab_size {vocab_size}"
        )),
    }
}

/// The feed-forward part's activation, and whether it is gated.
fn activation(config: &Config, default: &str) -> Result<(Activation, bool), String> {
    let given: Option<String> = config.optional("feed_forward_proj", "a text")?;
    match given.as_deref().unwrap_or(default) {
        "relu" => Ok((Activation::Relu, false)),
        "gated-gelu" => Ok((Activation::GeluTanh, true)),
        "gated-silu" => Ok((Activation::Silu, true)),
        other => Err(format!(
            "feed_forward_proj \"{other}\" is not supported; rerankd has relu, gated-gelu and gated-silu"
        )),
    }
}
