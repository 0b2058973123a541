//! Decoders: Llama, Mistral, Qwen 2 and 3, Gemma 1 and 2, as rerankers that judge a pair by a token's logit
//! (Qwen/Qwen3-Reranker-*, mixedbread-ai/mxbai-rerank-*-v2, BAAI/bge-reranker-v2-gemma), with a classification head,
//! with one after each layer (BAAI/bge-reranker-v2-minicpm-layerwise), or with vectors of marked tokens.
//!
//! Touvron et al., 2023 (<https://arxiv.org/abs/2302.13971>), Qwen, 2024 and 2025 (<https://arxiv.org/abs/2412.15115>,
//! <https://arxiv.org/abs/2505.09388>), Gemma, 2024 (<https://arxiv.org/abs/2403.08295>,
//! <https://arxiv.org/abs/2408.00118>); checkpoint names and defaults as transformers' classes have them.

use rerankd_kernels::Activation;

use super::super::arch::{
    Arch, Attention, Embeddings, FeedForward, Head, Local, Norm, Order, Pooling, Relative, Step,
    StepKind,
};
use super::{At, Config, Family, Names, bert, even, rope};

const NAMES: Names = Names {
    encoder: "model",
    word: "embed_tokens",
    position: "",
    token_type: "",
    embeddings_norm: "",
    final_norm: "norm",
    layers: "layers",
    query: At::whole("self_attn.q_proj"),
    key: At::whole("self_attn.k_proj"),
    value: At::whole("self_attn.v_proj"),
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    attention_output: "self_attn.o_proj",
    attention_norm: "input_layernorm",
    intermediate: At::whole("mlp.gate_proj"),
    up: At::whole("mlp.up_proj"),
    output: "mlp.down_proj",
    output_norm: "post_attention_layernorm",
    vocabulary: "lm_head",
    ..bert::NAMES
};

const VERIFIED: &str = "transformers 5.23, sentence-transformers 6.2";

pub(super) const LLAMA: Family = Family {
    name: "Llama",
    model_types: &["llama"],
    code: &[],
    examples: &[],
    verified: VERIFIED,
    read: |config| {
        let bias = config.flag("attention_bias", false)?;
        let mut arch = read(config, head_size(config, None)?, 1e-6)?;
        (arch.attention.bias, arch.attention.output_bias) = (bias, bias);
        (arch.feed_forward.bias, arch.feed_forward.output_bias) = {
            let bias = config.flag("mlp_bias", false)?;
            (bias, bias)
        };
        Ok(arch)
    },
    names: NAMES,
};

pub(super) const BIDIRECTIONAL_LLAMA: Family = Family {
    name: "bidirectional Llama",
    model_types: &["llama_bidirec"],
    code: &[],
    examples: &["nvidia/llama-nemotron-rerank-1b-v2"],
    verified: "transformers 5.23's Llama with a mask that hides nothing (the model's own code is remote)",
    read: |config| {
        let mut arch = (LLAMA.read)(config)?;
        arch.attention.causal = false;
        let pooling: Option<String> = config.optional("pooling", "avg, cls or last")?;
        arch.head.pooling = match pooling.as_deref() {
            None | Some("avg") => Pooling::Mean,
            Some("cls") => Pooling::First,
            Some("last") => Pooling::Last,
            Some(other) => {
                return Err(format!(
                    "pooling is \"{other}\", but it must be avg, cls or last"
                ));
            }
        };
        let temperature = config.positive("temperature", 1.0)?;
        if temperature != 1.0 {
            arch.head.steps.push(Step {
                tensor: String::new(),
                kind: StepKind::Scale(1.0 / temperature as f32),
            });
        }
        Ok(arch)
    },
    names: NAMES,
};

pub(super) const MISTRAL: Family = Family {
    name: "Mistral",
    model_types: &["mistral"],
    code: &[],
    examples: &["ContextualAI/ctxl-rerank-v2-instruct-multilingual-6b"],
    verified: "nothing of its own; its layers are Llama's",
    read: |config| {
        let mut arch = read(config, head_size(config, None)?, 1e-6)?;
        if let Some(window) = config.size_or_none("sliding_window")? {
            arch.attention.local = local(config, window, |_| true)?;
        }
        Ok(arch)
    },
    names: NAMES,
};

pub(super) const QWEN2: Family = Family {
    name: "Qwen2",
    model_types: &["qwen2"],
    code: &[],
    examples: &[
        "mixedbread-ai/mxbai-rerank-base-v2",
        "mixedbread-ai/mxbai-rerank-large-v2",
    ],
    verified: VERIFIED,
    read: |config| {
        let mut arch = read(config, head_size(config, None)?, 1e-6)?;
        arch.attention.bias = true;
        arch.attention.local = qwens_windows(config)?;
        Ok(arch)
    },
    names: NAMES,
};

