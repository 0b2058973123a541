//! A model whose files don't fit together is refused at start, with the file and the tensor.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, safetensors};
use rerankd::app::Loaded;
use rerankd::types::{Batch, Dtype, Sequence};

use crate::support::app::settings;
use crate::support::assert_says;
use crate::support::models::{copy, edit_json, folder};
use crate::support::process::{Server, rerankd};

/// The error of a model that must not load.
fn refused(model: &Path) -> String {
    format!(
        "{:#}",
        Loaded::load(&settings(model)).expect_err("it must be refused")
    )
}

fn rewrite(model: &Path, edit: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let path = model.join("model.safetensors");
    let mut tensors = safetensors::load(&path, &Device::Cpu).unwrap();
    edit(&mut tensors);
    safetensors::save(&tensors, path).unwrap();
}

#[test]
fn a_truncated_file_is_refused() {
    let model = copy("tiny-bert");
    let path = model.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    assert_says(
        &refused(model.path()),
        &["model.safetensors", "tensor \"", "should end at byte"],
    );
    std::fs::write(&path, &bytes[..1000]).unwrap();
    assert_says(
        &refused(model.path()),
        &["model.safetensors", "ends within the header"],
    );
    std::fs::write(&path, &bytes[..4]).unwrap();
    assert_says(
        &refused(model.path()),
        &["model.safetensors", "header's length", "4 bytes"],
    );
}

#[test]
fn a_corrupt_file_is_refused() {
    let model = copy("tiny-bert");
    let path = model.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] = b'}';
    std::fs::write(&path, bytes).unwrap();
    assert_says(&refused(model.path()), &["model.safetensors", "header"]);

    let model = copy("tiny-roberta");
    let path = model.path().join("pytorch_model.bin");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_says(&refused(model.path()), &["pytorch_model.bin"]);

    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        let model = copy("tiny-bert");
        std::fs::write(model.path().join(file), "{\"half\": ").unwrap();
        assert_says(&refused(model.path()), &[file]);
    }
}

#[test]
fn weights_that_are_not_numbers_are_refused() {
    let model = copy("tiny-bert");
    rewrite(model.path(), |tensors| {
        let broken = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
        tensors.insert("classifier.bias".into(), broken);
    });
    assert_says(&refused(model.path()), &["classifier.bias", "not finite"]);
}

#[test]
fn weights_beyond_the_range_of_f16_are_refused_where_they_would_not_fit() {
    let model = copy("tiny-bert");
    let name = "bert.encoder.layer.0.output.dense.weight";
    rewrite(model.path(), |tensors| {
        let large = tensors[name].affine(0.0, 70_000.0).unwrap();
        tensors.insert(name.into(), large);
    });
    for dtype in [Dtype::F16, Dtype::Int8, Dtype::Bf16, Dtype::F32] {
        let mut settings = settings(model.path());
        settings.engine.dtype = dtype.into();
        let loaded = Loaded::load(&settings);
        if matches!(dtype, Dtype::F16 | Dtype::Int8) {
            assert_says(
                &format!("{:#}", loaded.unwrap_err()),
                &[name, "70000", "bf16"],
            );
        } else {
            loaded.unwrap();
        }
    }
}

