//! The queue: nobody waits for all of a large request, what nobody wants costs no compute, and a
//! fault stays with the request that caused it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::{Method, StatusCode};
use rerankd::engine::{EngineError, Model};
use rerankd::types::{Batch, ModelSpec, Output};
use serde_json::{Value, json};

use crate::support::app::{TestApp, metric};
use crate::support::different;
use crate::support::gate::{Gate, gate};

fn request(text: &str, documents: usize) -> Value {
    json!({"query": "rivers", "documents": different(text, documents)})
}

async fn gated() -> (TestApp, Gate) {
    TestApp::gated(|s| s.batch.max_tokens = 256).await
}

/// Waits until this many pairs wait in the queue.
async fn until_waiting(app: &TestApp, pairs: usize) {
    app.until_metric("rerankd_queue_pairs", |n| n == pairs as f64)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_5_does_not_wait_for_one_of_1000() {
    let (app, gate) = gated().await;
    let large = app
        .request(Method::POST, "/v1/rerank")
        .json(&request("a b c d e f", 1000))
        .send();
    let large = tokio::spawn(large);
    // The engine holds one batch; the small request joins the queue behind it.
    let waiting = 1000 - tokio::task::block_in_place(|| gate.entered()).sequences();
    let small = app
        .request(Method::POST, "/v1/rerank")
        .json(&request("x y", 5))
        .send();
    let small = tokio::spawn(small);
    until_waiting(&app, waiting + 5).await;
    let mut batches = 0;
    while !small.is_finished() {
        gate.open();
        batches += 1;
        tokio::task::block_in_place(|| gate.entered());
        assert!(batches < 10, "the small request waits for the large one");
    }
    assert!(!large.is_finished());
    assert_eq!(small.await.unwrap().unwrap().status(), StatusCode::OK);
    let _batches = gate.open_for_good();
    let large: Value = large.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(large["results"].as_array().unwrap().len(), 1000);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_costs_no_further_compute() {
    let (app, gate) = gated().await;
    let before = metric(&app.metrics().await, "rerankd_requests_cancelled_total");
    let gone = app
        .request(Method::POST, "/v1/rerank")
        .json(&request("a b c d e f", 1000))
        .send();
    let gone = tokio::spawn(gone);
    tokio::task::block_in_place(|| gate.entered());
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    app.until_metric("rerankd_requests_cancelled_total", |n| n > before)
        .await;
    let batches = gate.open_for_good();
    let next = app.post("/v1/rerank", &request("x y", 3)).await;
    assert_eq!(next.status, StatusCode::OK);
    let pairs: usize = batches.try_iter().map(|b| b.sequences()).sum();
    assert_eq!(
        pairs, 3,
        "after the first batch only the next request's pairs are scored"
    );
    app.stop().await;
}

/// Fails on batches that hold a given token.
struct Faulty {
    model: Box<dyn Model>,
    token: u32,
    fault: Fault,
    resets: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
enum Fault {
    Panic,
    NotFinite,
}

impl Model for Faulty {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn weight_bytes(&self) -> usize {
        self.model.weight_bytes()
    }

    fn flops(&self, batch: &Batch) -> f64 {
        self.model.flops(batch)
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError> {
        let mut logits = self.model.forward(batch)?;
        for (i, logit) in logits.iter_mut().enumerate() {
            let ids = &batch.ids()[batch.bounds()[i]..batch.bounds()[i + 1]];
            if ids.contains(&self.token) {
                match self.fault {
                    Fault::Panic => panic!("the test's fault"),
                    Fault::NotFinite => *logit = Output::logits(&[f32::NAN]),
                }
            }
        }
        Ok(logits)
    }

    fn reset(&mut self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        self.model.reset();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_stays_with_the_request_that_caused_it() {
    for fault in [Fault::Panic, Fault::NotFinite] {
        let mut handle = None;
        let resets = Arc::new(AtomicUsize::new(0));
        let wrap = |model: Box<dyn Model>| {
            // "?" is in the bad request only.
            let settings =
                crate::support::app::settings(&crate::support::models::folder("tiny-bert"));
            let loaded = rerankd::app::Loaded::load(&settings).unwrap();
            let token = loaded.encoder.tokenizer().encode_text("?").unwrap()[0];
            let (model, gate) = gate(Box::new(Faulty {
                model,
                token,
                fault,
                resets: Arc::clone(&resets),
            }));
            handle = Some(gate);
            model
        };
        let app = TestApp::wrapped(|_| {}, wrap).await;
        let gate = handle.unwrap();
        // The first request holds the engine, so that the next two share a batch.
        let first = tokio::spawn(
            app.request(Method::POST, "/rerank")
                .json(&request("a", 1))
                .send(),
        );
        tokio::task::block_in_place(|| gate.entered());
        let send = |text| {
            tokio::spawn(
                app.request(Method::POST, "/v1/rerank")
                    .json(&request(text, 4))
                    .send(),
            )
        };
        let (bad, good) = (send("what ?"), send("what is"));
        until_waiting(&app, 8).await;
        gate.open();
        let shared = tokio::task::block_in_place(|| gate.entered());
        assert_eq!(shared.sequences(), 8);
        let _batches = gate.open_for_good();
        assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
        assert_eq!(good.await.unwrap().unwrap().status(), StatusCode::OK);
        let bad = bad.await.unwrap().unwrap();
        assert_eq!(bad.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let bad: Value = bad.json().await.unwrap();
        assert_eq!(bad["code"], "internal");
        assert!(
            !bad.to_string().contains("the test's fault"),
            "the cause is for the log"
        );
        // Together with others, and alone.
        let resets = resets.load(Ordering::Relaxed);
        assert_eq!(resets, if matches!(fault, Fault::Panic) { 2 } else { 0 });
        // And the server lives.
        assert_eq!(
            app.post("/v1/rerank", &request("x", 2)).await.status,
            StatusCode::OK
        );
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_while_the_engine_runs_shares_the_next_batch() {
    let (app, gate) = gated().await;
    let send = |n| {
        tokio::spawn(
            app.request(Method::POST, "/v1/rerank")
                .json(&request("x y", n))
                .send(),
        )
    };
    let mut requests = vec![send(1)];
    assert_eq!(
        tokio::task::block_in_place(|| gate.entered()).sequences(),
        1,
        "a lone pair starts at once"
    );
    requests.extend((0..6).map(|_| send(2)));
    until_waiting(&app, 12).await;
    gate.open();
    assert_eq!(
        tokio::task::block_in_place(|| gate.entered()).sequences(),
        12
    );
    let _batches = gate.open_for_good();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    app.stop().await;
}
