//! One request on its way through the queue: its pairs go in piece by piece, so that a large request
//! never has more in the queue than its share, and come out as logits in the pairs' order.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::types::{Caller, EncodedPair, Logit};

use super::queue::{Job, JobLogits};
use super::{ScoreError, Scored};

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
    logits: Vec<Logit>,
    first: Option<(Instant, Instant)>,
    ended: Option<Instant>,
}

#[derive(Debug)]
struct Piece {
    tokens: usize,
    reply: oneshot::Receiver<Result<JobLogits, ScoreError>>,
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
            logits: Vec::new(),
            first: None,
            ended: None,
        }
    }

    /// Adds pairs, once the request has room for them in the queue.
    ///
    /// # Errors
    /// If an earlier piece failed, or the engine has stopped.
    pub async fn push(&mut self, pairs: Vec<EncodedPair>) -> Result<(), ScoreError> {
        let tokens: usize = pairs.iter().map(EncodedPair::len).sum();
        while !self.pieces.is_empty() && self.queued_tokens + tokens > self.max_tokens {
            self.receive().await?;
        }
        if pairs.is_empty() {
            return Ok(());
        }
        let (reply, receiver) = oneshot::channel();
        let job = Job {
            caller: self.ticket.caller.clone(),
            request: self.request,
            pairs,
            submitted: Instant::now(),
            deadline: self.ticket.deadline,
            reply,
        };
        self.jobs.send(job).await.map_err(|_| ScoreError::Stopped)?;
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
    /// See [`ScoreError`].
    pub async fn finish(mut self) -> Result<Scored, ScoreError> {
        while !self.pieces.is_empty() {
            self.receive().await?;
        }
        let now = Instant::now();
        let (submitted, started) = self.first.unwrap_or((now, now));
        let ended = self.ended.unwrap_or(now);
        Ok(Scored {
            logits: self.logits,
            queue_wait: started.saturating_duration_since(submitted),
            inference: ended.saturating_duration_since(started),
        })
    }

    /// Waits for the oldest piece.
    async fn receive(&mut self) -> Result<(), ScoreError> {
        let Some(piece) = self.pieces.front_mut() else {
            return Ok(());
        };
        let answer = (&mut piece.reply).await;
        let tokens = piece.tokens;
        self.pieces.pop_front();
        let piece = answer.unwrap_or(Err(ScoreError::Stopped))?;
        self.queued_tokens -= tokens;
        self.scored_tokens += tokens;
        self.logits.extend(piece.logits);
        self.first.get_or_insert((piece.submitted, piece.started));
        self.ended = self.ended.max(Some(piece.ended));
        Ok(())
    }
}
