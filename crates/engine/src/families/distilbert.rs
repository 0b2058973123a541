//! DistilBERT sequence classifiers.
//!
//! Sanh et al., 2019 (<https://arxiv.org/abs/1910.01108>); checkpoint names and the head (pre_classifier, ReLU,
//! classifier) as transformers' `DistilBertForSequenceClassification`.

use rerankd_kernels::Activation;

use super::super::arch::{Arch, Learned};
use super::{At, Config, Family, Names, bert};

pub(super) const FAMILY: Family = Family {
    name: "DistilBERT",
    model_types: &["distilbert"],
    code: &[],
    examples: &["distilbert/distilbert-base-uncased fine-tuned as a cross-encoder"],
    verified: "transformers 5.23, sentence-transformers 6.2",
    read,
    names: Names {
        encoder: "distilbert",
        layers: "transformer.layer",
        query: At::whole("attention.q_lin"),
        key: At::whole("attention.k_lin"),
        value: At::whole("attention.v_lin"),
        attention_output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        intermediate: At::whole("ffn.lin1"),
        output: "ffn.lin2",
        output_norm: "output_layer_norm",
        ..bert::NAMES
    },
};

fn read(config: &Config) -> Result<Arch, String> {
    let sizes = config.sizes(["dim", "n_heads", "n_layers", "hidden_dim"])?;
    let (dense, classifier) = ("pre_classifier", "classifier");
    let mut arch = Arch::like_bert(
        sizes,
        config.activation("activation", Some("gelu"))?,
        1e-12,
        bert::head(
            config,
            sizes.hidden_size,
            dense,
            Activation::Relu,
            classifier,
        )?,
    );
    // Its sines are in the checkpoint as a table, as learned places are.
    let position = Learned {
        rows: config.positions("max_position_embeddings", Some(512))?,
        padding: None,
    };
    arch.embeddings.position = Some(position);
    arch.longest = position.longest();
    Ok(arch)
}
