//! The use case: admit, encode, score, rank. Called by `http`, the CLI and the benchmark.

mod estimate;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, histogram};

pub use crate::admission::Refused;
use crate::admission::{Admission, Demand, Permit};
use crate::rank::{join_windows, rank};
use crate::schedule::{Executor, RunError, Ticket};
use crate::tokenize::{Fitting, Strategy, Texts, TokenizeError, TokenizePool};
use crate::types::{Activation, Caller, Ranked, RawScore, Score, WindowScore};
use estimate::{Density, estimates};

/// Limits and defaults of a request.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most documents in one request.
    pub max_documents: usize,
    /// From admission to the answer.
    pub request_timeout: Duration,
    /// How a pair that is too long is made to fit, unless the request says otherwise.
    pub fitting: Fitting,
    /// What the windows of a document that is too long make of it.
    pub window_score: WindowScore,
    /// What makes of a raw score the one that is shown.
    pub activation: Activation,
    /// Text that the model wants before each query; mostly empty.
    pub query_prompt: String,
}

/// What a client asks for, whatever the dialect it asked in.
#[derive(Debug, Clone)]
pub struct RerankRequest {
    /// The query.
    pub query: String,
    /// The documents' texts.
    pub documents: Arc<[String]>,
    /// How many of the best to return; all if `None`.
    pub top_n: Option<usize>,
    /// Logits instead of scores.
    pub raw_scores: bool,
    /// How a pair that is too long is made to fit; the server's default if `None`.
    pub fitting: Option<Fitting>,
}

/// Pairs to score, in their own order.
#[derive(Debug, Clone)]
pub struct ScoreRequest {
    /// One query for all documents, or one for each; those that are the same may be one text.
    pub queries: Arc<[Arc<str>]>,
    /// The documents' texts.
    pub documents: Arc<[String]>,
    /// Logits instead of scores.
    pub raw_scores: bool,
    /// How a pair that is too long is made to fit; the server's default if `None`.
    pub fitting: Option<Fitting>,
}

/// The answer to a [`ScoreRequest`].
#[derive(Debug, Clone)]
pub struct Scoring {
    /// Each document's raw score, in the documents' order.
    pub raw: Vec<RawScore>,
    /// What makes of them the scores that are shown.
    activation: Activation,
    /// Tokens of all pairs, special tokens included.
    pub tokens: usize,
    /// Documents that were cut.
    pub truncated: usize,
    /// How long each stage took.
    pub timings: Timings,
}

impl Scoring {
    /// The scores that are shown, in the documents' order.
    pub fn scores(&self) -> impl ExactSizeIterator<Item = Score> {
        self.raw.iter().map(|&raw| self.activation.apply(raw))
    }

    /// Ranks some of its documents; their indices are counted from the first of them.
    #[must_use]
    pub fn ranked(&self, documents: Range<usize>, top_n: Option<usize>) -> Vec<Ranked> {
        rank(&self.raw[documents], self.activation, top_n)
    }
}

/// The answer to a [`RerankRequest`].
#[derive(Debug, Clone)]
pub struct Reranking {
    /// Best first.
    pub ranked: Vec<Ranked>,
    /// Tokens of all pairs, special tokens included.
    pub tokens: usize,
    /// Documents that were cut.
    pub truncated: usize,
    /// How long each stage took.
    pub timings: Timings,
}

/// How long each stage of a request took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Tokenising, waiting for a thread included.
    pub tokenize: Duration,
    /// In the queue, until the first batch started.
    pub queue: Duration,
    /// From there until the last batch ended.
    pub inference: Duration,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RerankError {
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
    /// A text can't be tokenised, or is too long with truncation off.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// The deadline passed.
    #[error("the request was not answered within {} ms", .0.as_millis())]
    DeadlineExceeded(Duration),
    /// The engine failed.
    #[error(transparent)]
    Score(RunError),
    /// The model gave NaN or an infinity.
    #[error(
        "the score of document {0} (counted from 0) is not finite; the model's weights may be broken"
    )]
    NotFinite(usize),
}

