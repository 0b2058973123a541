//! Decoders, T5's behind its encoder among them, against the reference's logits, from its token ids: alone, in
//! batches, and with what the sequences of a batch have in common computed once.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rerankd_engine::{
    Batch, Compression, Device, Dtype, EngineError, Model, ModelFile, ModelFiles, Options,
    Sequence, Task, Weights, load,
};
use serde_json::Value;

/// What is allowed between two implementations in f32.
const TOLERANCE: f32 = 1e-4;
/// And between two ways through this one.
const SAME: f32 = 1e-5;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// The id of a token in the model's vocabulary.
fn token(folder: &Path, text: &str) -> u32 {
    let tokenizer = json(&folder.join("tokenizer.json"));
    let added = tokenizer["added_tokens"].as_array().unwrap().iter();
    let added = added.filter(|token| token["content"] == text);
    let id = match &tokenizer["model"]["vocab"] {
        // Pieces with their probabilities.
        Value::Array(pieces) => pieces.iter().position(|piece| piece[0] == text),
        ids => ids[text].as_u64().map(|id| id as usize),
    };
    let mut added = added.map(|token| token["id"].as_u64().unwrap() as usize);
    u32::try_from(id.or(added.next_back()).unwrap()).unwrap()
}

fn model(name: &str, dtype: Dtype, task: Task) -> Box<dyn Model> {
    shortened(name, dtype, task, None, None)
}

/// A model that computes less than it could.
fn shortened(
    name: &str,
    dtype: Dtype,
    task: Task,
    cutoff_layer: Option<usize>,
    compression: Option<Compression>,
) -> Box<dyn Model> {
    let folder = tests().join("fixtures/models").join(name);
    let files = ModelFiles {
        name: name.into(),
        revision: None,
        note: None,
        dtype: Some(dtype),
        config: ModelFile::Disk(folder.join("config.json")),
        weights: Weights::Safetensors(vec![folder.join("model.safetensors")]),
        modules: Vec::new(),
        task,
        cutoff_layer,
        compression,
        others: BTreeMap::new(),
    };
    let options = Options {
        device: "cpu".into(),
        threads: 2,
        instructions: "auto".into(),
        pin: false,
    };
    load(&files, dtype, &Device::new(&options).unwrap()).unwrap()
}

/// A model's pairs: token ids and logits, case by case.
fn golden(name: &str) -> Vec<(Vec<Vec<u32>>, Vec<f32>)> {
    let golden = json(&tests().join("golden").join(format!("{name}.json")));
    let cases = golden["cases"].as_array().unwrap().iter();
    let cases = cases.map(|case| {
        let ids = serde_json::from_value(case["ids"].clone()).unwrap();
        (ids, serde_json::from_value(case["logits"].clone()).unwrap())
    });
    cases.collect()
}

fn sequences(ids: &[Vec<u32>]) -> Vec<Sequence> {
    let sequence = |ids: &Vec<u32>| Sequence::new(ids.clone(), vec![0; ids.len()]);
    ids.iter().map(sequence).collect()
}

/// The same, with what all have in common told.
fn with_prefix(ids: &[Vec<u32>]) -> Vec<Sequence> {
    let common = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let shared = ids
        .iter()
        .map(|other| common(&ids[0], other))
        .min()
        .unwrap();
    let shortest = ids.iter().map(Vec::len).min().unwrap();
    let shared = shared.min(shortest - 1);
    sequences(ids)
        .into_iter()
        .map(|sequence| sequence.with_shared_prefix(shared))
        .collect()
}

fn run(model: &mut dyn Model, sequences: &[Sequence]) -> Vec<f32> {
    let outputs = model.forward(&Batch::pack(sequences)).unwrap();
    outputs.iter().map(|output| output.values()[0]).collect()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < tolerance, "{what} {i}: {a}, expected {b}");
    }
}

