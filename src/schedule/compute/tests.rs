use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::super::planner::BatchLimits;
use super::super::submission::Ticket;
use super::*;
use crate::types::{Caller, ModelSpec, Sequence, Terms};

/// Tells its number of each batch, once the test lets it, and takes a while for it.
struct Told {
    spec: ModelSpec,
    number: usize,
    ran: mpsc::Sender<usize>,
    start: Arc<AtomicBool>,
}

impl Model for Told {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn weight_bytes(&self) -> usize {
        0
    }

    fn flops(&self, _: &Batch) -> f64 {
        0.0
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError> {
        while !self.start.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        }
        let _ = self.ran.send(self.number);
        Ok(vec![Output::logits(&[0.0]); batch.sequences()])
    }
}

fn spec() -> ModelSpec {
    ModelSpec {
        family: "bert",
        hidden_size: 8,
        layers: 1,
        vocab_size: 8,
        type_vocab_size: 1,
        max_positions: 8,
        causal: false,
        width: 1,
        pooling: "cls",
        head: "linear".into(),
        labels: vec!["LABEL_0".into()],
    }
}

fn ticket() -> Ticket {
    Ticket {
        standing: Terms::from(&Caller::local()).standing(None),
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

fn options(weight: f64) -> LaneOptions {
    LaneOptions {
        name: "test".into(),
        limits: BatchLimits {
            max_tokens: 10,
            max_pairs: 1,
            window_tokens: 10,
        },
        weight,
        tokens_per_second: 50_000.0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_with_work_share_the_engine_by_weight() {
    let compute = Compute::start().unwrap();
    let (ran, order) = mpsc::channel();
    let start = Arc::new(AtomicBool::new(false));
    let mut submissions = Vec::new();
    for (number, weight) in [(0, 1.0), (1, 3.0)] {
        let told = Told {
            spec: spec(),
            number,
            ran: ran.clone(),
            start: Arc::clone(&start),
        };
        let executor = compute.add(Box::new(told), &options(weight));
        let mut submission = executor.submission(ticket());
        let sequence = Sequence::new(vec![1; 10], vec![0; 10]);
        submission.push(vec![sequence; 400]).await.unwrap();
        submissions.push((executor, submission));
    }
    // Both are in their queues before the first batch is over.
    while !compute
        .0
        .shared
        .lock()
        .lanes
        .values()
        .all(|lane| !lane.queue.is_empty())
    {
        tokio::task::yield_now().await;
    }
    start.store(true, Ordering::Release);
    for (_, submission) in submissions {
        assert_eq!(submission.finish().await.unwrap().outputs.len(), 400);
    }
    let order: Vec<usize> = order.try_iter().collect();
    assert_eq!(order.len(), 800);
    let second: usize = order[..400].iter().sum();
    assert!((270..=330).contains(&second), "{second} of 400, not 300");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_nobody_holds_is_dropped_and_the_thread_ends_with_the_last() {
    let compute = Compute::start().unwrap();
    let (ran, order) = mpsc::channel();
    let told = Told {
        spec: spec(),
        number: 0,
        ran,
        start: Arc::new(AtomicBool::new(true)),
    };
    let executor = compute.add(Box::new(told), &options(1.0));
    let mut submission = executor.submission(ticket());
    let sequence = Sequence::new(vec![1; 10], vec![0; 10]);
    submission.push(vec![sequence; 3]).await.unwrap();
    drop(executor);
    assert_eq!(submission.finish().await.unwrap().outputs.len(), 3);
    let order = tokio::task::spawn_blocking(move || {
        // It ends once the model, which holds the sender, is dropped.
        order.iter().count()
    });
    assert_eq!(order.await.unwrap(), 3);
    compute.close();
    tokio::task::block_in_place(|| compute.join());
}

/// Runs until nobody waits for it, if the batch has a token 7.
struct Endless {
    spec: ModelSpec,
    runs: mpsc::Sender<bool>,
}

impl Model for Endless {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn weight_bytes(&self) -> usize {
        0
    }

    fn flops(&self, _: &Batch) -> f64 {
        0.0
    }

    fn forward(&mut self, batch: &Batch) -> Result<Vec<Output>, EngineError> {
        self.forward_while(batch, &|| true)
    }

    fn forward_while(
        &mut self,
        batch: &Batch,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<Output>, EngineError> {
        let is_endless = batch.ids().contains(&7);
        let _ = self.runs.send(is_endless);
        if is_endless {
            while is_wanted() {
                std::thread::yield_now();
            }
            return Err(EngineError::Unwanted);
        }
        Ok(vec![Output::logits(&[0.0]); batch.sequences()])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_ends_early_once_all_who_wait_for_it_have_gone_or_are_late() {
    let compute = Compute::start().unwrap();
    let (runs, ran) = mpsc::channel();
    let endless = Endless { spec: spec(), runs };
    let executor = compute.add(Box::new(endless), &options(1.0));
    let sequence = |id| vec![Sequence::new(vec![id; 10], vec![0; 10])];
    // One goes away; of the other the deadline passes.
    let mut gone = executor.submission(ticket());
    gone.push(sequence(7)).await.unwrap();
    let ran = tokio::task::spawn_blocking(move || {
        assert!(ran.recv().unwrap());
        ran
    });
    let ran = ran.await.unwrap();
    drop(gone);
    let mut late = executor.submission(Ticket {
        deadline: Instant::now() + Duration::from_millis(50),
        ..ticket()
    });
    late.push(sequence(7)).await.unwrap();
    let mut next = executor.submission(ticket());
    next.push(sequence(1)).await.unwrap();
    assert_eq!(next.finish().await.unwrap().outputs.len(), 1);
    let ended = late.finish().await;
    assert!(
        matches!(ended, Err(RunError::DeadlineExceeded)),
        "{ended:?}"
    );
    let ran: Vec<bool> = ran.try_iter().collect();
    assert!(ran.ends_with(&[false]), "{ran:?}");
}
