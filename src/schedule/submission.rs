//! One request on its way through the queue: its sequences go in piece by piece, so that a large request
//! never has more in the queue than its share, and come out as outputs in the sequences' order.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::types::{Caller, Output, Sequence};

use super::queue::{Job, JobOutputs};
use super::{Ran, RunError};

/// What the queue must know of a request.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Who sent it.
    pub caller: Caller,
    /// When its answer is of no use any more.
    pub deadline: Instant,
}

/// A request's pieces in the queue. Dropping it cancels what is not yet scored.
#[derive(Debug)]
pub struct Submission {
    jobs: mpsc::Sender<Job>,
    ticket: Ticket,
    request: u64,
    /// Most tokens that the request may have in the queue at a time; a single piece may exceed it.
    max_tokens: usize,
    pieces: VecDeque<Piece>,
    queued_tokens: usize,
    scored_tokens: usize,
    outputs: Vec<Output>,
    first: Option<(Instant, Instant)>,
    ended: Option<Instant>,
}

#[derive(Debug)]
struct Piece {
    tokens: usize,
    reply: oneshot::Receiver<Result<JobOutputs, RunError>>,
}

impl Submission {
    pub(super) fn new(
        jobs: mpsc::Sender<Job>,
        request: u64,
        ticket: Ticket,
        max_tokens: usize,
    ) -> Self {
        Self {
            jobs,
            ticket,
            request,
            max_tokens,
            pieces: VecDeque::new(),
            queued_tokens: 0,
            scored_tokens: 0,
            outputs: Vec::new(),
            first: None,
            ended: None,
        }
    }

    /// Adds sequences, once the request has room for them in the queue.
    ///
    /// # Errors
    /// If an earlier piece failed, or the engine has stopped.
    pub async fn push(&mut self, sequences: Vec<Sequence>) -> Result<(), RunError> {
        let tokens: usize = sequences.iter().map(Sequence::len).sum();
        while !self.pieces.is_empty() && self.queued_tokens + tokens > self.max_tokens {
            self.receive().await?;
        }
        if sequences.is_empty() {
            return Ok(());
        }
        let (reply, receiver) = oneshot::channel();
        let job = Job {
            caller: self.ticket.caller.clone(),
            request: self.request,
            sequences,
            submitted: Instant::now(),
            deadline: self.ticket.deadline,
            reply,
        };
        self.jobs.send(job).await.map_err(|_| RunError::Stopped)?;
        self.queued_tokens += tokens;
        self.pieces.push_back(Piece {
            tokens,
            reply: receiver,
        });
        Ok(())
    }

    /// Tokens that have been scored.
    #[must_use]
    pub fn scored_tokens(&self) -> usize {
        self.scored_tokens
    }

    /// Waits for what is still in the queue.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn finish(mut self) -> Result<Ran, RunError> {
        while !self.pieces.is_empty() {
            self.receive().await?;
        }
        let now = Instant::now();
        let (submitted, started) = self.first.unwrap_or((now, now));
        let ended = self.ended.unwrap_or(now);
        Ok(Ran {
            outputs: self.outputs,
            queue_wait: started.saturating_duration_since(submitted),
            inference: ended.saturating_duration_since(started),
        })
    }

    /// Waits for the oldest piece.
    async fn receive(&mut self) -> Result<(), RunError> {
        let Some(piece) = self.pieces.front_mut() else {
            return Ok(());
        };
        let answer = (&mut piece.reply).await;
        let tokens = piece.tokens;
        self.pieces.pop_front();
        let piece = answer.unwrap_or(Err(RunError::Stopped))?;
        self.queued_tokens -= tokens;
        self.scored_tokens += tokens;
        self.outputs.extend(piece.outputs);
        self.first.get_or_insert((piece.submitted, piece.started));
        self.ended = self.ended.max(Some(piece.ended));
        Ok(())
    }
}
