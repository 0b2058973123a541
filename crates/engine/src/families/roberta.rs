//! RoBERTa, XLM-RoBERTa and CamemBERT sequence classifiers: BAAI/bge-reranker-base, -large, -v2-m3 and others.
//!
//! Liu et al., 2019 (<https://arxiv.org/abs/1907.11692>), Conneau et al., 2019
//! (<https://arxiv.org/abs/1911.02116>); checkpoint names and the head (dense, tanh, out_proj) as
//! transformers' `XLMRobertaForSequenceClassification`.

use rerankd_kernels::Activation;

use super::super::arch::Arch;
use super::{Config, Family, Names, bert};

pub(super) const FAMILY: Family = Family {
    name: "RoBERTa",
    model_types: &["roberta", "xlm-roberta", "camembert"],
    code: &[],
    examples: &[
        "BAAI/bge-reranker-v2-m3",
        "BAAI/bge-reranker-base",
        "BAAI/bge-reranker-large",
        "cross-encoder/stsb-distilroberta-base",
    ],
    verified: "transformers 5.23, sentence-transformers 6.2",
    read,
    names: Names {
        encoder: "roberta",
        ..bert::NAMES
    },
};

pub(super) fn read(config: &Config) -> Result<Arch, String> {
    let padding: Option<u32> = config.optional("pad_token_id", "a token's id")?;
    let arch = bert::read(config, Some(padding.unwrap_or(1)))?;
    let (dense, classifier) = ("classifier.dense", "classifier.out_proj");
    Ok(Arch {
        head: bert::head(
            config,
            arch.hidden_size,
            dense,
            Activation::Tanh,
            classifier,
        )?,
        ..arch
    })
}
