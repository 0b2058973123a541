//! ALBERT sequence classifiers.
//!
//! Lan et al., 2019 (<https://arxiv.org/abs/1909.11942>); checkpoint names and the head (pooler, tanh, classifier) as
//! transformers' `AlbertForSequenceClassification`.

use rerankd_kernels::Activation;

use super::super::arch::{Arch, Projection};
use super::{At, Config, Family, Names, bert};

pub(super) const FAMILY: Family = Family {
    name: "ALBERT",
    model_types: &["albert"],
    code: &[],
    examples: &["albert/albert-base-v2 fine-tuned as a cross-encoder"],
    verified: "transformers 5.23, sentence-transformers 6.2",
    read,
    names: Names {
        encoder: "albert",
        projection: "encoder.embedding_hidden_mapping_in",
        layers: "encoder.albert_layer_groups",
        query: At::whole("albert_layers.0.attention.query"),
        key: At::whole("albert_layers.0.attention.key"),
        value: At::whole("albert_layers.0.attention.value"),
        attention_output: "albert_layers.0.attention.dense",
        attention_norm: "albert_layers.0.attention.LayerNorm",
        intermediate: At::whole("albert_layers.0.ffn"),
        output: "albert_layers.0.ffn_output",
        output_norm: "albert_layers.0.full_layer_layer_norm",
        ..bert::NAMES
    },
};

fn read(config: &Config) -> Result<Arch, String> {
    let mut arch = bert::read(config, None)?;
    let inner = config.size_or("inner_group_num", 1)?;
    if inner != 1 {
        return Err(format!("inner_group_num {inner} is not supported, only 1"));
    }
    arch.distinct_layers = config.size_or("num_hidden_groups", 1)?;
    if arch.distinct_layers > arch.layers {
        return Err(format!(
            "num_hidden_groups is {}, but there are {} layers",
            arch.distinct_layers, arch.layers
        ));
    }
    arch.embeddings.width = config.size_or("embedding_size", 128)?;
    arch.embeddings.projection = Some(Projection::AfterNorm);
    let dense = "albert.pooler";
    arch.head = bert::head(
        config,
        arch.hidden_size,
        dense,
        Activation::Tanh,
        "classifier",
    )?;
    Ok(arch)
}
