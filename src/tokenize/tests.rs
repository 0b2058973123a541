//! What is read in segments is exactly what the whole text gives.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::{
    Just, ProptestConfig, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::strategy::Strategy as Generator;

use super::*;

pub(crate) const TOKENIZERS: [&str; 4] = [
    "tests/fixtures/models/tiny-bert",
    "tests/fixtures/models/tiny-roberta",
    "tests/fixtures/models/tiny-xlmr",
    "models/builtin",
];

/// The tokenizer of a folder's tokenizer.json.
pub(crate) fn tokenizer(folder: &str) -> TextTokenizer {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read(root.join(folder).join("tokenizer.json")).unwrap();
    let mut vocabulary = Vocabulary::default();
    vocabulary.insert("tokenizer.json", "tokenizer.json".into(), json);
    let definition = Definition {
        vocabulary,
        config: serde_json::Value::Null,
        tokenizer_config: serde_json::Value::Null,
        special_tokens_map: serde_json::Value::Null,
        added_tokens: serde_json::Value::Null,
        lowercase: false,
        markers: Vec::new(),
    };
    TextTokenizer::new(&definition).unwrap()
}

/// A SentencePiece model's file with its name in the fixtures, and settings of the tokenizer.
const PIECES: [(&str, &str, &str); 7] = [
    (
        "spm.model",
        "deberta",
        r#"{"tokenizer_class": "DebertaV2Tokenizer"}"#,
    ),
    (
        "spm.model",
        "deberta",
        r#"{"tokenizer_class": "DebertaV2Tokenizer", "split_by_punct": true}"#,
    ),
    (
        "spm.model",
        "deberta",
        r#"{"tokenizer_class": "DebertaV2Tokenizer", "add_prefix_space": false}"#,
    ),
    (
        "spiece.model",
        "albert",
        r#"{"tokenizer_class": "AlbertTokenizer"}"#,
    ),
    (
        "spiece.model",
        "albert",
        r#"{"tokenizer_class": "AlbertTokenizer", "keep_accents": true, "add_prefix_space": false}"#,
    ),
    (
        "sentencepiece.bpe.model",
        "fairseq",
        r#"{"tokenizer_class": "CamembertTokenizer"}"#,
    ),
    (
        "sentencepiece.bpe.model",
        "fairseq",
        r#"{"tokenizer_class": "XLMRobertaTokenizer", "add_prefix_space": false}"#,
    ),
];

/// Of other kinds: those of decoders, T5, ModernBERT and MPNet.
const OTHERS: [&str; 9] = [
    "qwen3-seqcls",
    "llama",
    "bge-gemma",
    "minicpm-layerwise",
    "nemotron",
    "mxbai-v2",
    "monot5",
    "modernbert",
    "mpnet",
];

const DEBERTA: usize = TOKENIZERS.len();
/// Where the others are.
const FIRST_OTHER: usize = DEBERTA + PIECES.len();
const ALL: usize = FIRST_OTHER + OTHERS.len();

static ENCODERS: LazyLock<Vec<TextTokenizer>> = LazyLock::new(|| {
    let of_pieces = PIECES.map(|(name, file, settings)| {
        let settings = serde_json::from_str(settings).unwrap();
        let config = serde_json::json!({"vocab_size": 1000});
        let json = [("tokenizer_config.json", settings), ("config.json", config)];
        let json = json.map(|(file, value)| (file.to_owned(), value)).into();
        let file = format!("tokenizers/{file}.model");
        TextTokenizer::new(&definition::tests::definition([(name, &file[..])], &json)).unwrap()
    });
    TOKENIZERS
        .map(tokenizer)
        .into_iter()
        .chain(of_pieces)
        .chain(OTHERS.map(|name| tokenizer(&format!("tests/fixtures/models/tiny-{name}"))))
        .collect()
});

/// The tokens of a text that is tokenised as one.
fn whole(encoder: &TextTokenizer, text: &str) -> Tokens {
    Tokens {
        ids: encoder.encode_segment(text).unwrap(),
        ..Tokens::default()
    }
}

fn with_sizes(encoder: &TextTokenizer, sizes: Sizes) -> TextTokenizer {
    TextTokenizer {
        tokenizer: encoder.tokenizer.clone(),
        roles: encoder.roles.clone(),
        boundaries: encoder.boundaries.clone(),
        file: encoder.file.clone(),
        sizes,
        ..*encoder
    }
}

fn small(segment: usize) -> Sizes {
    Sizes {
        segment,
        shortest_run: 1 << 20,
        longest_run: 1 << 20,
        scan: segment,
    }
}