#[test]
fn names_that_the_reference_reads_are_read() {
    let sequence =
        |ids: std::ops::Range<u32>| Sequence::new(ids.clone().collect(), vec![0; ids.len()]);
    let batch = Batch::pack(&[sequence(5..25), sequence(25..40)]);
    let logits = |model: &Path| {
        let mut loaded = Loaded::load(&settings(model)).unwrap();
        loaded.model.forward(&batch).unwrap()
    };
    let expected = logits(&folder("tiny-bert"));
    let older = |name: &str| {
        name.replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta")
    };
    let bare = |name: &str| name.trim_start_matches("bert.").to_owned();
    let double = |name: &str| format!("bert.{name}");
    let renamings: [&dyn Fn(&str) -> String; 4] =
        [&older, &bare, &double, &|name| older(&bare(name))];
    for rename in renamings {
        let model = copy("tiny-bert");
        rewrite(model.path(), |tensors| {
            *tensors = tensors
                .drain()
                .map(|(name, t)| (rename(&name), t))
                .collect();
        });
        assert_eq!(logits(model.path()), expected);
    }
    // No other prefix is.
    let model = copy("tiny-bert");
    rewrite(model.path(), |tensors| {
        *tensors = tensors
            .drain()
            .map(|(name, t)| (format!("module.{name}"), t))
            .collect();
    });
    assert_says(
        &refused(model.path()),
        &["bert.embeddings.word_embeddings.weight", "missing"],
    );
}

#[test]
fn a_checkpoint_from_before_pytorch_1_6_is_refused_with_the_way_to_convert_it() {
    let model = copy("tiny-roberta");
    let magic = [
        0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e,
    ];
    std::fs::write(model.path().join("pytorch_model.bin"), magic).unwrap();
    assert_says(
        &refused(model.path()),
        &["pytorch_model.bin", "before 1.6", "save_pretrained"],
    );
}

#[test]
fn a_missing_tensor_is_named() {
    let model = copy("tiny-bert");
    let name = "bert.encoder.layer.1.attention.self.key.weight";
    rewrite(model.path(), |tensors| drop(tensors.remove(name)));
    assert_says(
        &refused(model.path()),
        &["model.safetensors", name, "missing"],
    );
    let model = copy("tiny-bert");
    rewrite(model.path(), |tensors| {
        tensors.retain(|name, _| !name.starts_with("classifier"))
    });
    assert_says(
        &refused(model.path()),
        &["classifier.weight", "not a cross-encoder"],
    );
}

#[test]
fn a_wrong_shape_is_named() {
    let model = copy("tiny-bert");
    let name = "bert.encoder.layer.0.output.dense.weight";
    rewrite(model.path(), |tensors| {
        let wrong = Tensor::zeros((32, 63), DType::F32, &Device::Cpu).unwrap();
        tensors.insert(name.into(), wrong);
    });
    assert_says(
        &refused(model.path()),
        &["model.safetensors", name, "[32, 63]", "[32, 64]"],
    );
}

#[test]
fn a_wrong_vocabulary_size_is_refused() {
    // config.json against the weights.
    let model = copy("tiny-bert");
    edit_json(&model.path().join("config.json"), |c| {
        c["vocab_size"] = 999.into()
    });
    let message = refused(model.path());
    assert_says(
        &message,
        &["model.safetensors", "word_embeddings.weight", "999"],
    );
    // The tokenizer against both.
    let model = copy("tiny-bert");
    let big = folder("tiny-roberta").join("tokenizer.json");
    std::fs::copy(big, model.path().join("tokenizer.json")).unwrap();
    assert_says(
        &refused(model.path()),
        &["tokenizer.json", "599", "405 rows"],
    );
}

#[test]
fn an_integer_tensor_is_refused() {
    let model = copy("tiny-bert");
    rewrite(model.path(), |tensors| {
        let wrong = Tensor::zeros(1, DType::U8, &Device::Cpu).unwrap();
        tensors.insert("classifier.bias".into(), wrong);
    });
    let message = refused(model.path());
    assert_says(
        &message,
        &["model.safetensors", "classifier.bias", "floating-point"],
    );
}

#[test]
fn half_precision_weights_load() {
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let model = copy("tiny-bert");
        rewrite(model.path(), |tensors| {
            for tensor in tensors.values_mut() {
                *tensor = tensor.to_dtype(dtype).unwrap();
            }
        });
        Loaded::load(&settings(model.path())).unwrap();
    }
}

