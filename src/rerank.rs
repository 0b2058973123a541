//! The use case: admit, encode, score, rank. Called by `http`, the CLI and the benchmark.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, histogram};

use crate::admission::{Admission, Overloaded};
use crate::batch::{ScoreError, Scorer};
use crate::rank::rank;
use crate::tokenize::{Strategy, TokenizeError, TokenizePool, Truncation};
use crate::types::{Activation, Logit, Ranked};

/// Limits and defaults of a request.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most documents in one request.
    pub max_documents: usize,
    /// From admission to the answer.
    pub request_timeout: Duration,
    /// How a pair that is too long is cut, unless the request says otherwise.
    pub truncation: Truncation,
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
    /// How a pair that is too long is cut; the server's default if `None`.
    pub truncation: Option<Truncation>,
}

/// The answer.
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

    /// What a request's `truncate` flag means: the server's setting, or off.
    #[must_use]
    pub fn truncation(&self, truncate: Option<bool>) -> Truncation {
        let default = self.options.truncation;
        let strategy = match (truncate, default.strategy) {
            (None, strategy) => strategy,
            (Some(false), _) => Strategy::Off,
            (Some(true), Strategy::Off) => Strategy::LongestFirst,
            (Some(true), strategy) => strategy,
        };
        Truncation {
            strategy,
            ..default
        }
    }

    /// Answers a request. Dropping the future cancels what is not yet done.
    ///
    /// # Errors
    /// See [`RerankError`].
    pub async fn rerank(&self, request: &RerankRequest) -> Result<Reranking, RerankError> {
        self.check(request)?;
        let cancelled = CountIfDropped { done: false };
        let answer = self.admit_and_answer(request).await;
        cancelled.done();
        answer
    }

    fn check(&self, request: &RerankRequest) -> Result<(), RerankError> {
        if request.query.is_empty() {
            return Err(RerankError::EmptyQuery);
        }
        let (documents, max) = (request.documents.len(), self.options.max_documents);
        if documents == 0 {
            return Err(RerankError::NoDocuments);
        }
        if documents > max {
            return Err(RerankError::TooManyDocuments { documents, max });
        }
        Ok(())
    }

    async fn admit_and_answer(&self, request: &RerankRequest) -> Result<Reranking, RerankError> {
        let timeout = self.options.request_timeout;
        let deadline = Instant::now() + timeout;
        let mut permit = self
            .admission
            .admit(self.estimate(request))
            .inspect_err(|_| {
                counter!("rerankd_requests_rejected_total").increment(1);
            })?;

        let work = async {
            let start = Instant::now();
            let truncation = request.truncation.unwrap_or(self.options.truncation);
            let tokenized = self
                .tokenizer
                .encode(&request.query, &request.documents, truncation)
                .await?;
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
            let ranked = self.rank(&scored.logits, request)?;
            Ok(Reranking {
                ranked,
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

    fn rank(&self, logits: &[Logit], request: &RerankRequest) -> Result<Vec<Ranked>, RerankError> {
        let activation = if request.raw_scores {
            Activation::Identity
        } else {
            self.activation
        };
        rank(logits, activation, request.top_n).map_err(RerankError::NotFinite)
    }

    /// About how many tokens a request has: four bytes a token, cut to the model's longest input.
    fn estimate(&self, request: &RerankRequest) -> usize {
        let most = self.max_input_tokens();
        let query = request.query.len();
        let tokens = request.documents.iter().map(|d| (query + d.len()) / 4 + 3);
        tokens.map(|t| t.min(most)).sum()
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
