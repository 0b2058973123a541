//! A model's tokenizer, built from its files as transformers 5 builds it.
//!
//! transformers uses tokenizer.json unchanged unless tokenizer_config.json, or else the kind of model, names a
//! tokenizer class that it knows. Those of encoders are rebuilt from the vocabulary and the settings of
//! tokenizer_config.json; the normalizer, pre-tokenizer and special tokens of tokenizer.json are then
//! ignored.

mod class;
mod parts;
mod sentencepiece;
mod vocabulary;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer};

pub use vocabulary::{VOCABULARY_FILES, Vocabulary};

use super::{Direction, TokenizeError};
use class::{Class, ROLES};
use parts::{added_token, precompiled, prepend_lowercase, special_token, template};
use sentencepiece::SentencePiece;
use vocabulary::Source;

/// The contents of a tokenizer's files; missing JSON files are null.
#[derive(Debug)]
pub struct Definition {
    /// The vocabulary's files.
    pub vocabulary: Vocabulary,
    /// config.json.
    pub config: Value,
    /// tokenizer_config.json.
    pub tokenizer_config: Value,
    /// special_tokens_map.json.
    pub special_tokens_map: Value,
    /// added_tokens.json.
    pub added_tokens: Value,
    /// Whether texts are lowercased first.
    pub lowercase: bool,
    /// Texts that queries or documents begin with, whose first word, or whole, is one token if the vocabulary has it,
    /// such as `[Q] `.
    pub markers: Vec<String>,
}

/// A tokenizer with further facts from its files.
pub(super) struct Made {
    pub(super) tokenizer: Tokenizer,
    /// Whether query and document get different type ids.
    pub(super) segments: bool,
    /// The default truncation direction.
    pub(super) direction: Direction,
    /// The file that it is made of, for messages.
    pub(super) file: String,
    /// The special tokens that have roles, such as `mask_token`.
    pub(super) roles: BTreeMap<&'static str, u32>,
}

impl Definition {
    /// Builds the tokenizer. The truncation and padding that many tokenizer.json files have are dropped, since
    /// the server's settings apply.
    pub(super) fn make(&self) -> Result<Made, TokenizeError> {
        let class = self.class();
        self.make_of(class).map_err(|reason| TokenizeError::File {
            path: self.vocabulary.place(class),
            reason,
        })
    }

    fn make_of(&self, class: Option<Class>) -> Result<Made, String> {
        let Source { mut json, pieces } = self.vocabulary.read(class, &self.what())?;
        let class = class.filter(|class| pieces.is_some() || class.fits(&json["model"]));
        let direction = self.direction(&json);
        let mut tokens: Vec<AddedToken> = self.added_tokens(&json).into_values().collect();
        let mut own = None;
        if let Some(class) = class {
            own = self.build(class, &mut json, pieces);
        }
        if self.lowercase {
            prepend_lowercase(&mut json["normalizer"]);
        }
        if let Some(token) = undefined(&json["post_processor"]) {
            return Err(format!(
                "post_processor: a template has the special token {token}, which its special_tokens don't define"
            ));
        }
        json["truncation"] = Value::Null;
        json["padding"] = Value::Null;
        let mut tokenizer: Tokenizer = serde_json::from_value(json).map_err(|e| e.to_string())?;

        self.add_special_tokens(class, own, &tokenizer, &mut tokens);
        tokenizer.add_tokens(tokens).map_err(|e| e.to_string())?;
        for marker in &self.markers {
            mark(&mut tokenizer, marker)?;
        }
        let roles = ROLES.into_iter().filter_map(|role| {
            let token = self.special_token(class, role)?;
            Some((role, tokenizer.token_to_id(&token.content)?))
        });
        let roles = roles.collect();
        let split = self.tokenizer_config["split_special_tokens"] == true;
        tokenizer.set_encode_special_tokens(split);

        let found = tokenizer.get_post_processor().is_some();
        let post_processor = match class {
            // ALBERT's is overridden by the file's.
            None | Some(Class::Albert) if found => None,
            Some(class) => Some(self.post_processor(class, &tokenizer)?),
            None => Some(template(&[], &[], &[])),
        };
        if let Some(json) = post_processor {
            let made: PostProcessorWrapper =
                serde_json::from_value(json).map_err(|e| e.to_string())?;
            tokenizer.with_post_processor(Some(made));
        }
        let inputs = self.tokenizer_config["model_input_names"].as_array();
        let segments = match inputs {
            Some(names) => names.iter().any(|name| name == "token_type_ids"),
            None => class.is_some_and(Class::has_segments),
        };
        Ok(Made {
            tokenizer,
            segments,
            direction,
            file: self.vocabulary.place(class),
            roles,
        })
    }