#[test]
fn a_missing_file_is_named() {
    for (model, file) in [
        ("tiny-bert", "config.json"),
        ("tiny-bert", "tokenizer.json"),
        ("tiny-bert", "model.safetensors"),
        ("tiny-roberta", "pytorch_model.bin"),
        ("tiny-xlmr", "model-00002-of-00002.safetensors"),
        ("tiny-legacy", "pytorch_model-00002-of-00002.bin"),
    ] {
        let model = copy(model);
        std::fs::remove_file(model.path().join(file)).unwrap();
        assert_says(&refused(model.path()), &[file, "missing"]);
    }
}

#[test]
fn a_shard_with_a_missing_tensor_is_refused() {
    let model = copy("tiny-xlmr");
    let path = model.path().join("model-00002-of-00002.safetensors");
    let mut tensors = safetensors::load(&path, &Device::Cpu).unwrap();
    let name = tensors.keys().next().unwrap().clone();
    tensors.remove(&name);
    safetensors::save(&tensors, path).unwrap();
    assert_says(&refused(model.path()), &[&name, "missing"]);
}

#[test]
fn a_model_that_is_no_reranker_is_refused() {
    for (key, value, words) in [
        (
            "model_type",
            "falcon".into(),
            ["model_type \"falcon\"", "of decoders, rerankd runs"],
        ),
        (
            "id2label",
            serde_json::json!({"0": "a", "1": "b"}),
            ["2 labels", "config.json"],
        ),
        (
            "hidden_act",
            "mish".into(),
            ["hidden_act \"mish\"", "not supported"],
        ),
        (
            "position_embedding_type",
            "relative_key".into(),
            ["relative_key", "not supported"],
        ),
        ("num_attention_heads", 5.into(), ["5 attention heads", "32"]),
    ] {
        let model = copy("tiny-bert");
        edit_json(&model.path().join("config.json"), |c| c[key] = value);
        assert_says(&refused(model.path()), &words);
    }
}

#[test]
fn a_name_that_is_neither_folder_nor_hub_id_is_refused() {
    let message = refused(Path::new("/no/such/folder"));
    assert_says(&message, &["/no/such/folder", "no such folder", "ORG/NAME"]);
}

