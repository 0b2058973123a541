//! A model's tokenizer, built from its files as transformers 5 builds it.
//!
//! transformers uses tokenizer.json unchanged unless tokenizer_config.json names a tokenizer class. A
//! `BertTokenizer`, `RobertaTokenizer` or `XLMRobertaTokenizer` is rebuilt from the vocabulary and the settings
//! of tokenizer_config.json; the normalizer, pre-tokenizer and special tokens of tokenizer.json are then
//! ignored.

mod parts;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer};

use super::Direction;
use parts::{added_token, precompiled, prepend_lowercase, special_token, template};

/// The contents of a tokenizer's files; missing JSON files are null.
#[derive(Debug)]
pub struct Definition {
    /// The vocabulary file's name, for messages.
    pub file: String,
    /// The vocabulary.
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
}

/// The bytes of the vocabulary's files.
#[derive(Debug)]
pub enum Vocabulary {
    /// tokenizer.json.
    Json(Vec<u8>),
    /// vocab.txt: a word piece on each line.
    WordPieces(Vec<u8>),
    /// vocab.json and merges.txt.
    BytePairs {
        /// vocab.json.
        words: Vec<u8>,
        /// merges.txt.
        merges: Vec<u8>,
    },
}

/// A tokenizer with further facts from its files.
pub(super) struct Made {
    pub(super) tokenizer: Tokenizer,
    /// Whether query and document get different type ids.
    pub(super) segments: bool,
    /// The default truncation direction.
    pub(super) direction: Direction,
}

/// The tokenizer classes of transformers that are rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Bert,
    Roberta,
    XlmRoberta,
}

impl Class {
    fn named(name: &str) -> Option<Self> {
        match name.strip_suffix("Fast").unwrap_or(name) {
            "BertTokenizer" => Some(Self::Bert),
            "RobertaTokenizer" => Some(Self::Roberta),
            "XLMRobertaTokenizer" => Some(Self::XlmRoberta),
            _ => None,
        }
    }

    fn of_model(model_type: &str) -> Option<Self> {
        match model_type {
            "bert" => Some(Self::Bert),
            "roberta" => Some(Self::Roberta),
            "xlm-roberta" => Some(Self::XlmRoberta),
            _ => None,
        }
    }

    /// The default special tokens by their roles.
    fn special_tokens(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bert => &[
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::Roberta | Self::XlmRoberta => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("sep_token", "</s>"),
                ("cls_token", "<s>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
        }
    }
}

const ROLES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

impl Definition {
    /// Builds the tokenizer. The truncation and padding that many tokenizer.json files have are dropped, since
    /// the server's settings apply.
    pub(super) fn make(self) -> Result<Made, String> {
        let mut json = self.vocabulary.json().map_err(|e| e.to_string())?;
        let direction = self.direction(&json);
        let class = self.class(&json);
        let own_tokens = self.added_tokens(&json);
        if let Some(class) = class {
            self.build(class, &mut json);
        }
        if self.lowercase {
            prepend_lowercase(&mut json["normalizer"]);
        }
        json["truncation"] = Value::Null;
        json["padding"] = Value::Null;
        let mut tokenizer: Tokenizer = serde_json::from_value(json).map_err(|e| e.to_string())?;

        let mut tokens: Vec<AddedToken> = own_tokens.into_values().collect();
        for special in self.special_tokens(class) {
            // A token without an id in the model would only produce ids that the model lacks.
            let known = tokenizer.token_to_id(&special.content).is_some();
            if known && !tokens.iter().any(|t| t.content == special.content) {
                tokens.push(special);
            }
        }
        tokenizer.add_tokens(tokens).map_err(|e| e.to_string())?;
        let split = self.tokenizer_config["split_special_tokens"] == true;
        tokenizer.set_encode_special_tokens(split);

        let post_processor = match class {
            Some(class) => Some(self.post_processor(class, &tokenizer)?),
            None if tokenizer.get_post_processor().is_none() => Some(template(&[], &[], &[])),
            None => None,
        };
        if let Some(json) = post_processor {
            let made: PostProcessorWrapper =
                serde_json::from_value(json).map_err(|e| e.to_string())?;
            tokenizer.with_post_processor(Some(made));
        }
        let inputs = self.tokenizer_config["model_input_names"].as_array();
        let segments = match inputs {
            Some(names) => names.iter().any(|name| name == "token_type_ids"),
            None => !matches!(class, Some(Class::Roberta | Class::XlmRoberta)),
        };
        Ok(Made {
            tokenizer,
            segments,
            direction,
        })
    }

