use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as Generator;
use serde_json::Value;

use super::*;
use crate::scoring::prompt::{ChatTemplate, ContentForm, FORMATS, Format, Part, Slot, Special};
use crate::scoring::{Truncation, Windows};
use crate::tokenize::Text;
use crate::tokenize::tests::{any_text, tokenizer};

/// A model's prompt, and its tokenizer with and without the special tokens.
struct Tried {
    name: &'static str,
    prompt: Prompt,
    begin: Option<u32>,
    knowing: TextTokenizer,
    ignoring: TextTokenizer,
    /// The names of the special tokens.
    special: Vec<String>,
    /// With room for any pair.
    long: Prompted,
}

fn folder(name: &str) -> String {
    format!("tests/fixtures/models/tiny-{name}")
}

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn tried(name: &'static str, prompt: Prompt, begin: &str) -> Tried {
    let knowing = tokenizer(&folder(name));
    let mut ignoring = tokenizer(&folder(name));
    ignoring.ignore_special_tokens().unwrap();
    let json: Value =
        serde_json::from_str(&file(&format!("{}/tokenizer.json", folder(name)))).unwrap();
    let added = json["added_tokens"].as_array().unwrap().iter();
    let special = added.filter(|token| token["special"] == true);
    let begin = knowing.id_of(begin);
    let spec = ModelSpec {
        family: "qwen3",
        hidden_size: 8,
        layers: 1,
        vocab_size: 300_000,
        type_vocab_size: 0,
        max_positions: 4096,
        causal: true,
        width: 1,
        pooling: "last",
        head: "linear".into(),
        labels: vec!["LABEL_0".into()],
    };
    let tokens = PromptTokens::new(&prompt, begin, &knowing).unwrap();
    assert!(tokens.is_exact(), "{name}");
    let long = Prompted::new(tokens, &ignoring, &spec, 4096, WindowScore::Best, 0).unwrap();
    Tried {
        name,
        prompt,
        begin,
        special: special
            .map(|token| token["content"].as_str().unwrap().to_owned())
            .collect(),
        knowing,
        ignoring,
        long,
    }
}

fn of_format(name: &'static str, format: &str, begin: &str) -> Tried {
    tried(name, Format::named(format).unwrap().prompt(), begin)
}

fn of_template(name: &'static str, begin: &str) -> Tried {
    let source = file(&format!("{}/chat_template.jinja", folder(name)));
    let template = ChatTemplate {
        place: "chat_template.jinja",
        source: &source,
        form: ContentForm::Flat,
        tokens: vec![("bos_token".into(), begin.into())],
    };
    tried(name, template.prompt().unwrap(), begin)
}

static ALL: LazyLock<Vec<Tried>> = LazyLock::new(|| {
    vec![
        of_template("qwen3-st", ""),
        of_format("qwen3-plain", "qwen3-reranker", ""),
        of_format("qwen3-seqcls", "qwen3-reranker", ""),
        of_format("mxbai-v2", "mxbai-rerank-v2", ""),
        of_format("bge-gemma", "bge-reranker-v2-gemma", "<bos>"),
        of_format(
            "minicpm-layerwise",
            "bge-reranker-v2-minicpm-layerwise",
            "<s>",
        ),
        of_format(
            "gemma2-lightweight",
            "bge-reranker-v2.5-gemma2-lightweight",
            "<bos>",
        ),
        of_template("zerank", ""),
        of_format("zerank", "zerank", ""),
        of_format("ctxl", "ctxl-rerank-v2", ""),
        of_format("nemotron", "llama-nemotron-rerank", ""),
        of_template("llama", "<|begin_of_text|>"),
        of_format("monot5", "monot5", ""),
        of_format("monot5", "monot5-yes-no", ""),
        of_format("monot5", "monot5-sim-nao", ""),
        of_format("monot5", "monot5-true-blank", ""),
        of_format("rankt5", "rankt5", ""),
    ]
});

