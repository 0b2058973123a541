//! The use case: admit, score, rank. Called by `http`, the CLI and the benchmark.

mod ask;
mod cache;
mod cascade;
mod explain;
mod round;
mod session;

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;

pub use crate::admission::Refused;
pub use crate::models::{ModelError, ScoreError, Timings};

use crate::admission::Admission;
use crate::models::Models;
use crate::schedule::RunError;
use crate::scoring::Pairing;
use crate::types::{Activation, Terms};
pub use cache::ScoreCache;
pub use explain::{Part, Unexplained, Word};
pub(crate) use round::relocated;
use session::{Asked, Session, Time};

pub use ask::{
    Answer, Ask, Combine, Cost, Joined, Limits, PairsAnswer, PairsAsk, Queries, Stage, StageDone,
};

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RerankError {
    /// The model does not exist, or is still being loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// As [`RerankError::Model`], of a stage of a cascade.
    #[error("{error}")]
    Stage {
        /// Which one, from 0.
        stage: usize,
        /// What is wrong.
        error: ModelError,
    },
    /// A query is empty; of several, this one.
    #[error("{} is empty", of_queries(*.0))]
    EmptyQuery(Option<usize>),
    /// The number of queries is neither 1 nor the number of documents.
    #[error(
        "{queries} queries and {documents} documents: there must be one query, or one for each document"
    )]
    Unpaired {
        /// Queries in the request.
        queries: usize,
        /// Documents in the request.
        documents: usize,
    },
    /// There are no documents.
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
    /// The scores can't be explained.
    #[error(transparent)]
    Unexplained(#[from] Unexplained),
    /// The server is overloaded, or could never answer the request in time.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// More tokens than its caller may have scored in a minute, so that waiting would not help.
    #[error(
        "the request has about {tokens} tokens, but its API key may have {most} scored a minute (tokens_per_minute); \
         send fewer or shorter documents a request, or have less of each read (such as max_tokens_per_doc)"
    )]
    AboveLimit {
        /// Estimate of its tokens.
        tokens: usize,
        /// The caller's limit.
        most: u64,
    },
    /// The deadline passed.
    #[error("the request was not answered within {} ms", .0.as_millis())]
    DeadlineExceeded(Duration),
    /// Scoring failed.
    #[error(transparent)]
    Score(#[from] ScoreError),
}

/// Answers requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reranker {
    limits: Limits,
    admission: Admission,
    models: Models,
    cache: Option<Arc<ScoreCache>>,
}