    /// The class that builds the tokenizer; `None` if tokenizer.json is used unchanged.
    fn class(&self) -> Option<Class> {
        let model_type = self.config["model_type"].as_str().unwrap_or_default();
        Class::of(model_type, self.named())
    }

    fn named(&self) -> Option<&str> {
        let named = self.tokenizer_config["tokenizer_class"].as_str();
        named.or(self.config["tokenizer_class"].as_str())
    }

    /// What decides of which class the tokenizer is, for messages.
    fn what(&self) -> String {
        match self.named() {
            Some(name) => format!("tokenizer_class {name}"),
            None => format!("model_type {}", self.config["model_type"]),
        }
    }

    /// Writes to `json` what the class builds from the vocabulary and the settings. Returns a SentencePiece
    /// model's own added tokens.
    fn build(
        &self,
        class: Class,
        json: &mut Value,
        pieces: Option<SentencePiece>,
    ) -> Option<Vec<AddedToken>> {
        let settings = &self.tokenizer_config;
        let token = |role: &str| {
            let token = self.special_token(Some(class), role);
            token.map(|token| token.content).unwrap_or_default()
        };
        let (vocab, table, unk_id, added) = match pieces {
            Some(mut pieces) => {
                let mut vocab = class.renumber(pieces.vocab, token);
                for behind in class.behind_pieces(settings) {
                    vocab.push(json!([behind, 0.0]));
                    pieces.added.push(AddedToken::from(behind, true));
                }
                let (table, unk_id) = (pieces.normalizer, Some(pieces.unk_id));
                (Value::Array(vocab), table, unk_id, Some(pieces.added))
            }
            None => {
                let table = precompiled(&json["normalizer"]);
                (json["model"]["vocab"].take(), table, None, None)
            }
        };
        let merges = json["model"]["merges"].take();
        json["model"] = class.model(&vocab, &token("unk_token"), unk_id);
        json["model"]["vocab"] = vocab;
        if class == Class::Roberta {
            json["model"]["merges"] = merges;
        }
        json["normalizer"] = class.normalizer(table, settings);
        json["pre_tokenizer"] = class.pre_tokenizer(settings);
        if class != Class::Albert {
            json["post_processor"] = Value::Null;
        }
        json["added_tokens"] = json!([]);
        added
    }

    /// The special tokens that a class puts around query and document.
    fn post_processor(&self, class: Class, tokenizer: &Tokenizer) -> Result<Value, String> {
        let token = |role: &str| -> Result<(String, u32), String> {
            let token = self.special_token(Some(class), role);
            let token = token.map(|token| token.content).unwrap_or_default();
            match tokenizer.token_to_id(&token) {
                Some(id) => Ok((token, id)),
                None => Err(format!("holds no \"{token}\", which is the {role}")),
            }
        };
        Ok(match class {
            Class::Bert | Class::DistilBert | Class::DebertaV2 | Class::Albert => {
                let (cls, sep) = (token("cls_token")?, token("sep_token")?);
                template(&[&cls], &[&sep], &[])
            }
            Class::T5 => template(&[], &[&token("eos_token")?], &[]),
            Class::Roberta | Class::Mpnet => json!({
                "type": "RobertaProcessing",
                "sep": token("sep_token")?,
                "cls": token("cls_token")?,
                "trim_offsets": true,
                "add_prefix_space": false,
            }),
            Class::XlmRoberta | Class::Camembert => {
                let (bos, eos) = (token("bos_token")?, token("eos_token")?);
                template(&[&bos], &[&eos], &[&eos])
            }
        })
    }

    /// The truncation direction; tokenizer_config.json has precedence over tokenizer.json.
    fn direction(&self, json: &Value) -> Direction {
        let side = self.tokenizer_config["truncation_side"].as_str();
        match side.or(json["truncation"]["direction"].as_str()) {
            Some("left" | "Left") => Direction::Left,
            _ => Direction::Right,
        }
    }

