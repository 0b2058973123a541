//! The model families: what each makes of config.json, and where its checkpoints keep what.
//!
//! A new family is a file in `families/` and a row in [`FAMILIES`]. What its models have that no
//! other's had becomes part of [`Arch`], and of what reads it.

mod albert;
mod bert;
mod config;
mod deberta;
mod decoder;
mod distilbert;
mod electra;
mod gte;
mod jina;
mod modernbert;
mod modules;
mod mpnet;
mod nearest;
mod roberta;
mod rope;
mod t5;

use std::ops::Range;

use crate::ModelSpec;

use super::arch::{Arch, Head, Pooling, Step, StepKind};
use super::error::{LoadError, file_error};
use super::files::{ModelFiles, Task};
use config::{Config, MOST_LABELS, at_most, even, frequencies};
pub(super) use t5::DecoderNames;

/// One family.
pub(super) struct Family {
    /// What it is called in messages.
    name: &'static str,
    /// What config.json calls its models.
    model_types: &'static [&'static str],
    /// What `auto_map` or `_name_or_path` of config.json must hold, if others have that type too.
    code: &'static [&'static str],
    /// Models of it on the hub.
    examples: &'static [&'static str],
    /// What its outputs are compared with, by the tests, on tiny models of it.
    verified: &'static str,
    /// Reads config.json, or says what is wrong with it.
    read: fn(&Config) -> Result<Arch, String>,
    names: Names,
}

/// All families that there is code for; those that are told by their code come before others of that type.
const FAMILIES: &[Family] = &[
    jina::V1,
    jina::V2,
    bert::FAMILY,
    roberta::FAMILY,
    modernbert::FAMILY,
    deberta::FAMILY,
    gte::FAMILY,
    distilbert::FAMILY,
    electra::FAMILY,
    mpnet::FAMILY,
    albert::FAMILY,
    decoder::QWEN3,
    decoder::QWEN2,
    decoder::LLAMA,
    decoder::BIDIRECTIONAL_LLAMA,
    decoder::MISTRAL,
    decoder::GEMMA,
    decoder::GEMMA2,
    decoder::MINICPM_LAYERWISE,
    decoder::GEMMA2_LAYERWISE,
    t5::T5,
    t5::MT5,
];

/// A family that there is code for.
#[derive(Debug, Clone, Copy)]
pub struct FamilyInfo {
    /// What it is called.
    pub name: &'static str,
    /// What config.json calls its models.
    pub model_types: &'static [&'static str],
    /// What `auto_map` or `_name_or_path` of config.json must hold, if others have that type too.
    pub code: &'static [&'static str],
    /// Models of it on the hub.
    pub examples: &'static [&'static str],
    /// What its outputs are compared with, by the tests, on tiny models of it.
    pub verified: &'static str,
}

/// All families that there is code for.
pub fn families() -> impl Iterator<Item = FamilyInfo> {
    FAMILIES.iter().map(|family| FamilyInfo {
        name: family.name,
        model_types: family.model_types,
        code: family.code,
        examples: family.examples,
        verified: family.verified,
    })
}

/// Where a family's checkpoints keep what: layers of tensors `NAME.weight` and, if they have one, `NAME.bias`, and
/// tables of `NAME.weight` alone. Parts that no model of the family has are empty.
#[derive(Debug)]
pub(super) struct Names {
    /// What the names of embeddings and layers begin with.
    pub(super) encoder: &'static str,
    /// Within the encoder.
    pub(super) word: &'static str,
    /// Where the word embeddings may be instead, outside of it.
    pub(super) word_elsewhere: &'static str,
    pub(super) position: &'static str,
    pub(super) token_type: &'static str,
    pub(super) embeddings_norm: &'static str,
    pub(super) projection: &'static str,
    /// The table of distances, and its norm.
    pub(super) relative: &'static str,
    pub(super) relative_norm: &'static str,
    pub(super) final_norm: &'static str,
    pub(super) layers: &'static str,
    /// Within a layer.
    pub(super) query: At,
    pub(super) key: At,
    pub(super) value: At,
    /// Norms of each head.
    pub(super) query_norm: &'static str,
    pub(super) key_norm: &'static str,
    pub(super) relative_key: &'static str,
    pub(super) relative_query: &'static str,
    pub(super) attention_output: &'static str,
    pub(super) attention_norm: &'static str,
    /// Of the attention's output, if there is one before and after each part.
    pub(super) after_attention: &'static str,
    /// The first linear layer of the feed-forward part; of a gated one, what the activation is applied to.
    pub(super) intermediate: At,
    /// That of a gated one, where it has another name.
    pub(super) gate: At,
    /// Of a gated one, what that multiplies.
    pub(super) up: At,
    pub(super) output: &'static str,
    pub(super) output_norm: &'static str,
    /// Of the feed-forward part's output.
    pub(super) after_output: &'static str,
    /// The vocabulary's table of a language model, unless the word embeddings are.
    pub(super) vocabulary: &'static str,
    /// Of a decoder behind the encoder.
    pub(super) decoder: Option<&'static DecoderNames>,
}