/// Answers rerank requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reranker {
    options: Options,
    admission: Admission,
    tokenizer: TokenizePool,
    executor: Executor,
    density: Arc<Density>,
}

impl Reranker {
    /// Puts the stages together. Which end of a text is cut is the tokenizer's to say.
    #[must_use]
    pub fn new(
        mut options: Options,
        admission: Admission,
        tokenizer: TokenizePool,
        executor: Executor,
    ) -> Self {
        options.fitting.truncation.direction = tokenizer.encoder().direction();
        Self {
            options,
            admission,
            tokenizer,
            executor,
            density: Arc::default(),
        }
    }

    /// Ends the engine once it has scored what waits; requests that come later are refused.
    pub fn close(&self) {
        self.executor.close();
    }

    /// What makes of a raw score the one that is shown.
    #[must_use]
    pub fn activation(&self) -> Activation {
        self.options.activation
    }

    /// The server's limits and defaults.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The longest pair in tokens.
    #[must_use]
    pub fn max_input_tokens(&self) -> usize {
        self.tokenizer.encoder().max_tokens()
    }

    /// The server's way to make a pair fit, with truncation as a request's `truncate` flag says.
    #[must_use]
    pub fn fitting(&self, truncate: Option<bool>) -> Fitting {
        let mut fitting = self.options.fitting;
        let strategy = &mut fitting.truncation.strategy;
        *strategy = match (truncate, *strategy) {
            (None, strategy) => strategy,
            (Some(false), _) => Strategy::Off,
            (Some(true), Strategy::Off) => Strategy::LongestFirst,
            (Some(true), strategy) => strategy,
        };
        fitting
    }

    /// Refuses a request that there will be no room for, before its body of so many bytes is read.
    ///
    /// # Errors
    /// [`RerankError::Refused`].
    pub fn check_room(&self, caller: &Caller, bytes: usize) -> Result<(), RerankError> {
        let rate = self.executor.tokens_per_second();
        let room = self.admission.check(caller, bytes, rate);
        room.map_err(refused)
    }

    /// Ranks documents. Dropping the future cancels what is not yet done.
    ///
    /// # Errors
    /// See [`RerankError`].
    pub async fn rerank(
        &self,
        request: &RerankRequest,
        caller: &Caller,
    ) -> Result<Reranking, RerankError> {
        let pairs = ScoreRequest {
            queries: Arc::from([request.query.as_str().into()]),
            documents: Arc::clone(&request.documents),
            raw_scores: request.raw_scores,
            fitting: request.fitting,
        };
        let scoring = self.score(&pairs, caller).await?;
        Ok(Reranking {
            ranked: scoring.ranked(0..scoring.raw.len(), request.top_n),
            tokens: scoring.tokens,
            truncated: scoring.truncated,
            timings: scoring.timings,
        })
    }

    /// Scores pairs. Dropping the future cancels what is not yet done.
    ///
    /// # Errors
    /// See [`RerankError`].
    pub async fn score(
        &self,
        request: &ScoreRequest,
        caller: &Caller,
    ) -> Result<Scoring, RerankError> {
        self.check(request)?;
        let cancelled = CountIfDropped { done: false };
        let answer = self.admit_and_answer(request, caller).await;
        cancelled.done();
        answer
    }

    fn check(&self, request: &ScoreRequest) -> Result<(), RerankError> {
        let (queries, documents) = (request.queries.len(), request.documents.len());
        let max = self.options.max_documents;
        if documents == 0 {
            return Err(RerankError::NoDocuments);
        }
        if queries != 1 && queries != documents {
            return Err(RerankError::Unpaired { queries, documents });
        }
        if request.queries.iter().any(|query| query.is_empty()) {
            return Err(RerankError::EmptyQuery);
        }
        if documents > max {
            return Err(RerankError::TooManyDocuments { documents, max });
        }
        Ok(())
    }