pub(super) const QWEN3: Family = Family {
    name: "Qwen3",
    model_types: &["qwen3"],
    code: &[],
    examples: &[
        "Qwen/Qwen3-Reranker-0.6B",
        "Qwen/Qwen3-Reranker-4B",
        "Qwen/Qwen3-Reranker-8B",
        "zeroentropy/zerank-2-reranker",
        "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
    ],
    verified: VERIFIED,
    read: |config| {
        let bias = config.flag("attention_bias", false)?;
        let mut arch = read(config, head_size(config, Some(128))?, 1e-6)?;
        (arch.attention.bias, arch.attention.output_bias) = (bias, bias);
        arch.attention.head_norm = true;
        arch.attention.local = qwens_windows(config)?;
        Ok(arch)
    },
    names: NAMES,
};

pub(super) const GEMMA: Family = Family {
    name: "Gemma",
    model_types: &["gemma"],
    code: &[],
    examples: &["BAAI/bge-reranker-v2-gemma"],
    verified: VERIFIED,
    read: |config| gemma(config, "hidden_act"),
    names: NAMES,
};

pub(super) const GEMMA2: Family = Family {
    name: "Gemma 2",
    model_types: &["gemma2"],
    code: &[],
    examples: &[],
    verified: VERIFIED,
    read: |config| {
        let mut arch = gemma(config, "hidden_activation")?;
        arch.norm.order = Order::Around;
        let attention = &mut arch.attention;
        let scalar = config.positive("query_pre_attn_scalar", 256.0)?;
        attention.scale = Some(scalar.powf(-0.5) as f32);
        attention.cap = cap(config, "attn_logit_softcapping", 50.0)?;
        let window = config.size_or("sliding_window", 4096)?;
        attention.local = local(config, window, |layer| layer.is_multiple_of(2))?;
        if let Some(cap) = cap(config, "final_logit_softcapping", 30.0)? {
            arch.head.steps.push(Step {
                tensor: String::new(),
                kind: StepKind::Cap(cap),
            });
        }
        Ok(arch)
    },
    names: Names {
        after_attention: "post_attention_layernorm",
        output_norm: "pre_feedforward_layernorm",
        after_output: "post_feedforward_layernorm",
        ..NAMES
    },
};

pub(super) const MINICPM_LAYERWISE: Family = Family {
    name: "MiniCPM with a head for each layer",
    model_types: &["minicpm"],
    code: &["LayerWiseMiniCPM"],
    examples: &["BAAI/bge-reranker-v2-minicpm-layerwise"],
    verified: "transformers 5.23's Llama with scaled weights (the model's own code is remote)",
    read: |config| {
        let mut arch = read(config, head_size(config, None)?, 1e-5)?;
        arch.embeddings.scale = config.positive("scale_emb", 1.0)? as f32;
        let depth = config.positive("scale_depth", 1.0)?;
        arch.residual_scale = (depth / (arch.layers as f64).sqrt()) as f32;
        cut(config, &mut arch, |number| number)?;
        Ok(arch)
    },
    names: NAMES,
};

pub(super) const GEMMA2_LAYERWISE: Family = Family {
    name: "Gemma 2 with a head for each layer",
    model_types: &[COMPRESSING],
    code: &[],
    examples: &["BAAI/bge-reranker-v2.5-gemma2-lightweight"],
    verified: "transformers 5.23's Gemma 2, in a loop that compresses (the model's own code is remote)",
    read: |config| {
        let mut arch = (GEMMA2.read)(config)?;
        // Its published code counts heads from the first layer that is asked for, so that one layer alone has the
        // first head, whichever it is.
        cut(config, &mut arch, |_| 0)?;
        Ok(arch)
    },
    names: GEMMA2.names,
};

/// What config.json calls the models whose documents may get shorter on their way.
pub(super) const COMPRESSING: &str = "cost_wise_gemma";

/// Whether config.json says that a head follows each layer from some layer on.
pub(super) fn has_heads_of_layers(config: &Config) -> bool {
    config.0["layer_wise"] == true || config.0["head_multi"] == true
}

/// Ends a model after `cutoff_layer` layers, with the head that `head` names of the number of the one that is there.
fn cut(config: &Config, arch: &mut Arch, head: impl Fn(usize) -> usize) -> Result<(), String> {
    if !has_heads_of_layers(config) {
        return Err("it names no head for each layer (head_multi, layer_wise), and other heads of this kind of model are \
                    not supported"
            .into());
    }
    let head_type: Option<String> = config.optional("head_type", "a text")?;
    if let Some(other) = head_type.filter(|kind| kind != "simple") {
        return Err(format!(
            "head_type is \"{other}\"; rerankd has simple heads, of one output"
        ));
    }
    let (all, start) = (arch.layers, config.size_or("start_layer", 8)?);
    let step = config.size_or("layer_sep", 1)?;
    let layers = config.size_or(CUTOFF_LAYER, all)?;
    if !(start..=all).contains(&layers) || !(layers - start).is_multiple_of(step) {
        let steps = match step {
            1 => String::new(),
            step => format!(" in steps of {step}"),
        };
        return Err(format!(
            "cutoff_layer is {layers}, but the model has heads after the layers {start} to {all}{steps}"
        ));
    }
    (arch.layers, arch.distinct_layers) = (layers, layers);
    let tensor = format!("lm_head.{}.linear_head", head((layers - start) / step));
    let steps = arch.head.steps.drain(..);
    let mut own = vec![Step::linear(tensor, 1, false, Activation::None)];
    own.extend(steps.filter(|step| matches!(step.kind, StepKind::Cap(_))));
    arch.head.steps = own;
    arch.head.labels = vec!["score".to_owned()];
    Ok(())
}

