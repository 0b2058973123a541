//! What runs: a task that prepares the next batch, and the thread that owns the engine.
//!
//! While the engine runs one batch, the next is planned and packed; a request that arrives
//! meanwhile makes the plan anew, so that it need not wait for a batch planned without it. There
//! is no timer: an idle engine starts at once on whatever is there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::engine::{EngineError, Model};
use crate::types::{Batch, Output};

use super::RunError;
use super::planner::BatchLimits;
use super::queue::{Job, Place, Planned, Queue};
use super::rate::{Rate, RateMeter};

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    prepared: Option<Planned>,
    closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    taken: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug, but the state is whole between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn publish_depth(queue: &Queue) {
    let (sequences, tokens) = queue.depth();
    gauge!("rerankd_queue_pairs").set(sequences as f64);
    gauge!("rerankd_queue_tokens").set(tokens as f64);
}

/// Moves jobs from the channel to the queue and keeps the next batch prepared. Ends when the queue is
/// closed or every handle to the channel is gone.
pub(super) async fn prepare_batches(
    shared: Arc<Shared>,
    mut jobs: mpsc::Receiver<Job>,
    limits: BatchLimits,
    closed: CancellationToken,
) {
    loop {
        let arrived = tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => Some(job),
                None => break,
            },
            () = shared.taken.notified() => None,
            () = closed.cancelled() => break,
        };
        let mut state = shared.lock();
        if let Some(job) = arrived {
            state.queue.push(job);
            while let Ok(job) = jobs.try_recv() {
                state.queue.push(job);
            }
            shared.arrived.notify_one();
        }
        state.queue.drop_dead(Instant::now());
        state.prepared = state.queue.plan(&limits);
        publish_depth(&state.queue);
    }
    shared.lock().closed = true;
    shared.arrived.notify_one();
}

/// Starts the thread that owns the engine. It ends when the queue is closed and empty.
///
/// # Errors
/// If the operating system refuses the thread.
pub(super) fn spawn_engine(
    shared: Arc<Shared>,
    mut model: Box<dyn Model>,
    limits: BatchLimits,
    rate: Rate,
) -> std::io::Result<JoinHandle<()>> {
    let mut meter = RateMeter::new(rate, limits.max_tokens);
    std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            while let Some(planned) = next(&shared, &limits) {
                run(&shared, model.as_mut(), &planned, &mut meter);
            }
        })
}

/// The next batch, waiting for one; `None` once the queue is closed and empty.
fn next(shared: &Shared, limits: &BatchLimits) -> Option<Planned> {
    let mut state = shared.lock();
    loop {
        let now = Instant::now();
        state.queue.drop_dead(now);
        let prepared = state.prepared.take();
        let prepared = prepared.filter(|p| p.places.iter().all(|&place| state.queue.holds(place)));
        if let Some(planned) = prepared.or_else(|| state.queue.plan(limits)) {
            for wait in state.queue.take(&planned.places, now) {
                histogram!("rerankd_queue_wait_seconds").record(wait.as_secs_f64());
            }
            publish_depth(&state.queue);
            shared.taken.notify_one();
            return Some(planned);
        }
        publish_depth(&state.queue);
        if state.closed {
            return None;
        }
        state = shared
            .arrived
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

fn run(shared: &Shared, model: &mut dyn Model, planned: &Planned, meter: &mut RateMeter) {
    let start = Instant::now();
    let result = forward(model, &planned.batch);
    let elapsed = start.elapsed();
    meter.record(planned.batch.tokens(), elapsed);
    record(&planned.batch, elapsed);
    match result {
        Ok(outputs) => deliver(shared, &planned.places, outputs),
        // One sequence may have spoilt it for all: score each request by itself.
        Err(error) => run_each(shared, model, planned, &error),
    }
}

fn run_each(shared: &Shared, model: &mut dyn Model, planned: &Planned, error: &EngineError) {
    tracing::error!(%error, sequences = planned.places.len(), "a batch failed; its requests are scored one by one");
    let mut jobs: Vec<u64> = planned.places.iter().map(|place| place.job).collect();
    jobs.sort_unstable();
    jobs.dedup();
    if let [only] = jobs[..] {
        shared
            .lock()
            .queue
            .fail(only, RunError::Engine(error.to_string()));
        return;
    }
    for job in jobs {
        let (positions, places): (Vec<usize>, Vec<Place>) = planned
            .places
            .iter()
            .enumerate()
            .filter(|(_, place)| place.job == job)
            .map(|(i, place)| (i, *place))
            .unzip();
        match forward(model, &planned.batch.select(&positions)) {
            Ok(outputs) => deliver(shared, &places, outputs),
            Err(error) => shared
                .lock()
                .queue
                .fail(job, RunError::Engine(error.to_string())),
        }
    }
}

fn forward(model: &mut dyn Model, batch: &Batch) -> Result<Vec<Output>, EngineError> {
    let outputs = catch_unwind(AssertUnwindSafe(|| model.forward(batch)))
        .unwrap_or_else(|_| Err(EngineError::Panicked))?;
    if outputs.len() == batch.sequences() {
        Ok(outputs)
    } else {
        Err(EngineError::OutputCount {
            sequences: batch.sequences(),
            outputs: outputs.len(),
        })
    }
}

fn deliver(shared: &Shared, places: &[Place], outputs: Vec<Output>) {
    let now = Instant::now();
    let mut state = shared.lock();
    for (&place, output) in places.iter().zip(outputs) {
        state.queue.scored(place, output, now);
    }
}

fn record(batch: &Batch, elapsed: Duration) {
    histogram!("rerankd_inference_seconds").record(elapsed.as_secs_f64());
    histogram!("rerankd_batch_tokens").record(batch.tokens() as f64);
    histogram!("rerankd_batch_pairs").record(batch.sequences() as f64);
    counter!("rerankd_pairs_scored_total").increment(batch.sequences() as u64);
    counter!("rerankd_tokens_scored_total").increment(batch.tokens() as u64);
}
