use super::super::{Truncation, Windows};
use super::*;
use crate::tokenize::tests::tokenizer;
use crate::types::{Expansion, Read, Similarity, TextRules};

fn rules(prompt: &str) -> VectorRules {
    let side = |skips_words| TextRules {
        prompt: prompt.into(),
        max_tokens: Some(12),
        skips_words,
    };
    VectorRules {
        late_interaction: true,
        query: side(false),
        document: side(true),
        markers: Vec::new(),
        expansion: None,
        skipped_words: vec!["the".into(), "no word of it".into()],
        similarity: Similarity {
            normalises: true,
            dimensions: None,
            is_cosine: false,
            is_mean: false,
        },
    }
}

fn spec() -> ModelSpec {
    ModelSpec {
        family: "bert",
        hidden_size: 8,
        layers: 1,
        vocab_size: 300_000,
        type_vocab_size: 2,
        max_positions: 64,
        causal: false,
        width: 8,
        pooling: "cls",
        head: String::new(),
        labels: Vec::new(),
    }
}

fn fit(strategy: Strategy, direction: Direction) -> Fit {
    Fit {
        truncation: Truncation {
            strategy,
            direction,
        },
        max_tokens: None,
        max_document_tokens: None,
        windows: Windows { max: 4, overlap: 2 },
    }
}

const FOLDER: &str = "tests/fixtures/models/tiny-bert";

fn read(tokenizer: &TextTokenizer, texts: &VectorTexts, text: &str, fit: &Fit) -> Tokens {
    let (limit, direction) = (texts.needed(0, fit), fit.truncation.direction);
    let text = texts.document_text(text);
    tokenizer.encode_within(&text, limit, direction).unwrap()
}

#[test]
fn whichever_end_is_cut_the_prompt_stays() {
    let tokenizer = tokenizer(FOLDER);
    let rules = rules("river sea ");
    let texts = VectorTexts::of_documents(&tokenizer, &spec(), &rules, 10).unwrap();
    let words: Vec<String> = (0..9).map(|i| ["cat", "bread"][i % 2].to_owned()).collect();
    let text = format!("{} town", words.join(" "));
    let whole = tokenizer.encode_text(&texts.document_text(&text)).unwrap();
    let prompt = tokenizer.encode_text("river sea ").unwrap();
    for direction in [Direction::Right, Direction::Left] {
        let mut fit = fit(Strategy::LongestFirst, direction);
        for (asked, length) in [(None, 10), (Some(3), prompt.len() + 5)] {
            fit.max_document_tokens = asked;
            let tokens = read(&tokenizer, &texts, &text, &fit);
            let encoded = texts.encode(&Tokens::default(), &tokens, &fit, 0).unwrap();
            let ids = encoded.sequences[0].ids();
            assert!(encoded.truncated && ids.len() == length, "{ids:?}");
            let (room, before) = (length - 2, prompt.len());
            let kept = match direction {
                Direction::Right => whole[..room].to_vec(),
                Direction::Left => [&prompt[..], &whole[whole.len() - (room - before)..]].concat(),
            };
            assert_eq!(ids[1..=room], kept, "{direction:?}");
        }
    }
    let fit = fit(Strategy::Off, Direction::Right);
    let tokens = read(&tokenizer, &texts, &text, &fit);
    let error = texts.encode(&Tokens::default(), &tokens, &fit, 3);
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("document 3 is at least 11 tokens"),
        "{error}"
    );
    let short = read(&tokenizer, &texts, "cat", &fit);
    let encoded = texts.encode(&Tokens::default(), &short, &fit, 0).unwrap();
    assert!(!encoded.truncated && encoded.sequences[0].len() > prompt.len() + 2);
}

#[test]
fn queries_are_filled_up_and_words_are_skipped_in_documents_only() {
    let tokenizer = tokenizer(FOLDER);
    let mut rules = rules("");
    let fit = fit(Strategy::LongestFirst, Direction::Right);
    let places = |texts: &VectorTexts, text: &str| {
        let tokens = read(&tokenizer, texts, text, &fit);
        let encoded = texts.encode(&Tokens::default(), &tokens, &fit, 0).unwrap();
        let sequence = &encoded.sequences[0];
        let Read::At(places) = sequence.read() else {
            panic!("{sequence:?}");
        };
        (places.to_vec(), sequence.len(), sequence.unseen_tail())
    };
    let documents = VectorTexts::of_documents(&tokenizer, &spec(), &rules, 12).unwrap();
    assert_eq!(
        places(&documents, "the river the sea"),
        (vec![0, 2, 4, 5], 6, 0)
    );
    for (is_fixed, is_seen, long) in [(true, false, 8), (false, true, 12)] {
        rules.expansion = Some(Expansion {
            token: Some("cat".into()),
            length: 8,
            is_fixed,
            is_seen,
        });
        let queries = VectorTexts::of_queries(&tokenizer, &spec(), &rules).unwrap();
        let unseen = if is_seen { 0 } else { 4 };
        let all = |length: u32| (0..length).collect::<Vec<_>>();
        assert_eq!(places(&queries, "the river"), (all(8), 8, unseen));
        let words = "sea ".repeat(40);
        assert_eq!(places(&queries, &words), (all(long), long as usize, 0));
    }
    rules.expansion.as_mut().unwrap().token = Some("[NONE]".into());
    let error = VectorTexts::of_queries(&tokenizer, &spec(), &rules).unwrap_err();
    assert!(error.to_string().contains("[NONE]"), "{error}");
    let error = VectorTexts::of_documents(&tokenizer, &spec(), &rules, 2).unwrap_err();
    assert!(error.to_string().contains("leaves no room"), "{error}");
}