    /// The class that builds the tokenizer; `None` if tokenizer.json is used unchanged.
    fn class(&self, json: &Value) -> Option<Class> {
        let model_type = self.config["model_type"].as_str().unwrap_or_default();
        let named = self.tokenizer_config["tokenizer_class"].as_str();
        let named = named.or(self.config["tokenizer_class"].as_str());
        let class = match (&self.vocabulary, named) {
            (Vocabulary::WordPieces(_), _) => Some(Class::Bert),
            (Vocabulary::BytePairs { .. }, _) => Some(Class::Roberta),
            (Vocabulary::Json(_), Some(name)) => Class::named(name),
            (Vocabulary::Json(_), None) => Class::of_model(model_type),
        };
        let model = &json["model"];
        let fits = |class: &Class| match class {
            Class::Bert => model["vocab"].is_object() && model["merges"].is_null(),
            Class::Roberta => model["vocab"].is_object() && model["merges"].is_array(),
            Class::XlmRoberta => model["vocab"].is_array(),
        };
        class.filter(fits)
    }

    /// Writes to `json` what the class builds from the vocabulary and the settings.
    fn build(&self, class: Class, json: &mut Value) {
        let flag = |name: &str, default| self.tokenizer_config[name].as_bool().unwrap_or(default);
        let model = &mut json["model"];
        let vocab = model["vocab"].take();
        let (made, normalizer, pre_tokenizer) = match class {
            Class::Bert => (
                json!({
                    "type": "WordPiece",
                    "unk_token": self.special_token(Some(class), "unk_token").map(|t| t.content),
                    "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100,
                }),
                json!({
                    "type": "BertNormalizer",
                    "clean_text": true,
                    "handle_chinese_chars": flag("tokenize_chinese_chars", true),
                    "strip_accents": self.tokenizer_config["strip_accents"],
                    "lowercase": flag("do_lower_case", true),
                }),
                json!({"type": "BertPreTokenizer"}),
            ),
            Class::Roberta => (
                json!({
                    "type": "BPE",
                    "dropout": null,
                    "unk_token": null,
                    "continuing_subword_prefix": "",
                    "end_of_word_suffix": "",
                    "fuse_unk": false,
                    "merges": model["merges"].take(),
                }),
                Value::Null,
                json!({
                    "type": "ByteLevel",
                    "add_prefix_space": flag("add_prefix_space", false),
                    "trim_offsets": true,
                    "use_regex": true,
                }),
            ),
            Class::XlmRoberta => (
                json!({"type": "Unigram", "unk_id": 3, "byte_fallback": false}),
                precompiled(&json["normalizer"]),
                json!({"type": "Sequence", "pretokenizers": [
                    {"type": "WhitespaceSplit"},
                    {
                        "type": "Metaspace",
                        "replacement": "▁",
                        "prepend_scheme": match flag("add_prefix_space", true) {
                            true => "always",
                            false => "never",
                        },
                        "split": true,
                    },
                ]}),
            ),
        };
        json["model"] = made;
        json["model"]["vocab"] = vocab;
        json["normalizer"] = normalizer;
        json["pre_tokenizer"] = pre_tokenizer;
        json["post_processor"] = Value::Null;
        json["added_tokens"] = json!([]);
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
            Class::Bert => {
                let (cls, sep) = (token("cls_token")?, token("sep_token")?);
                template(&[&cls], &[&sep], &[])
            }
            Class::Roberta => json!({
                "type": "RobertaProcessing",
                "sep": token("sep_token")?,
                "cls": token("cls_token")?,
                "trim_offsets": true,
                "add_prefix_space": false,
            }),
            Class::XlmRoberta => {
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
        let special: Vec<AddedToken> = self.special_tokens(None).collect();
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

    /// The special tokens, from the files or else the class's defaults.
    fn special_tokens(&self, class: Option<Class>) -> impl Iterator<Item = AddedToken> {
        let named = ROLES.map(|role| self.special_token(class, role));
        let settings = &self.tokenizer_config;
        let more = ["extra_special_tokens", "additional_special_tokens"];
        let more = more.map(|key| settings[key].as_array().cloned().unwrap_or_default());
        let more = more.into_iter().flatten();
        let more = more.filter_map(|token| special_token(&token));
        named.into_iter().flatten().chain(more)
    }

    fn special_token(&self, class: Option<Class>, role: &str) -> Option<AddedToken> {
        let listed = self.tokenizer_config["added_tokens_decoder"].is_object();
        // Older models: if tokenizer_config.json lists no tokens, this file has precedence.
        let named = Some(&self.special_tokens_map[role]).filter(|t| !listed && !t.is_null());
        let named = special_token(named.unwrap_or(&self.tokenizer_config[role]));
        named.or_else(|| {
            let own = class?.special_tokens().iter().find(|(r, _)| *r == role)?;
            Some(AddedToken::from(own.1, true))
        })
    }
}