/// Writes a model's matrices as 8-bit integers with a scale for each row; returns what they stand
/// for.
fn make_compact(model: &Path) -> HashMap<String, Tensor> {
    let path = model.join("model.safetensors");
    let tensors = safetensors::load(&path, &Device::Cpu).unwrap();
    let mut expanded = HashMap::new();
    let mut parts: Vec<(String, ::safetensors::Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let bytes = |values: &[f32]| {
        values
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    for (name, tensor) in tensors {
        let tensor = tensor.to_dtype(DType::F32).unwrap();
        let shape = tensor.dims().to_vec();
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        if shape.len() != 2 {
            parts.push((
                name.clone(),
                ::safetensors::Dtype::F32,
                shape,
                bytes(&values),
            ));
            expanded.insert(name, tensor);
            continue;
        }
        let (mut integers, mut scales, mut standing) = (Vec::new(), Vec::new(), Vec::new());
        for row in values.chunks(shape[1]) {
            let scale = row.iter().fold(1e-12f32, |a, x| a.max(x.abs())) / 127.0;
            let row = row.iter().map(|x| (x / scale).round() as i8);
            let row: Vec<i8> = row.collect();
            standing.extend(row.iter().map(|&x| f32::from(x) * scale));
            integers.extend(row.iter().map(|x| x.cast_unsigned()));
            scales.push(scale);
        }
        let rows = vec![shape[0]];
        parts.push((
            format!("{name}.scale"),
            ::safetensors::Dtype::F32,
            rows,
            bytes(&scales),
        ));
        expanded.insert(
            name.clone(),
            Tensor::from_vec(standing, &shape[..], &Device::Cpu).unwrap(),
        );
        parts.push((name, ::safetensors::Dtype::I8, shape, integers));
    }
    let views = parts.iter().map(|(name, dtype, shape, data)| {
        let view = ::safetensors::tensor::TensorView::new(*dtype, shape.clone(), data);
        (name.clone(), view.unwrap())
    });
    std::fs::write(path, ::safetensors::serialize(views, None).unwrap()).unwrap();
    expanded
}

#[test]
fn compact_weights_are_those_that_their_integers_and_scales_stand_for() {
    let (compact, plain) = (copy("tiny-bert"), copy("tiny-bert"));
    let size = |model: &Path| {
        std::fs::metadata(model.join("model.safetensors"))
            .unwrap()
            .len()
    };
    let before = size(compact.path());
    let expanded = make_compact(compact.path());
    assert!(size(compact.path()) * 2 < before);
    rewrite(plain.path(), |tensors| *tensors = expanded);
    let sequence =
        |ids: std::ops::Range<u32>| Sequence::new(ids.clone().collect(), vec![0; ids.len()]);
    let batch = Batch::pack(&[sequence(5..25), sequence(25..60)]);
    let logits = |model: &Path| {
        let mut loaded = Loaded::load(&settings(model)).unwrap();
        loaded.model.forward(&batch).unwrap()
    };
    assert_eq!(logits(compact.path()), logits(plain.path()));

    // In int8 the integers are kept as they are, those of the embeddings too.
    let in_int8 = |model: &Path| {
        let mut settings = settings(model);
        settings.engine.dtype = Dtype::Int8.into();
        let mut model = Loaded::load(&settings).unwrap().model;
        (model.forward(&batch).unwrap(), model.weight_bytes())
    };
    let (kept, anew) = (in_int8(compact.path()), in_int8(plain.path()));
    for (a, b) in kept.0.iter().zip(&anew.0) {
        assert!((a.values()[0] - b.values()[0]).abs() < 1e-2, "{a:?} {b:?}");
    }
    assert!(kept.1 < anew.1, "{} {}", kept.1, anew.1);

    let name = "bert.encoder.layer.0.output.dense.weight";
    rewrite_raw(
        compact.path(),
        &format!("{name}.scale"),
        &format!("{name}.skale"),
    );
    assert_says(
        &refused(compact.path()),
        &[name, "not of a floating-point type"],
    );
}

/// Replaces a name in a safetensors file's header by another of the same length.
fn rewrite_raw(model: &Path, name: &str, other: &str) {
    let path = model.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    let header = header.replace(name, other);
    std::fs::write(
        &path,
        [&bytes[..8], header.as_bytes(), &bytes[8 + length..]].concat(),
    )
    .unwrap();
}

#[test]
fn layers_that_are_not_used_are_told() {
    let model = copy("tiny-bert");
    edit_json(&model.path().join("config.json"), |config| {
        config["num_hidden_layers"] = 1.into();
    });
    let mut command = rerankd();
    command.args(["serve", "--port", "0", "--log-format", "json", "--model"]);
    command.arg(model.path());
    let (_server, log) = Server::until(command, "ready");
    let told = "the weights hold 2 layers, but config.json says 1; the others are not used";
    let says = |text: &str| text.contains(told);
    let lines = log.iter().filter_map(|line| line["message"].as_str());
    assert_eq!(lines.filter(|line| says(line)).count(), 1, "{log:?}");
    let mut check = rerankd();
    check.args(["--check-config", "--model"]).arg(model.path());
    let check = check.output().unwrap();
    let check = [check.stdout, check.stderr].concat();
    assert!(says(&String::from_utf8_lossy(&check)));
}

#[test]
fn a_modules_missing_weights_are_named_whole() {
    let model = copy("tiny-ettin");
    let file = model.path().join("2_Dense/model.safetensors");
    std::fs::remove_file(&file).unwrap();
    let file = file.display().to_string();
    assert_says(
        &refused(model.path()),
        &[&file, "linear.weight", "the module's file is missing"],
    );
}
