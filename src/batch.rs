//! From encoded pairs to logits: one queue for all clients, batches from it, one engine.
//!
//! [`Scorer`] is the async handle; `rerank` calls it. `queue` holds what waits, `planner` picks
//! batches, `worker` runs them.

pub mod planner;
mod queue;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::engine::CrossEncoder;
use crate::types::{EncodedPair, Logit};
pub use planner::BatchLimits;

/// Requests on their way to the queue; the queue itself is bounded in tokens by `admission`.
const CHANNEL_JOBS: usize = 256;

/// A request's logits.
#[derive(Debug, Clone)]
pub struct Scored {
    /// One logit per pair, in the pairs' order.
    pub logits: Vec<Logit>,
    /// From submission to the start of the first batch that held one of its pairs.
    pub queue_wait: Duration,
    /// From there to the end of the last one.
    pub inference: Duration,
}

/// Why a request has no logits.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ScoreError {
    /// Its deadline passed before it was scored.
    #[error("the deadline passed before the request was scored")]
    DeadlineExceeded,
    /// The model gave NaN or an infinity.
    #[error("the logit of document {document} is not finite")]
    NotFinite {
        /// The document's index.
        document: usize,
    },
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
pub struct Scorer {
    jobs: mpsc::Sender<queue::Job>,
}

impl Scorer {
    /// Starts queue and engine. The engine thread ends once every [`Scorer`] is dropped and the
    /// queue is empty.
    ///
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn start(
        model: Box<dyn CrossEncoder>,
        limits: BatchLimits,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(worker::Shared::default());
        let (jobs, receiver) = mpsc::channel(CHANNEL_JOBS);
        let engine = worker::spawn_engine(Arc::clone(&shared), model, limits)?;
        tokio::spawn(worker::prepare_batches(shared, receiver, limits));
        Ok((Self { jobs }, engine))
    }

    /// Scores a request's pairs. Dropping the future cancels what is not yet scored.
    ///
    /// # Errors
    /// See [`ScoreError`].
    pub async fn score(
        &self,
        pairs: Vec<EncodedPair>,
        deadline: Instant,
    ) -> Result<Scored, ScoreError> {
        if pairs.is_empty() {
            return Ok(Scored {
                logits: Vec::new(),
                queue_wait: Duration::ZERO,
                inference: Duration::ZERO,
            });
        }
        let (reply, receiver) = oneshot::channel();
        let job = queue::Job {
            pairs,
            submitted: Instant::now(),
            deadline,
            reply,
        };
        self.jobs.send(job).await.map_err(|_| ScoreError::Stopped)?;
        receiver.await.unwrap_or(Err(ScoreError::Stopped))
    }
}