fn models() -> Vec<(&'static str, Task)> {
    let answer = |name: &str, yes: &str, no: Option<&str>| {
        let folder = tests().join("fixtures/models").join(name);
        Task::Answer {
            token: token(&folder, yes),
            minus: no.map(|no| token(&folder, no)),
        }
    };
    let yes_and_no = |name| (name, answer(name, "yes", Some("no")));
    vec![
        yes_and_no("tiny-qwen3-st"),
        yes_and_no("tiny-qwen3-plain"),
        ("tiny-qwen3-seqcls", Task::Labels),
        ("tiny-mxbai-v2", answer("tiny-mxbai-v2", "1", Some("0"))),
        ("tiny-zerank", answer("tiny-zerank", "Yes", None)),
        (
            "tiny-ctxl",
            Task::Answer {
                token: 0,
                minus: None,
            },
        ),
        yes_and_no("tiny-llama"),
        ("tiny-nemotron", Task::Labels),
        ("tiny-bge-gemma", answer("tiny-bge-gemma", "Yes", None)),
        ("tiny-minicpm-layerwise", Task::Labels),
        ("tiny-gemma2-lightweight", Task::Labels),
        (
            "tiny-monot5",
            answer("tiny-monot5", "\u{2581}true", Some("\u{2581}false")),
        ),
        ("tiny-rankt5", answer("tiny-rankt5", "<extra_id_10>", None)),
    ]
}

#[test]
fn decoders_give_the_references_logits() {
    for (name, task) in models() {
        let mut model = model(name, Dtype::F32, task);
        for (case, (ids, logits)) in golden(name).iter().enumerate() {
            let what = format!("{name}, case {case}");
            let sequences = sequences(ids);
            let together = run(&mut *model, &sequences);
            assert_close(&together, logits, TOLERANCE, &what);
            for (sequence, logit) in sequences.iter().zip(&together) {
                let alone = run(&mut *model, std::slice::from_ref(sequence));
                assert_close(&alone, &[*logit], SAME, &format!("{what}, alone"));
            }
        }
    }
}

#[test]
fn a_prefix_that_is_computed_once_changes_nothing() {
    for (name, task) in models() {
        let mut model = model(name, Dtype::F32, task);
        let cases = golden(name);
        let apart = cases
            .iter()
            .map(|(ids, _)| run(&mut *model, &sequences(ids)));
        let apart: Vec<f32> = apart.collect::<Vec<_>>().concat();
        // All of a model's cases in one batch: several prefixes, in any order.
        let shared: Vec<_> = cases.iter().flat_map(|(ids, _)| with_prefix(ids)).collect();
        let together = run(&mut *model, &shared);
        assert_close(&together, &apart, SAME, name);
        // By then the prefixes are kept from the batch before.
        let order: Vec<usize> = (0..shared.len()).map(|i| i * 7 % shared.len()).collect();
        let shuffled: Vec<_> = order.iter().map(|&i| shared[i].clone()).collect();
        let expected: Vec<f32> = order.iter().map(|&i| apart[i]).collect();
        assert_close(&run(&mut *model, &shuffled), &expected, SAME, name);
        let plain = Batch::pack(
            &cases
                .iter()
                .flat_map(|(ids, _)| sequences(ids))
                .collect::<Vec<_>>(),
        );
        let saved = model.flops(&plain) - model.flops(&Batch::pack(&shared));
        assert_eq!(saved > 0.0, model.spec().causal, "{name}");
    }
}

#[test]
fn a_model_ends_after_a_layer_that_has_a_head() {
    let name = "tiny-minicpm-layerwise";
    let golden = json(&tests().join("golden").join(format!("{name}.json")));
    for layer in [2, 3] {
        let mut model = shortened(name, Dtype::F32, Task::Labels, Some(layer), None);
        for case in golden["cases"].as_array().unwrap() {
            let ids: Vec<Vec<u32>> = serde_json::from_value(case["ids"].clone()).unwrap();
            let expected = &case["by_layer"][layer.to_string()];
            let expected: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
            let found = run(&mut *model, &sequences(&ids));
            assert_close(&found, &expected, TOLERANCE, name);
        }
    }
}