impl Tried {
    fn scorer(&self, max_tokens: usize) -> Prompted {
        let mut scorer = self.long.clone();
        scorer.pairs.max_tokens = max_tokens;
        scorer
    }

    /// Every sequence of a pair, from as much of its texts as the scorer wants.
    fn encode(&self, scorer: &Prompted, texts: [Option<&str>; 3], fit: &Fit) -> EncodedDocument {
        self.try_encode(scorer, texts, fit).unwrap()
    }

    fn try_encode(
        &self,
        scorer: &Prompted,
        texts: [Option<&str>; 3],
        fit: &Fit,
    ) -> Result<EncodedDocument, TokenizeError> {
        let [instruction, query, document] = texts;
        let own = scorer
            .instructed(&self.ignoring, instruction.unwrap_or_default())
            .unwrap();
        let scorer = own.as_deref().unwrap_or(scorer);
        let direction = fit.truncation.direction;
        let read = |text: &str, limit| self.ignoring.encode_within(text, limit, direction).unwrap();
        let query = read(&scorer.query_text(query.unwrap()), usize::MAX);
        let document = scorer.document_text(document.unwrap());
        let document = read(&document, scorer.needed(query.ids().len(), fit));
        scorer.encode(&query, &document, fit, 0)
    }

    fn whole(&self, scorer: &Prompted, texts: [Option<&str>; 3]) -> Vec<u32> {
        let encoded = self.encode(scorer, texts, &fit(1));
        assert!(
            !encoded.truncated && encoded.sequences.len() == 1,
            "{} {texts:?}",
            self.name
        );
        encoded.sequences[0].ids().to_vec()
    }

    /// The ids as the reference makes them: of the whole text, or of the parts that it tokenises apart.
    fn reference(&self, [instruction, query, document]: [Option<&str>; 3]) -> Vec<u32> {
        let default = self.prompt.instruction.as_str();
        let instruction = instruction.or(Some(default).filter(|text| !text.is_empty()));
        let parts = match instruction {
            Some(_) => self
                .prompt
                .instructed
                .as_ref()
                .or(self.prompt.plain.as_ref()),
            None => self.prompt.plain.as_ref(),
        };
        let mut texts = vec![String::new()];
        for part in parts.unwrap() {
            let last = texts.last_mut().unwrap();
            match part {
                Part::Cut => texts.push(String::new()),
                Part::Text(text) => last.push_str(text),
                Part::Slot { of, trim } => {
                    let text = match of {
                        Slot::Instruction => instruction,
                        Slot::Query => query,
                        Slot::Document => document,
                    };
                    last.push_str(if *trim {
                        text.unwrap().trim()
                    } else {
                        text.unwrap()
                    });
                }
            }
        }
        let ids = texts
            .iter()
            .flat_map(|text| self.knowing.encode_segment(text).unwrap());
        let [before, after] = match self.prompt.special {
            Special::None => Default::default(),
            Special::Begin => [self.begin.into_iter().collect(), Vec::new()],
            Special::Around => self.knowing.around().unwrap(),
        };
        before.into_iter().chain(ids).chain(after).collect()
    }

    fn special_ids(&self, ids: &[u32]) -> Vec<u32> {
        let special: Vec<u32> = self
            .special
            .iter()
            // Which is whatever a vocabulary without bytes doesn't have, in any text.
            .filter(|name| !(self.name.ends_with("t5") && *name == "<unk>"))
            .filter_map(|name| self.knowing.id_of(name))
            .collect();
        ids.iter()
            .copied()
            .filter(|id| special.contains(id))
            .collect()
    }
}

fn fit(windows: usize) -> Fit {
    Fit {
        windows: Windows {
            max: windows,
            overlap: 3,
        },
        ..Fit::from(Truncation {
            strategy: Strategy::LongestFirst,
            direction: Direction::Right,
        })
    }
}

