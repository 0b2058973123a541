//! Many clients at once: every request gets its own documents' scores.

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::app::TestApp;

const CLIENTS: usize = 64;
const REQUESTS: usize = 4;

fn request(client: usize, number: usize) -> Value {
    let words = [
        "river", "sea", "land", "bread", "cat", "sun", "stone", "bridge",
    ];
    let word = |i: usize| words[i % words.len()];
    let document = |d: usize| {
        let length = 1 + (client * 7 + number * 3 + d * 5) % 40;
        let text: Vec<&str> = (0..length).map(|i| word(client + i * (d + 1))).collect();
        text.join(" ")
    };
    let documents: Vec<String> = (0..1 + (client + number) % 12).map(document).collect();
    json!({
        "query": format!("what about {} and {}?", word(client), word(number + 3)),
        "documents": documents,
        "raw_scores": true,
        "return_documents": true,
    })
}

fn scores(answer: &Value) -> Vec<(u64, f64)> {
    let results = answer["results"].as_array().unwrap().iter();
    let score = |r: &Value| {
        (
            r["index"].as_u64().unwrap(),
            r["relevance_score"].as_f64().unwrap(),
        )
    };
    let mut scores: Vec<(u64, f64)> = results.map(score).collect();
    scores.sort_unstable_by_key(|s| s.0);
    scores
}

#[tokio::test(flavor = "multi_thread")]
async fn every_one_of_64_clients_gets_its_own_documents_scores() {
    let app = Arc::new(TestApp::start("tiny-bert").await);
    let mut alone = Vec::new();
    for client in 0..CLIENTS {
        let mut answers = Vec::new();
        for number in 0..REQUESTS {
            answers.push(app.post("/v1/rerank", &request(client, number)).await.body);
        }
        alone.push(answers);
    }

    let mut clients = JoinSet::new();
    for (client, expected) in alone.into_iter().enumerate() {
        let app = Arc::clone(&app);
        clients.spawn(async move {
            for (number, expected) in expected.iter().enumerate() {
                let sent = request(client, number);
                let answer = app.post("/v1/rerank", &sent).await;
                assert_eq!(answer.status, StatusCode::OK);
                let (found, alone) = (scores(&answer.body), scores(expected));
                let documents = sent["documents"].as_array().unwrap().len();
                assert_eq!((found.len(), alone.len()), (documents, documents));
                for (found, alone) in found.iter().zip(alone) {
                    assert_eq!(found.0, alone.0);
                    assert!(
                        (found.1 - alone.1).abs() < 1e-5,
                        "client {client}: {found:?} {alone:?}"
                    );
                }
                for result in answer.body["results"].as_array().unwrap() {
                    let index = result["index"].as_u64().unwrap() as usize;
                    assert_eq!(result["document"]["text"], sent["documents"][index]);
                }
            }
        });
    }
    let mut done = 0;
    while let Some(client) = clients.join_next().await {
        client.unwrap();
        done += 1;
    }
    assert_eq!(done, CLIENTS);
    Arc::into_inner(app).unwrap().stop().await;
}