#[test]
fn documents_are_compressed_before_some_layers() {
    let name = "tiny-gemma2-lightweight";
    let golden = json(&tests().join("golden").join(format!("{name}.json")));
    let cases = golden["cases"].as_array().unwrap();
    for i in 0..cases[0]["settings"].as_array().unwrap().len() {
        let setting = &cases[0]["settings"][i];
        let number = |key: &str| usize::try_from(setting[key].as_u64().unwrap()).unwrap();
        let compression = Compression {
            layers: serde_json::from_value(setting["compress_layers"].clone()).unwrap(),
            ratio: number("compress_ratio"),
        };
        let cutoff = Some(number("cutoff_layer"));
        let mut model = shortened(name, Dtype::F32, Task::Labels, cutoff, Some(compression));
        let (mut all, mut expected) = (Vec::new(), Vec::new());
        for case in cases {
            let ids: Vec<Vec<u32>> = serde_json::from_value(case["ids"].clone()).unwrap();
            let passages: Vec<[usize; 2]> =
                serde_json::from_value(case["passages"].clone()).unwrap();
            let logits = case["settings"][i]["logits"].clone();
            let logits: Vec<f32> = serde_json::from_value(logits).unwrap();
            let pairs: Vec<Sequence> = sequences(&ids)
                .into_iter()
                .zip(&passages)
                .map(|(pair, &[start, end])| pair.with_document(start..end))
                .collect();
            let found = run(&mut *model, &pairs);
            assert_close(&found, &logits, TOLERANCE, &format!("{setting}"));
            // What stands before the document is the same for all documents of a query.
            let shared = pairs.into_iter().zip(&passages);
            let shared = shared.map(|(pair, &[start, _])| pair.with_shared_prefix(start));
            all.extend(shared);
            expected.extend(found);
        }
        for _ in 0..2 {
            let found = run(&mut *model, &all);
            assert_close(
                &found,
                &expected,
                SAME,
                &format!("{setting}, a shared prefix"),
            );
        }
    }
}

#[test]
fn fewer_bits_stay_near() {
    for (name, task) in models() {
        // Where scores are not scaled, roundings of queries and keys weigh more.
        let times = match name {
            "tiny-qwen3-st" | "tiny-monot5" => 1.0,
            "tiny-rankt5" => 3.0,
            _ => continue,
        };
        let mut whole = model(name, Dtype::F32, task);
        for (dtype, most) in [(Dtype::Bf16, 0.1), (Dtype::F16, 0.02), (Dtype::Int8, 0.3)] {
            let mut rounded = model(name, dtype, task);
            for (ids, _) in golden(name) {
                let shared = with_prefix(&ids);
                let (found, expected) = (run(&mut *rounded, &shared), run(&mut *whole, &shared));
                assert_close(
                    &found,
                    &expected,
                    most * times,
                    &format!("{name}, {dtype:?}"),
                );
            }
        }
    }
}

#[test]
fn a_pass_that_nobody_wants_ends_early_and_spoils_nothing() {
    let (name, task) = models().swap_remove(0);
    let sequences = [vec![1, 2, 3, 4, 5], vec![1, 2, 3, 6, 7, 8]];
    let sequences = sequences.map(|ids| {
        let types = vec![0; ids.len()];
        Sequence::new(ids, types).with_shared_prefix(3)
    });
    let expected = run(&mut *model(name, Dtype::F32, task), &sequences);
    let mut model = model(name, Dtype::F32, task);
    let batch = Batch::pack(&sequences);
    let before = model.batch_cost(&batch);
    let ended = model.forward_while(&batch, &|| false);
    assert!(matches!(ended, Err(EngineError::Unwanted)), "{ended:?}");
    assert_eq!(model.batch_cost(&batch), before, "nothing is kept of it");
    assert_eq!(run(&mut *model, &sequences), expected);
    let kept = model.batch_cost(&batch);
    // The three tokens that both begin with are kept now.
    assert!(
        (before - kept - model.cost().of(0, 3)).abs() < 1e-9,
        "{before} {kept}"
    );
}
