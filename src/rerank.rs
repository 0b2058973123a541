//! The use case: admit, encode, score, rank. Called by `http`, the CLI and the benchmark.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, histogram};

use crate::admission::{Admission, Overloaded};
use crate::batch::{ScoreError, Scorer};
use crate::rank::{join_windows, rank, scores};
use crate::tokenize::{Fitting, Strategy, Texts, TokenizeError, TokenizePool};
use crate::types::{Activation, Ranked, Score, WindowScore};

/// Limits and defaults of a request.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most documents in one request.
    pub max_documents: usize,
    /// From admission to the answer.
    pub request_timeout: Duration,
    /// How a pair that is too long is made to fit, unless the request says otherwise.
    pub fitting: Fitting,
    /// What the windows of a document that is too long make of it.
    pub window_score: WindowScore,
    /// Overrides the activation that the model's files ask for.
    pub activation: Option<Activation>,
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
    /// One query for all documents, or one for each.
    pub queries: Arc<[String]>,
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
    /// One score per document, in the documents' order.
    pub scores: Vec<Score>,
    /// Tokens of all pairs, special tokens included.
    pub tokens: usize,
    /// Documents that were cut.
    pub truncated: usize,
    /// How long each stage took.
    pub timings: Timings,
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
    /// The queue is full.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// A text can't be tokenised, or is too long with truncation off.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// The deadline passed.
    #[error("the request was not answered within {} ms", .0.as_millis())]
    DeadlineExceeded(Duration),
    /// The engine failed.
    #[error(transparent)]
    Score(ScoreError),
    /// A score is not finite.
    #[error("the score of document {0} is not finite")]
    NotFinite(usize),
}

/// Answers rerank requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reranker {
    options: Options,
    activation: Activation,
    admission: Admission,
    tokenizer: TokenizePool,
    scorer: Scorer,
}

impl Reranker {
    /// Puts the stages together. `activation` is the model's own.
    #[must_use]
    pub fn new(
        options: Options,
        activation: Activation,
        admission: Admission,
        tokenizer: TokenizePool,
        scorer: Scorer,
    ) -> Self {
        Self {
            activation: options.activation.unwrap_or(activation),
            options,
            admission,
            tokenizer,
            scorer,
        }
    }

    /// What turns a logit into a score.
    #[must_use]
    pub fn activation(&self) -> Activation {
        self.activation
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

    /// Ranks documents. Dropping the future cancels what is not yet done.
    ///
    /// # Errors
    /// See [`RerankError`].
    pub async fn rerank(&self, request: &RerankRequest) -> Result<Reranking, RerankError> {
        let pairs = ScoreRequest {
            queries: Arc::from([request.query.clone()]),
            documents: Arc::clone(&request.documents),
            raw_scores: request.raw_scores,
            fitting: request.fitting,
        };
        let scoring = self.score(&pairs).await?;
        Ok(Reranking {
            ranked: rank(&scoring.scores, request.top_n),
            tokens: scoring.tokens,
            truncated: scoring.truncated,
            timings: scoring.timings,
        })
    }

    /// Scores pairs. Dropping the future cancels what is not yet done.
    ///
    /// # Errors
    /// See [`RerankError`].
    pub async fn score(&self, request: &ScoreRequest) -> Result<Scoring, RerankError> {
        self.check(request)?;
        let cancelled = CountIfDropped { done: false };
        let answer = self.admit_and_answer(request).await;
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
        if request.queries.iter().any(String::is_empty) {
            return Err(RerankError::EmptyQuery);
        }
        if documents > max {
            return Err(RerankError::TooManyDocuments { documents, max });
        }
        Ok(())
    }

    async fn admit_and_answer(&self, request: &ScoreRequest) -> Result<Scoring, RerankError> {
        let timeout = self.options.request_timeout;
        let deadline = Instant::now() + timeout;
        let texts = Texts {
            queries: Arc::clone(&request.queries),
            documents: Arc::clone(&request.documents),
            fitting: request.fitting.unwrap_or(self.options.fitting),
        };
        let mut permit = self
            .admission
            .admit(self.estimate(&texts))
            .inspect_err(|_| {
                counter!("rerankd_requests_rejected_total").increment(1);
            })?;

        let work = async {
            let start = Instant::now();
            let tokenized = self.tokenizer.pieces(texts).all().await?;
            let tokenize = start.elapsed();
            histogram!("rerankd_tokenize_seconds").record(tokenize.as_secs_f64());
            counter!("rerankd_truncated_documents_total").increment(tokenized.truncated as u64);
            let (tokens, truncated) = (tokenized.tokens, tokenized.truncated);
            permit.settle(tokens);

            let scored = self.scorer.score(tokenized.pairs, deadline).await;
            let scored = scored.map_err(|error| match error {
                ScoreError::DeadlineExceeded => RerankError::DeadlineExceeded(timeout),
                other => RerankError::Score(other),
            })?;
            let logits = join_windows(
                &scored.logits,
                &tokenized.windows,
                self.options.window_score,
            );
            let activation = if request.raw_scores {
                Activation::Identity
            } else {
                self.activation
            };
            Ok(Scoring {
                scores: scores(&logits, activation).map_err(RerankError::NotFinite)?,
                tokens,
                truncated,
                timings: Timings {
                    tokenize,
                    queue: scored.queue_wait,
                    inference: scored.inference,
                },
            })
        };
        tokio::time::timeout_at(deadline.into(), work)
            .await
            .unwrap_or(Err(RerankError::DeadlineExceeded(timeout)))
    }

    /// About how many tokens a request has: four bytes a token, cut to the longest input.
    fn estimate(&self, texts: &Texts) -> usize {
        let most = self.max_input_tokens() * texts.fitting.windows.max.max(1);
        let tokens = texts.documents.iter().enumerate().map(|(i, document)| {
            let query = texts.queries.get(i).or(texts.queries.first());
            let bytes = query.map_or(0, String::len) + document.len();
            (bytes / 4 + 3).min(most)
        });
        tokens.sum()
    }
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
