//! ModernBERT sequence classifiers: Alibaba-NLP/gte-reranker-modernbert-base and others; also what stands before the
//! modules of cross-encoder/ettin-reranker-*.
//!
//! Warner et al., 2024 (<https://arxiv.org/abs/2412.13663>); checkpoint names, window and head as transformers'
//! `ModernBertForSequenceClassification`.

use rerankd_kernels::Activation;
use serde_json::Value;

use super::super::arch::{
    Arch, Attention, Embeddings, FeedForward, Head, Local, Norm, Order, Pooling, Relative, Rotary,
    Step,
};
use super::{At, Config, Family, Names, bert, even, frequencies};

pub(super) const FAMILY: Family = Family {
    name: "ModernBERT",
    model_types: &["modernbert"],
    code: &[],
    examples: &[
        "cross-encoder/ettin-reranker-17m-v1",
        "cross-encoder/ettin-reranker-32m-v1",
        "cross-encoder/ettin-reranker-68m-v1",
        "cross-encoder/ettin-reranker-150m-v1",
        "Alibaba-NLP/gte-reranker-modernbert-base",
        "ibm-granite/granite-embedding-reranker-english-r2",
    ],
    verified: "transformers 5.23, sentence-transformers 6.2",
    read,
    names: Names {
        encoder: "model",
        word: "embeddings.tok_embeddings",
        position: "",
        token_type: "",
        embeddings_norm: "embeddings.norm",
        projection: "",
        relative: "",
        relative_norm: "",
        final_norm: "final_norm",
        layers: "layers",
        query: At::part("attn.Wqkv", 0, 3),
        key: At::part("attn.Wqkv", 1, 3),
        value: At::part("attn.Wqkv", 2, 3),
        query_norm: "",
        key_norm: "",
        relative_key: "",
        relative_query: "",
        attention_output: "attn.Wo",
        attention_norm: "attn_norm",
        after_attention: "",
        intermediate: At::part("mlp.Wi", 0, 2),
        up: At::part("mlp.Wi", 1, 2),
        output: "mlp.Wo",
        output_norm: "mlp_norm",
        after_output: "",
        ..bert::NAMES
    },
};

fn read(config: &Config) -> Result<Arch, String> {
    let (hidden_size, heads) = config.width_and_heads("hidden_size", "num_attention_heads")?;
    let layers = config.layers("num_hidden_layers")?;
    let norm = Norm {
        epsilon: config.positive("norm_eps", 1e-5)?,
        bias: config.flag("norm_bias", false)?,
        order: Order::Before,
        root_mean_square: false,
        less_one: false,
    };
    let attention_bias = config.flag("attention_bias", false)?;
    let mlp_bias = config.flag("mlp_bias", false)?;
    let size = even(hidden_size / heads)?;
    let global = theta(config, "full_attention", "global_rope_theta", 160_000.0)?;
    // Older files say null where local layers have the others' base.
    let default = match config.0.get("local_rope_theta") {
        Some(Value::Null) => global,
        _ => 10_000.0,
    };
    let local = theta(config, "sliding_attention", "local_rope_theta", default)?;
    let rotary = Rotary {
        frequencies: frequencies(global, size),
        local_frequencies: Some(frequencies(local, size)),
        scale: 1.0,
    };
    Ok(Arch {
        hidden_size,
        layers,
        distinct_layers: layers,
        embeddings: Embeddings {
            vocab_size: config.size("vocab_size")?,
            token_types: 0,
            position: None,
            width: hidden_size,
            projection: None,
            norm: true,
            scale: 1.0,
            tied: false,
        },
        longest: config.positions("max_position_embeddings", Some(8192))?,
        attention: Attention {
            heads,
            key_heads: heads,
            head_size: hidden_size / heads,
            bias: attention_bias,
            output_bias: attention_bias,
            head_norm: false,
            causal: false,
            scale: None,
            cap: None,
            relative: Relative::Rotary(rotary),
            local: Some(Local {
                reach: config.size_or("local_attention", 128)? / 2,
                global_layers: global_layers(config, layers)?,
            }),
        },
        feed_forward: FeedForward {
            width: config.size("intermediate_size")?,
            activation: config.activation("hidden_activation", Some("gelu"))?,
            gated: true,
            bias: mlp_bias,
            output_bias: mlp_bias,
        },
        residual_scale: 1.0,
        compression: None,
        head: head(config, hidden_size, &norm)?,
        norm,
    })
}

/// Which layers see all tokens: `layer_types` as transformers 5 writes it, else every so many, from the first on.
fn global_layers(config: &Config, layers: usize) -> Result<Vec<bool>, String> {
    if let Some(types) = config.layer_types(layers)? {
        return Ok(types);
    }
    let every = config.size_or("global_attn_every_n_layers", 3)?;
    Ok((0..layers).map(|i| i.is_multiple_of(every)).collect())
}

/// The base of a kind of layer's angles: in `rope_parameters` as transformers 5 writes it, else in a field of its own.
fn theta(config: &Config, kind: &str, field: &str, default: f64) -> Result<f64, String> {
    let older = config.positive(field, default)?;
    let parameters = match &config.0["rope_parameters"] {
        Value::Null => return Ok(older),
        parameters => Config(parameters[kind].clone()),
    };
    let rope: Option<String> = parameters.optional("rope_type", "a text")?;
    match rope.as_deref() {
        None | Some("default") => parameters.positive("rope_theta", older),
        Some(other) => Err(format!(
            "rope_parameters: rope_type \"{other}\" is not supported"
        )),
    }
}

fn head(config: &Config, hidden_size: usize, norm: &Norm) -> Result<Head, String> {
    let pooling: Option<String> = config.optional("classifier_pooling", "cls or mean")?;
    let pooling = match pooling.as_deref() {
        None | Some("cls") => Pooling::First,
        Some("mean") => Pooling::Mean,
        Some(other) => {
            return Err(format!(
                "classifier_pooling is \"{other}\", but it must be cls or mean"
            ));
        }
    };
    let labels = config.labels()?;
    let activation = config.activation("classifier_activation", Some("gelu"))?;
    let bias = config.flag("classifier_bias", false)?;
    Ok(Head {
        pooling,
        steps: vec![
            Step::linear("head.dense", hidden_size, bias, activation),
            Step::norm("head.norm", norm.epsilon, norm.bias),
            Step::linear("classifier", labels.len(), true, Activation::None),
        ],
        labels,
    })
}