impl Reranker {
    /// Combines the stages. Without a cache, every request is scored anew.
    #[must_use]
    pub fn new(
        limits: Limits,
        admission: Admission,
        models: Models,
        cache: Option<ScoreCache>,
    ) -> Self {
        Self {
            limits,
            admission,
            models,
            cache: cache.map(Arc::new),
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

    /// Refuses a request that there will be no room or no time for, before its body of `bytes` bytes is read.
    ///
    /// # Errors
    /// [`RerankError::Refused`].
    pub fn check_room(&self, terms: &Terms, bytes: usize) -> Result<(), RerankError> {
        // What the body says of its class is not known yet.
        let standing = terms.standing(None);
        let time = Time::of(self, terms).left();
        let checked = self.admission.check(&standing, bytes, time);
        checked.map_err(refused)
    }

    /// Ranks documents. Dropping the future cancels the remaining work.
    ///
    /// # Errors
    /// See [`RerankError`].
    pub async fn rerank(&self, ask: &Ask, terms: impl Into<Terms>) -> Result<Answer, RerankError> {
        let terms = terms.into();
        let stages = cascade::plan(self, ask)?;
        let queries = ask.queries.texts();
        self.check(queries.iter().map(String::as_str), ask.documents.len())?;
        explain::check(self, ask, &stages)?;
        let asked = Asked {
            queries: queries.iter().map(|query| query.as_str().into()).collect(),
            pairing: Pairing::All,
            documents: Arc::clone(&ask.documents),
            fit: ask.fit,
            instruction: ask.instruction.as_deref().map(Arc::from),
            is_cached: true,
        };
        let first = asked.round(self, &stages[0].served, None).await;
        let estimate = explain::estimate(self, ask, &asked, &stages);
        let mut demand = first.demand();
        demand.tokens += estimate.tokens();
        demand.work += cascade::later_work(&stages, &first, ask) + estimate.work();
        let cancelled = CountIfDropped { done: false };
        let answer = async {
            let documents = asked.documents.len();
            let mut session = Session::admit(self, &terms, ask.priority, demand, documents)?;
            let time = session.time;
            let run = async {
                session.afterwards = estimate.work();
                let ranking = cascade::run(&mut session, self, ask, &asked, &stages, first).await?;
                let parts = match ask.explain {
                    true => {
                        explain::run(&mut session, self, &asked, &stages, &ranking, estimate)
                            .await?
                    }
                    false => Vec::new(),
                };
                Ok((ranking, parts))
            };
            let (ranking, explanations) = self.in_time(time, demand.tokens, run).await?;
            Ok((ranking, explanations, session.cost))
        };
        let answer: Result<_, RerankError> = answer.await;
        cancelled.done();
        let (ranking, explanations, mut cost) = answer.map_err(|error| match error {
            RerankError::Refused(refused @ Refused::TooLarge { .. }) if ask.explain => {
                Unexplained::TooLarge(refused).into()
            }
            other => other,
        })?;
        cost.results = ranking.ranked.len();
        Ok(Answer {
            model: ranking.last_model(),
            ranked: ranking.ranked,
            explanations,
            score_kind: ranking.score_kind,
            stages: ranking.stages,
            truncated: ranking.truncated,
            instruction_ignored: ask.instruction.is_some()
                && !stages
                    .iter()
                    .any(|stage| stage.served.info().takes_instruction()),
            first_stage_ignored: ask.first_stage.is_some()
                && stages
                    .iter()
                    .all(|stage| cascade::fusion(ask, stage).is_none()),
            cost,
        })
    }

    /// Scores pairs. Dropping the future cancels the remaining work.
    ///
    /// # Errors
    /// See [`RerankError`].
    pub async fn score(
        &self,
        ask: &PairsAsk,
        terms: impl Into<Terms>,
    ) -> Result<PairsAnswer, RerankError> {
        let terms = terms.into();
        let served = self.models.get(ask.model.as_deref())?;
        let (queries, documents) = (ask.queries.len(), ask.documents.len());
        self.check(ask.queries.iter().map(|query| &**query), documents)?;
        if queries != 1 && queries != documents {
            return Err(RerankError::Unpaired { queries, documents });
        }
        let asked = Asked {
            queries: Arc::clone(&ask.queries),
            pairing: match queries {
                1 => Pairing::All,
                _ => Pairing::Each,
            },
            documents: Arc::clone(&ask.documents),
            fit: ask.fit,
            instruction: None,
            is_cached: true,
        };
        let round = asked.round(self, &served, None).await;
        let cancelled = CountIfDropped { done: false };
        let answer = async {
            let demand = round.demand();
            let mut session = Session::admit(self, &terms, ask.priority, demand, documents)?;
            let time = session.time;
            let run = session.run(round, Duration::ZERO);
            let raw = self.in_time(time, demand.tokens, run).await?.raw;
            Ok((raw, session.cost))
        };
        let answer: Result<_, RerankError> = answer.await;
        cancelled.done();
        let (raw, mut cost) = answer?;
        cost.results = documents;
        Ok(PairsAnswer {
            model: Arc::clone(served.info()),
            raw,
            activation: match ask.raw_scores {
                true => Activation::Identity,
                false => served.options().activation,
            },
            cost,
        })
    }

    fn check<'a>(
        &self,
        mut queries: impl Iterator<Item = &'a str>,
        documents: usize,
    ) -> Result<(), RerankError> {
        let max = self.limits.max_documents;
        if documents == 0 {
            return Err(RerankError::NoDocuments);
        }
        if let Some(empty) = queries.position(str::is_empty) {
            let is_one_of_several = empty > 0 || queries.next().is_some();
            return Err(RerankError::EmptyQuery(is_one_of_several.then_some(empty)));
        }
        if documents > max {
            return Err(RerankError::TooManyDocuments { documents, max });
        }
        Ok(())
    }

    /// The result of scoring about so many tokens, or an error once the request's time has passed.
    async fn in_time<T>(
        &self,
        time: Time,
        tokens: usize,
        found: impl Future<Output = Result<T, ScoreError>>,
    ) -> Result<T, RerankError> {
        let timeout = time.limit;
        let found = tokio::time::timeout_at(time.deadline.into(), found).await;
        let late = || Err(ScoreError::Run(RunError::DeadlineExceeded));
        found.unwrap_or_else(|_| late()).map_err(|e| match e {
            ScoreError::Run(RunError::DeadlineExceeded) => RerankError::DeadlineExceeded(timeout),
            ScoreError::Run(RunError::TooLate { needed, ahead }) => {
                refused(match (ahead.is_zero(), time.is_own) {
                    (true, false) => Refused::TooLarge {
                        tokens,
                        needed,
                        timeout,
                    },
                    (true, true) => Refused::NoTime {
                        needed,
                        left: time.left(),
                    },
                    (false, _) => Refused::Overloaded { retry_after: ahead },
                })
            }
            other => other.into(),
        })
    }
}

impl RerankError {
    /// When the same request may be answered; 0 where that is not known.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Refused(Refused::Overloaded { retry_after })
            | Self::Model(ModelError::Failed { retry_after, .. })
            | Self::Stage {
                error: ModelError::Failed { retry_after, .. },
                ..
            } => *retry_after,
            _ => Duration::ZERO,
        }
    }
}

/// Counts a refusal that more servers would have spared the caller.
fn refused(refused: Refused) -> RerankError {
    if let Refused::Overloaded { .. } = refused {
        counter!("rerankd_requests_rejected_total").increment(1);
    }
    RerankError::Refused(refused)
}

/// A query, as a message names it.
fn of_queries(index: Option<usize>) -> String {
    index.map_or_else(|| "the query".to_owned(), |index| format!("query {index}"))
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
