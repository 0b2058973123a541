//! MPNet sequence classifiers.
//!
//! Song et al., 2020 (<https://arxiv.org/abs/2004.09297>); checkpoint names, buckets of distances and the head (dense,
//! tanh, out_proj) as transformers' `MPNetForSequenceClassification`.

use rerankd_kernels::Activation;

use super::super::arch::{Arch, Relative};
use super::{At, Config, Family, Names, bert};

/// The id of padding, and the distance from which on all are in one bucket: no settings of config.json.
const PADDING: u32 = 1;
const FARTHEST: usize = 128;

pub(super) const FAMILY: Family = Family {
    name: "MPNet",
    model_types: &["mpnet"],
    code: &[],
    examples: &["microsoft/mpnet-base fine-tuned as a cross-encoder"],
    verified: "transformers 5.23, sentence-transformers 6.2",
    read,
    names: Names {
        encoder: "mpnet",
        relative: "encoder.relative_attention_bias",
        query: At::whole("attention.attn.q"),
        key: At::whole("attention.attn.k"),
        value: At::whole("attention.attn.v"),
        attention_output: "attention.attn.o",
        attention_norm: "attention.LayerNorm",
        ..bert::NAMES
    },
};

fn read(config: &Config) -> Result<Arch, String> {
    let mut arch = bert::read(config, Some(PADDING))?;
    arch.embeddings.token_types = 0;
    let rows = config.size_or("relative_attention_num_buckets", 32)?;
    if rows < 4 || !rows.is_multiple_of(2) {
        return Err(format!(
            "relative_attention_num_buckets is {rows}, but it must be even and at least 4"
        ));
    }
    arch.attention.relative = Relative::Buckets {
        rows,
        farthest: FARTHEST,
    };
    let (dense, classifier) = ("classifier.dense", "classifier.out_proj");
    arch.head = bert::head(
        config,
        arch.hidden_size,
        dense,
        Activation::Tanh,
        classifier,
    )?;
    Ok(arch)
}
