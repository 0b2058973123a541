//! The use case: admit, score, rank. Called by `http`, the CLI and the benchmark.

mod ask;

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::counter;

pub use crate::admission::Refused;
pub use crate::models::{ModelError, ScoreError, Timings};

use crate::admission::{Admission, Demand, work};
use crate::models::{Models, Scored, Served};
use crate::schedule::{RunError, Ticket};
use crate::scoring::{Pairing, Texts};
use crate::types::{Activation, Caller};
pub use ask::{
    Answer, Ask, Combine, Cost, Limits, PairsAnswer, PairsAsk, Queries, Stage, StageDone,
};

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RerankError {
    /// There is no such model, or not yet.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The query has no text.
    #[error("the query is empty")]
    EmptyQuery,
    /// Neither one query nor as many as documents.
    #[error(
        "{queries} queries and {documents} documents: there must be one query, or one for each document"
    )]
    Unpaired {
        /// Queries in the request.
        queries: usize,
        /// Documents in the request.
        documents: usize,
    },
    /// There is nothing to rank.
    #[error("there are no documents to rank")]
    NoDocuments,
    /// More documents than the limit.
    #[error("{documents} documents, but at most {max} are allowed in one request")]
    TooManyDocuments {
        /// Documents in the request.
        documents: usize,
        /// The limit.
        max: usize,
    },
    /// There is no room for it now, or it could never be answered in time.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The deadline passed.
    #[error("the request was not answered within {} ms", .0.as_millis())]
    DeadlineExceeded(Duration),
    /// The documents can't be scored.
    #[error(transparent)]
    Score(#[from] ScoreError),
}

/// Answers requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reranker {
    limits: Limits,
    admission: Admission,
    models: Models,
}

impl Reranker {
    /// Puts the stages together.
    #[must_use]
    pub fn new(limits: Limits, admission: Admission, models: Models) -> Self {
        Self {
            limits,
            admission,
            models,
        }
    }

    /// The models.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// The server's limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Refuses a request that there will be no room for, before its body of so many bytes is read.
    ///
    /// # Errors
    /// [`RerankError::Refused`].
    pub fn check_room(&self, caller: &Caller, bytes: usize) -> Result<(), RerankError> {
        self.admission.check(caller, bytes).map_err(refused)
    }

    /// Ranks documents. Dropping the future cancels what is not yet done.
    ///
    /// # Errors
    /// See [`RerankError`].
    pub async fn rerank(&self, ask: &Ask, caller: &Caller) -> Result<Answer, RerankError> {
        let Queries::One(query) = &ask.queries else {
            todo!("several queries");
        };
        let pairs = PairsAsk {
            model: ask.model.clone(),
            queries: Arc::from([query.as_str().into()]),
            documents: Arc::clone(&ask.documents),
            fit: ask.fit,
            raw_scores: ask.raw_scores,
        };
        let scored = self.score(&pairs, caller).await?;
        Ok(Answer {
            ranked: scored.ranked(0..scored.raw.len(), ask.top_n),
            score_kind: scored.activation.into(),
            stages: vec![StageDone {
                model: Arc::clone(&scored.model),
                documents: ask.documents.len(),
            }],
            instruction_ignored: ask.instruction.is_some(),
            model: scored.model,
            cost: scored.cost,
        })
    }

    /// Scores pairs. Dropping the future cancels what is not yet done.
    ///
    /// # Errors
    /// See [`RerankError`].
    pub async fn score(&self, ask: &PairsAsk, caller: &Caller) -> Result<PairsAnswer, RerankError> {
        let served = self.models.get(ask.model.as_deref())?;
        self.check(ask)?;
        let cancelled = CountIfDropped { done: false };
        let scored = self.admit_and_score(&served, ask, caller).await;
        cancelled.done();
        let scored = scored?;
        Ok(PairsAnswer {
            model: Arc::clone(served.info()),
            raw: scored.raw,
            activation: if ask.raw_scores {
                Activation::Identity
            } else {
                served.options().activation
            },
            cost: Cost {
                documents: ask.documents.len(),
                tokens: scored.tokens,
                truncated: scored.truncated,
                timings: scored.timings,
            },
        })
    }

    fn check(&self, ask: &PairsAsk) -> Result<(), RerankError> {
        let (queries, documents) = (ask.queries.len(), ask.documents.len());
        let max = self.limits.max_documents;
        if documents == 0 {
            return Err(RerankError::NoDocuments);
        }
        if queries != 1 && queries != documents {
            return Err(RerankError::Unpaired { queries, documents });
        }
        if ask.queries.iter().any(|query| query.is_empty()) {
            return Err(RerankError::EmptyQuery);
        }
        if documents > max {
            return Err(RerankError::TooManyDocuments { documents, max });
        }
        Ok(())
    }

    async fn admit_and_score(
        &self,
        served: &Served,
        ask: &PairsAsk,
        caller: &Caller,
    ) -> Result<Scored, RerankError> {
        let timeout = self.limits.request_timeout;
        let ticket = Ticket {
            caller: caller.clone(),
            deadline: Instant::now() + timeout,
        };
        let texts = Texts {
            queries: Arc::clone(&ask.queries),
            pairing: if ask.queries.len() == 1 {
                Pairing::All
            } else {
                Pairing::Each
            },
            documents: Arc::clone(&ask.documents),
            fit: served.options().fit.with(&ask.fit),
        };
        let (estimates, rate) = (served.estimates(&texts), served.tokens_per_second());
        let tokens = estimates.iter().sum();
        let queries = texts.queries.iter().map(|query| query.len());
        let demand = Demand {
            tokens,
            work: work(tokens, rate),
            bytes: queries.chain(texts.documents.iter().map(String::len)).sum(),
        };
        let permit = self.admission.admit(caller, demand, timeout);
        let mut permit = permit.map_err(refused)?;

        let deadline = ticket.deadline.into();
        let mut progress = |left: usize| permit.settle(work(left, rate));
        let scored = served.score(texts, &estimates, ticket, &mut progress);
        let late = || Err(ScoreError::Run(RunError::DeadlineExceeded));
        let scored = tokio::time::timeout_at(deadline, scored).await;
        scored.unwrap_or_else(|_| late()).map_err(|e| match e {
            ScoreError::Run(RunError::DeadlineExceeded) => RerankError::DeadlineExceeded(timeout),
            other => other.into(),
        })
    }
}

/// Counts a refusal.
fn refused(refused: Refused) -> RerankError {
    counter!("rerankd_requests_rejected_total").increment(1);
    RerankError::Refused(refused)
}

/// Counts a request as cancelled unless it was answered.
struct CountIfDropped {
    done: bool,
}

impl CountIfDropped {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for CountIfDropped {
    fn drop(&mut self) {
        if !self.done {
            counter!("rerankd_requests_cancelled_total").increment(1);
        }
    }
}
