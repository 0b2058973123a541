//! GGUF files: the same outputs as of the safetensors that they were made of.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use rerankd_engine::{
    Batch, Device, Dtype, Model, ModelFile, ModelFiles, Options, Sequence, Task, Weights, load,
};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

fn folder() -> PathBuf {
    root().join("fixtures/models/tiny-qwen3-plain")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A tensor's name in llama.cpp's files.
fn renamed(name: &str) -> String {
    let (name, parameter) = name.rsplit_once('.').unwrap();
    let part = match name {
        "lm_head" => "output".to_owned(),
        "model.norm" => "output_norm".to_owned(),
        "model.embed_tokens" => "token_embd".to_owned(),
        layer => {
            let layer = layer.strip_prefix("model.layers.").unwrap();
            let (number, part) = layer.split_once('.').unwrap();
            let part = match part {
                "input_layernorm" => "attn_norm",
                "post_attention_layernorm" => "ffn_norm",
                "self_attn.q_proj" => "attn_q",
                "self_attn.k_proj" => "attn_k",
                "self_attn.v_proj" => "attn_v",
                "self_attn.o_proj" => "attn_output",
                "self_attn.q_norm" => "attn_q_norm",
                "self_attn.k_norm" => "attn_k_norm",
                "mlp.gate_proj" => "ffn_gate",
                "mlp.up_proj" => "ffn_up",
                "mlp.down_proj" => "ffn_down",
                other => panic!("{other}"),
            };
            format!("blk.{number}.{part}")
        }
    };
    format!("{part}.{parameter}")
}

/// Writes the tiny model anew, its matrices as `kind` where that can be.
fn write(path: &Path, architecture: &str, kind: GgmlDType, left_out: &str) {
    let cpu = candle_core::Device::Cpu;
    let tensors = candle_core::safetensors::load(folder().join("model.safetensors"), &cpu).unwrap();
    let written: Vec<(String, QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (renamed(name), tensor))
        .filter(|(name, _)| !name.starts_with(left_out))
        .map(|(name, tensor)| {
            let whole = tensor
                .dims()
                .last()
                .unwrap()
                .is_multiple_of(kind.block_size());
            let kind = if whole { kind } else { GgmlDType::F32 };
            (
                name,
                QTensor::quantize(&tensor.to_dtype(candle_core::DType::F32).unwrap(), kind)
                    .unwrap(),
            )
        })
        .collect();
    let tensors: Vec<(&str, &QTensor)> = written.iter().map(|(name, t)| (&**name, t)).collect();
    let architecture = gguf_file::Value::String(architecture.into());
    let metadata = [("general.architecture", &architecture)];
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

fn read(path: &Path) -> Result<Box<dyn Model>, String> {
    let vocabulary = json(&folder().join("tokenizer.json"))["model"]["vocab"].clone();
    let id = |word: &str| u32::try_from(vocabulary[word].as_u64().unwrap()).unwrap();
    let files = ModelFiles {
        name: "tiny".into(),
        revision: None,
        note: None,
        dtype: Some(Dtype::F32),
        config: ModelFile::Disk(folder().join("config.json")),
        weights: Weights::Gguf(path.into()),
        modules: Vec::new(),
        task: Task::Answer {
            token: id("yes"),
            minus: Some(id("no")),
        },
        cutoff_layer: None,
        compression: None,
        others: BTreeMap::new(),
    };
    let options = Options {
        device: "cpu".into(),
        threads: 2,
        instructions: "auto".into(),
        pin: false,
    };
    let device = Device::new(&options).unwrap();
    load(&files, Dtype::F32, &device).map_err(|error| error.to_string())
}

#[test]
fn a_gguf_file_gives_what_its_weights_give() {
    let place = tempfile::tempdir().unwrap();
    let golden = json(&root().join("golden/tiny-qwen3-plain.json"));
    for (kind, tolerance) in [
        (GgmlDType::F32, 1e-4),
        (GgmlDType::F16, 0.02),
        (GgmlDType::Q8_0, 0.2),
    ] {
        let path = place.path().join("model.gguf");
        write(&path, "qwen3", kind, "none");
        let mut model = read(&path).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let ids: Vec<Vec<u32>> = serde_json::from_value(case["ids"].clone()).unwrap();
            let logits: Vec<f32> = serde_json::from_value(case["logits"].clone()).unwrap();
            let pairs: Vec<_> = ids
                .iter()
                .map(|ids| Sequence::new(ids.clone(), vec![0; ids.len()]))
                .collect();
            let found = model.forward(&Batch::pack(&pairs)).unwrap();
            for (found, logit) in found.iter().zip(logits) {
                let found = found.values()[0];
                assert!(
                    (found - logit).abs() < tolerance,
                    "{kind:?}: {found}, not {logit}"
                );
            }
        }
    }
}

#[test]
fn a_gguf_file_without_its_head_or_of_another_kind_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.gguf");
    write(&path, "qwen3", GgmlDType::F32, "output.");
    let error = read(&path).err().unwrap();
    assert!(error.contains("scores would mean nothing"), "{error}");
    write(&path, "llama", GgmlDType::F32, "none");
    let error = read(&path).err().unwrap();
    assert!(error.contains("architecture \"llama\""), "{error}");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 100]).unwrap();
    assert!(read(&path).err().unwrap().contains("model.gguf"));
}
