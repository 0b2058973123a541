//! The files that a vocabulary is in.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::class::Class;
use super::sentencepiece::SentencePiece;

/// The files that a tokenizer's vocabulary may be in. Where there is a tokenizer.json, the others are not needed.
pub const VOCABULARY_FILES: [&str; 7] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spm.model",
    "spiece.model",
];

/// What to do where the files aren't enough.
pub(super) const WRITE_JSON: &str = "transformers writes tokenizer.json with \
     AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";

/// Those of [`VOCABULARY_FILES`] that a model has.
#[derive(Debug, Default)]
pub struct Vocabulary(BTreeMap<&'static str, File>);

#[derive(Debug)]
struct File {
    /// Where it is, for messages.
    place: String,
    bytes: Vec<u8>,
}

/// What a tokenizer is made of.
pub(super) struct Source {
    /// A tokenizer.json, which lacks all but the model's vocabulary where there was none.
    pub(super) json: Value,
    /// What is read of a SentencePiece model.
    pub(super) pieces: Option<SentencePiece>,
}

impl Vocabulary {
    /// Adds a file, whose place messages name.
    pub fn insert(&mut self, name: &'static str, place: String, bytes: Vec<u8>) {
        self.0.insert(name, File { place, bytes });
    }

    /// The file that a tokenizer of this class is made of, or any, for messages.
    pub(super) fn place(&self, class: Option<Class>) -> String {
        let names = class.map_or(&[][..], Class::files);
        let mut names = ["tokenizer.json"].iter().chain(names);
        let found = names.find_map(|name| self.0.get(name));
        let found = found.or_else(|| self.0.values().next());
        found.map_or_else(|| "tokenizer.json".into(), |file| file.place.clone())
    }

    /// Reads the tokenizer.json, or else the files of the class. `what` names the tokenizer, for messages.
    pub(super) fn read(&self, class: Option<Class>, what: &str) -> Result<Source, String> {
        let bytes = |name: &str| self.0.get(name).map(|file| &file.bytes[..]);
        let of_json = |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|e| e.to_string());
        let source = |model: Value| Source {
            json: json!({"version": "1.0", "model": model}),
            pieces: None,
        };
        if let Some(json) = bytes("tokenizer.json") {
            return Ok(Source {
                json: of_json(json)?,
                pieces: None,
            });
        }
        let names = class.map_or(&[][..], Class::files);
        let files: Vec<&[u8]> = names.iter().filter_map(|name| bytes(name)).collect();
        match (names, &files[..]) {
            (["vocab.txt"], [words]) => {
                let words = String::from_utf8_lossy(words);
                let lines = words.lines().map(str::trim_end).zip(0u32..);
                Ok(source(
                    json!({"vocab": lines.collect::<HashMap<&str, u32>>()}),
                ))
            }
            ([_, "merges.txt"], [words, merges]) => {
                let merges = String::from_utf8_lossy(merges);
                let merges = merges.lines().filter(|line| !line.starts_with("#version"));
                let merges: Vec<&str> = merges.filter(|line| !line.is_empty()).collect();
                let words: Value = of_json(words)?;
                Ok(source(json!({"vocab": words, "merges": merges})))
            }
            ([_], [model]) => {
                let pieces = SentencePiece::read(model)?;
                Ok(Source {
                    pieces: Some(pieces),
                    ..source(json!({}))
                })
            }
            (names, _) => {
                let own = names.join(" and ");
                let or = if names.is_empty() { "" } else { " or " };
                Err(format!(
                    "{what} needs {own}{or}tokenizer.json; {WRITE_JSON}"
                ))
            }
        }
    }
}
