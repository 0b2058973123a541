//! The numbers are the reference's: token ids exactly, logits within 1e-4.

use rerankd::app::Loaded;
use rerankd::scoring::{Strategy, Truncation};
use rerankd::tokenize::Direction;
use rerankd::types::{Batch, Sequence};
use serde_json::json;

use crate::support::app::{TestApp, settings};
use crate::support::models::{self, ALL, Case};

/// Against the reference.
const REFERENCE: f32 = 1e-4;
/// Of a pair in one batch against the same pair in another.
const BATCH: f32 = 1e-5;

fn load(name: &str) -> Loaded {
    Loaded::load(&settings(&models::folder(name))).unwrap()
}

fn encode(loaded: &Loaded, case: &Case) -> Vec<Sequence> {
    let strategy = match case.truncation.as_str() {
        "longest_first" => Strategy::LongestFirst,
        "only_second" => Strategy::Document,
        other => panic!("{other}"),
    };
    let truncation = Truncation {
        strategy,
        direction: Direction::Right,
    };
    let (encoder, fit) = (&loaded.encoder, truncation.into());
    let documents = case.documents.iter();
    let encoded = documents.map(|document| encoder.encode(&case.query, document, &fit).unwrap());
    encoded.flat_map(|encoded| encoded.sequences).collect()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance,
            "{what}, document {i}: {f} is not {e}"
        );
    }
}

#[test]
fn tokens_are_the_references() {
    for name in ALL {
        let (loaded, golden) = (load(name), models::golden(name));
        assert_eq!(loaded.encoder.scorer().max_tokens(), golden.max_tokens);
        for case in &golden.cases {
            let pairs = encode(&loaded, case);
            assert!(!pairs.is_empty() && pairs.len() == case.ids.len());
            for (pair, expected) in pairs.iter().zip(&case.ids) {
                assert_eq!(pair.ids(), expected, "{name}: {}", case.query);
            }
        }
    }
}

#[test]
fn logits_are_the_references() {
    for name in ALL {
        let mut loaded = load(name);
        for case in models::golden(name).cases {
            let pairs = encode(&loaded, &case);
            let logits = loaded.model.forward(&Batch::pack(&pairs)).unwrap();
            let logits: Vec<f32> = logits.iter().map(|l| l.values()[0]).collect();
            assert_close(&logits, &case.logits, REFERENCE, name);
        }
    }
}

#[test]
fn a_pair_scores_the_same_alone_in_a_batch_and_in_any_order() {
    for name in ALL {
        let mut loaded = load(name);
        let cases = models::golden(name).cases;
        let pairs: Vec<Sequence> = cases.iter().flat_map(|c| encode(&loaded, c)).collect();
        let mut score = |pairs: Vec<&Sequence>| -> Vec<f32> {
            let logits = loaded.model.forward(&Batch::pack(pairs)).unwrap();
            logits.iter().map(|l| l.values()[0]).collect()
        };
        let alone: Vec<f32> = pairs.iter().flat_map(|p| score(vec![p])).collect();
        let together = score(pairs.iter().collect());
        let mut reversed = score(pairs.iter().rev().collect());
        reversed.reverse();
        assert_close(&together, &alone, BATCH, name);
        assert_close(&reversed, &alone, BATCH, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_gives_the_references_scores() {
    for name in ALL {
        let app = TestApp::start(name).await;
        let golden = models::golden(name);
        for case in golden
            .cases
            .iter()
            .filter(|c| c.truncation == "longest_first")
        {
            for (raw, expected) in [(false, &case.scores), (true, &case.logits)] {
                let body = json!({
                    "query": case.query, "documents": case.documents, "raw_scores": raw,
                });
                let answer = app.post("/v1/rerank", &body).await;
                let mut scores = vec![f32::NAN; case.documents.len()];
                for result in answer.body["results"].as_array().unwrap() {
                    let index = result["index"].as_u64().unwrap() as usize;
                    scores[index] = result["relevance_score"].as_f64().unwrap() as f32;
                }
                assert_close(&scores, expected, REFERENCE, name);
            }
        }
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_truncation_keeps_the_query_whole() {
    let app = TestApp::changed(|s| {
        s.model.truncation = rerankd::config::TruncationName::Document;
    })
    .await;
    let golden = models::golden("tiny-bert");
    let case = golden
        .cases
        .iter()
        .find(|c| c.truncation == "only_second")
        .unwrap();
    let body = json!({"query": case.query, "texts": case.documents, "raw_scores": true});
    let answer = app.post("/rerank", &body).await;
    let ranks = answer.body.as_array().unwrap();
    assert!(!ranks.is_empty() && ranks.len() == case.documents.len());
    for rank in ranks {
        let expected = case.logits[rank["index"].as_u64().unwrap() as usize];
        let found = rank["score"].as_f64().unwrap() as f32;
        assert!(
            (found - expected).abs() <= REFERENCE,
            "{found} is not {expected}"
        );
    }
    app.stop().await;
}