#[test]
fn every_known_tokenizer_has_safe_boundaries() {
    let text = "a b  c\nd中。.";
    let places: Vec<Vec<usize>> = ENCODERS
        .iter()
        .map(|encoder| {
            let places = (0..text.len()).filter(|&i| text.is_char_boundary(i));
            places
                .filter(|&i| encoder.boundaries.is_at(text, i))
                .collect()
        })
        .collect();
    let bert = vec![1, 2, 3, 4, 5, 6, 7, 8, 14];
    assert_eq!(places[0], bert);
    assert_eq!(places[3], bert);
    assert_eq!(places[1], [1, 3, 6]);
    assert_eq!(places[2], [1, 2, 3, 4, 5, 6, 7]);
    // Before each space or line break, at least.
    assert_eq!(places[DEBERTA], [1, 3, 6]);
    for pieces in &places[DEBERTA..FIRST_OTHER] {
        assert!(pieces.contains(&1), "{places:?}");
    }
}

/// The first or last so many of some tokens.
fn ends(all: &[u32], limit: usize, direction: Direction) -> &[u32] {
    let kept = limit.min(all.len());
    match direction {
        Direction::Right => &all[..kept],
        Direction::Left => &all[all.len() - kept..],
    }
}

pub(crate) fn any_text() -> impl Generator<Value = String> {
    let part = prop_oneof![
        8 => "[a-z]{1,9}",
        2 => "[A-Za-z0-9]{1,4}",
        8 => Just(" ".to_owned()),
        4 => "[ \t\n\r\u{b}\u{c}\u{85}\u{a0}\u{2009}\u{2028}\u{3000}]{1,5}",
        4 => "[一-龥豈㐀]{1,4}",
        2 => "[ぁ-んァ-ヶ。、「」ｱ-ﾟ가-힣]{1,4}",
        4 => "[!-/:-@\\[-`{-~]{1,6}",
        3 => "[\u{300}-\u{36f}\u{93f}\u{94d}\u{200d}\u{fe0f}\u{345}]{1,3}",
        2 => "[éàçñüßİıſΣςﬁ①½²ǅ¨´]{1,3}",
        2 => "[🙂👩👍🏽❤🇩🇪]{1,3}",
        3 => "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{ad}\u{200b}\u{feff}\u{fffd}\u{e000}]{1,3}",
        2 => "[\u{600}\u{d4e}\u{1160}\u{3164}\u{ffa0}ก-ฮا-ي]{1,3}",
        1 => "[ab]{90,130}",
        2 => prop::sample::select(vec![
            "[MASK]", "[SEP]", "<mask>", "</s>", "<s>", "[UNK]", "[unused1]", "##", "▁", "Ġ",
            "<sea>", "[PAD]", "'s", "'ll", "``", "''", "...", "river", "the",
        ]).prop_map(str::to_owned),
        2 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
}

/// Found by fuzzing: some tokenizers have a word of a full stop and the line's end after it.
#[test]
fn an_end_of_a_line_stays_with_the_full_stop_before_it() {
    let text = "A river carves.\nIt flows (down)\r\n\r\nto the sea;\n".repeat(9);
    for (i, encoder) in ENCODERS.iter().enumerate() {
        let expected = whole(encoder, &text).ids;
        let encoder = with_sizes(encoder, small(16));
        assert_eq!(encoder.encode_text(&text).unwrap(), expected, "{i}");
    }
}

/// Found by chance: a character that begins what follows it, a wide space, and a mark upon that.
#[test]
fn a_mark_upon_a_wide_space_stays_with_what_is_before() {
    let text = format!("{}\u{d4e}\u{a0}\u{300} ", "a".repeat(90));
    for encoder in ENCODERS.iter() {
        let expected = whole(encoder, &text).ids;
        let encoder = with_sizes(encoder, small(1));
        assert_eq!(encoder.encode_text(&text).unwrap(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn segments_give_the_whole_texts_tokens(
        text in any_text(), segment in 1usize..64, limit in 0usize..80, which in 0usize..ALL,
    ) {
        let encoder = with_sizes(&ENCODERS[which], small(segment));
        let all = whole(&encoder, &text).ids;
        prop_assert_eq!(&encoder.encode_text(&text).unwrap(), &all);
        for direction in [Direction::Right, Direction::Left] {
            let found = encoder.encode_within(&text, limit, direction).unwrap();
            let kept = ends(&all, limit, direction);
            prop_assert_eq!(&found.ids, kept, "{:?}", direction);
            prop_assert_eq!(found.more, all.len() > limit);
            prop_assert!(!found.skipped);
        }
    }

    #[test]
    fn any_bytes_without_a_boundary_end(text in any_text(), which in 0usize..ALL, run in 1usize..40) {
        let sizes = Sizes { segment: 4, shortest_run: run, longest_run: run, scan: 3 };
        let mut encoder = with_sizes(&ENCODERS[which], sizes);
        for unsafe_everywhere in [false, true] {
            if unsafe_everywhere {
                encoder.boundaries = Boundaries::none();
            }
            for direction in [Direction::Right, Direction::Left] {
                let found = encoder.encode_within(&text, 50, direction).unwrap();
                prop_assert!(found.ids.len() <= 50);
            }
        }
    }
}

#[test]
fn a_word_that_is_too_long_for_the_vocabulary_is_one_token_however_long_it_is() {
    for folder in ["tests/fixtures/models/tiny-bert", "models/builtin"] {
        let encoder = tokenizer(folder);
        for (left, right) in [("", ""), ("the river ", " and the sea"), ("the ", ", sea")] {
            let text = format!("{left}{}{right}", "x".repeat(700_000));
            let expected = whole(&encoder, &format!("{left}{}{right}", "x".repeat(101)));
            for direction in [Direction::Right, Direction::Left] {
                let found = encoder.encode_within(&text, 100, direction).unwrap();
                assert_eq!(found, expected, "{folder} {left} {right}");
            }
        }
    }
}

#[test]
fn a_long_run_is_left_out_where_it_has_more_tokens_than_are_read_of_it() {
    let encoder = tokenizer("tests/fixtures/models/tiny-roberta");
    let text = format!("the {} river", "abcdefgh".repeat(100_000));
    let found = encoder.encode_within(&text, usize::MAX, Direction::Right);
    let found = found.unwrap();
    assert!(found.skipped && !found.more && !found.is_whole());
    assert!(found.ids.len() > 10_000);
    let end = encoder.encode_segment(" river").unwrap();
    assert!(found.ids.ends_with(&end));
}

#[test]
fn megabytes_without_tokens_are_passed_over() {
    let encoder = tokenizer("models/builtin");
    let (space, control) = (
        " \n\t".repeat(500_000),
        "\0 \u{1}\u{200b}\n".repeat(300_000),
    );
    for (text, direction) in [
        (format!("{space}river{space}"), Direction::Right),
        (format!("{space}river{space}"), Direction::Left),
        (format!("{control}river{control}"), Direction::Right),
        (control, Direction::Left),
    ] {
        let mut reading = Reading::new(&encoder, &text, 1, direction);
        let mut bytes = 0;
        while !reading.is_done() {
            bytes += reading.step(&encoder, &text).unwrap();
        }
        let expected = text.contains("river").then_some("river");
        let expected = whole(&encoder, expected.unwrap_or_default());
        assert_eq!(reading.finish(), expected);
        assert!(bytes < text.len() / 8, "{bytes}");
    }
}

#[test]
fn a_boundary_is_never_within_an_added_token() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read(root.join("models/builtin/tokenizer.json")).unwrap();
    let added = |content: &str| tokenizers::AddedToken::from(content, false);
    let text = "new york, c.s 日本 a new york.";
    let places = |token: tokenizers::AddedToken| {
        let mut tokenizer = Tokenizer::from_bytes(&json).unwrap();
        tokenizer.with_padding(None).add_tokens([token]).unwrap();
        let boundaries = Boundaries::probe(&tokenizer).unwrap();
        let cuts = text.char_indices().map(|(i, _)| i);
        let cuts: Vec<usize> = cuts.filter(|&i| boundaries.is_at(text, i)).collect();
        let mut parts = Vec::new();
        let mut start = 0;
        for &cut in cuts.iter().chain([&text.len()]) {
            let ids = tokenizer.encode_fast(&text[start..cut], false).unwrap();
            parts.extend_from_slice(ids.get_ids());
            start = cut;
        }
        let whole = tokenizer.encode_fast(text, false).unwrap();
        assert_eq!(parts, whole.get_ids());
        cuts.len()
    };
    let all = places(added("zzz"));
    assert!(all > 12, "{all}");
    assert!(places(added("new york")) < all);
    assert!(places(added("C.S").normalized(true)) < all);
    assert!(places(added("日本")) < all);
    assert!(places(added("york").single_word(true)) < all);
    assert!(places(added("york").rstrip(true)) < all);
    assert!(places(added("york").lstrip(true)) == all);
}
