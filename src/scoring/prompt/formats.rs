//! The prompts of published rerankers. Their texts are part of the model: it gives other scores with any other.

use std::borrow::Cow;

use crate::types::Activation;

use super::{Part, Prompt, Slot, Special};

/// Where a model's score is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// In the logit of a token, less that of another if there is one.
    Tokens {
        /// The token whose logit counts.
        yes: &'static str,
        /// The token whose logit is taken off.
        no: Option<&'static str>,
    },
    /// In the logit of the token with this id.
    Id(u32),
    /// In a classification head.
    Head,
}

/// A published prompt.
#[derive(Debug)]
pub struct Format {
    /// Its name in `model.prompt`.
    pub name: &'static str,
    /// Without an instruction; empty if there always is one. `{query}`, `{document}` and `{instruction}` stand for the
    /// texts, `{|}` for a place where the reference tokenises the parts apart.
    plain: &'static str,
    /// With an instruction; empty if the model takes none.
    instructed: &'static str,
    special: Special,
    /// The default instruction.
    instruction: &'static str,
    query_share: Option<(usize, usize)>,
    /// Where the score is, unless the model has a classification head.
    pub answer: Answer,
    /// What makes of the raw score the one that is shown, unless the model's files say.
    pub activation: Activation,
    /// The kinds of models (`model_type` in config.json) that have it.
    model_types: &'static [&'static str],
    /// What the names of such models contain, in lower case.
    names: &'static [&'static str],
}

/// All of them.
pub static FORMATS: [Format; 13] = [
    Format {
        name: "qwen3-reranker",
        plain: "",
        instructed: "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the \
            Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n\
            <Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n\
            <think>\n\n</think>\n\n",
        special: Special::None,
        instruction: "Given a web search query, retrieve relevant passages that answer the query",
        query_share: None,
        answer: Answer::Tokens {
            yes: "yes",
            no: Some("no"),
        },
        activation: Activation::Sigmoid,
        model_types: &["qwen3"],
        names: &["qwen3-reranker"],
    },
    Format {
        name: "mxbai-rerank-v2",
        plain: "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n\
            <|im_start|>user\n{|}query: {query}{|}\n{|}document: {document}{|}\n{|}You are a search relevance expert who \
            evaluates how well documents match search queries. For each query-document pair, carefully analyze the \
            semantic relationship between them, then provide your binary relevance judgment (0 for not relevant, 1 for \
            relevant).\nRelevance:{|}<|im_end|>\n<|im_start|>assistant\n",
        instructed: "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n\
            <|im_start|>user\n{|}instruction: {instruction}\nquery: {query}{|}\n{|}document: {document}{|}\n{|}You \
            are a search relevance expert who evaluates how well documents match search queries. For each query-document \
            pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment \
            (0 for not relevant, 1 for relevant).\nRelevance:{|}<|im_end|>\n<|im_start|>assistant\n",
        special: Special::None,
        instruction: "",
        query_share: Some((3, 4)),
        answer: Answer::Tokens {
            yes: "1",
            no: Some("0"),
        },
        activation: Activation::Identity,
        model_types: &["qwen2"],
        names: &["mxbai-rerank"],
    },
    Format {
        name: "bge-reranker-v2-gemma",
        plain: "A: {query}{|}\n{|}B: {document}{|}\n{|}Given a query A and a passage B, determine whether the passage \
            contains an answer to the query by providing a prediction of either 'Yes' or 'No'.",
        instructed: "",
        special: Special::Begin,
        instruction: "",
        query_share: Some((3, 4)),
        answer: Answer::Tokens {
            yes: "Yes",
            no: None,
        },
        activation: Activation::Identity,
        model_types: &["gemma"],
        names: &["bge-reranker-v2-gemma"],
    },
    Format {
        name: "bge-reranker-v2-minicpm-layerwise",
        plain: "A: {query}{|}\n{|}B: {document}{|}\n{|}Given a query A and a passage B, determine whether the passage \
            contains an answer to the query by providing a prediction of either 'Yes' or 'No'.",
        instructed: "",
        special: Special::Begin,
        instruction: "",
        query_share: Some((3, 4)),
        answer: Answer::Head,
        activation: Activation::Identity,
        model_types: &["minicpm"],
        names: &["bge-reranker-v2-minicpm"],
    },
    Format {
        name: "bge-reranker-v2.5-gemma2-lightweight",
        plain: "A: {query}{|}\n{|}B: {document}{|}\n{|}Predict whether passage B contains an answer to query A.",
        instructed: "",
        special: Special::Begin,
        instruction: "",
        query_share: Some((3, 4)),
        answer: Answer::Head,
        activation: Activation::Identity,
        model_types: &["gemma2", "cost_wise_gemma"],
        names: &["bge-reranker-v2.5-gemma2"],
    },
    Format {
        name: "zerank",
        plain: "<|im_start|>system\n{query}<|im_end|>\n<|im_start|>user\n{document}<|im_end|>\n<|im_start|>assistant\n",
        instructed: "<|im_start|>system\n<query>{query}</query>\n<instruction>{instruction}</instruction><|im_end|>\n\
            <|im_start|>user\n{document}<|im_end|>\n<|im_start|>assistant\n",
        special: Special::None,
        instruction: "",
        query_share: None,
        answer: Answer::Tokens {
            yes: "Yes",
            no: None,
        },
        // What its files say now, that scores are the logits, they said from May 2026 on; the code that stood beside
        // older ones did this.
        activation: Activation::SigmoidOfFifth,
        model_types: &["qwen3"],
        names: &["zerank"],
    },
    Format {
        name: "ctxl-rerank-v2",
        plain: "Check whether a given document contains information helpful to answer the query.\n\
            <Document> {document}\n<Query> {query} ??",
        instructed: "Check whether a given document contains information helpful to answer the query.\n\
            <Document> {document}\n<Query> {query} {instruction} ??",
        special: Special::None,
        instruction: "",
        query_share: None,
        answer: Answer::Id(0),
        activation: Activation::Identity,
        model_types: &["qwen3", "qwen2", "mistral"],
        names: &["ctxl-rerank"],
    },
    Format {
        name: "llama-nemotron-rerank",
        plain: "question:{query} \n \n passage:{document}",
        instructed: "",
        special: Special::Around,
        instruction: "",
        query_share: None,
        answer: Answer::Head,
        activation: Activation::Sigmoid,
        model_types: &["llama", "llama_bidirec", "llama_bidirectional"],
        names: &["llama-nemotron-rerank", "llama-3.2-nv-rerankqa"],
    },
    Format {
        name: "monot5",
        names: &["monot5", "mt5-13b-mmarco"],
        ..monot5("\u{2581}true", "\u{2581}false")
    },
    Format {
        name: "monot5-yes-no",
        names: &[
            "mt5-base-en-msmarco",
            "mt5-base-en-pt-msmarco",
            "mt5-base-mmarco",
        ],
        ..monot5("\u{2581}yes", "\u{2581}no")
    },
    Format {
        name: "monot5-sim-nao",
        names: &["ptt5-base-pt-msmarco", "ptt5-base-en-pt-msmarco"],
        ..monot5("\u{2581}sim", "\u{2581}n\u{e3}o")
    },
    Format {
        name: "monot5-true-blank",
        names: &["mt5-3b-mmarco"],
        ..monot5("\u{2581}true", "\u{2581}")
    },
    Format {
        name: "rankt5",
        plain: "Query: {query} Document: {document}",
        instructed: "",
        special: Special::Around,
        instruction: "",
        query_share: None,
        answer: Answer::Tokens {
            yes: "<extra_id_10>",
            no: None,
        },
        activation: Activation::Sigmoid,
        model_types: &["t5", "mt5"],
        names: &["rankt5"],
    },
];

