//! One admitted request: its permit, its deadline and its cost so far.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::counter;

use crate::admission::{Demand, Permit};
use crate::models::{ScoreError, Served};
use crate::schedule::Ticket;
use crate::scoring::{FitOverrides, Pairing, Texts};
use crate::types::{Caller, RawScore};

use super::round::Round;
use super::{Cost, RerankError, Reranker, refused};

/// From this many bytes of documents on, a round is prepared off the async workers.
const LARGE: usize = 64 << 10;

/// An admitted request.
#[derive(Debug)]
pub(super) struct Session<'a> {
    reranker: &'a Reranker,
    ticket: Ticket,
    permit: Permit,
    pub(super) started: Instant,
    pub(super) cost: Cost,
}

/// A request's texts, of which each round takes some.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) queries: Arc<[Arc<str>]>,
    pub(super) pairing: Pairing,
    pub(super) documents: Arc<[String]>,
    pub(super) fit: FitOverrides,
}

impl Asked {
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
        let texts = Texts {
            queries: Arc::clone(&self.queries),
            pairing: self.pairing,
            documents,
            fit: served.options().fit.with(&self.fit),
        };
        let bytes: usize = texts.documents.iter().map(String::len).sum();
        let (served, cache) = (Arc::clone(served), reranker.cache.clone());
        if bytes < LARGE {
            return Round::new(served, &texts, cache.as_deref());
        }
        // Hashing megabytes would block the async worker.
        let round = move || Round::new(served, &texts, cache.as_deref());
        let round = tokio::task::spawn_blocking(round).await;
        round.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

impl<'a> Session<'a> {
    /// Admits a request, or refuses it whole. `first` is its first round, `later` the estimated engine time of
    /// the rounds after it.
    pub(super) fn admit(
        reranker: &'a Reranker,
        caller: &Caller,
        first: &Round,
        later: Duration,
        documents: usize,
    ) -> Result<Self, RerankError> {
        let (started, timeout) = (Instant::now(), reranker.limits.request_timeout);
        let demand = Demand {
            tokens: first.tokens(),
            work: first.work() + later,
            bytes: first.bytes(),
        };
        let permit = reranker.admission.admit(caller, demand, timeout);
        Ok(Self {
            reranker,
            ticket: Ticket {
                caller: caller.clone(),
                deadline: started + timeout,
            },
            permit: permit.map_err(refused)?,
            started,
            cost: Cost {
                documents,
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
    ) -> Result<(Vec<RawScore>, Vec<bool>), ScoreError> {
        let permit = &mut self.permit;
        let mut progress = |left: Duration| permit.settle(left + later);
        let cache = self.reranker.cache.as_deref();
        let outcome = round.run(self.ticket.clone(), &mut progress, cache).await?;
        let truncated = outcome.truncated.iter().filter(|&&is| is).count();
        counter!("rerankd_truncated_documents_total").increment(truncated as u64);
        let (cost, timings) = (&mut self.cost, outcome.timings);
        cost.tokens += outcome.tokens;
        cost.truncated = cost.truncated.max(truncated);
        cost.timings.tokenize += timings.tokenize;
        cost.timings.queue += timings.queue;
        cost.timings.inference += timings.inference;
        Ok((outcome.raw, outcome.truncated))
    }
}
