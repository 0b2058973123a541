//! The engine thread of a device, which runs the batches of all its models in turns. An async task for each
//! model prepares its next batch.
//!
//! While the engine runs one batch, the next is planned and packed. A request that arrives meanwhile causes a
//! new plan, so that it need not wait for a batch planned without it. There is no timer: an idle engine starts
//! at once. Models that have work share the engine's time by their weights; a model without work costs nothing.
//! Interactive work of any model goes before batch work of any (see `classes`).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::{EngineError, Model};
use crate::types::{Batch, Output, Priority};

use super::classes::Classes;
use super::lane::{Lane, LaneOptions};
use super::queue::{Job, Place, Planned};
use super::rate::Rate;
use super::turns::Turns;
use super::{CHANNEL_JOBS, Executor, RunError};

/// A handle to a device's engine thread, which all models on the device share; cheap to clone. The thread ends
/// once every clone is dropped, or [`Compute::close`] was called, and every model is closed and has nothing
/// waiting.
#[derive(Debug, Clone)]
pub struct Compute(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The executors keep the thread running until they are dropped too.
        self.shared.lock().closed = true;
        self.shared.arrived.notify_one();
    }
}

#[derive(Default)]
struct State {
    lanes: BTreeMap<u64, Lane>,
    /// The models with work of each class.
    turns: [Turns; 2],
    classes: Classes,
    next: u64,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug, but the state is whole between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a batch, of sequences at these places, as long as anybody waits for one of them.
    fn forward(
        &self,
        id: u64,
        model: &mut dyn Model,
        batch: &Batch,
        places: &[Place],
    ) -> Result<Vec<Output>, EngineError> {
        let is_wanted = || {
            let state = self.lock();
            let lane = state.lanes.get(&id);
            lane.is_some_and(|lane| lane.queue.is_wanted(places, Instant::now()))
        };
        forward(model, batch, &is_wanted)
    }
}

impl State {
    /// Lets a model take turns if it has something waiting, and only then.
    fn update_turns(&mut self, id: u64) {
        let lane = self.lanes.get(&id);
        for (priority, turns) in Priority::ALL.into_iter().zip(&mut self.turns) {
            match lane {
                Some(lane) if lane.queue.waits(priority) => turns.join(id),
                _ => turns.leave(id),
            }
        }
    }

    /// The class and the model whose turn it is, and whether the other class waits too.
    fn next(&self) -> Option<(Priority, u64, bool)> {
        let [interactive, batch] = self.turns.each_ref().map(Turns::first);
        Some(match (interactive, batch) {
            (Some(interactive), Some(batch)) => {
                let full = self.lanes.get(&batch).map_or(0.0, Lane::full_batch);
                let priority = self.classes.next(full);
                (priority, [interactive, batch][priority as usize], true)
            }
            (Some(id), None) => (Priority::Interactive, id, false),
            (None, Some(id)) => (Priority::Batch, id, false),
            (None, None) => return None,
        })
    }

    /// Takes the next batch of the model whose turn it is.
    fn take(&mut self) -> Option<Taken> {
        let now = Instant::now();
        let ids: Vec<u64> = self.lanes.keys().copied().collect();
        for id in ids {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.drop_dead(now);
            }
            self.update_turns(id);
        }
        let (priority, id, both_wait) = self.next()?;
        let lane = self.lanes.get_mut(&id)?;
        let planned = lane.take(priority, now)?;
        let model = lane.model.take()?;
        let cost = model.batch_cost(&planned.batch);
        let seconds = lane.seconds(cost);
        self.classes.serve(priority, seconds, both_wait);
        self.turns[priority as usize].serve(id, lane.turn(cost));
        self.update_turns(id);
        Some(Taken {
            id,
            planned,
            model,
            cost,
        })
    }

    /// Removes the models that are closed and have nothing waiting.
    fn remove_closed(&mut self) -> Vec<Lane> {
        let gone = |lane: &Lane| lane.closed && lane.queue.is_empty();
        let ids = self.lanes.iter().filter(|(_, lane)| gone(lane));
        let ids: Vec<u64> = ids.map(|(&id, _)| id).collect();
        let lanes = ids.into_iter().filter_map(|id| {
            self.turns.iter_mut().for_each(|turns| turns.leave(id));
            self.lanes.remove(&id)
        });
        lanes.collect()
    }
}

/// A batch with its model, taken to be run.
struct Taken {
    id: u64,
    planned: Planned,
    model: Box<dyn Model>,
    cost: f64,
}