/// What checkpoints of monoT5 have in common, which were taught different words.
const fn monot5(yes: &'static str, no: &'static str) -> Format {
    Format {
        name: "",
        plain: "Query: {query} Document: {document} Relevant:",
        instructed: "",
        special: Special::Around,
        instruction: "",
        query_share: None,
        answer: Answer::Tokens { yes, no: Some(no) },
        activation: Activation::Sigmoid,
        model_types: &["t5", "mt5"],
        names: &[],
    }
}

impl Format {
    /// The format with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        FORMATS.iter().find(|format| format.name == name)
    }

    /// Whether models of this type have such formats.
    #[must_use]
    pub fn is_known_for(model_type: &str) -> bool {
        FORMATS
            .iter()
            .any(|format| format.model_types.contains(&model_type))
    }

    /// The format of models of this kind with one of these names, in any case.
    #[must_use]
    pub fn telling(model_type: &str, names: &[&str]) -> Option<&'static Self> {
        let names: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        FORMATS.iter().find(|format| {
            let of_kind = format.model_types.contains(&model_type);
            let named = |part: &&str| names.iter().any(|name| name.contains(*part));
            of_kind && (format.names.iter().any(named) || format.is_only_of(model_type))
        })
    }

    /// Whether no models of this type are of another format, nor are they anything but rerankers.
    fn is_only_of(&self, model_type: &str) -> bool {
        self.name == "llama-nemotron-rerank" && model_type.starts_with("llama_bidirec")
    }

    /// Its prompt.
    #[must_use]
    pub fn prompt(&self) -> Prompt {
        let parts = |text: &'static str| (!text.is_empty()).then(|| parse(text));
        Prompt {
            name: self.name.into(),
            plain: parts(self.plain),
            instructed: parts(self.instructed),
            special: self.special,
            instruction: self.instruction.to_owned(),
            query_share: self.query_share,
        }
    }
}

fn parse(text: &'static str) -> Vec<Part> {
    let slot = |of| Part::Slot { of, trim: false };
    let slots = [
        ("{instruction}", slot(Slot::Instruction)),
        ("{query}", slot(Slot::Query)),
        ("{document}", slot(Slot::Document)),
        ("{|}", Part::Cut),
    ];
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let found = slots
            .iter()
            .filter_map(|(name, part)| Some((rest.find(name)?, name, part)));
        let Some((at, name, part)) = found.min_by_key(|(at, ..)| *at) else {
            parts.push(Part::Text(Cow::Borrowed(rest)));
            break;
        };
        if at > 0 {
            parts.push(Part::Text(Cow::Borrowed(&rest[..at])));
        }
        parts.push(part.clone());
        rest = &rest[at + name.len()..];
    }
    parts
}
