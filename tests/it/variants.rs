//! Models whose files differ from the tiny ones': tokens and scores are the reference's.

use std::path::Path;
use std::sync::Arc;

use rerankd::app::{self, Loaded};
use rerankd::rerank::PairsAsk;
use rerankd::types::Caller;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support::app::settings;
use crate::support::assert_says;
use crate::support::models::{copy, edit_json, root};

const TOLERANCE: f32 = 1e-4;

#[derive(Debug, Deserialize)]
struct Golden {
    query: String,
    documents: Vec<String>,
    variants: Vec<Variant>,
}

#[derive(Debug, Deserialize)]
struct Variant {
    name: String,
    model: String,
    edits: Map<String, Value>,
    #[serde(default)]
    without: Map<String, Value>,
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    vocabulary: bool,
    ids: Vec<Vec<u32>>,
    scores: Vec<f32>,
}

/// Writes the vocabulary of tokenizer.json as the older files.
fn write_vocabulary(folder: &Path) {
    let path = folder.join("tokenizer.json");
    let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    std::fs::remove_file(path).unwrap();
    let (words, merges) = (&json["model"]["vocab"], &json["model"]["merges"]);
    if let Some(merges) = merges.as_array() {
        let merge = |merge: &Value| {
            let parts: Vec<&str> = merge
                .as_array()
                .unwrap()
                .iter()
                .map(|p| p.as_str().unwrap())
                .collect();
            parts.join(" ") + "\n"
        };
        let lines: String = merges.iter().map(merge).collect();
        std::fs::write(folder.join("merges.txt"), format!("#version: 0.2\n{lines}")).unwrap();
        std::fs::write(folder.join("vocab.json"), words.to_string()).unwrap();
    } else {
        let mut words: Vec<(&String, &Value)> = words.as_object().unwrap().iter().collect();
        words.sort_by_key(|(_, id)| id.as_u64());
        let lines: String = words.iter().map(|(word, _)| format!("{word}\n")).collect();
        std::fs::write(folder.join("vocab.txt"), lines).unwrap();
    }
}