#[test]
fn every_published_prompt_gives_the_references_token_ids() {
    for tried in ALL.iter() {
        let golden: Value =
            serde_json::from_str(&file(&format!("tests/golden/tiny-{}.json", tried.name))).unwrap();
        let scorer = tried.scorer(512);
        let (mut compared, mut apart) = (0, 0);
        for case in golden["cases"].as_array().unwrap() {
            let (instruction, query) = (case["instruction"].as_str(), case["query"].as_str());
            let plain = tried.whole(&scorer, [instruction.map(|_| "x"), Some("x"), Some("x")]);
            let documents = case["documents"].as_array().unwrap().iter();
            for (document, expected) in documents.zip(case["ids"].as_array().unwrap()) {
                let texts = [instruction, query, document.as_str()];
                let expected: Vec<u32> = serde_json::from_value(expected.clone()).unwrap();
                let found = tried.whole(&scorer, texts);
                let forged = |text: &&str| {
                    tried
                        .special
                        .iter()
                        .any(|name| text.contains(name.as_str()))
                };
                if texts.iter().flatten().any(forged) {
                    apart += 1;
                    // The reference takes these names for the tokens, so that a text can end its place.
                    assert_eq!(
                        tried.special_ids(&found),
                        tried.special_ids(&plain),
                        "{texts:?}"
                    );
                    assert_ne!(
                        tried.special_ids(&expected),
                        tried.special_ids(&plain),
                        "{texts:?}"
                    );
                } else {
                    assert_eq!(found, expected, "{} {texts:?}", tried.name);
                    compared += 1;
                }
            }
        }
        assert!(
            compared > 20 && apart > 0,
            "{}: {compared} and {apart}",
            tried.name
        );
    }
}

#[test]
fn every_format_is_tried() {
    for format in &FORMATS {
        assert!(
            ALL.iter().any(|tried| tried.prompt.name == format.name),
            "{}",
            format.name
        );
    }
}

#[test]
fn the_tokens_up_to_the_document_are_shared_where_the_query_comes_first() {
    for tried in ALL.iter() {
        let scorer = tried.scorer(512);
        let sequences = ["Paris", " it is\n", "", "?"].map(|document| {
            let encoded = tried.encode(&scorer, [None, Some("is it so?"), Some(document)], &fit(1));
            encoded.sequences.into_iter().next().unwrap()
        });
        let shared = sequences[0].shared_prefix();
        assert_eq!(shared > 0, scorer.layout.is_query_first, "{}", tried.name);
        for sequence in &sequences {
            assert_eq!(sequence.shared_prefix(), shared);
            assert_eq!(sequence.ids()[..shared], sequences[0].ids()[..shared]);
        }
        // A query that is cut may be another one beside each document.
        let long = "is it so? ".repeat(100);
        let encoded = tried.encode(
            &tried.scorer(256),
            [None, Some(&long), Some(&long)],
            &fit(1),
        );
        assert_eq!(encoded.sequences[0].shared_prefix(), 0);
    }
}

#[test]
fn an_instruction_that_leaves_no_room_is_refused() {
    for tried in ALL.iter() {
        let scorer = tried.scorer(256);
        let own = scorer.instructed(&tried.ignoring, &"many words ".repeat(10_000));
        match (&tried.prompt.instructed, own) {
            (None, Ok(None)) => {}
            (Some(_), Err(error @ TokenizeError::Instruction { .. })) => {
                assert!(
                    error.to_string().contains("shorten the instruction"),
                    "{error}"
                );
            }
            (_, other) => panic!("{}: {other:?}", tried.name),
        }
        assert!(scorer.instructed(&tried.ignoring, "").unwrap().is_none());
    }
}

#[test]
fn a_published_rule_keeps_the_query_to_its_share() {
    let tried = ALL.iter().find(|tried| tried.name == "mxbai-v2").unwrap();
    let scorer = tried.scorer(256);
    let [query, document] = ["7 ", "3 "].map(|text| text.repeat(300));
    let encoded = tried.encode(&scorer, [None, Some(&query), Some(&document)], &fit(1));
    let ids = encoded.sequences[0].ids();
    let count = |text| {
        ids.iter()
            .filter(|&&id| Some(id) == tried.knowing.id_of(text))
            .count()
    };
    let (query, document) = (count("7"), count("3"));
    assert!(ids.len() > 250 && ids.len() <= 256, "{}", ids.len());
    let share = query as f64 / (query + document) as f64;
    assert!((0.7..0.78).contains(&share), "{query} {document}");
}

