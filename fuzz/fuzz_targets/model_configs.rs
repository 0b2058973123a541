//! What a model's JSON files say: the first byte chooses the model, and whether its tokenizer and prompt are made too,
//! which takes long; the second chooses the file.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rerankd::app::Loaded;
use rerankd::config::{Override, Settings};
use rerankd::engine::{self, Batch, Device, Sequence};
use rerankd::model_store;
use rerankd_fuzz::{checked, choice, copy, model};

/// One of each kind, and its prompt.
const MODELS: [(&str, &str); 12] = [
    ("tiny-bert", "auto"),
    ("tiny-ettin-mean", "auto"),
    ("tiny-colbert-st", "auto"),
    ("tiny-colbert-stanford", "auto"),
    ("tiny-qwen3-st", "auto"),
    ("tiny-qwen3-seqcls", "auto"),
    ("tiny-jina-v3", "auto"),
    ("tiny-mxbai-v2", "mxbai-rerank-v2"),
    ("tiny-rankt5", "auto"),
    ("tiny-llama", "auto"),
    (
        "tiny-gemma2-lightweight",
        "bge-reranker-v2.5-gemma2-lightweight",
    ),
    ("tiny-jina-v2", "auto"),
];

struct Model {
    settings: Settings,
    /// Its files but for weights and vocabulary, in order, and what they hold.
    files: Vec<(PathBuf, Vec<u8>)>,
}

fn models() -> &'static (Vec<Model>, Device) {
    static MODELS_READY: OnceLock<(Vec<Model>, Device)> = OnceLock::new();
    MODELS_READY.get_or_init(|| {
        let models = MODELS.iter().map(|(name, prompt)| {
            let folder = copy(&model(name));
            let mut files = Vec::new();
            add(&folder, &mut files);
            files.sort();
            let overrides: Vec<Override> = vec![
                ("model.id", folder.display().to_string().into()),
                ("model.prompt", (*prompt).into()),
                ("engine.threads", 1.into()),
                ("tokenize.threads", 1.into()),
            ];
            Model {
                settings: Settings::load(None, overrides).expect("settings"),
                files,
            }
        });
        let models: Vec<Model> = models.collect();
        let device = Device::new(&models[0].settings.engine()).expect("a device");
        (models, device)
    })
}

fn add(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_wanted =
            name.ends_with(".json") || name.ends_with(".jinja") || name.ends_with(".metadata");
        if path.is_dir() {
            add(&path, files);
        } else if is_wanted && name != "tokenizer.json" {
            let bytes = fs::read(&path).expect("a file");
            files.push((path, bytes));
        }
    }
}

fuzz_target!(init: { models(); }, |input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else {
        return;
    };
    let (is_whole, model) = (first & 0x80 != 0, usize::from(first & 0x7f) % MODELS.len());
    let (models, device) = models();
    let model = &models[model];
    let Some((file, bytes)) = choice(rest, model.files.len()) else {
        return;
    };
    let (path, before) = &model.files[file];
    fs::write(path, bytes).expect("a file");
    if is_whole {
        checked(Loaded::load(&model.settings));
    } else {
        read(&model.settings, device);
    }
    fs::write(path, before).expect("a file");
});

/// All but the tokenizer and what depends on it.
fn read(settings: &Settings, device: &Device) {
    let Some(files) = checked(model_store::resolve(&settings.model_store())) else {
        return;
    };
    let Some(usage) = checked(model_store::usage(&files, settings.activation())) else {
        return;
    };
    let dtype = engine::suits(&files, device).dtype;
    let Some(spec) = checked(engine::check(&files, dtype, device)) else {
        return;
    };
    assert!(spec.max_positions > 0 && usage.max_tokens != Some(0));
    let Some(mut model) = checked(engine::load(&files, dtype, device)) else {
        return;
    };
    let ids = vec![1; spec.max_positions.min(5)];
    let batch = Batch::pack(&[Sequence::new(ids.clone(), vec![0; ids.len()])]);
    checked(model.forward(&batch));
}
