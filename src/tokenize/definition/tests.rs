//! Tokenizers of files alone make the ids that transformers makes of them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::tokenize::TextTokenizer;

#[derive(Debug, Deserialize)]
struct Golden {
    query: String,
    document: String,
    texts: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    files: BTreeMap<String, String>,
    json: BTreeMap<String, Value>,
    ids: Vec<Vec<u32>>,
    pair: Vec<u32>,
    types: Option<Vec<u32>>,
}

fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

fn golden() -> Golden {
    let json = std::fs::read(tests().join("golden/tokenizer_files.json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// A tokenizer's definition of fixtures, by the names that they have in a model's folder.
pub(crate) fn definition<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
    json: &BTreeMap<String, Value>,
) -> Definition {
    let mut vocabulary = Vocabulary::default();
    for (name, file) in files {
        let name = VOCABULARY_FILES.into_iter().find(|n| *n == name).unwrap();
        let bytes = std::fs::read(tests().join("fixtures").join(file)).unwrap();
        vocabulary.insert(name, name.into(), bytes);
    }
    let json = |name: &str| json.get(name).cloned().unwrap_or_default();
    Definition {
        vocabulary,
        config: json("config.json"),
        tokenizer_config: json("tokenizer_config.json"),
        special_tokens_map: json("special_tokens_map.json"),
        added_tokens: json("added_tokens.json"),
        lowercase: false,
        markers: Vec::new(),
    }
}

#[test]
fn ids_and_pairs_are_those_of_transformers() {
    let golden = golden();
    let mut wrong = Vec::new();
    for case in &golden.cases {
        let name = &case.name;
        let files = case.files.iter().map(|(n, f)| (&n[..], &f[..]));
        let made = TextTokenizer::new(&definition(files, &case.json));
        let tokenizer = made.unwrap_or_else(|e| panic!("{name}: {e}"));
        for (text, expected) in golden.texts.iter().zip(&case.ids) {
            let found = tokenizer.encode_text(text).unwrap();
            if found != *expected {
                wrong.push(format!("{name}, {text:?}: {found:?}, not {expected:?}"));
            }
        }
        let ids = |text: &str| tokenizer.encode_text(text).unwrap();
        let template = tokenizer.pair_template(2, 1000).unwrap();
        let pair = template.apply(&ids(&golden.query), &ids(&golden.document));
        let types = case.types.clone().unwrap_or(vec![0; case.pair.len()]);
        if pair.ids() != case.pair || pair.type_ids() != types {
            wrong.push(format!("{name}: {pair:?}, not {:?} {types:?}", case.pair));
        }
    }
    assert!(golden.cases.len() >= 30 && golden.texts.len() >= 25);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn error(files: &[(&str, &str)], json: Value) -> String {
    let json = serde_json::from_value(json).unwrap();
    let made = TextTokenizer::new(&definition(files.iter().copied(), &json));
    made.unwrap_err().to_string()
}

#[test]
fn what_no_tokenizer_can_be_made_of_is_refused_with_what_to_do() {
    let write = "; transformers writes tokenizer.json with AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";
    let words = ("vocab.txt", "tokenizers/mpnet.txt");
    for (files, json, expected) in [
        (
            vec![("sentencepiece.bpe.model", "tokenizers/bpe.model")],
            json!({"config.json": {"model_type": "xlm-roberta"}}),
            "sentencepiece.bpe.model: a SentencePiece model of type BPE, but only those of type Unigram are converted",
        ),
        (
            vec![words],
            json!({"tokenizer_config.json": {"tokenizer_class": "BertJapaneseTokenizer"}}),
            "vocab.txt: tokenizer_class BertJapaneseTokenizer needs tokenizer.json",
        ),
        (
            vec![words],
            json!({"config.json": {"model_type": "deberta-v2"}}),
            "vocab.txt: model_type \"deberta-v2\" needs spm.model or tokenizer.json",
        ),
        (
            vec![("vocab.json", "models/tiny-bert/config.json")],
            json!({"config.json": {"model_type": "roberta"}}),
            "vocab.json: model_type \"roberta\" needs vocab.json and merges.txt or tokenizer.json",
        ),
        (
            vec![words],
            json!({"config.json": {"model_type": "modernbert"}}),
            "vocab.txt: model_type \"modernbert\" needs tokenizer.json",
        ),
    ] {
        assert_eq!(error(&files, json), format!("{expected}{write}"));
    }
    let no_cls = error(
        &[("spiece.model", "tokenizers/fairseq.model")],
        json!({"config.json": {"model_type": "albert"}}),
    );
    assert_eq!(
        no_cls,
        "spiece.model: holds no \"[CLS]\", which is the cls_token"
    );
}

#[test]
fn a_file_that_is_damaged_is_refused() {
    let whole = std::fs::read(tests().join("fixtures/tokenizers/deberta.model")).unwrap();
    let read = |bytes: &[u8]| SentencePiece::read(bytes);
    let pieces = read(&whole).unwrap();
    assert_eq!((pieces.vocab.len(), pieces.unk_id), (300, 3));
    assert_eq!(pieces.vocab[1], json!(["[CLS]", 0.0]));
    // Wherever it is cut, it has fewer pieces, or ends within a field.
    for length in 0..whole.len() {
        if let Ok(part) = read(&whole[..length]) {
            assert!(part.vocab.len() < 300 || part.normalizer.is_null());
        }
    }
    for bad in [
        &b"<html>"[..],
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0f",
    ] {
        assert!(read(bad).unwrap_err().contains("SentencePiece"), "{bad:?}");
    }
    assert!(read(b"").unwrap_err().contains("without pieces"));
    // A trie of 4 GB in a table of 5 bytes.
    let table = b"\x0a\x03\x0a\x01a\x1a\x07\x12\x05\xff\xff\xff\xff\0";
    assert!(read(table).unwrap_err().contains("ends too early"));
}

#[test]
fn a_template_with_an_undefined_special_token_is_refused() {
    let pieces = |token: &str| json!([{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]);
    let template = |token: &str| {
        json!({"type": "TemplateProcessing", "single": pieces("[CLS]"), "pair": pieces(token),
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}}})
    };
    assert_eq!(undefined(&template("[CLS]")), None);
    assert_eq!(undefined(&template("[SEP]")), Some(&json!("[SEP]")));
    let within = json!({"type": "Sequence", "processors": [template("[CLS]"), template("[SEP]")]});
    assert_eq!(undefined(&within), Some(&json!("[SEP]")));
    assert_eq!(undefined(&Value::Null), None);
}
