//! The tokenizer classes of transformers that are rebuilt: their files, defaults and parts.

use serde_json::{Value, json};

/// A tokenizer class of transformers that is rebuilt from its vocabulary and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Bert,
    DistilBert,
    Mpnet,
    Roberta,
    XlmRoberta,
    Camembert,
    DebertaV2,
    Albert,
    T5,
}

/// The roles of special tokens, in the order in which the tokens are added.
pub(super) const ROLES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Many more of T5's further tokens than any model has.
const MOST_EXTRA_IDS: u64 = 1000;

impl Class {
    /// The class that AutoTokenizer takes, `None` if it takes tokenizer.json unchanged.
    pub(super) fn of(model_type: &str, named: Option<&str>) -> Option<Self> {
        match (model_type, named) {
            // Folders of these models are known to name a wrong class.
            ("modernbert" | "xlm-roberta-xl", _) => None,
            (_, Some(name)) => Self::named(name),
            ("bert" | "distilbert" | "electra", None) => Some(Self::Bert),
            ("mpnet", None) => Some(Self::Mpnet),
            ("roberta", None) => Some(Self::Roberta),
            ("xlm-roberta", None) => Some(Self::XlmRoberta),
            ("camembert", None) => Some(Self::Camembert),
            ("deberta-v2", None) => Some(Self::DebertaV2),
            ("albert", None) => Some(Self::Albert),
            ("t5" | "mt5", None) => Some(Self::T5),
            _ => None,
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name.strip_suffix("Fast").unwrap_or(name) {
            "BertTokenizer" | "ElectraTokenizer" => Some(Self::Bert),
            "DistilBertTokenizer" => Some(Self::DistilBert),
            "MPNetTokenizer" => Some(Self::Mpnet),
            "RobertaTokenizer" => Some(Self::Roberta),
            "XLMRobertaTokenizer" => Some(Self::XlmRoberta),
            "CamembertTokenizer" => Some(Self::Camembert),
            "DebertaV2Tokenizer" => Some(Self::DebertaV2),
            "AlbertTokenizer" => Some(Self::Albert),
            "T5Tokenizer" | "MT5Tokenizer" => Some(Self::T5),
            _ => None,
        }
    }

    /// The files that the vocabulary is in where there is no tokenizer.json.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::Bert | Self::DistilBert | Self::Mpnet => &["vocab.txt"],
            Self::Roberta => &["vocab.json", "merges.txt"],
            Self::XlmRoberta | Self::Camembert => &["sentencepiece.bpe.model"],
            Self::DebertaV2 => &["spm.model"],
            Self::Albert | Self::T5 => &["spiece.model"],
        }
    }

    /// Whether a tokenizer.json's model is of the kind that the class is built of.
    pub(super) fn fits(self, model: &Value) -> bool {
        match self {
            Self::Bert | Self::DistilBert | Self::Mpnet => {
                model["vocab"].is_object() && model["merges"].is_null()
            }
            Self::Roberta => model["vocab"].is_object() && model["merges"].is_array(),
            Self::XlmRoberta | Self::Camembert | Self::DebertaV2 | Self::Albert | Self::T5 => {
                model["vocab"].is_array()
            }
        }
    }

    /// Whether query and document get different type ids unless the settings say otherwise.
    pub(super) fn has_segments(self) -> bool {
        matches!(self, Self::Bert | Self::DebertaV2)
    }

    /// Whether a mask token that is given by its text alone takes the spaces before it.
    pub(super) fn mask_takes_space(self) -> bool {
        matches!(self, Self::Mpnet | Self::Camembert)
    }

    /// Further special tokens, where neither the settings nor the vocabulary name any.
    pub(super) fn more_tokens(self) -> &'static [&'static str] {
        match self {
            Self::Camembert => &["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"],
            _ => &[],
        }
    }

    /// The default special token of a role.
    pub(super) fn special_token(self, role: &str) -> Option<&'static str> {
        let brackets = matches!(
            self,
            Self::Bert | Self::DistilBert | Self::DebertaV2 | Self::Albert
        );
        Some(match (role, self) {
            ("bos_token" | "eos_token", Self::Bert | Self::DistilBert) => return None,
            ("bos_token" | "sep_token" | "cls_token" | "mask_token", Self::T5) => return None,
            ("unk_token", Self::Albert) => "<unk>",
            ("unk_token", Self::Mpnet) => "[UNK]",
            ("pad_token", Self::Albert) => "<pad>",
            ("bos_token" | "cls_token", _) if brackets => "[CLS]",
            ("eos_token" | "sep_token", _) if brackets => "[SEP]",
            ("unk_token", _) if brackets => "[UNK]",
            ("pad_token", _) if brackets => "[PAD]",
            ("mask_token", _) if brackets => "[MASK]",
            ("bos_token" | "cls_token", _) => "<s>",
            ("eos_token" | "sep_token", _) => "</s>",
            ("unk_token", _) => "<unk>",
            ("pad_token", _) => "<pad>",
            ("mask_token", _) => "<mask>",
            _ => return None,
        })
    }

    /// A SentencePiece model's vocabulary as the class numbers it. fairseq's models have its special tokens in
    /// front of the pieces, in place of sentencepiece's own, and the mask behind them.
    pub(super) fn renumber(self, pieces: Vec<Value>, token: impl Fn(&str) -> String) -> Vec<Value> {
        let named = |role: &str| json!([token(role), 0.0]);
        let (front, own) = match self {
            Self::XlmRoberta => {
                let roles = ["bos_token", "pad_token", "eos_token", "unk_token"];
                (roles.map(named).to_vec(), 3)
            }
            Self::Camembert => {
                let unused = |token: &str, score: f64| json!([token, score]);
                let front = [
                    unused("<s>NOTUSED", 0.0),
                    named("pad_token"),
                    unused("</s>NOTUSED", 0.0),
                    named("unk_token"),
                    unused("<unk>NOTUSED", -100.0),
                ];
                (front.to_vec(), 1)
            }
            _ => return pieces,
        };
        let pieces = pieces.into_iter().skip(own);
        let mask = [named("mask_token")];
        front.into_iter().chain(pieces).chain(mask).collect()
    }

    /// The special tokens that stand behind a SentencePiece model's pieces, in their order.
    pub(super) fn behind_pieces(self, settings: &Value) -> Vec<String> {
        if self != Self::T5 {
            return Vec::new();
        }
        let count = settings["extra_ids"].as_u64().unwrap_or(100);
        let ids = (0..count.min(MOST_EXTRA_IDS)).rev();
        ids.map(|i| format!("<extra_id_{i}>")).collect()
    }

    /// The unknown piece's index in a Unigram vocabulary; `own` is what a SentencePiece model says of it.
    fn unk_id(self, vocab: &Value, unk: &str, own: Option<u64>) -> u64 {
        let mut entries = vocab.as_array().into_iter().flatten().zip(0..);
        let mut find = |fits: &dyn Fn(&Value) -> bool| {
            let found = entries.find(|(entry, _)| entry[0] == unk && fits(&entry[1]));
            found.map(|(_, index)| index)
        };
        match self {
            Self::XlmRoberta => 3,
            Self::T5 => 2,
            Self::Camembert => find(&|_| true).unwrap_or(0),
            Self::DebertaV2 => find(&|score| score.as_f64() == Some(0.0))
                .or(own)
                .unwrap_or(1),
            _ => 1,
        }
    }

    /// The model of a tokenizer.json as the class builds it, without vocabulary and merges. `unk` is the unknown
    /// token, `unk_id` its id in a SentencePiece model.
    pub(super) fn model(self, vocab: &Value, unk: &str, unk_id: Option<u64>) -> Value {
        match self {
            Self::Bert | Self::DistilBert | Self::Mpnet => json!({
                "type": "WordPiece",
                "unk_token": unk,
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
            }),
            Self::Roberta => json!({
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": false,
            }),
            _ => json!({
                "type": "Unigram",
                "unk_id": self.unk_id(vocab, unk, unk_id),
                "byte_fallback": false,
            }),
        }
    }

    /// The normalizer; `precompiled` is sentencepiece's, or null.
    pub(super) fn normalizer(self, precompiled: Value, settings: &Value) -> Value {
        let flag = |name: &str, default| settings[name].as_bool().unwrap_or(default);
        let lowercase = json!({"type": "Lowercase"});
        let mut all = Vec::new();
        match self {
            Self::Bert | Self::DistilBert | Self::Mpnet => {
                return json!({
                    "type": "BertNormalizer",
                    "clean_text": true,
                    "handle_chinese_chars": flag("tokenize_chinese_chars", true),
                    "strip_accents": settings["strip_accents"],
                    "lowercase": flag("do_lower_case", true),
                });
            }
            Self::Roberta => return Value::Null,
            Self::XlmRoberta | Self::Camembert | Self::T5 => return precompiled,
            // Its own stands for sentencepiece's.
            Self::DebertaV2 => {
                all.extend(flag("do_lower_case", false).then_some(lowercase));
                let spaces = json!({"Regex": r"\s{2,}|[\n\r\t]"});
                all.push(json!({"type": "Replace", "pattern": spaces, "content": " "}));
                all.push(json!({"type": "NFC"}));
                all.push(json!({"type": "Strip", "strip_left": false, "strip_right": true}));
            }
            Self::Albert => {
                for quotes in ["``", "''"] {
                    let pattern = json!({"String": quotes});
                    all.push(json!({"type": "Replace", "pattern": pattern, "content": "\""}));
                }
                if !flag("keep_accents", false) {
                    all.push(json!({"type": "NFKD"}));
                    all.push(json!({"type": "StripAccents"}));
                }
                all.extend(flag("do_lower_case", true).then_some(lowercase));
                all.extend(Some(precompiled).filter(|table| !table.is_null()));
            }
        }
        json!({"type": "Sequence", "normalizers": all})
    }

    /// What splits a text into the words that the model encodes one by one.
    pub(super) fn pre_tokenizer(self, settings: &Value) -> Value {
        let flag = |name: &str, default| settings[name].as_bool().unwrap_or(default);
        let metaspace = |without_space: &str| {
            let scheme = match flag("add_prefix_space", true) {
                true => "always",
                false => without_space,
            };
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true})
        };
        let all = match self {
            Self::Bert | Self::DistilBert | Self::Mpnet => {
                return json!({"type": "BertPreTokenizer"});
            }
            Self::Roberta => {
                return json!({
                    "type": "ByteLevel",
                    "add_prefix_space": flag("add_prefix_space", false),
                    "trim_offsets": true,
                    "use_regex": true,
                });
            }
            Self::XlmRoberta | Self::Camembert | Self::Albert => {
                vec![json!({"type": "WhitespaceSplit"}), metaspace("never")]
            }
            Self::T5 => vec![json!({"type": "WhitespaceSplit"}), metaspace("always")],
            Self::DebertaV2 => {
                let punctuation = json!({"type": "Punctuation", "behavior": "Isolated"});
                let punctuation = flag("split_by_punct", false).then_some(punctuation);
                punctuation
                    .into_iter()
                    .chain([metaspace("first")])
                    .collect()
            }
        };
        json!({"type": "Sequence", "pretokenizers": all})
    }
}
