//! Against the reference's prompts and blocks.

use std::path::Path;

use serde_json::Value;

use super::*;
use crate::scoring::Truncation;
use crate::tokenize::Direction;
use crate::tokenize::tests::tokenizer;

const MODEL: &str = "tiny-jina-v3";

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = std::fs::read(path.join(format!("{MODEL}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn listwise(tokenizer: &TextTokenizer, limits: Limits) -> Listwise {
    let spec = ModelSpec {
        family: "qwen3",
        hidden_size: 32,
        layers: 1,
        vocab_size: 1 << 20,
        type_vocab_size: 0,
        max_positions: 131_072,
        causal: true,
        width: 512,
        pooling: "last",
        head: String::new(),
        labels: Vec::new(),
    };
    let mut listwise = Listwise::new(tokenizer, &spec, 131_072, "").unwrap();
    listwise.limits = limits;
    listwise
}

fn fit() -> Fit {
    Fit::from(Truncation {
        strategy: Strategy::LongestFirst,
        direction: Direction::Right,
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The prompts' ids of a case.
fn prompts(tokenizer: &TextTokenizer, listwise: &Listwise, case: &Value) -> Vec<Vec<u32>> {
    let query = listwise.cut(tokenizer, text(&case["query"]), &fit(), None);
    let query = query.unwrap();
    let documents = case["documents"].as_array().unwrap().iter().enumerate();
    let documents = documents.map(|(i, document)| {
        let cut = listwise.cut(tokenizer, text(document), &fit(), Some(i));
        cut.unwrap()
    });
    let documents: Vec<CutText> = documents.collect();
    let lengths: Vec<usize> = documents.iter().map(|d| d.tokens).collect();
    let blocks = listwise.blocks(query.tokens, &lengths).into_iter();
    let prompts = blocks.map(|block| {
        let documents: Vec<&str> = documents[block].iter().map(|d| &*d.text).collect();
        let instruction = case["instruction"].as_str();
        let made = listwise.sequence(tokenizer, &query.text, instruction, &documents);
        made.unwrap().ids().to_vec()
    });
    prompts.collect()
}

#[test]
fn prompts_and_blocks_are_the_references() {
    let mut tokenizer = tokenizer(&format!("tests/fixtures/models/{MODEL}"));
    tokenizer.ignore_special_tokens().unwrap();
    let published = listwise(&tokenizer, Limits::of(131_072));
    let small = listwise(
        &tokenizer,
        Limits {
            tokens: 140,
            documents: 4,
            query_tokens: 24,
            document_tokens: 40,
        },
    );
    let golden = golden();
    let (mut compared, mut several) = (0, 0);
    for case in golden["cases"].as_array().unwrap() {
        // The reference reads such a name as the token.
        if case.to_string().contains("<|im_") {
            continue;
        }
        // Where the published limits make other blocks than the small ones, that is told.
        let of_published = match &case["published"] {
            Value::Null => &case["ids"],
            published => &published["ids"],
        };
        for (listwise, ids) in [(&small, &case["ids"]), (&published, of_published)] {
            let expected: Vec<Vec<u32>> = serde_json::from_value(ids.clone()).unwrap();
            let found = prompts(&tokenizer, listwise, case);
            assert_eq!(found, expected, "{}", case["query"]);
            compared += 1;
            several += usize::from(found.len() > 1);
        }
    }
    assert!(compared >= 20 && several >= 4, "{compared} {several}");
}

#[test]
fn a_text_that_is_too_long_is_refused_without_truncation() {
    let tokenizer = tokenizer(&format!("tests/fixtures/models/{MODEL}"));
    let limits = Limits {
        document_tokens: 4,
        query_tokens: 2,
        ..Limits::of(131_072)
    };
    let listwise = listwise(&tokenizer, limits);
    let long = "one two three four five six seven";
    let cut = listwise.cut(&tokenizer, long, &fit(), Some(0)).unwrap();
    assert!(cut.truncated && cut.tokens == 4);
    let mut strict = fit();
    strict.truncation.strategy = Strategy::Off;
    let error = listwise
        .cut(&tokenizer, long, &strict, Some(3))
        .unwrap_err();
    assert!(error.to_string().contains("document 3"), "{error}");
    assert!(listwise.cut(&tokenizer, long, &strict, None).is_err());
    strict.max_document_tokens = Some(3);
    let cut = listwise.cut(&tokenizer, long, &strict, Some(0)).unwrap();
    assert!(cut.truncated && cut.tokens == 3);
}

#[test]
fn marks_in_texts_are_left_out() {
    let tokenizer = tokenizer(&format!("tests/fixtures/models/{MODEL}"));
    let listwise = listwise(&tokenizer, Limits::of(131_072));
    let cut = listwise.cut(
        &tokenizer,
        "a <|embed_token|>b<|rerank_token|>",
        &fit(),
        None,
    );
    assert_eq!(cut.unwrap().text, "a b");
}

#[test]
fn blocks_are_joined_by_how_well_their_best_document_matches() {
    // Vectors of documents, then the query's.
    let block = |rows: &[[f32; 2]]| Output::new(rows.concat().into(), 2);
    let scores = Listwise::decode(&[
        block(&[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]),
        block(&[[-1.0, 0.0], [1.0, 0.0]]),
    ]);
    // The second block's only document is as unlike its query as can be, so that its query counts for nothing.
    let scores: Vec<f32> = scores
        .into_iter()
        .map(|score| score.unwrap().get())
        .collect();
    assert_eq!(scores, [1.0, 0.0, -1.0]);
    let broken = Listwise::decode(&[block(&[[f32::NAN, 0.0], [1.0, 0.0]])]);
    assert_eq!(broken, [None]);
}
