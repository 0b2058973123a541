//! From sequences to outputs: one queue for each model, and one engine thread for all models of a device.
//!
//! [`Executor`] is the async handle to one model; `models` calls it. `submission` feeds one request to the
//! queue, `queue` holds the waiting sequences, `turns` orders them fairly, `classes` says which class of requests is
//! next, `planner` picks batches, `lane` is one model with its queue, `compute` runs the batches, `rate` measures
//! tokens per second.

mod classes;
mod compute;
mod lane;
pub mod planner;
mod queue;
mod rate;
mod submission;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::types::{Cost, Output, Span};
pub use compute::Compute;
pub use lane::LaneOptions;
pub use planner::BatchLimits;
use rate::Rate;
pub use submission::{Submission, Ticket};

/// Maximum number of one request's tokens in the queue at a time, or [`BATCHES_AHEAD`] batches if that is more:
/// enough for the planner to find sequences of similar length, and few enough that a request of any size needs
/// little memory.
const TOKENS_AHEAD: usize = 16_384;
const BATCHES_AHEAD: usize = 4;

/// Capacity of the channel to the queue, in jobs. `admission` limits the queue's tokens.
const CHANNEL_JOBS: usize = 256;

/// A request's outputs.
#[derive(Debug, Clone)]
pub struct Ran {
    /// One output per sequence, in the sequences' order.
    pub outputs: Vec<Output>,
    /// From submission to the start of the first batch with one of its sequences.
    pub queue: Span,
    /// From there to the end of the last such batch.
    pub inference: Span,
}

/// Why a request has no outputs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// The deadline passed before the request was scored.
    #[error("the deadline passed before the request was scored")]
    DeadlineExceeded,
    /// What is left can't be scored before the deadline.
    #[error("the request would not be scored before its deadline")]
    TooLate {
        /// Engine time for what is left of it.
        needed: Duration,
        /// Engine time for what is left of others that were admitted before.
        ahead: Duration,
    },
    /// The engine failed on the request.
    #[error("{0}")]
    Engine(String),
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
}

/// The async handle to a model's queue; cheap to clone. After the last clone is dropped, the engine scores
/// what still waits and drops the model.
#[derive(Debug, Clone)]
pub struct Executor {
    /// The name that its requests count under.
    name: Arc<str>,
    jobs: mpsc::Sender<queue::Job>,
    requests: Arc<AtomicU64>,
    rate: Rate,
    cost: Cost,
    max_tokens_ahead: usize,
    closed: CancellationToken,
}

impl Executor {
    fn new(
        name: Arc<str>,
        jobs: mpsc::Sender<queue::Job>,
        rate: Rate,
        cost: Cost,
        max_batch_tokens: usize,
        closed: CancellationToken,
    ) -> Self {
        Self {
            name,
            jobs,
            requests: Arc::default(),
            rate,
            cost,
            max_tokens_ahead: TOKENS_AHEAD.max(BATCHES_AHEAD * max_batch_tokens),
            closed,
        }
    }

    /// The same queue, for requests that count under another name.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self {
            name: name.into(),
            ..self.clone()
        }
    }

    /// Begins a request.
    #[must_use]
    pub fn submission(&self, ticket: Ticket) -> Submission {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let most = self.max_tokens_ahead;
        let name = Arc::clone(&self.name);
        Submission::new(name, self.jobs.clone(), request, ticket, most, self.cost)
    }

    /// Closes the queue: what waits is still scored, later requests are refused.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// What a sequence costs, by its length.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The engine's recent rate for this model, in tokens per second, where a token is one that sees no others.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        self.rate.tokens_per_second()
    }
}
