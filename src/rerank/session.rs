//! One admitted request: its permit, its deadline and its cost so far.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::counter;

use crate::admission::{Demand, Permit};
use crate::models::{ScoreError, Served};
use crate::schedule::{RunError, Ticket};
use crate::scoring::{FitOverrides, Pairing, Texts};
use crate::types::{Priority, Terms};

use super::round::{Outcome, Round};
use super::{Cost, RerankError, Reranker, refused};

/// From this many bytes of texts on, what is made of them is made off the async workers.
const LARGE: usize = 64 << 10;

/// An admitted request.
#[derive(Debug)]
pub(super) struct Session<'a> {
    reranker: &'a Reranker,
    ticket: Ticket,
    permit: Permit,
    /// Estimated engine time of what comes after the ranking.
    pub(super) afterwards: Duration,
    pub(super) started: Instant,
    /// How long it may take.
    pub(super) time: Time,
    pub(super) cost: Cost,
}

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    /// All of it.
    pub(super) limit: Duration,
    pub(super) deadline: Instant,
    /// Whether that is how long its client waits, and not the server's limit.
    pub(super) is_own: bool,
}

impl Time {
    /// Of a request that is to be admitted now.
    pub(super) fn of(reranker: &Reranker, terms: &Terms) -> Self {
        let limit = reranker.limits.request_timeout;
        let deadline = Instant::now() + limit;
        match terms.deadline.filter(|own| own.at < deadline) {
            Some(own) => Self {
                limit: own.timeout,
                deadline: own.at,
                is_own: true,
            },
            None => Self {
                limit,
                deadline,
                is_own: false,
            },
        }
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// A request's texts, of which each round takes some.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) queries: Arc<[Arc<str>]>,
    pub(super) pairing: Pairing,
    pub(super) documents: Arc<[String]>,
    pub(super) fit: FitOverrides,
    /// What the request says of the task, for models that take an instruction.
    pub(super) instruction: Option<Arc<str>>,
    /// Whether the score cache is used, and the cache of vectors filled.
    pub(super) is_cached: bool,
}

impl Asked {
    /// What a model is to score of it, with these documents.
    pub(super) fn texts(&self, served: &Served, documents: Arc<[String]>) -> Texts {
        Texts {
            queries: Arc::clone(&self.queries),
            pairing: self.pairing,
            documents,
            fit: served.options().fit.with(&self.fit),
            instruction: self.instruction_for(served),
            is_kept: self.is_cached,
        }
    }

    /// The instruction, if the model takes one.
    fn instruction_for(&self, served: &Served) -> Option<Arc<str>> {
        let instruction = self.instruction.clone();
        instruction.filter(|text| !text.is_empty() && served.info().takes_instruction())
    }

    /// A round with some of the documents, or with all if `some` is `None`.
    pub(super) async fn round(
        &self,
        reranker: &Reranker,
        served: &Arc<Served>,
        some: Option<&[usize]>,
    ) -> Round {
        let documents = match some {
            None => Arc::clone(&self.documents),
            Some(some) => some.iter().map(|&i| self.documents[i].clone()).collect(),
        };
        let texts = self.texts(served, documents);
        let bytes: usize = texts.documents.iter().map(String::len).sum();
        let cache = reranker.cache.clone().filter(|_| self.is_cached);
        let served = Arc::clone(served);
        prepared(bytes, move || Round::new(served, &texts, cache.as_deref())).await
    }
}

/// What `prepare` makes of so many bytes of texts. Hashing or cutting megabytes would block the async worker.
pub(super) async fn prepared<T: Send + 'static>(
    bytes: usize,
    prepare: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes < LARGE {
        return prepare();
    }
    let prepared = tokio::task::spawn_blocking(prepare).await;
    prepared.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

impl<'a> Session<'a> {
    /// Admits a request, or refuses it whole.
    pub(super) fn admit(
        reranker: &'a Reranker,
        terms: &Terms,
        asked: Option<Priority>,
        demand: Demand,
        documents: usize,
    ) -> Result<Self, RerankError> {
        // The tokens are estimated, and may be half of that.
        let is_above = |&most: &u64| demand.tokens as u64 / 2 > most;
        if let Some(most) = terms.most_tokens.filter(is_above) {
            let tokens = demand.tokens;
            return Err(RerankError::AboveLimit { tokens, most });
        }
        let started = Instant::now();
        let time = Time::of(reranker, terms);
        let standing = terms.standing(asked);
        let left = match time.is_own {
            true => time.left(),
            false => time.limit,
        };
        let admission = &reranker.admission;
        let permit = admission.admit(&standing, demand, left, time.is_own);
        Ok(Self {
            reranker,
            time,
            ticket: Ticket {
                standing,
                deadline: time.deadline,
            },
            permit: permit.map_err(refused)?,
            afterwards: Duration::ZERO,
            started,
            cost: Cost {
                documents,
                admitted: Some(started),
                ..Cost::default()
            },
        })
    }

    /// Runs a round; `later` is the estimated engine time of the rounds after it. Returns raw scores
    /// `[documents x queries]`, document by document, and whether each document was truncated.
    pub(super) async fn run(
        &mut self,
        round: Round,
        later: Duration,
    ) -> Result<Outcome, ScoreError> {
        counter!("rerankd_repeated_documents_total").increment(round.repeated() as u64);
        let outcome = self.run_apart(round, later).await?;
        let truncated = outcome.truncated.iter().filter(|&&is| is).count();
        counter!("rerankd_truncated_documents_total").increment(truncated as u64);
        self.cost.truncated = self.cost.truncated.max(truncated);
        Ok(outcome)
    }

    /// As [`Session::run`], with documents that are not the request's own: it does not count which are
    /// repeated or truncated.
    pub(super) async fn run_apart(
        &mut self,
        round: Round,
        later: Duration,
    ) -> Result<Outcome, ScoreError> {
        let (permit, later) = (&mut self.permit, later + self.afterwards);
        let deadline = self.ticket.deadline;
        let mut progress = |left: Duration| {
            permit.settle(left + later);
            let until = deadline.saturating_duration_since(Instant::now());
            match permit.late(left + later, until) {
                Some(ahead) => Err(RunError::TooLate {
                    needed: left + later,
                    ahead,
                }),
                None => Ok(()),
            }
        };
        let cache = self.reranker.cache.as_deref();
        self.cost.model = Some(round.model());
        let outcome = round.run(self.ticket.clone(), &mut progress, cache).await?;
        self.cost.pairs += outcome.raw.len();
        self.cost.tokens += outcome.tokens;
        self.cost.timings = self.cost.timings.then(outcome.timings);
        Ok(outcome)
    }
}
