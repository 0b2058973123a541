//! A file of weights: the first byte chooses its format.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rerankd::engine::{self, Batch, Device, Dtype, ModelFiles, Options, Sequence, Weights};
use rerankd::model_store::{self, HubOptions};
use rerankd_fuzz::{allow_panics_of, checked, choice, copy, root};

/// Models of a few weights, in `fuzz/models/`, and the file that is fuzzed.
const FORMATS: [(&str, &str); 3] = [
    ("bert", "model.safetensors"),
    ("bert-pickled", "pytorch_model.bin"),
    ("qwen3", "model.gguf"),
];

struct Model {
    files: ModelFiles,
    path: PathBuf,
}

fn models() -> &'static (Vec<Model>, Device) {
    static MODELS: OnceLock<(Vec<Model>, Device)> = OnceLock::new();
    MODELS.get_or_init(|| {
        // candle divides by an alignment of 0.
        allow_panics_of(&["/candle-core-"]);
        let options = Options {
            device: "cpu".into(),
            threads: 1,
            instructions: "auto".into(),
            pin: false,
        };
        let models = FORMATS.iter().map(|(name, file)| {
            let folder = copy(&root().join("fuzz/models").join(name));
            let path = folder.join(file);
            fs::write(&path, b"").expect("a file");
            let model = match *file {
                "model.gguf" => &path,
                _ => &folder,
            };
            let files = model_store::resolve(&model_store::Options {
                model: model.display().to_string(),
                revision: "main".into(),
                hub: HubOptions::default(),
            });
            let files = files.expect("a model's files");
            let fits = match &files.weights {
                Weights::Safetensors(_) => *file == "model.safetensors",
                Weights::Pytorch(_) => *file == "pytorch_model.bin",
                Weights::Gguf(_) => *file == "model.gguf",
                Weights::Embedded(_) => false,
            };
            assert!(fits, "{name}");
            Model { files, path }
        });
        (models.collect(), Device::new(&options).expect("a device"))
    })
}

fuzz_target!(init: { models(); }, |input: &[u8]| {
    let Some((format, bytes)) = choice(input, FORMATS.len()) else {
        return;
    };
    let (models, device) = models();
    let Model { files, path } = &models[format];
    fs::write(path, bytes).expect("a file");
    if checked(engine::check_weights(files, Dtype::F32)).is_none() {
        return;
    }
    let suits = engine::suits(files, device);
    for dtype in [Dtype::F32, suits.dtype] {
        let Some(mut model) = checked(engine::load(files, dtype, device)) else {
            continue;
        };
        let batch = Batch::pack(&[Sequence::new(vec![2, 5, 3], vec![0; 3])]);
        checked(model.forward(&batch));
    }
});