impl Compute {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the operating system refuses it.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || run_all(&of_thread))?;
        Ok(Self(Arc::new(Handle {
            shared,
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Gives a model to the thread, which drops it once every clone of the [`Executor`] and every request to
    /// it is dropped. Must be called within a tokio runtime.
    #[must_use]
    pub fn add(&self, model: Box<dyn Model>, options: &LaneOptions) -> Executor {
        let rate = Rate::new(options.tokens_per_second);
        let cost = model.cost();
        let lane = Lane::new(model, options, rate.clone());
        let (jobs, receiver) = mpsc::channel(CHANNEL_JOBS);
        let closed = CancellationToken::new();
        let id = {
            let mut state = self.0.shared.lock();
            let id = state.next;
            state.next += 1;
            state.lanes.insert(id, lane);
            id
        };
        let shared = Arc::clone(&self.0.shared);
        tokio::spawn(prepare_batches(shared, id, receiver, closed.clone()));
        let name = Arc::clone(&options.name);
        Executor::new(name, jobs, rate, cost, options.limits.max_tokens, closed)
    }

    /// Lets the thread end once everything that waits has run.
    pub fn close(&self) {
        let mut state = self.0.shared.lock();
        state.closed = true;
        self.0.shared.arrived.notify_one();
    }

    /// Waits until the thread has ended. Blocks; only the first call waits.
    pub fn join(&self) {
        let mut thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It catches what models do; were it to panic, there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

/// Moves jobs from the channel to the model's queue and keeps its next batch prepared. Ends when the model
/// is closed or every sender is dropped.
async fn prepare_batches(
    shared: Arc<Shared>,
    id: u64,
    mut jobs: mpsc::Receiver<Job>,
    closed: CancellationToken,
) {
    let taken = shared.lock().lanes.get(&id).map(|lane| lane.taken.clone());
    while let Some(taken) = &taken {
        let arrived = tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => Some(job),
                None => break,
            },
            () = taken.notified() => None,
            () = closed.cancelled() => break,
        };
        let mut state = shared.lock();
        let Some(lane) = state.lanes.get_mut(&id) else {
            return;
        };
        let more = std::iter::from_fn(|| jobs.try_recv().ok());
        lane.prepare(arrived.into_iter().chain(more));
        state.update_turns(id);
        // Needed even if only a batch was taken: jobs may have come meanwhile while the engine waits.
        shared.arrived.notify_one();
    }
    if let Some(lane) = shared.lock().lanes.get_mut(&id) {
        lane.closed = true;
    }
    shared.arrived.notify_one();
}

/// The thread: runs batches until there are neither models nor handles.
fn run_all(shared: &Shared) {
    loop {
        let mut state = shared.lock();
        let taken = loop {
            if let Some(taken) = state.take() {
                break taken;
            }
            let gone = state.remove_closed();
            if !gone.is_empty() {
                // Freeing a model's memory may take a while.
                drop(state);
                drop(gone);
                state = shared.lock();
                continue;
            }
            if state.closed && state.lanes.is_empty() {
                return;
            }
            let wait = shared.arrived.wait(state);
            state = wait.unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        run(shared, taken);
    }
}

fn run(shared: &Shared, taken: Taken) {
    let Taken {
        id,
        planned,
        mut model,
        cost,
    } = taken;
    let places = &planned.places;
    let start = Instant::now();
    let result = shared.forward(id, model.as_mut(), &planned.batch, places);
    let elapsed = start.elapsed();
    // Before the answers, so that whoever has one finds it counted.
    if let Some(lane) = shared.lock().lanes.get_mut(&id) {
        match &result {
            Err(EngineError::Unwanted) => lane.record_stopped(),
            _ => lane.record(&planned, cost, elapsed),
        }
    }
    match result {
        Ok(outputs) => deliver(shared, id, places, outputs),
        // Its jobs are dropped before the next batch is taken.
        Err(EngineError::Unwanted) => {}
        // One sequence may have caused the error: run each request by itself.
        Err(error) => run_each(shared, id, model.as_mut(), &planned, &error),
    }
    if let Some(lane) = shared.lock().lanes.get_mut(&id) {
        lane.model = Some(model);
    }
}

fn run_each(
    shared: &Shared,
    id: u64,
    model: &mut dyn Model,
    planned: &Planned,
    error: &EngineError,
) {
    tracing::error!(%error, pairs = planned.places.len(), "a batch failed; its requests are scored one by one");
    let mut jobs: Vec<u64> = planned.places.iter().map(|place| place.job).collect();
    jobs.sort_unstable();
    jobs.dedup();
    let fail = |job: u64, error: &EngineError| {
        if let Some(lane) = shared.lock().lanes.get_mut(&id) {
            lane.queue.fail(job, RunError::Engine(error.to_string()));
        }
    };
    if let [only] = jobs[..] {
        fail(only, error);
        return;
    }
    for job in jobs {
        let places = planned.places.iter().enumerate();
        let own = places.filter(|(_, place)| place.job == job);
        let (positions, places): (Vec<usize>, Vec<Place>) =
            own.map(|(i, place)| (i, *place)).unzip();
        let batch = planned.batch.select(&positions);
        match shared.forward(id, model, &batch, &places) {
            Err(EngineError::Unwanted) => {}
            Ok(outputs) => deliver(shared, id, &places, outputs),
            Err(error) => fail(job, &error),
        }
    }
}

/// Runs a batch as long as it is wanted.
fn forward(
    model: &mut dyn Model,
    batch: &Batch,
    is_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Output>, EngineError> {
    let run = AssertUnwindSafe(|| model.forward_while(batch, is_wanted));
    let outputs = catch_unwind(run).unwrap_or_else(|_| {
        model.reset();
        Err(EngineError::Panicked)
    })?;
    if outputs.len() == batch.sequences() {
        Ok(outputs)
    } else {
        Err(EngineError::OutputCount {
            sequences: batch.sequences(),
            outputs: outputs.len(),
        })
    }
}

fn deliver(shared: &Shared, id: u64, places: &[Place], outputs: Vec<Output>) {
    let now = Instant::now();
    let mut state = shared.lock();
    let Some(lane) = state.lanes.get_mut(&id) else {
        return;
    };
    for (&place, output) in places.iter().zip(outputs) {
        lane.queue.scored(place, output, now);
    }
}

#[cfg(test)]
mod tests;
