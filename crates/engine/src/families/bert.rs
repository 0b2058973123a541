//! BERT sequence classifiers: cross-encoder/ms-marco-*, mixedbread and others.
//!
//! Devlin et al., 2018 (<https://arxiv.org/abs/1810.04805>); checkpoint names and the head (pooler,
//! tanh, classifier) as transformers' `BertForSequenceClassification`.

use rerankd_kernels::Activation;

use super::super::arch::{Arch, Attention, FeedForward, Norm, Position};
use super::{Config, Family, Names};

pub(super) const FAMILY: Family = Family {
    model_types: &["bert"],
    read: |config| read(config, None),
    names: NAMES,
};

/// Also those of BERT's descendants, but for the head.
pub(super) const NAMES: Names = Names {
    encoder: "bert",
    word: "embeddings.word_embeddings",
    position: "embeddings.position_embeddings",
    token_type: "embeddings.token_type_embeddings",
    embeddings_norm: "embeddings.LayerNorm",
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    intermediate: "intermediate.dense",
    output: "output.dense",
    output_norm: "output.LayerNorm",
    dense: "bert.pooler.dense",
    classifier: "classifier",
};

/// Reads a BERT's configuration, or that of a descendant whose places skip an id of padding.
pub(super) fn read(config: &Config, padding: Option<u32>) -> Result<Arch, String> {
    config.has_one_label()?;
    let kind: Option<String> = config.optional("position_embedding_type", "a text")?;
    if let Some(other) = kind.filter(|kind| kind != "absolute") {
        return Err(format!(
            "position_embedding_type \"{other}\" is not supported"
        ));
    }
    let hidden_size = config.size("hidden_size")?;
    let heads = config.size("num_attention_heads")?;
    if !hidden_size.is_multiple_of(heads) {
        return Err(format!(
            "hidden_size {hidden_size} can't be divided among {heads} attention heads"
        ));
    }
    let epsilon: Option<f64> = config.optional("layer_norm_eps", "a number")?;
    Ok(Arch {
        hidden_size,
        layers: config.size("num_hidden_layers")?,
        vocab_size: config.size("vocab_size")?,
        token_types: config.size_or("type_vocab_size", 2)?,
        position: Position::Learned {
            rows: config.size("max_position_embeddings")?,
            padding,
        },
        norm: Norm {
            epsilon: epsilon.unwrap_or(1e-12),
        },
        attention: Attention { heads },
        feed_forward: FeedForward {
            width: config.size("intermediate_size")?,
            activation: activation(config)?,
        },
    })
}

/// The feed-forward layers' activation, of transformers' names for it.
fn activation(config: &Config) -> Result<Activation, String> {
    let name: String = config.required("hidden_act", "a text")?;
    match name.as_str() {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(format!(
            "hidden_act \"{other}\" is not supported; rerankd has gelu, gelu_new, gelu_pytorch_tanh, \
             gelu_fast and relu"
        )),
    }
}
