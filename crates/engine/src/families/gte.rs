//! The sequence classifiers that Alibaba calls `new`: Alibaba-NLP/gte-multilingual-reranker-base.
//!
//! Zhang et al., 2024 (<https://arxiv.org/abs/2407.19669>). On the hub they bring code of their own; names, and which
//! half of the feed-forward part is the gate, are those of its checkpoints.

use rerankd_kernels::Activation;
use serde_json::Value;

use super::super::arch::{Arch, Relative, Rotary};
use super::{At, Config, Family, Names, bert, even, frequencies};

pub(super) const FAMILY: Family = Family {
    name: "GTE",
    model_types: &["new"],
    code: &[],
    examples: &["Alibaba-NLP/gte-multilingual-reranker-base"],
    verified: "transformers 5.23's own GTE, on the same tensors (the model's own code is remote)",
    read,
    names: Names {
        encoder: "new",
        query: At::part("attention.qkv_proj", 0, 3),
        key: At::part("attention.qkv_proj", 1, 3),
        value: At::part("attention.qkv_proj", 2, 3),
        attention_output: "attention.o_proj",
        attention_norm: "attn_ln",
        intermediate: At::part("mlp.up_gate_proj", 1, 2),
        up: At::part("mlp.up_gate_proj", 0, 2),
        output: "mlp.down_proj",
        output_norm: "mlp_ln",
        ..bert::NAMES
    },
};

fn read(config: &Config) -> Result<Arch, String> {
    for (name, supported) in [
        ("position_embedding_type", "rope"),
        ("layer_norm_type", "layer_norm"),
    ] {
        let given: Option<String> = config.optional(name, "a text")?;
        if let Some(other) = given.filter(|given| given != supported) {
            return Err(format!(
                "{name} \"{other}\" is not supported, only {supported}"
            ));
        }
    }
    for name in ["logn_attention_scale", "logn_attention_clip1"] {
        if config.flag(name, false)? {
            return Err(format!("{name} is not supported"));
        }
    }
    if !config.flag("pack_qkv", true)? {
        return Err("pack_qkv false is not supported".into());
    }
    let mut arch = bert::read_placeless(config)?;
    arch.embeddings.token_types = config.size_or_none("type_vocab_size")?.unwrap_or(0);
    arch.longest = config.positions("max_position_embeddings", None)?;
    arch.attention.relative = Relative::Rotary(Rotary {
        frequencies: scaled_frequencies(config, even(arch.attention.head_size)?)?,
        local_frequencies: None,
        scale: 1.0,
    });
    arch.feed_forward.gated = true;
    arch.feed_forward.bias = false;
    let dense = "new.pooler.dense";
    arch.head = bert::head(
        config,
        arch.hidden_size,
        dense,
        Activation::Tanh,
        "classifier",
    )?;
    Ok(arch)
}

/// Angles by the base, which "NTK" scaling multiplies with the factor, while each angle is divided by a power of it
/// (Su, "Transformer upgrade: 10", 2023; the reference's default form).
fn scaled_frequencies(config: &Config, size: usize) -> Result<Vec<f32>, String> {
    let theta = config.positive("rope_theta", 10_000.0)?;
    let scaling = match &config.0["rope_scaling"] {
        Value::Null => return Ok(frequencies(theta, size)),
        scaling => Config(scaling.clone()),
    };
    let kind: String = match scaling.optional("type", "a text")? {
        Some(kind) => kind,
        None => scaling.required("rope_type", "a text")?,
    };
    if kind != "ntk" {
        return Err(format!(
            "rope_scaling: type \"{kind}\" is not supported, only ntk"
        ));
    }
    if scaling
        .0
        .get("mixed_b")
        .is_some_and(|mixed| !mixed.is_null())
    {
        return Err("rope_scaling: mixed_b is not supported".into());
    }
    let _: f64 = scaling.required("factor", "a number")?;
    let factor = scaling.positive("factor", 1.0)?;
    let divisor = factor.powf(2.0 / size as f64) as f32;
    let scaled = frequencies(theta * factor, size).into_iter();
    Ok(scaled.map(|frequency| frequency / divisor).collect())
}