    async fn admit_and_answer(
        &self,
        request: &ScoreRequest,
        caller: &Caller,
    ) -> Result<Scoring, RerankError> {
        let timeout = self.options.request_timeout;
        let ticket = Ticket {
            caller: caller.clone(),
            deadline: Instant::now() + timeout,
        };
        let prompt = &self.options.query_prompt;
        let texts = Texts {
            queries: if prompt.is_empty() {
                Arc::clone(&request.queries)
            } else {
                prompted(prompt, &request.queries)
            },
            documents: Arc::clone(&request.documents),
            fitting: request.fitting.unwrap_or(self.options.fitting),
        };
        let density = self.density.get();
        let estimates = estimates(&texts, self.max_input_tokens(), density);
        let demand = Demand {
            tokens: estimates.iter().sum(),
            bytes: texts
                .queries
                .iter()
                .map(|query| query.len())
                .chain(texts.documents.iter().map(String::len))
                .sum(),
        };
        let rate = self.executor.tokens_per_second();
        let permit = self.admission.admit(caller, demand, rate, timeout);
        let permit = permit.map_err(refused)?;

        let deadline = ticket.deadline.into();
        let work = self.answer(texts, &estimates, permit, ticket, request.raw_scores);
        let answer = tokio::time::timeout_at(deadline, work).await;
        match answer.unwrap_or(Err(RerankError::Score(RunError::DeadlineExceeded))) {
            Err(RerankError::Score(RunError::DeadlineExceeded)) => {
                Err(RerankError::DeadlineExceeded(timeout))
            }
            answer => answer,
        }
    }

    /// Tokenises piece by piece and hands each piece to the queue, so that the engine starts before
    /// the last document is tokenised, and no more of a large request is in memory than its turn needs.
    async fn answer(
        &self,
        texts: Texts,
        estimates: &[usize],
        mut permit: Permit,
        ticket: Ticket,
        raw_scores: bool,
    ) -> Result<Scoring, RerankError> {
        let (mut tokens, mut truncated, mut tokenize) = (0, 0, Duration::ZERO);
        let mut windows: Vec<usize> = Vec::with_capacity(estimates.len());
        let bytes = texts.pairs().map(|(q, d)| q.len() + d.len()).sum();
        let mut pieces = self.tokenizer.pieces(texts);
        let mut submission = self.executor.submission(ticket);
        loop {
            let start = Instant::now();
            let Some(piece) = pieces.next().await else {
                break;
            };
            tokenize += start.elapsed();
            let piece = piece?;
            tokens += piece.tokens;
            truncated += piece.truncated;
            windows.extend(piece.windows);
            submission
                .push(piece.pairs)
                .await
                .map_err(RerankError::Score)?;
            let to_come: usize = estimates[windows.len()..].iter().sum();
            permit.settle(tokens - submission.scored_tokens() + to_come);
        }
        if truncated == 0 && windows.iter().all(|&n| n == 1) {
            self.density.record(tokens, bytes);
        }
        histogram!("rerankd_tokenize_seconds").record(tokenize.as_secs_f64());
        counter!("rerankd_truncated_documents_total").increment(truncated as u64);
        let scored = submission.finish().await.map_err(RerankError::Score)?;
        let raw = join_windows(&scored.outputs, &windows, self.options.window_score);
        Ok(Scoring {
            raw: raw.map_err(RerankError::NotFinite)?,
            activation: if raw_scores {
                Activation::Identity
            } else {
                self.options.activation
            },
            tokens,
            truncated,
            timings: Timings {
                tokenize,
                queue: scored.queue_wait,
                inference: scored.inference,
            },
        })
    }
}

/// Counts a refusal.
/// The queries with the prompt before each; neighbours that are one text stay one.
fn prompted(prompt: &str, queries: &[Arc<str>]) -> Arc<[Arc<str>]> {
    let mut last: Option<(&Arc<str>, Arc<str>)> = None;
    let prompted = queries.iter().map(|query| match &last {
        Some((same, text)) if Arc::ptr_eq(same, query) => Arc::clone(text),
        _ => {
            let text: Arc<str> = format!("{prompt}{query}").into();
            last = Some((query, Arc::clone(&text)));
            text
        }
    });
    prompted.collect()
}

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