/// A linear layer, or a part of one: some of its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) name: &'static str,
    /// Which part, and of how many like ones.
    pub(super) part: usize,
    pub(super) of: usize,
}

impl At {
    pub(super) const NOWHERE: Self = Self::whole("");

    pub(super) const fn whole(name: &'static str) -> Self {
        Self::part(name, 0, 1)
    }

    const fn part(name: &'static str, part: usize, of: usize) -> Self {
        Self { name, part, of }
    }

    pub(super) fn is_first(self) -> bool {
        self.part == 0
    }

    /// Its outputs, if the whole layer has `outputs`.
    pub(super) fn of_outputs(self, outputs: usize) -> Range<usize> {
        let each = outputs / self.of;
        self.part * each..(self.part + 1) * each
    }
}

impl Names {
    /// A part of the encoder.
    pub(super) fn encoder(&self, part: &str) -> String {
        format!("{}.{part}", self.encoder)
    }

    /// A part of a layer.
    pub(super) fn layer(&self, layer: usize, part: &str) -> String {
        format!("{}.{}.{layer}.{part}", self.encoder, self.layers)
    }

    /// The first linear layer of the feed-forward part.
    pub(super) fn first(&self, gated: bool) -> At {
        match gated && self.gate != At::NOWHERE {
            true => self.gate,
            false => self.intermediate,
        }
    }
}

/// What config.json, and the modules behind the transformer, say of a model.
#[derive(Debug)]
pub(super) struct Described {
    /// As config.json names the family.
    pub(super) family: &'static str,
    /// Whether layers of the files are left out on purpose.
    pub(super) cut: bool,
    pub(super) arch: Arch,
    pub(super) names: &'static Names,
}

impl Described {
    /// What all but the engine needs to know.
    pub(super) fn spec(&self) -> ModelSpec {
        ModelSpec {
            family: self.family,
            hidden_size: self.arch.hidden_size,
            layers: self.arch.layers,
            vocab_size: self.arch.embeddings.vocab_size,
            type_vocab_size: self.arch.embeddings.token_types,
            max_positions: self.arch.longest,
            causal: self.arch.attention.causal,
            width: self.arch.output_width(),
            pooling: self.arch.head.pooling.name(),
            head: self.arch.head.describe(),
            labels: self.arch.head.labels.clone(),
        }
    }
}

/// Reads config.json, and those of the modules behind the transformer.
///
/// # Errors
/// If one is malformed, of no family that there is code for, or no reranker's.
pub(super) fn describe(files: &ModelFiles) -> Result<Described, LoadError> {
    let file = &files.config;
    let wrong = |reason| file_error(file, reason);
    let mut config = Config::read(file)?;
    let model_type: String = config.required("model_type", "a text").map_err(wrong)?;
    let code = config.code();
    let is_of = |family: &&Family| {
        let told = || family.code.iter().any(|part| code.contains(part));
        family.model_types.contains(&&*model_type) && (family.code.is_empty() || told())
    };
    let Some(family) = FAMILIES.iter().find(is_of) else {
        return Err(LoadError::Unsupported {
            file: file.to_string(),
            hint: nearest::hint(&model_type),
            model_type,
        });
    };
    let has_heads_of_layers = decoder::has_heads_of_layers(&config);
    if let Some(layers) = files.cutoff_layer {
        if !has_heads_of_layers {
            return Err(wrong(format!(
                "model.cutoff_layer is {layers}, but the model has one head, after the last layer"
            )));
        }
        config.0[decoder::CUTOFF_LAYER] = layers.into();
    }
    let mut arch = (family.read)(&config).map_err(wrong)?;
    if let Some(compression) = files.compression.as_ref().filter(|c| c.ratio > 1) {
        if model_type != decoder::COMPRESSING {
            return Err(wrong(format!(
                "model.compression is set, but only models of model_type {} were trained for it",
                decoder::COMPRESSING
            )));
        }
        arch.compression = Some(compression.clone());
    }
    match files.task {
        Task::Labels if files.modules.is_empty() => {
            let has_head = config.is_classifier() || has_heads_of_layers;
            let speaks = arch.attention.causal || arch.head.pooling.decoder().is_some();
            if speaks && !has_head {
                return Err(file_error(
                    file,
                    "it names a language model without a classification head (architectures), which gives no scores \
                     by itself",
                ));
            }
        }
        Task::Labels => arch.head = modules::head(&files.modules, arch.hidden_size)?,
        Task::Answer { token, minus } => {
            arch.head = answer(&arch, &family.names, token, minus).map_err(wrong)?;
        }
        // It may be a head of its own that makes vectors.
        Task::Vectors if files.modules.is_empty() && arch.head.labels.is_empty() => {}
        Task::Vectors => arch.head = modules::vectors(&files.modules, arch.hidden_size)?,
    }
    let mut types = family.model_types.iter().copied();
    let cut = config.0.get(decoder::CUTOFF_LAYER).is_some();
    Ok(Described {
        cut,
        family: types
            .find(|name| *name == model_type)
            .unwrap_or(family.name),
        arch,
        names: &family.names,
    })
}

