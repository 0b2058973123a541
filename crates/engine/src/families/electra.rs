//! ELECTRA sequence classifiers: cross-encoder/ms-marco-electra-base and others.
//!
//! Clark et al., 2020 (<https://arxiv.org/abs/2003.10555>); checkpoint names and the head (dense, GELU, out_proj) as
//! transformers' `ElectraForSequenceClassification`.

use rerankd_kernels::Activation;

use super::super::arch::{Arch, Projection};
use super::{Config, Family, Names, bert};

pub(super) const FAMILY: Family = Family {
    name: "ELECTRA",
    model_types: &["electra"],
    code: &[],
    examples: &[
        "cross-encoder/ms-marco-electra-base",
        "cross-encoder/qnli-electra-base",
    ],
    verified: "transformers 5.23, sentence-transformers 6.2",
    read,
    names: Names {
        encoder: "electra",
        projection: "embeddings_project",
        ..bert::NAMES
    },
};

fn read(config: &Config) -> Result<Arch, String> {
    let mut arch = bert::read(config, None)?;
    let (hidden_size, width) = (arch.hidden_size, config.size_or("embedding_size", 128)?);
    arch.embeddings.width = width;
    arch.embeddings.projection = (width != hidden_size).then_some(Projection::AfterNorm);
    let (dense, classifier) = ("classifier.dense", "classifier.out_proj");
    arch.head = bert::head(config, hidden_size, dense, Activation::Gelu, classifier)?;
    Ok(arch)
}
