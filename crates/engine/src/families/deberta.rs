//! DeBERTa-v2 and -v3 sequence classifiers: mixedbread-ai/mxbai-rerank-*-v1 and others.
//!
//! He et al., 2020 and 2021 (<https://arxiv.org/abs/2006.03654>, <https://arxiv.org/abs/2111.09543>); checkpoint names
//! and the head as transformers' `DebertaV2ForSequenceClassification`.

use serde_json::Value;

use super::super::arch::{Arch, Disentangled, Learned, Projection, Relative};
use super::{At, Config, Family, Names, at_most, bert};

pub(super) const FAMILY: Family = Family {
    name: "DeBERTa-v2",
    model_types: &["deberta-v2"],
    code: &[],
    examples: &[
        "mixedbread-ai/mxbai-rerank-xsmall-v1",
        "mixedbread-ai/mxbai-rerank-base-v1",
        "mixedbread-ai/mxbai-rerank-large-v1",
        "cross-encoder/nli-deberta-v3-base",
        "naver/trecdl22-crossencoder-debertav3",
    ],
    verified: "transformers 5.23, sentence-transformers 6.2",
    read,
    names: Names {
        encoder: "deberta",
        projection: "embeddings.embed_proj",
        relative: "encoder.rel_embeddings",
        relative_norm: "encoder.LayerNorm",
        query: At::whole("attention.self.query_proj"),
        key: At::whole("attention.self.key_proj"),
        value: At::whole("attention.self.value_proj"),
        relative_key: "attention.self.pos_key_proj",
        relative_query: "attention.self.pos_query_proj",
        ..bert::NAMES
    },
};

/// Most distances: their rows have numbers of 16 bits.
const MOST_SPAN: usize = 1 << 15;

fn read(config: &Config) -> Result<Arch, String> {
    if config.size_or_none("conv_kernel_size")?.is_some() {
        return Err("conv_kernel_size: DeBERTa's convolution is not supported".into());
    }
    let sizes = config.usual_sizes()?;
    let (hidden_size, heads) = (sizes.hidden_size, sizes.heads);
    let head_size = config.size_or("attention_head_size", hidden_size / heads)?;
    if head_size * heads != hidden_size {
        return Err(format!(
            "attention_head_size {head_size} times {heads} heads is not hidden_size {hidden_size}"
        ));
    }
    let pooled = config.size_or("pooler_hidden_size", hidden_size)?;
    if pooled != hidden_size {
        return Err(format!(
            "pooler_hidden_size is {pooled}, but hidden_size {hidden_size}"
        ));
    }
    let pooler = config.activation("pooler_hidden_act", Some("gelu"))?;
    let mut arch = Arch::like_bert(
        sizes,
        config.activation("hidden_act", Some("gelu"))?,
        config.positive("layer_norm_eps", 1e-7)?,
        bert::head(config, hidden_size, "pooler.dense", pooler, "classifier")?,
    );
    arch.longest = config.positions("max_position_embeddings", Some(512))?;
    arch.attention.relative = relative(config, arch.longest)?;
    let embeddings = &mut arch.embeddings;
    embeddings.width = config.size_or("embedding_size", hidden_size)?;
    embeddings.projection = (embeddings.width != hidden_size).then_some(Projection::BeforeNorm);
    embeddings.token_types = config.size_or_none("type_vocab_size")?.unwrap_or(0);
    let position = Learned {
        rows: arch.longest,
        padding: None,
    };
    let biased = config.flag("position_biased_input", true)?;
    embeddings.position = biased.then_some(position);
    Ok(arch)
}

fn relative(config: &Config, longest: usize) -> Result<Relative, String> {
    let types: Vec<String> = match &config.0["pos_att_type"] {
        Value::Null => Vec::new(),
        Value::String(types) => types
            .to_lowercase()
            .split('|')
            .map(|t| t.trim().to_owned())
            .collect(),
        _ => config.required("pos_att_type", "a text or a list of texts")?,
    };
    let has = |name: &str| types.iter().any(|t| t == name);
    if let Some(other) = types
        .iter()
        .find(|t| !["c2p", "p2c", ""].contains(&t.as_str()))
    {
        return Err(format!("pos_att_type \"{other}\" is not supported"));
    }
    if !config.flag("relative_attention", false)? {
        return match has("c2p") || has("p2c") {
            true => Err("pos_att_type is given, but relative_attention is not true".into()),
            false => Ok(Relative::None),
        };
    }
    let count = |name: &str| -> Result<Option<usize>, String> {
        let number: Option<i64> = config.optional(name, "a whole number")?;
        Ok(number
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n > 0))
    };
    let farthest = count("max_relative_positions")?.unwrap_or(longest);
    let buckets = count("position_buckets")?;
    let norm: Option<String> = config.optional("norm_rel_ebd", "a text")?;
    let norm = norm.unwrap_or_default().to_lowercase();
    let span = match buckets {
        Some(buckets) => at_most("position_buckets", buckets, MOST_SPAN)?,
        None => at_most("max_relative_positions", farthest, MOST_SPAN)?,
    };
    Ok(Relative::Disentangled(Disentangled {
        span,
        farthest: buckets.map(|_| farthest),
        content_to_position: has("c2p"),
        position_to_content: has("p2c"),
        shared: config.flag("share_att_key", false)?,
        normalised: norm.split('|').any(|part| part.trim() == "layer_norm"),
    }))
}