#[test]
fn a_query_over_its_share_is_whole_where_there_is_room_for_it() {
    let tried = ALL.iter().find(|tried| tried.name == "mxbai-v2").unwrap();
    let scorer = tried.scorer(4096);
    let room = scorer.filled.tokens() + 27;
    let query = "a b c d e f g h i j k l m n o p q r s t u v w";
    let texts = [None, Some(query), Some("")];
    let whole = tried.whole(&tried.scorer(room), texts);
    assert_eq!(whole, tried.whole(&scorer, texts));
}

fn any_fit() -> impl Generator<Value = Fit> {
    let strategies = [Strategy::LongestFirst, Strategy::Document];
    (
        prop::sample::select(strategies.to_vec()),
        prop::sample::select([Direction::Right, Direction::Left].to_vec()),
        prop::option::of(0usize..60),
        1usize..6,
        0usize..30,
    )
        .prop_map(
            |(strategy, direction, max_document_tokens, max, overlap)| Fit {
                truncation: Truncation {
                    strategy,
                    direction,
                },
                max_tokens: None,
                max_document_tokens,
                windows: Windows { max, overlap },
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_texts_have_the_tokens_that_they_have_in_the_whole_prompt(
        query in any_text(), document in any_text(), instruction in prop::option::of(any_text()), which in 0..ALL.len(),
    ) {
        let tried = &ALL[which];
        let named = |text: &String| tried.special.iter().any(|name| text.contains(name.as_str()));
        let instruction = instruction.filter(|text| !text.is_empty());
        if [Some(&query), Some(&document), instruction.as_ref()].into_iter().flatten().any(named) {
            return Ok(());
        }
        let scorer = tried.scorer(4096);
        let texts = [instruction.as_deref(), Some(query.as_str()), Some(document.as_str())];
        prop_assert_eq!(tried.whole(&scorer, texts), tried.reference(texts), "{}", tried.name);
    }

    #[test]
    fn what_is_cut_is_never_of_the_prompt(
        query in any_text(), document in any_text(), fit in any_fit(), room in 2usize..40, which in 0..ALL.len(),
    ) {
        let tried = &ALL[which];
        let long = tried.scorer(4096);
        let scorer = tried.scorer(long.filled.tokens() + room);
        let document = document.repeat(3);
        let encoded = match tried.try_encode(&scorer, [None, Some(&query), Some(&document)], &fit) {
            Err(TokenizeError::TextTooLong { text: Text::Query, .. })
                if fit.truncation.strategy == Strategy::Document => return Ok(()),
            encoded => encoded.unwrap(),
        };
        let Filled { head, middle, tail, .. } = &*scorer.filled;
        prop_assert!(!encoded.sequences.is_empty() && encoded.sequences.len() <= fit.windows.max);
        for sequence in &encoded.sequences {
            let ids = sequence.ids();
            prop_assert!(ids.len() <= scorer.max_tokens());
            prop_assert!(ids.starts_with(head) && ids.ends_with(tail));
            let between = &ids[head.len()..ids.len() - tail.len()];
            prop_assert!(middle.is_empty() || between.windows(middle.len()).any(|part| part == middle));
        }
        let whole = tried.encode(&long, [None, Some(&query), Some(&document)], &self::fit(1));
        let fits = whole.sequences[0].len() <= scorer.max_tokens();
        if fit.max_document_tokens.is_none() {
            prop_assert!(!fits || encoded.sequences == whole.sequences);
            prop_assert!(fits != encoded.truncated || fit.windows.max > 1);
        }
    }
}
