//! Parts of a tokenizer.json.

use serde_json::{Value, json};
use tokenizers::AddedToken;

/// A template of special tokens before the query, after it, and once more before the document, whose
/// own end is that of the query.
pub(super) fn template(
    before: &[&(String, u32)],
    after: &[&(String, u32)],
    between: &[&(String, u32)],
) -> Value {
    // Only BERT's segments differ, and its tokens between the texts are the query's.
    let second = u32::from(between.is_empty());
    let special = |tokens: &[&(String, u32)], type_id: u32| {
        let tokens = tokens.iter();
        let tokens = tokens.map(|t| json!({"SpecialToken": {"id": t.0, "type_id": type_id}}));
        tokens.collect::<Vec<Value>>()
    };
    let sequence =
        |id: &str, type_id: u32| vec![json!({"Sequence": {"id": id, "type_id": type_id}})];
    let single = [special(before, 0), sequence("A", 0), special(after, 0)].concat();
    let pair = [
        single.clone(),
        special(between, 0),
        sequence("B", second),
        special(after, second),
    ]
    .concat();
    let ids = before.iter().chain(after).map(|(token, id)| {
        let entry = json!({"id": token, "ids": [id], "tokens": [token]});
        (token.clone(), entry)
    });
    json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": ids.collect::<serde_json::Map<_, _>>(),
    })
}

/// sentencepiece's normalisation, alone or among others.
pub(super) fn precompiled(normalizer: &Value) -> Value {
    let all = normalizer["normalizers"].as_array();
    let mut all = all.into_iter().flatten().chain([normalizer]);
    let found = all.find(|n| n["type"] == "Precompiled");
    found.cloned().unwrap_or_default()
}

pub(super) fn prepend_lowercase(normalizer: &mut Value) {
    let mut all = match normalizer.take() {
        Value::Null => Vec::new(),
        one => match one["normalizers"].as_array() {
            Some(all) => all.clone(),
            None => vec![one],
        },
    };
    all.insert(0, json!({"type": "Lowercase"}));
    *normalizer = json!({"type": "Sequence", "normalizers": all});
}

/// A token that a JSON object describes.
pub(super) fn added_token(value: &Value) -> Option<AddedToken> {
    let flag = |name: &str| value[name].as_bool();
    let special = flag("special").unwrap_or(false);
    let token = AddedToken::from(value["content"].as_str()?, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false));
    Some(token.normalized(flag("normalized").unwrap_or(!special)))
}

/// A special token: a JSON string or object.
pub(super) fn special_token(value: &Value) -> Option<AddedToken> {
    match value.as_str() {
        Some(content) => Some(AddedToken::from(content, true)),
        None => added_token(value).map(|token| AddedToken {
            special: true,
            ..token
        }),
    }
}
