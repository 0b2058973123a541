//! What to use in place of a model whose type there is no code for.

use super::{FAMILIES, Family, t5};

/// How the names of types begin that decoders have.
const DECODERS: &[&str] = &[
    "qwen",
    "llama",
    "gemma",
    "mistral",
    "mixtral",
    "ministral",
    "minicpm",
    "phi",
    "gpt",
    "granite",
    "falcon",
    "olmo",
    "deepseek",
    "smollm",
    "bloom",
    "opt",
    "cohere",
    "exaone",
    "glm",
    "chatglm",
    "internlm",
    "baichuan",
    "stablelm",
    "starcoder",
    "lfm",
    "nemotron",
    "mamba",
    "ernie4",
];

/// How those of encoder-decoders begin.
const ENCODER_DECODERS: &[&str] = &[
    "umt5", "longt5", "t5gemma", "bart", "mbart", "pegasus", "flan",
];

/// Encoders that there is no code for, and the family (its first type) that is most like each.
const RELATIVES: &[(&str, &str)] = &[
    ("deberta", "deberta-v2"),
    ("deberta-v3", "deberta-v2"),
    ("nomic_bert", "modernbert"),
    ("neobert", "modernbert"),
    ("eurobert", "new"),
    ("longformer", "modernbert"),
    ("big_bird", "modernbert"),
    ("nystromformer", "modernbert"),
    ("reformer", "modernbert"),
    ("xlnet", "deberta-v2"),
    ("roformer", "bert"),
    ("ernie", "bert"),
    ("ernie_m", "roberta"),
    ("nezha", "bert"),
    ("mobilebert", "bert"),
    ("megatron-bert", "bert"),
    ("squeezebert", "bert"),
    ("convbert", "electra"),
    ("funnel", "electra"),
    ("data2vec-text", "roberta"),
    ("xlm-roberta-xl", "roberta"),
    ("xmod", "roberta"),
    ("xlm", "roberta"),
    ("flaubert", "roberta"),
    ("ibert", "roberta"),
    ("roberta-prelayernorm", "roberta"),
    ("luke", "roberta"),
];

/// Encoders in place of a decoder: one in English, one in many languages, one that reads long texts.
const ENCODERS: &str = "encoder models are, such as cross-encoder/ettin-reranker-150m-v1, BAAI/bge-reranker-v2-m3 and \
    Alibaba-NLP/gte-multilingual-reranker-base";

/// A sentence on what there is in place of a `model_type`.
pub(super) fn hint(model_type: &str) -> String {
    let hint = nearest(model_type);
    format!("{hint}; `rerankd models` lists all that rerankd runs")
}

fn nearest(model_type: &str) -> String {
    let name = plain(model_type);
    let begins = |with: &[&str]| with.iter().any(|start| name.starts_with(start));
    if let Some((_, family)) = RELATIVES.iter().find(|(other, _)| plain(other) == name) {
        return relative(family);
    }
    let types = || FAMILIES.iter().flat_map(|family| family.model_types);
    if let Some(meant) = types().find(|known| plain(known) == name) {
        return format!("if \"{meant}\" is meant, config.json must say so");
    }
    if begins(DECODERS) {
        return format!(
            "of decoders, rerankd runs {}. {}",
            names(|family| !family.names.vocabulary.is_empty() && family.names.decoder.is_none()),
            sentence(ENCODERS)
        );
    }
    if begins(ENCODER_DECODERS) {
        return format!(
            "of encoder-decoders, rerankd runs {}, such as {}. {}",
            names(|family| family.names.decoder.is_some()),
            t5::T5.examples[0],
            sentence(ENCODERS)
        );
    }
    // The longest type that is a part of it, as bert is of nomicbert.
    let within = types().filter(|known| name.contains(&plain(known)));
    // "new" says nothing.
    let within = within.filter(|known| **known != "new");
    match within.max_by_key(|known| known.len()) {
        Some(known) => relative(known),
        None => format!("there is no code for this family. {}", sentence(ENCODERS)),
    }
}

/// The families of a kind, in a sentence.
fn names(is: impl Fn(&Family) -> bool) -> String {
    let names = FAMILIES.iter().filter(|family| is(family));
    names
        .map(|family| family.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What is most like it.
fn relative(known: &str) -> String {
    let family = FAMILIES
        .iter()
        .find(|family| family.code.is_empty() && family.model_types.contains(&known));
    let example = family.and_then(|family| Some((family.name, family.examples.first()?)));
    example.map_or_else(
        || ENCODERS.to_owned(),
        |(name, example)| {
            format!("the nearest family that rerankd runs is {name}, such as {example}")
        },
    )
}

/// A name without what spellings differ in.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    letters.collect::<String>().to_lowercase()
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_is_told_of_others_and_of_encoders() {
        for decoder in ["falcon", "phi3", "gemma3", "internlm2", "mixtral"] {
            let hint = hint(decoder);
            for part in [
                "of decoders, rerankd runs Qwen3, Qwen2, Llama, ",
                "cross-encoder/ettin-reranker-150m-v1",
                "BAAI/bge-reranker-v2-m3",
                "Alibaba-NLP/gte-multilingual-reranker-base",
                "`rerankd models`",
            ] {
                assert!(hint.contains(part), "{decoder}: {hint}");
            }
        }
        assert!(!hint("falcon").contains("T5"));
        let hint = hint("umt5");
        let start =
            "of encoder-decoders, rerankd runs T5, mT5, such as castorini/monot5-base-msmarco. ";
        assert!(hint.starts_with(start), "{hint}");
    }

    #[test]
    fn a_relative_or_a_misspelling_is_told_of_the_nearest() {
        for (other, near) in [
            ("deberta", "DeBERTa-v2, such as mixedbread-ai/"),
            ("deberta-v3", "DeBERTa-v2, such as "),
            ("roformer", "BERT, such as cross-encoder/"),
            ("nomic_bert", "ModernBERT, such as cross-encoder/ettin"),
            ("eurobert", "GTE, such as "),
            ("some-roberta", "RoBERTa, such as BAAI/"),
            ("visual_bert", "BERT, such as "),
            ("xlm_roberta", "if \"xlm-roberta\" is meant"),
            ("ModernBert", "if \"modernbert\" is meant"),
            ("deberta_v2", "if \"deberta-v2\" is meant"),
            (
                "zebra",
                "there is no code for this family. Encoder models are",
            ),
        ] {
            let hint = hint(other);
            assert!(hint.contains(near), "{other}: {hint}");
        }
    }

    #[test]
    fn what_stands_in_the_lists_has_no_family_of_its_own() {
        let types = || FAMILIES.iter().flat_map(|family| family.model_types);
        for (other, near) in RELATIVES {
            assert!(types().all(|known| plain(known) != plain(other)), "{other}");
            assert!(types().any(|known| known == near), "{near}");
        }
        for start in ENCODER_DECODERS {
            assert!(
                types().all(|known| !plain(known).starts_with(start)),
                "{start}"
            );
        }
    }
}
