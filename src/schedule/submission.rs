//! One request in the queue. Its sequences go in piece by piece, so that a large request never has more than
//! its share in the queue, and its outputs come out in the sequences' order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::types::{Cost, Output, Sequence, Span, Standing};

use super::queue::{Job, JobOutputs};
use super::{Ran, RunError};

/// What the queue needs to know about a request.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// What its share of the engine goes by.
    pub standing: Standing,
    /// The time after which it is not scored any more.
    pub deadline: Instant,
}

/// A request's pieces in the queue. Dropping it cancels the remaining work.
#[derive(Debug)]
pub struct Submission {
    name: Arc<str>,
    jobs: mpsc::Sender<Job>,
    ticket: Ticket,
    request: u64,
    /// Maximum number of tokens in the queue at a time; a single piece may exceed it.
    max_tokens: usize,
    pieces: VecDeque<Piece>,
    queued_tokens: usize,
    cost_of: Cost,
    /// What its sequences cost, and those that were scored.
    cost: f64,
    scored: f64,
    outputs: Vec<Output>,
    first: Option<(Instant, Instant)>,
    ended: Option<Instant>,
}

#[derive(Debug)]
struct Piece {
    tokens: usize,
    cost: f64,
    reply: oneshot::Receiver<Result<JobOutputs, RunError>>,
}

impl Submission {
    pub(super) fn new(
        name: Arc<str>,
        jobs: mpsc::Sender<Job>,
        request: u64,
        ticket: Ticket,
        max_tokens: usize,
        cost_of: Cost,
    ) -> Self {
        Self {
            name,
            jobs,
            ticket,
            request,
            max_tokens,
            pieces: VecDeque::new(),
            queued_tokens: 0,
            cost_of,
            cost: 0.0,
            scored: 0.0,
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
        let costs = sequences.iter().map(|sequence| {
            // What they begin with alike is computed for the first only, as far as can be told here.
            let is_first = self.cost == 0.0;
            let known = if is_first {
                0
            } else {
                sequence.shared_prefix()
            };
            let cost = self.cost_of.of(known, sequence.len());
            self.cost += cost;
            cost
        });
        let cost = costs.sum();
        let (reply, receiver) = oneshot::channel();
        let job = Job {
            name: Arc::clone(&self.name),
            standing: self.ticket.standing.clone(),
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
            cost,
            reply: receiver,
        });
        Ok(())
    }

    /// The outputs that have come since the last call, in the sequences' order.
    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Waits for the oldest piece in the queue, and tells whether there was one.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn wait(&mut self) -> Result<bool, RunError> {
        let is_one = !self.pieces.is_empty();
        self.receive().await?;
        Ok(is_one)
    }

    /// What all sequences so far cost.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.cost
    }

    /// What those of them cost that were not scored yet.
    #[must_use]
    pub fn left(&self) -> f64 {
        (self.cost - self.scored).max(0.0)
    }

    /// Waits for the pieces in the queue and returns all outputs that were not taken.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn finish(mut self) -> Result<Ran, RunError> {
        while !self.pieces.is_empty() {
            self.receive().await?;
        }
        let (queue, inference) = match (self.first, self.ended) {
            (Some((submitted, started)), Some(ended)) => {
                (Span::of(submitted, started), Span::of(started, ended))
            }
            _ => (Span::default(), Span::default()),
        };
        Ok(Ran {
            outputs: self.outputs,
            queue,
            inference,
        })
    }

    /// Waits for the oldest piece.
    async fn receive(&mut self) -> Result<(), RunError> {
        let Some(piece) = self.pieces.front_mut() else {
            return Ok(());
        };
        let answer = (&mut piece.reply).await;
        let (tokens, cost) = (piece.tokens, piece.cost);
        self.pieces.pop_front();
        let piece = answer.unwrap_or(Err(RunError::Stopped))?;
        self.queued_tokens -= tokens;
        self.scored += cost;
        self.outputs.extend(piece.outputs);
        self.first.get_or_insert((piece.submitted, piece.started));
        self.ended = self.ended.max(Some(piece.ended));
        Ok(())
    }
}
