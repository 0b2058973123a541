//! From sequences to outputs: a queue for each model, batches from it, one engine for all models of a device.
//!
//! [`Executor`] is a model's async handle; `models` calls it. `submission` is one request on its way, `queue`
//! holds what waits, `turns` says whose turn it is, `planner` picks batches, `lane` is one model's part,
//! `compute` runs the batches, `rate` measures how fast.

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

use crate::types::Output;
pub use compute::Compute;
pub use lane::LaneOptions;
pub use planner::BatchLimits;
use rate::Rate;
pub use submission::{Submission, Ticket};

/// Tokens of one request that may wait in the queue at a time, or as many batches where those hold more:
/// enough that the planner always finds sequences of like length, few enough that a request of any size
/// needs little memory.
const TOKENS_AHEAD: usize = 16_384;
const BATCHES_AHEAD: usize = 4;

/// Jobs on their way to the queue; the queue itself is bounded in tokens by `admission`.
const CHANNEL_JOBS: usize = 256;

/// A request's outputs.
#[derive(Debug, Clone)]
pub struct Ran {
    /// one output per sequence, in the sequences' order.
    pub outputs: Vec<Output>,
    /// From submission to the start of the first batch that held one of its sequences.
    pub queue_wait: Duration,
    /// From there to the end of the last one.
    pub inference: Duration,
}

/// Why a request has no outputs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// Its deadline passed before it was scored.
    #[error("the deadline passed before the request was scored")]
    DeadlineExceeded,
    /// The engine failed on it.
    #[error("{0}")]
    Engine(String),
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
}

/// The async handle to queue and engine; cheap to clone. When the last clone is dropped, the
/// engine scores what still waits and stops.
#[derive(Debug, Clone)]
pub struct Executor {
    jobs: mpsc::Sender<queue::Job>,
    requests: Arc<AtomicU64>,
    rate: Rate,
    max_tokens_ahead: usize,
    closed: CancellationToken,
}

impl Executor {
    fn new(
        jobs: mpsc::Sender<queue::Job>,
        rate: Rate,
        max_batch_tokens: usize,
        closed: CancellationToken,
    ) -> Self {
        Self {
            jobs,
            requests: Arc::default(),
            rate,
            max_tokens_ahead: TOKENS_AHEAD.max(BATCHES_AHEAD * max_batch_tokens),
            closed,
        }
    }

    /// Begins a request.
    #[must_use]
    pub fn submission(&self, ticket: Ticket) -> Submission {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        Submission::new(self.jobs.clone(), request, ticket, self.max_tokens_ahead)
    }

    /// Closes the queue: what waits is still scored, and nothing more is taken.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// How many tokens a second the engine scores of late.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        self.rate.tokens_per_second()
    }
}
