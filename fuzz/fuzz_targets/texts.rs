//! Texts through tokenizers of several kinds. The first bytes choose the model and how a pair is made to fit it.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rerankd::app::Loaded;
use rerankd::config::{Override, Settings};
use rerankd::scoring::{EncodePool, Fit, Strategy, Truncation, Windows};
use rerankd::tokenize::Direction;
use rerankd_fuzz::{assert_short, checked, model};

/// WordPiece, Unigram, byte-level BPE, SentencePiece as BPE, and prompts.
const MODELS: [&str; 8] = [
    "tiny-bert",
    "tiny-xlmr",
    "tiny-roberta",
    "tiny-deberta-v2",
    "tiny-modernbert",
    "tiny-qwen3-seqcls",
    "tiny-llama",
    "tiny-monot5",
];
/// Bytes of a text that is made long enough to be read in segments.
const LONG: usize = 12 << 10;

struct Encoder {
    pool: EncodePool,
    vocabulary: usize,
    longest: usize,
}

fn encoders() -> &'static Vec<Encoder> {
    static ENCODERS: OnceLock<Vec<Encoder>> = OnceLock::new();
    ENCODERS.get_or_init(|| MODELS.iter().map(|name| encoder(name)).collect())
}

fn encoder(name: &str) -> Encoder {
    let overrides: Vec<Override> = vec![
        ("model.id", model(name).display().to_string().into()),
        ("engine.threads", 1.into()),
        ("tokenize.threads", 1.into()),
    ];
    let settings = Settings::load(None, overrides).expect("settings");
    let loaded = Loaded::load(&settings).expect("a model");
    Encoder {
        longest: loaded.encoder.scorer().max_tokens(),
        vocabulary: loaded.info.spec.vocab_size,
        pool: loaded.encoder,
    }
}

fuzz_target!(init: { encoders(); }, |input: &[u8]| {
    let &[
        which,
        strategy,
        max,
        document_max,
        windows,
        overlap,
        ref texts @ ..,
    ] = input
    else {
        return;
    };
    let texts = String::from_utf8_lossy(texts);
    let (query, document) = texts.split_once('\0').unwrap_or(("rivers", &texts));
    let encoder = &encoders()[usize::from(which) % MODELS.len()];
    let tokenizer = encoder.pool.tokenizer();
    let direction = match strategy & 1 {
        0 => Direction::Right,
        _ => Direction::Left,
    };
    let some = |byte: u8| (byte < 200).then_some(usize::from(byte));
    let fit = Fit {
        truncation: Truncation {
            strategy: [Strategy::LongestFirst, Strategy::Document, Strategy::Off]
                [usize::from(strategy >> 1) % 3],
            direction,
        },
        max_tokens: some(max),
        max_document_tokens: some(document_max),
        windows: Windows {
            max: usize::from(windows),
            overlap: usize::from(overlap),
        },
    };
    let longest = fit
        .max_tokens
        .map_or(encoder.longest, |max| max.min(encoder.longest));
    match encoder.pool.encode(query, document, &fit) {
        Err(error) => assert_short(&error.to_string()),
        Ok(encoded) => {
            assert!((1..=fit.windows.max.max(1)).contains(&encoded.sequences.len()));
            for sequence in &encoded.sequences {
                assert!(
                    sequence.len() <= longest,
                    "{} tokens of {longest}",
                    sequence.len()
                );
                assert_eq!(sequence.ids().len(), sequence.type_ids().len());
                assert!(
                    sequence
                        .ids()
                        .iter()
                        .all(|&id| (id as usize) < encoder.vocabulary)
                );
                assert!(sequence.shared_prefix() + sequence.unseen_tail() <= sequence.len());
            }
            // What is not truncated is in the windows.
            let empty = encoder.pool.encode(query, "", &fit);
            if let (false, Ok(empty)) = (encoded.truncated, empty) {
                let around = empty.sequences[0].len();
                let scorer = encoder.pool.scorer();
                let tokens = checked(tokenizer.encode_text(&scorer.document_text(document)));
                let of_document = encoded
                    .sequences
                    .iter()
                    .map(|s| s.len().saturating_sub(around));
                assert!(of_document.sum::<usize>() + 1 >= tokens.map_or(0, |tokens| tokens.len()));
            }
        }
    }
    // A text that is read in segments has the tokens that it has as a whole.
    if strategy & 0x40 != 0 && !document.is_empty() {
        let text = document.repeat(LONG.div_ceil(document.len()));
        let (Some(read), Some(whole)) = (
            checked(tokenizer.encode_within(&text, usize::MAX, direction)),
            checked(tokenizer.encode_segment(&text)),
        ) else {
            return;
        };
        assert!(!read.is_whole() || read.ids() == whole, "{document:?}");
    }
});
