//! BERT sequence classifiers: cross-encoder/ms-marco-*, mixedbread and others.
//!
//! Devlin et al., 2018 (<https://arxiv.org/abs/1810.04805>); checkpoint names and the head (pooler,
//! tanh, classifier) as transformers' `BertForSequenceClassification`.

use rerankd_kernels::Activation;

use super::super::arch::{Arch, Head, Learned, Pooling, Step};
use super::{At, Config, Family, Names};

pub(super) const FAMILY: Family = Family {
    name: "BERT",
    model_types: &["bert"],
    code: &[],
    examples: &[
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        "cross-encoder/ms-marco-MiniLM-L12-v2",
        "cross-encoder/ms-marco-TinyBERT-L2-v2",
    ],
    verified: "transformers 5.23, sentence-transformers 6.2",
    read: |config| read(config, None),
    names: NAMES,
};

/// Also those of BERT's descendants, but for the head.
pub(super) const NAMES: Names = Names {
    encoder: "bert",
    word: "embeddings.word_embeddings",
    word_elsewhere: "",
    position: "embeddings.position_embeddings",
    token_type: "embeddings.token_type_embeddings",
    embeddings_norm: "embeddings.LayerNorm",
    projection: "",
    relative: "",
    relative_norm: "",
    final_norm: "",
    layers: "encoder.layer",
    query: At::whole("attention.self.query"),
    key: At::whole("attention.self.key"),
    value: At::whole("attention.self.value"),
    query_norm: "",
    key_norm: "",
    relative_key: "",
    relative_query: "",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    after_attention: "",
    intermediate: At::whole("intermediate.dense"),
    gate: At::NOWHERE,
    up: At::NOWHERE,
    output: "output.dense",
    output_norm: "output.LayerNorm",
    after_output: "",
    vocabulary: "",
    decoder: None,
};

/// Reads a BERT's configuration, or that of a descendant whose places skip an id of padding.
pub(super) fn read(config: &Config, padding: Option<u32>) -> Result<Arch, String> {
    let kind: Option<String> = config.optional("position_embedding_type", "a text")?;
    if let Some(other) = kind.filter(|kind| kind != "absolute") {
        return Err(format!(
            "position_embedding_type \"{other}\" is not supported"
        ));
    }
    let position = Learned {
        rows: config.positions("max_position_embeddings", None)?,
        padding,
    };
    let mut arch = read_placeless(config)?;
    arch.embeddings.position = Some(position);
    arch.longest = position.longest();
    Ok(arch)
}

/// Reads the configuration of a descendant that has no table of places.
pub(super) fn read_placeless(config: &Config) -> Result<Arch, String> {
    if config.flag("is_decoder", false)? {
        return Err("is_decoder: attention to what comes before only is not supported".into());
    }
    let sizes = config.usual_sizes()?;
    let (dense, classifier) = ("bert.pooler.dense", "classifier");
    let mut arch = Arch::like_bert(
        sizes,
        config.activation("hidden_act", None)?,
        config.positive("layer_norm_eps", 1e-12)?,
        head(
            config,
            sizes.hidden_size,
            dense,
            Activation::Tanh,
            classifier,
        )?,
    );
    arch.embeddings.token_types = config.size_or("type_vocab_size", 2)?;
    Ok(arch)
}

/// A dense layer with an activation, and the classifier, of the first token.
pub(super) fn head(
    config: &Config,
    hidden_size: usize,
    dense: &str,
    activation: Activation,
    classifier: &str,
) -> Result<Head, String> {
    Ok(head_of(
        config.labels()?,
        hidden_size,
        dense,
        activation,
        classifier,
    ))
}

/// [`head`], for labels that are known.
pub(super) fn head_of(
    labels: Vec<String>,
    hidden_size: usize,
    dense: &str,
    activation: Activation,
    classifier: &str,
) -> Head {
    Head {
        pooling: Pooling::First,
        steps: vec![
            Step::linear(dense, hidden_size, true, activation),
            Step::linear(classifier, labels.len(), true, Activation::None),
        ],
        labels,
    }
}