fn gemma(config: &Config, activation: &str) -> Result<Arch, String> {
    let size = even(config.size_or("head_dim", 256)?)?;
    let mut arch = read(config, size, 1e-6)?;
    arch.norm.less_one = true;
    arch.embeddings.scale = (arch.hidden_size as f64).sqrt() as f32;
    arch.embeddings.tied = config.flag("tie_word_embeddings", true)?;
    // Older files say gelu, but the models were trained with its approximation.
    arch.feed_forward.activation = match config.activation(activation, Some("gelu_new"))? {
        Activation::Gelu => Activation::GeluTanh,
        other => other,
    };
    Ok(arch)
}

/// The field of config.json, and of settings, that says how many layers are computed.
pub(super) const CUTOFF_LAYER: &str = "cutoff_layer";

/// `null` is none.
fn cap(config: &Config, name: &str, default: f64) -> Result<Option<f32>, String> {
    match config.0.get(name) {
        Some(serde_json::Value::Null) => Ok(None),
        _ => Ok(Some(config.positive(name, default)? as f32)),
    }
}

/// What all have in common: norms before each part and no biases; labels by the last token, unless it is another
/// kind of model.
fn read(config: &Config, head_size: usize, epsilon: f64) -> Result<Arch, String> {
    let (hidden_size, heads) = (
        config.size("hidden_size")?,
        config.size("num_attention_heads")?,
    );
    let key_heads = config.size_or("num_key_value_heads", heads)?;
    if !heads.is_multiple_of(key_heads) {
        return Err(format!(
            "num_attention_heads {heads} can't be divided among {key_heads} num_key_value_heads"
        ));
    }
    let layers = config.layers("num_hidden_layers")?;
    let longest = config.positions("max_position_embeddings", None)?;
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
            norm: false,
            scale: 1.0,
            tied: config.flag("tie_word_embeddings", false)?,
        },
        longest,
        norm: Norm {
            epsilon: config.positive("rms_norm_eps", epsilon)?,
            bias: false,
            order: Order::Before,
            root_mean_square: true,
            less_one: false,
        },
        attention: Attention {
            heads,
            key_heads,
            head_size,
            bias: false,
            output_bias: false,
            head_norm: false,
            causal: true,
            scale: None,
            cap: None,
            relative: Relative::Rotary(rope::read(config, head_size, longest)?),
            local: None,
        },
        feed_forward: FeedForward {
            width: config.size("intermediate_size")?,
            activation: config.activation("hidden_act", Some("silu"))?,
            gated: true,
            bias: false,
            output_bias: false,
        },
        residual_scale: 1.0,
        compression: None,
        head: head(config, hidden_size)?,
    })
}

/// Width of a head, which is not always the hidden size's part.
fn head_size(config: &Config, default: Option<usize>) -> Result<usize, String> {
    let given = config.size_or_none("head_dim")?.or(default);
    match given {
        Some(size) => even(size),
        None => {
            let (width, heads) = config.width_and_heads("hidden_size", "num_attention_heads")?;
            even(width / heads)
        }
    }
}

fn head(config: &Config, hidden_size: usize) -> Result<Head, String> {
    let is = |name: &str| config.has_architecture(|architecture| architecture == name);
    if is("JinaForRanking") {
        // Vectors of marked tokens; widths as its code has them where config.json gives none.
        let between = config.size_or("projector_hidden_size", hidden_size / 2)?;
        let width = config.size_or("embedding_size", 512)?;
        return Ok(Head {
            pooling: Pooling::Last,
            steps: vec![
                Step::linear("projector.0", between, false, Activation::Relu),
                Step::linear("projector.2", width, false, Activation::None),
            ],
            labels: Vec::new(),
        });
    }
    let labels = config.labels()?;
    Ok(Head {
        pooling: Pooling::Last,
        steps: vec![Step::linear("score", labels.len(), false, Activation::None)],
        labels,
    })
}

/// Layers from `max_window_layers` on see so far only, if windows are in use at all.
fn qwens_windows(config: &Config) -> Result<Option<Local>, String> {
    if !config.flag("use_sliding_window", false)? {
        return Ok(None);
    }
    let window = config.size_or("sliding_window", 4096)?;
    let first = config
        .optional("max_window_layers", "a whole number")?
        .unwrap_or(28);
    local(config, window, |layer| layer >= first)
}

/// Layers that see a window: those that `layer_types` says, or else `by_default`. A token counts to its window.
fn local(
    config: &Config,
    window: usize,
    by_default: impl Fn(usize) -> bool,
) -> Result<Option<Local>, String> {
    let layers = config.layers("num_hidden_layers")?;
    let global_layers = match config.layer_types(layers)? {
        Some(global) => global,
        None => (0..layers).map(|layer| !by_default(layer)).collect(),
    };
    Ok(Some(Local {
        reach: window - 1,
        global_layers,
    }))
}