    /// Added tokens by their ids: those in tokenizer_config.json, or else those of added_tokens.json and
    /// tokenizer.json.
    fn added_tokens(&self, json: &Value) -> BTreeMap<u64, AddedToken> {
        let mut tokens = BTreeMap::new();
        if let Some(listed) = self.tokenizer_config["added_tokens_decoder"].as_object() {
            let listed = listed.iter();
            tokens.extend(listed.filter_map(|(id, t)| Some((id.parse().ok()?, added_token(t)?))));
            return tokens;
        }
        let mut special = self.named_tokens(None);
        special.extend(self.further_tokens().unwrap_or_default());
        for (content, id) in self.added_tokens.as_object().into_iter().flatten() {
            let is_special = special.iter().any(|token| token.content == *content);
            if let Some(id) = id.as_u64() {
                tokens.insert(id, AddedToken::from(content.as_str(), is_special));
            }
        }
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            if let (Some(id), Some(token)) = (token["id"].as_u64(), added_token(token)) {
                tokens.insert(id, token);
            }
        }
        tokens
    }

    /// Adds the special tokens to the tokens that the files list, in transformers' order, which numbers those
    /// that are not in the vocabulary. `own` are the added tokens of a SentencePiece model.
    fn add_special_tokens(
        &self,
        class: Option<Class>,
        own: Option<Vec<AddedToken>>,
        tokenizer: &Tokenizer,
        tokens: &mut Vec<AddedToken>,
    ) {
        let known = |token: &AddedToken| tokenizer.token_to_id(&token.content).is_some();
        let mut size = tokenizer.get_vocab_size(true) + tokens.iter().filter(|t| !known(t)).count();
        // A token that the model has no room for would only make ids that it lacks.
        let rows = self.config["vocab_size"].as_u64().unwrap_or_default() as usize;
        let more = self.further_tokens().or(own).unwrap_or_else(|| {
            let listed = self.tokenizer_config["added_tokens_decoder"].is_object();
            let older = self.special_tokens_map["additional_special_tokens"].as_array();
            let defaults = class.map_or(&[][..], Class::more_tokens).iter();
            match older.filter(|_| !listed) {
                Some(older) => older.iter().filter_map(special_token).collect(),
                None => defaults.map(|&t| AddedToken::from(t, true)).collect(),
            }
        });
        for token in self.named_tokens(class).into_iter().chain(more) {
            if tokens.iter().any(|other| other.content == token.content) {
                continue;
            }
            if !known(&token) {
                if size >= rows {
                    continue;
                }
                size += 1;
            }
            tokens.push(token);
        }
    }

    /// The special tokens that have roles, from the files or else the class's defaults.
    fn named_tokens(&self, class: Option<Class>) -> Vec<AddedToken> {
        let named = ROLES.map(|role| self.special_token(class, role));
        named.into_iter().flatten().collect()
    }

    /// The further special tokens that tokenizer_config.json lists, if it has a list.
    fn further_tokens(&self) -> Option<Vec<AddedToken>> {
        let keys = ["additional_special_tokens", "extra_special_tokens"];
        let lists = keys.map(|key| self.tokenizer_config[key].as_array());
        // An empty list hides what comes after both.
        let list = lists
            .into_iter()
            .flatten()
            .max_by_key(|list| !list.is_empty())?;
        Some(list.iter().filter_map(special_token).collect())
    }

    fn special_token(&self, class: Option<Class>, role: &str) -> Option<AddedToken> {
        let listed = self.tokenizer_config["added_tokens_decoder"].is_object();
        // Older models: if tokenizer_config.json lists no tokens, this file has precedence.
        let named = Some(&self.special_tokens_map[role]).filter(|t| !listed && !t.is_null());
        let named = named.unwrap_or(&self.tokenizer_config[role]);
        let plain = class.and_then(|class| class.special_token(role));
        let plain = named.as_str().or(plain.filter(|_| named.is_null()));
        let Some(plain) = plain else {
            return special_token(named);
        };
        let takes_space = role == "mask_token" && class.is_some_and(Class::mask_takes_space);
        Some(AddedToken::from(plain, true).lstrip(takes_space))
    }
}

/// A special token of a template that it does not define, which the tokenizer would panic at.
fn undefined(post_processor: &Value) -> Option<&Value> {
    let several = post_processor["processors"].as_array();
    let pieces = ["single", "pair"].map(|name| post_processor[name].as_array());
    let tokens = pieces.into_iter().flatten().flatten();
    let mut tokens = tokens.filter_map(|piece| piece.get("SpecialToken")?.get("id"));
    let is_defined = |id: &Value| {
        let defined = post_processor["special_tokens"].as_object();
        let both = id.as_str().zip(defined);
        both.is_some_and(|(id, defined)| defined.contains_key(id))
    };
    tokens
        .find(|id| !is_defined(id))
        .or_else(|| several?.iter().find_map(undefined))
}

/// Makes a marker one token, of which the tokenizer may make several (`[unused0]`), or none in lower case (`[Q] `).
/// One that the vocabulary lacks stays text.
fn mark(tokenizer: &mut Tokenizer, marker: &str) -> Result<(), String> {
    let word = marker.split_whitespace().next();
    let mut names = [Some(marker), word].into_iter().flatten();
    let known = |name: &&str| word.is_some() && tokenizer.token_to_id(name).is_some();
    let Some(name) = names.find(known) else {
        return Ok(());
    };
    let encoding = tokenizer.encode(name, false).map_err(|e| e.to_string())?;
    if encoding.get_tokens() != [name] {
        let token = AddedToken::from(name, true).normalized(false);
        let added = tokenizer.add_special_tokens([token]);
        added.map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