/// The head that judges by one token's logit, or the difference of two.
fn answer(arch: &Arch, names: &Names, row: u32, minus: Option<u32>) -> Result<Head, String> {
    if names.vocabulary.is_empty() {
        return Err("the model is an encoder, which has no logits of tokens".into());
    }
    let rows = arch.embeddings.vocab_size;
    if let Some(id) = [Some(row), minus]
        .into_iter()
        .flatten()
        .find(|&id| id as usize >= rows)
    {
        return Err(format!(
            "token {id}, whose logit is asked for, is beyond vocab_size {rows}"
        ));
    }
    let tensor = match arch.embeddings.tied {
        true => names.encoder(names.word),
        false => names.vocabulary.to_owned(),
    };
    let after = arch.head.steps.iter();
    let after = after.filter(|step| matches!(step.kind, StepKind::Cap(_) | StepKind::Scale(_)));
    let after: Vec<Step> = after.cloned().collect();
    if minus.is_some()
        && after
            .iter()
            .any(|step| matches!(step.kind, StepKind::Cap(_)))
    {
        return Err(
            "final_logit_softcapping with the logits of two tokens is not supported".into(),
        );
    }
    let kind = StepKind::Answer { row, minus };
    let mut steps = vec![Step { tensor, kind }];
    steps.extend(after);
    Ok(Head {
        pooling: match arch.head.pooling {
            decoder @ Pooling::Decoder(_) => decoder,
            _ => Pooling::Last,
        },
        steps,
        labels: vec!["score".to_owned()],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// A BERT's config.json with some fields changed; null takes one out.
    fn read(changes: &Value) -> Result<Described, String> {
        let mut config = serde_json::json!({
            "model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "hidden_act": "gelu",
            "max_position_embeddings": 16,
        });
        for (name, value) in changes.as_object().unwrap() {
            config[name] = value.clone();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config.to_string()).unwrap();
        let described = describe(&ModelFiles::of_config(file.path().to_owned()));
        described.map_err(|error| {
            let text = error.to_string();
            let file = format!("{}: ", file.path().display());
            text.strip_prefix(&file).expect("it names the file").into()
        })
    }

    #[test]
    fn labels_are_named_or_counted() {
        let classifier = serde_json::json!(["BertForSequenceClassification"]);
        let labels = serde_json::json!({"0": "LABEL_0"});
        let one = serde_json::json!({"architectures": classifier, "id2label": labels});
        assert!(read(&one).is_ok());
        let two = read(&serde_json::json!({"architectures": classifier})).unwrap();
        assert_eq!(two.arch.head.labels, ["LABEL_0", "LABEL_1"]);
        // As sentence-transformers has it; whether there is a head is seen in the weights.
        let none = serde_json::json!({"architectures": ["BertModel"], "num_labels": 2});
        assert!(read(&none).is_ok());
    }

    #[test]
    fn errors_name_the_field() {
        for (changes, expected) in [
            (r#"{"hidden_size": null}"#, "hidden_size is missing"),
            (
                r#"{"vocab_size": "many"}"#,
                r#"vocab_size is "many", but it must be a whole number above 0"#,
            ),
            (
                r#"{"num_hidden_layers": 0}"#,
                "num_hidden_layers is 0, but it must be a whole number above 0",
            ),
            (
                r#"{"layer_norm_eps": []}"#,
                "layer_norm_eps is [], but it must be a number",
            ),
            (
                r#"{"model_type": "roberta", "pad_token_id": -1}"#,
                "pad_token_id is -1, but it must be a token's id",
            ),
            (r#"{"model_type": null}"#, "model_type is missing"),
            // What is made of these would take all memory before a tensor is missed.
            (
                r#"{"num_hidden_layers": 100000000}"#,
                "num_hidden_layers is 100000000, but it must be at most 1000",
            ),
            (
                r#"{"max_position_embeddings": 1000000000000}"#,
                "max_position_embeddings is 1000000000000, but it must be at most 1048576",
            ),
            (
                r#"{"architectures": ["BertForSequenceClassification"], "num_labels": 1000000000}"#,
                "num_labels is 1000000000, but it must be at most 1000",
            ),
            (
                r#"{"is_decoder": true}"#,
                "is_decoder: attention to what comes before only is not supported",
            ),
            (
                r#"{"layer_norm_eps": -1}"#,
                "layer_norm_eps is -1, but it must be above 0",
            ),
            (
                r#"{"num_attention_heads": 3}"#,
                "hidden_size 8 can't be divided among 3 attention heads",
            ),
        ] {
            let error = read(&serde_json::from_str(changes).unwrap()).unwrap_err();
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_foreign_family_is_told_what_there_is() {
        // Whatever else its config.json may lack.
        let foreign = serde_json::json!({"model_type": "falcon", "hidden_act": null});
        let error = read(&foreign).unwrap_err();
        assert!(error.contains("\"falcon\" is not supported"), "{error}");
    }
}
