//! RoBERTa and XLM-RoBERTa sequence classifiers: BAAI/bge-reranker-base, -large, -v2-m3 and others.
//!
//! Liu et al., 2019 (<https://arxiv.org/abs/1907.11692>), Conneau et al., 2019
//! (<https://arxiv.org/abs/1911.02116>); checkpoint names and the head (dense, tanh, out_proj) as
//! transformers' `XLMRobertaForSequenceClassification`.

use super::{Family, Names, bert};

pub(super) const FAMILY: Family = Family {
    model_types: &["roberta", "xlm-roberta"],
    read: |config| {
        let padding: Option<u32> = config.optional("pad_token_id", "a token's id")?;
        bert::read(config, Some(padding.unwrap_or(1)))
    },
    names: Names {
        encoder: "roberta",
        dense: "classifier.dense",
        classifier: "classifier.out_proj",
        ..bert::NAMES
    },
};