fn alter(folder: &Path, variant: &Variant) {
    if variant.vocabulary {
        write_vocabulary(folder);
    }
    for file in &variant.remove {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    for (file, edit) in &variant.edits {
        let path = folder.join(file);
        let Some(edit) = edit.as_object() else {
            std::fs::write(path, edit.to_string()).unwrap();
            continue;
        };
        if !path.exists() {
            std::fs::write(&path, "{}").unwrap();
        }
        edit_json(&path, |value| {
            let value = value.as_object_mut().unwrap();
            value.extend(edit.clone());
            let without = variant.without.get(file).and_then(Value::as_array);
            for key in without.into_iter().flatten() {
                value.remove(key.as_str().unwrap());
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_are_the_references_whatever_the_files_say() {
    let golden = std::fs::read(root().join("tests/golden/variants.json")).unwrap();
    let golden: Golden = serde_json::from_slice(&golden).unwrap();
    let mut wrong = Vec::new();
    for variant in &golden.variants {
        let model = copy(&variant.model);
        alter(model.path(), variant);
        let settings = settings(model.path());
        let loaded = Loaded::load(&settings).unwrap_or_else(|e| panic!("{}: {e:#}", variant.name));
        let encoder = &loaded.encoder;
        let query = format!("{}{}", loaded.usage.query_prompt, golden.query);
        let truncation = rerankd::scoring::Truncation {
            strategy: rerankd::scoring::Strategy::LongestFirst,
            direction: encoder.tokenizer().direction(),
        };
        for (i, (document, expected)) in golden.documents.iter().zip(&variant.ids).enumerate() {
            let encoded = encoder.encode(&query, document, &truncation.into());
            let pair = encoded.unwrap().sequences.remove(0);
            if pair.ids() != *expected {
                wrong.push(format!(
                    "{}, tokens of document {i}: {:?}, not {expected:?}",
                    variant.name,
                    pair.ids()
                ));
            }
        }
        let (served, _engine) = loaded.start(&settings).unwrap();
        let ask = PairsAsk {
            queries: [golden.query.as_str().into()].into(),
            documents: golden.documents.clone().into(),
            ..PairsAsk::default()
        };
        let reranker = app::reranker(&settings);
        reranker.models().add(Arc::new(served));
        let scoring = reranker.score(&ask, &Caller::local()).await.unwrap();
        for (i, (found, expected)) in scoring.scores().zip(&variant.scores).enumerate() {
            if (found.get() - expected).abs() > TOLERANCE {
                wrong.push(format!(
                    "{}, document {i}: {found:?}, not {expected}",
                    variant.name
                ));
            }
        }
    }
    assert!(golden.variants.len() >= 35);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_sentencepiece_model_alone_is_enough() {
    let golden = std::fs::read(root().join("tests/golden/tokenizer_files.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let model = copy("tiny-xlmr");
    std::fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    let settings = settings(model.path());
    let put = |file: &str| {
        let from = root().join("tests/fixtures/tokenizers").join(file);
        std::fs::copy(from, model.path().join("sentencepiece.bpe.model")).unwrap();
    };
    std::fs::write(model.path().join("tokenizer_config.json"), "{}").unwrap();
    put("fairseq.model");
    let encoder = Loaded::load(&settings).unwrap().encoder;
    let text = |key: &str| golden[key].as_str().unwrap().to_owned();
    let truncation = rerankd::scoring::Truncation {
        strategy: rerankd::scoring::Strategy::LongestFirst,
        direction: encoder.tokenizer().direction(),
    };
    let encoded = encoder.encode(&text("query"), &text("document"), &truncation.into());
    let pair = encoded.unwrap().sequences.remove(0);
    let case = &golden["cases"][0];
    assert_eq!(case["name"], "XLM-RoBERTa");
    assert_eq!(json!(pair.ids()), case["pair"]);
    put("bpe.model");
    let error = Loaded::load(&settings).unwrap_err();
    assert_says(
        &format!("{error:#}"),
        &[
            "sentencepiece.bpe.model: ",
            "of type BPE",
            "save_pretrained(FOLDER)",
        ],
    );
}

/// tiny-bert as sentence-transformers 6 saves it.
fn saved(modules: &Value, more: &Value) -> tempfile::TempDir {
    let model = copy("tiny-bert");
    let write = |file: &str, value: &Value| {
        let path = model.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    };
    write("modules.json", modules);
    write(
        "config_sentence_transformers.json",
        &json!({"model_type": "CrossEncoder"}),
    );
    for (file, value) in more.as_object().unwrap() {
        write(file, value);
    }
    model
}

#[test]
fn modules_that_cant_be_run_are_refused_by_name() {
    let transformer =
        json!({"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"});
    let other = |name: &str| json!([transformer, {"path": "1", "type": name}]);
    let pooling = "sentence_transformers.sentence_transformer.modules.pooling.Pooling";
    let mut elsewhere = transformer.clone();
    elsewhere["path"] = "0_Transformer".into();
    let splade = "sentence_transformers.sparse_encoder.models.SpladePooling";
    for (modules, more, words) in [
        (
            other(pooling),
            json!({}),
            ["1/config.json, of module", "is missing"],
        ),
        (
            other(splade),
            json!({"1/config.json": {}}),
            [splade, "Pooling, Dense and LayerNorm"],
        ),
        (
            other(pooling),
            json!({"1/config.json": {"pooling_mode": "max"}}),
            ["1/config.json", "pooling max is not supported"],
        ),
        (
            other(pooling),
            json!({"1/config.json": {"pooling_mode": "cls"}}),
            ["1/config.json", "makes an embedding, not scores"],
        ),
        (
            other("my_code.Pooling"),
            json!({"1/config.json": {}}),
            ["modules.json", "my_code.Pooling"],
        ),
        (
            json!([{"path": "", "type": "my_code.Transformer"}]),
            json!({}),
            ["modules.json", "my_code.Transformer"],
        ),
        (
            json!([transformer, transformer]),
            json!({}),
            ["modules.json", "not a folder beside modules.json"],
        ),
        (
            json!([transformer, {"path": "../1", "type": pooling}]),
            json!({}),
            ["modules.json", "not a folder beside modules.json"],
        ),
        (json!([]), json!({}), ["modules.json", "names no modules"]),
        (
            json!([elsewhere]),
            json!({}),
            ["0_Transformer", "move them"],
        ),
        (
            json!([transformer]),
            json!({"sentence_bert_config.json": {"transformer_task": "text-generation"}}),
            ["sentence_bert_config.json", "text-generation"],
        ),
        (
            json!([transformer]),
            json!({"sentence_bert_config.json": {"config_kwargs": {"num_labels": 1}}}),
            ["sentence_bert_config.json", "config.json"],
        ),
        (
            json!([transformer]),
            json!({"config_sentence_transformers.json":
                {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Tanh"}}),
            ["activation.Tanh", "--activation identity"],
        ),
        (
            json!([transformer]),
            json!({"config_sentence_transformers.json":
                {"model_type": "CrossEncoder", "default_prompt_name": "q", "prompts": {}}}),
            ["config_sentence_transformers.json", "no such prompt"],
        ),
    ] {
        let model = saved(&modules, &more);
        let error = Loaded::load(&settings(model.path())).unwrap_err();
        assert_says(&format!("{error:#}"), &words);
    }
}

#[test]
fn a_setting_overrides_an_activation_that_is_not_supported() {
    let model = copy("tiny-bert");
    edit_json(&model.path().join("config.json"), |config| {
        config["sbert_ce_default_activation_function"] = "torch.nn.modules.activation.Tanh".into();
    });
    let mut settings = settings(model.path());
    let error = Loaded::load(&settings).unwrap_err();
    assert_says(
        &format!("{error:#}"),
        &["config.json", "Tanh", "--activation"],
    );
    settings.model.activation = rerankd::config::ActivationName::Identity;
    let loaded = Loaded::load(&settings).unwrap();
    assert_eq!(loaded.usage.activation.to_string(), "identity");
}
