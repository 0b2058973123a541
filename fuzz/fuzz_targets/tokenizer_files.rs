//! A file of a tokenizer: the first byte chooses which.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rerankd::tokenize::{Definition, Direction, TextTokenizer, Vocabulary};
use rerankd_fuzz::{checked, choice, model};
use serde_json::Value;

/// The file that is fuzzed, the model whose other files stand beside it, and the class where that is not the model's.
const FILES: [(&str, &str, &str); 12] = [
    ("tokenizer.json", "tiny-bert", ""),
    ("tokenizer.json", "tiny-xlmr", ""),
    ("tokenizer.json", "tiny-qwen3-seqcls", ""),
    ("vocab.txt", "tiny-legacy", ""),
    ("spiece.model", "tiny-albert", "AlbertTokenizer"),
    (
        "sentencepiece.bpe.model",
        "tiny-camembert",
        "CamembertTokenizer",
    ),
    ("spm.model", "tiny-deberta-v2", "DebertaV2Tokenizer"),
    ("tokenizer_config.json", "tiny-bert", ""),
    ("tokenizer_config.json", "tiny-xlmr", ""),
    ("special_tokens_map.json", "tiny-roberta", ""),
    ("added_tokens.json", "tiny-deberta-v2", ""),
    ("config.json", "tiny-mpnet", ""),
];

/// What a text's tokens are tried with.
const TEXTS: [&str; 4] = [
    "",
    "Rivers carve valleys.",
    "  naïve\u{301} 東京 🌊\u{200d} [MASK] <s> ##ing\n\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0123456789",
];

/// A model's files by name.
type Folder = Vec<(String, Vec<u8>)>;

fn folders() -> &'static Vec<Folder> {
    static FOLDERS: OnceLock<Vec<Folder>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        FILES
            .iter()
            .map(|(_, name, _)| folder(&model(name)))
            .collect()
    })
}

fn folder(path: &Path) -> Folder {
    let files = fs::read_dir(path).expect("a model").map(|entry| {
        let entry = entry.expect("a file");
        let name = entry.file_name().into_string().expect("a name");
        (name, entry.path())
    });
    let files = files.filter(|(name, path)| {
        path.is_file() && !name.contains("model-") && name != "model.safetensors"
    });
    files
        .map(|(name, path)| (name, fs::read(path).expect("a file")))
        .collect()
}

fuzz_target!(init: { folders(); }, |input: &[u8]| {
    let Some((place, bytes)) = choice(input, FILES.len()) else {
        return;
    };
    let (name, _, class) = FILES[place];
    let is_vocabulary = rerankd::tokenize::VOCABULARY_FILES.contains(&name);
    let other = |name: &str| {
        let found = folders()[place].iter().find(|(other, _)| other == name);
        found.map(|(_, bytes)| bytes.clone())
    };
    let json = |wanted: &str| -> Option<Value> {
        match wanted == name {
            true => serde_json::from_slice(bytes).ok(),
            false => Some(other(wanted).map_or(Value::Null, |bytes| {
                serde_json::from_slice(&bytes).expect("JSON")
            })),
        }
    };
    let mut vocabulary = Vocabulary::default();
    for file in rerankd::tokenize::VOCABULARY_FILES {
        let found = match is_vocabulary {
            true => (file == name).then(|| bytes.to_vec()),
            false => other(file),
        };
        if let Some(found) = found {
            vocabulary.insert(file, file.to_owned(), found);
        }
    }
    let (Some(config), Some(mut tokenizer_config), Some(special_tokens_map), Some(added_tokens)) = (
        json("config.json"),
        json("tokenizer_config.json"),
        json("special_tokens_map.json"),
        json("added_tokens.json"),
    ) else {
        return;
    };
    if !class.is_empty() {
        tokenizer_config["tokenizer_class"] = class.into();
    }
    let definition = Definition {
        vocabulary,
        config,
        tokenizer_config,
        special_tokens_map,
        added_tokens,
        lowercase: false,
        markers: vec!["[Q] ".into()],
    };
    let Some(tokenizer) = checked(TextTokenizer::new(&definition)) else {
        return;
    };
    let size = 1 << 16;
    let fits = checked(tokenizer.check_ids(0, size)).is_some();
    checked(tokenizer.pair_template(2, size));
    checked(tokenizer.text_template(2, size));
    for text in TEXTS {
        if let Some(ids) = checked(tokenizer.encode_text(text)) {
            assert!(!fits || ids.iter().all(|&id| (id as usize) < size));
        }
        for direction in [Direction::Right, Direction::Left] {
            if let Some(tokens) = checked(tokenizer.encode_within(text, 3, direction)) {
                assert!(tokens.ids().len() <= 3);
            }
        }
    }
});
