//! Jina's sequence classifiers that bring code of their own on the hub: jinaai/jina-reranker-v1-*-en, BERTs with
//! ALiBi and gated feed-forward parts (Günther et al., 2023, <https://arxiv.org/abs/2310.19923>), and
//! jinaai/jina-reranker-v2-base-multilingual, an XLM-RoBERTa whose weights have other names.

use rerankd_kernels::Activation;

use super::super::arch::{Arch, Relative};
use super::{At, Config, Family, Names, bert, roberta};

pub(super) const V1: Family = Family {
    name: "JinaBERT",
    model_types: &["bert"],
    code: &["jinaai/jina-bert-implementation", "JinaBert"],
    examples: &[
        "jinaai/jina-reranker-v1-turbo-en",
        "jinaai/jina-reranker-v1-tiny-en",
    ],
    verified: "an independent implementation of the published config (the model's own code is remote)",
    read: read_v1,
    names: Names {
        intermediate: At::part("mlp.gated_layers", 0, 2),
        up: At::part("mlp.gated_layers", 1, 2),
        output: "mlp.wo",
        output_norm: "mlp.layernorm",
        ..bert::NAMES
    },
};

pub(super) const V2: Family = Family {
    name: "Jina v2",
    model_types: &["xlm-roberta"],
    code: &["jinaai/xlm-roberta-flash-implementation", "XLMRobertaFlash"],
    examples: &["jinaai/jina-reranker-v2-base-multilingual"],
    verified: "transformers 5.23's XLM-RoBERTa with the weights under the names that this code gives them",
    read: read_v2,
    names: Names {
        encoder: "roberta",
        embeddings_norm: "emb_ln",
        layers: "encoder.layers",
        query: At::part("mixer.Wqkv", 0, 3),
        key: At::part("mixer.Wqkv", 1, 3),
        value: At::part("mixer.Wqkv", 2, 3),
        attention_output: "mixer.out_proj",
        attention_norm: "norm1",
        intermediate: At::whole("mlp.fc1"),
        output: "mlp.fc2",
        output_norm: "norm2",
        ..bert::NAMES
    },
};

fn read_v1(config: &Config) -> Result<Arch, String> {
    let kind: Option<String> = config.optional("position_embedding_type", "a text")?;
    if let Some(other) = kind.filter(|kind| kind != "alibi") {
        return Err(format!(
            "position_embedding_type \"{other}\" is not supported with this code, only alibi"
        ));
    }
    let mut arch = bert::read_placeless(config)?;
    arch.longest = config.positions("max_position_embeddings", None)?;
    arch.attention.relative = Relative::Alibi {
        slopes: slopes(arch.attention.heads),
    };
    let gate: Option<String> = config.optional("feed_forward_type", "a text")?;
    arch.feed_forward.activation = match gate.as_deref() {
        Some("geglu") => Activation::Gelu,
        Some("reglu") => Activation::Relu,
        other => {
            return Err(format!(
                "feed_forward_type \"{}\" is not supported; rerankd has geglu and reglu",
                other.unwrap_or("original")
            ));
        }
    };
    arch.feed_forward.gated = true;
    arch.feed_forward.bias = false;
    // Its rerankers have one label, whether config.json says so or nothing.
    if ["id2label", "num_labels"]
        .iter()
        .all(|name| config.0.get(name).is_none())
    {
        arch.head = bert::head_of(
            vec!["LABEL_0".into()],
            arch.hidden_size,
            "bert.pooler.dense",
            Activation::Tanh,
            "classifier",
        );
    }
    Ok(arch)
}

fn read_v2(config: &Config) -> Result<Arch, String> {
    for name in ["lora_adaptations", "lora_main_params_trainable"] {
        if config.0.get(name).is_some_and(|value| value.is_array()) {
            return Err(format!("{name} is not supported"));
        }
    }
    roberta::read(config)
}

/// For 2^k heads 2^(-8/heads) to the powers 1, 2, ...; for other counts those of the power below, and every other one of
/// twice as many (Press et al., 2021).
fn slopes(heads: usize) -> Vec<f32> {
    let powers = |count: usize| {
        let ratio = 2f64.powf(-8.0 / count as f64);
        (1..=count).map(move |i| ratio.powi(i as i32) as f32)
    };
    let below = 1 << heads.ilog2();
    let more = powers(2 * below).step_by(2).take(heads - below);
    powers(below).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_any_number_of_heads() {
        assert_eq!(slopes(8)[..2], [0.5, 0.25]);
        assert_eq!(slopes(8)[7], 1.0 / 256.0);
        let twelve = slopes(12);
        assert_eq!(twelve[..8], slopes(8)[..]);
        assert_eq!(
            twelve[8..],
            slopes(16)
                .into_iter()
                .step_by(2)
                .take(4)
                .collect::<Vec<_>>()
        );
    }
}
