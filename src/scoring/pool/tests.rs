use std::sync::atomic::Ordering::SeqCst;

use super::super::cross_encoder::tests::cross_encoder;
use super::super::{Strategy, Truncation, Windows};
use super::*;
use crate::tokenize::Direction;

fn pool(threads: usize) -> EncodePool {
    let (tokenizer, scorer) = cross_encoder("tests/fixtures/models/tiny-bert", 64);
    EncodePool::new(
        Threads::start(threads).unwrap(),
        tokenizer,
        Arc::new(scorer),
    )
}

fn texts(queries: &[&str], documents: Vec<String>) -> Texts {
    let truncation = Truncation {
        strategy: Strategy::LongestFirst,
        direction: Direction::Right,
    };
    Texts {
        queries: queries.iter().map(|&q| q.into()).collect(),
        pairing: if queries.len() > 1 {
            Pairing::Each
        } else {
            Pairing::All
        },
        documents: documents.into(),
        fit: Fit {
            truncation,
            max_tokens: None,
            max_document_tokens: None,
            windows: Windows { max: 4, overlap: 8 },
        },
        instruction: None,
        is_kept: true,
    }
}

/// Megabytes of which every byte is read: words too long for the vocabulary, a token each.
fn large() -> String {
    format!("{} ", "x".repeat(3000)).repeat(5400)
}

#[tokio::test]
async fn pieces_are_all_documents_in_order() {
    let words = ["river", "sea", "bread", "cat"];
    let document = |i: usize| match i % 9 {
        0 => String::new(),
        8 => large()[..100_000].to_owned(),
        _ => vec![words[i % 4]; i * i].join(" "),
    };
    let documents: Vec<String> = (0..70).map(document).collect();
    let each: Vec<&str> = (0..70).map(|i| words[i % 3]).collect();
    for queries in [&["the river"][..], &each] {
        let texts = texts(queries, documents.clone());
        let pool = pool(3);
        let mut expected = Vec::new();
        for (i, document) in documents.iter().enumerate() {
            let within = |text| {
                let tokens = pool
                    .tokenizer
                    .encode_within(text, usize::MAX, Direction::Right);
                tokens.unwrap()
            };
            let query = within(queries.get(i).unwrap_or(&queries[0]));
            let pairs = pool.scorer.encode(&query, &within(document), &texts.fit, i);
            expected.push(pairs.unwrap());
        }
        let mut pieces = pool.pieces(texts.clone());
        let mut number = 0;
        while let Some(piece) = pieces.next().await {
            number += 1;
            assert!(pieces.coming.len() < 3);
            assert!(piece.unwrap().documents <= DOCUMENTS);
        }
        assert!(number > 10);
        let all = pool.pieces(texts).all().await.unwrap();
        let windows: Vec<usize> = expected.iter().map(|d| d.sequences.len()).collect();
        assert_eq!(all.counts, windows);
        let truncated: Vec<bool> = expected.iter().map(|d| d.truncated).collect();
        assert_eq!(all.truncated, truncated);
        let sequences: Vec<_> = expected.into_iter().flat_map(|d| d.sequences).collect();
        assert_eq!(all.sequences, sequences);
    }
}

#[tokio::test]
async fn an_error_ends_the_pieces() {
    let mut texts = texts(&["river"], vec!["sea ".repeat(200); 90]);
    texts.fit.truncation.strategy = Strategy::Off;
    texts.fit.windows.max = 1;
    let mut pieces = pool(2).pieces(texts);
    let error = pieces.next().await.unwrap().unwrap_err().to_string();
    assert!(
        error.contains("document 0 and the query are at least 6"),
        "{error}"
    );
    assert!(pieces.next().await.is_none());
}

#[tokio::test]
async fn a_small_request_waits_for_few_turns_of_a_large_one() {
    let pool = pool(1);
    let slots = pool.threads.slots.available_permits();
    let mut pieces = pool.pieces(texts(&["river"], vec![large(); 3]));
    let large = tokio::spawn(async move { pieces.next().await });
    while pool.turns.load(SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let before = pool.turns.load(SeqCst);
    let small = pool.pieces(texts(&["river"], vec!["sea".into()]));
    assert_eq!(small.all().await.unwrap().sequences.len(), 1);
    let turns = pool.turns.load(SeqCst) - before;
    assert!(turns <= slots + 2, "{turns} turns");
    assert!(!large.is_finished());
    large.abort();
}

#[tokio::test]
async fn a_large_document_takes_many_turns_and_stops_when_nobody_waits_for_it() {
    let pool = pool(2);
    let text = large();
    let mut pieces = pool.pieces(texts(&["river"], vec![text; 4]));
    let large = tokio::spawn(async move { pieces.next().await });
    while pool.turns.load(SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    large.abort();
    assert!(large.await.unwrap_err().is_cancelled());
    // All slots are free only once the last turn is over.
    let all = pool.threads.slots.acquire_many(4).await.unwrap();
    let stopped = pool.turns.load(SeqCst);
    drop(all);
    let small = pool.pieces(texts(&["river"], vec!["sea".into()]));
    small.all().await.unwrap();
    assert_eq!(pool.turns.load(SeqCst), stopped + 1);
    assert!(stopped < 20, "{stopped}");
}

#[test]
fn a_turn_is_short_and_ends_between_segments() {
    let (tokenizer, scorer) = cross_encoder("tests/fixtures/models/tiny-bert", 64);
    let text = &large()[..1 << 20];
    let documents = vec![text.to_owned()];
    let mut work = Work::new(texts(&["river"], documents), 0..1, None);
    work.run(&tokenizer, &scorer, TURN_BYTES, || true).unwrap();
    assert!(work.shared_queries().is_none());
    let asked = std::cell::Cell::new(0);
    let after_three = || asked.replace(asked.get() + 1) == 3;
    work.run(&tokenizer, &scorer, TURN_BYTES, after_three)
        .unwrap();
    assert!(work.shared_queries().is_some() && !work.is_done());
    let mut turns = 0;
    while !work.is_done() {
        work.run(&tokenizer, &scorer, TURN_BYTES, || false).unwrap();
        turns += 1;
    }
    assert!((14..=17).contains(&turns), "{turns}");
}
