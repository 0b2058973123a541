use std::sync::LazyLock;

use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as Generator;

use super::*;
use crate::scoring::{Strategy, Truncation, Windows, fit};
use crate::tokenize::tests::{TOKENIZERS, any_text, tokenizer};
use crate::tokenize::{Direction, MAX_TOKENS, Text};

fn scorer(tokenizer: &TextTokenizer, max_tokens: usize) -> CrossEncoder {
    let spec = ModelSpec {
        family: "bert",
        hidden_size: 8,
        layers: 1,
        vocab_size: 300_000,
        type_vocab_size: 2,
        max_positions: 512,
        causal: false,
        width: 1,
        pooling: "cls",
        head: "linear".into(),
        labels: vec!["LABEL_0".into()],
    };
    CrossEncoder::new(tokenizer, &spec, max_tokens, WindowScore::Best, 0).unwrap()
}

/// A folder's tokenizer, and a scorer on it.
pub(crate) fn cross_encoder(folder: &str, max_tokens: usize) -> (TextTokenizer, CrossEncoder) {
    let tokenizer = tokenizer(folder);
    let scorer = scorer(&tokenizer, max_tokens);
    (tokenizer, scorer)
}

static ENCODERS: LazyLock<Vec<(TextTokenizer, CrossEncoder)>> =
    LazyLock::new(|| TOKENIZERS.map(|folder| cross_encoder(folder, 24)).into());

/// All tokens of a text.
fn whole(tokenizer: &TextTokenizer, text: &str) -> Tokens {
    tokenizer
        .encode_within(text, usize::MAX, Direction::Right)
        .unwrap()
}

fn any_fitting() -> impl Generator<Value = Fit> {
    let strategies = [Strategy::LongestFirst, Strategy::Document, Strategy::Off];
    let directions = [Direction::Right, Direction::Left];
    (
        prop::sample::select(strategies.to_vec()),
        prop::sample::select(directions.to_vec()),
        prop::option::of(1usize..30),
        prop::option::of(1usize..60),
        1usize..6,
        0usize..30,
    )
        .prop_map(
            |(strategy, direction, max_tokens, document, max, overlap)| Fit {
                truncation: Truncation {
                    strategy,
                    direction,
                },
                max_tokens,
                max_document_tokens: document,
                windows: Windows { max, overlap },
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_needed_of_a_document_gives_the_whole_ones_pairs(
        query in any_text(), document in any_text(),
        fit in any_fitting(), which in 0usize..4,
    ) {
        let (tokenizer, encoder) = &ENCODERS[which];
        let direction = fit.truncation.direction;
        let (whole_query, whole_document) = (whole(tokenizer, &query), whole(tokenizer, &document));
        let query = tokenizer.encode_within(&query, MAX_TOKENS, direction).unwrap();
        let needed = encoder.needed(query.ids.len(), &fit);
        let document = tokenizer.encode_within(&document, needed, direction).unwrap();
        let found = encoder.encode(&query, &document, &fit, 7);
        let expected = encoder.encode(&whole_query, &whole_document, &fit, 7);
        match (found, expected) {
            (Ok(found), Ok(expected)) => prop_assert_eq!(found, expected),
            (Err(found), Err(expected)) => {
                let tokens = |error| match error {
                    TokenizeError::TooLong { document: 7, tokens, at_least, max_tokens, .. } =>
                        (tokens, at_least, max_tokens),
                    TokenizeError::TextTooLong { text: Text::Query, tokens, at_least, max_tokens }
                        if fit.truncation.strategy == Strategy::Document => (tokens, at_least, max_tokens),
                    other => panic!("{other}"),
                };
                let (found, expected) = (tokens(found), tokens(expected));
                prop_assert_eq!(found.2, expected.2);
                prop_assert!(!expected.1);
                let right = (found.1 && found.0 < expected.0) || found.0 == expected.0;
                prop_assert!(right, "{:?} {:?}", found, expected);
            }
            (found, expected) => prop_assert!(false, "{:?} {:?}", found, expected),
        }
    }

    #[test]
    fn of_a_document_of_too_many_tokens_the_first_or_last_are_candidates(
        document in any_text(), most in 30usize..60, fit in any_fitting(), which in 0usize..4,
    ) {
        let tokenizer = &ENCODERS[which].0;
        let mut encoder = scorer(tokenizer, 24);
        encoder.pairs.most_tokens = most;
        let mut fit = fit;
        (fit.max_document_tokens, fit.windows.max) = (None, 1 + fit.windows.max);
        let Truncation { strategy, direction } = fit.truncation;
        let query = whole(tokenizer, "the river");
        let all = whole(tokenizer, &document).ids;
        let needed = encoder.needed(query.ids.len(), &fit);
        prop_assert!(strategy == Strategy::Off || needed == most + 1);
        let found = tokenizer.encode_within(&document, needed, direction).unwrap();
        let candidates = Tokens {
            ids: all[fit::cut(all.len(), all.len().min(most + 1), direction)].to_vec(),
            more: all.len() > most + 1,
            skipped: false,
        };
        if strategy != Strategy::Off {
            let (a, b) = (encoder.encode(&query, &found, &fit, 0), encoder.encode(&query, &candidates, &fit, 0));
            prop_assert_eq!(a.ok(), b.ok());
        }
    }
}

#[test]
fn a_document_is_as_good_as_its_best_windows() {
    let decode = |window_score, logits: &[f32]| {
        let tokenizer = &ENCODERS[0].0;
        let mut encoder = scorer(tokenizer, 24);
        encoder.pairs = Pairs::new(24, window_score, 0);
        let outputs: Vec<Output> = logits.iter().map(|&l| Output::logits(&[l])).collect();
        encoder.decode(&outputs).map(RawScore::get)
    };
    let (best, mean) = (WindowScore::Best, WindowScore::MeanTop3);
    assert_eq!(decode(best, &[0.0, 3.0, 1.0, -4.0]), Some(3.0));
    assert_eq!(decode(best, &[-2.0]), Some(-2.0));
    assert_eq!(decode(mean, &[0.0, 3.0, 1.0, -4.0]), Some(4.0 / 3.0));
    assert_eq!(decode(mean, &[-2.0, -1.0]), Some(-1.5));
    assert_eq!(decode(mean, &[f32::MAX; 3]), Some(f32::MAX));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(decode(best, &[1.0, bad]), None);
        assert_eq!(decode(mean, &[1.0, bad, 2.0]), None);
    }
}
