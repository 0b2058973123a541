//! One model that is ready to score.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::histogram;

use crate::rank::fusion::Fusion;
use crate::schedule::{Executor, RunError, Ticket};
use crate::scoring::{EncodePool, Fit, Pairing, Texts};
use crate::tokenize::TokenizeError;
use crate::types::{Activation, Dtype, ModelSpec, Output, RawScore, WindowScore};

use super::estimate::{Density, estimates};

/// What is said of a model.
#[derive(Debug, Clone)]
pub struct Info {
    /// The name in responses.
    pub name: String,
    /// Its other names, which requests may carry too.
    pub names: Vec<String>,
    /// Further names that requests may carry; a final `*` stands for any ending.
    pub aliases: Vec<String>,
    /// The commit on the hub, if it came from there.
    pub revision: Option<String>,
    /// What whoever uses it should know, in one line.
    pub note: Option<&'static str>,
    /// From its files.
    pub spec: ModelSpec,
    /// `cpu`, `cuda`, ...
    pub device: String,
    /// What the weights are kept in.
    pub dtype: Dtype,
    /// Most tokens in a batch.
    pub max_batch_tokens: usize,
    /// Threads that tokenise.
    pub tokenize_threads: usize,
    /// When it was loaded, in seconds since 1970.
    pub loaded_at: u64,
}

/// How a model is used, unless a request says otherwise.
#[derive(Debug, Clone)]
pub struct Options {
    /// How a pair that is too long is made to fit.
    pub fit: Fit,
    /// What the windows of a document that is too long make of it.
    pub window_score: WindowScore,
    /// What makes of a raw score the one that is shown.
    pub activation: Activation,
    /// Text that the model wants before each query; mostly empty.
    pub query_prompt: String,
    /// How the first stage's scores, where a request brings them, are joined with the model's.
    pub fusion: Option<Fusion>,
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

/// Documents' scores by one model.
#[derive(Debug, Clone, Default)]
pub struct Scored {
    /// Each pair's raw score, in the order of [`Texts::pairs`].
    pub raw: Vec<RawScore>,
    /// Tokens of all sequences, special tokens included.
    pub tokens: usize,
    /// Of which documents the model did not read all, `[documents]`.
    pub truncated: Vec<bool>,
    /// How long each stage took.
    pub timings: Timings,
}

/// Why texts have no scores.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// A text can't be tokenised, or is too long with truncation off.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// The engine failed, or the deadline passed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The model gave NaN or an infinity.
    #[error(
        "the score of document {0} (counted from 0) is not finite; the model's weights may be broken"
    )]
    NotFinite(usize),
}

/// How far texts are scored: tokens that are left, as far as is known.
pub type Progress<'a> = &'a mut (dyn FnMut(usize) + Send);

/// A loaded model with its tokeniser and its place at an engine.
#[derive(Debug)]
pub struct Served {
    number: u64,
    info: Arc<Info>,
    options: Options,
    encoder: EncodePool,
    executor: Executor,
    density: Density,
}

impl Served {
    /// Puts the stages together. Which end of a text is cut is the tokenizer's to say.
    #[must_use]
    pub fn new(info: Info, mut options: Options, encoder: EncodePool, executor: Executor) -> Self {
        static LOADED: AtomicU64 = AtomicU64::new(0);
        options.fit.truncation.direction = encoder.tokenizer().direction();
        Self {
            number: LOADED.fetch_add(1, Ordering::Relaxed),
            info: Arc::new(info),
            options,
            encoder,
            executor,
            density: Density::default(),
        }
    }

    /// Another model of the same weights, at the same engine.
    #[must_use]
    pub fn beside(&self, info: Info, options: Options, encoder: EncodePool) -> Self {
        Self::new(info, options, encoder, self.executor.clone())
    }

    /// A number that no other loaded model has, nor this one once it is loaded again.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What is said of it.
    #[must_use]
    pub fn info(&self) -> &Arc<Info> {
        &self.info
    }

    /// How it is used, unless a request says otherwise.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The longest pair in tokens.
    #[must_use]
    pub fn max_input_tokens(&self) -> usize {
        self.encoder.scorer().max_tokens()
    }

    /// How many of its tokens the engine scores in a second, of late.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        self.executor.tokens_per_second()
    }

    /// Ends its engine once it has scored what waits; what comes later is refused.
    pub fn close(&self) {
        self.executor.close();
    }

    /// About how many tokens each document costs, before anything is tokenised.
    #[must_use]
    pub fn estimates(&self, texts: &Texts) -> Vec<usize> {
        estimates(texts, self.max_input_tokens(), self.density.get())
    }

    /// Scores documents, whose `estimates` are known. They are tokenised piece by piece and each piece goes
    /// to the queue, so that the engine starts before the last document is tokenised, and no more of a large
    /// request is in memory than its turn needs. Dropping the future cancels what is not yet done.
    ///
    /// # Errors
    /// See [`ScoreError`].
    pub async fn score(
        &self,
        mut texts: Texts,
        estimates: &[usize],
        ticket: Ticket,
        progress: Progress<'_>,
    ) -> Result<Scored, ScoreError> {
        let prompt = &self.options.query_prompt;
        if !prompt.is_empty() {
            texts.queries = prompted(prompt, &texts.queries);
        }
        let (mut tokens, mut truncated, mut tokenize) = (0, Vec::new(), Duration::ZERO);
        let mut counts = Vec::new();
        let each = match texts.pairing {
            Pairing::All => texts.queries.len(),
            Pairing::Each => 1,
        };
        let bytes = texts.pairs().map(|(q, d)| q.len() + d.len()).sum();
        let mut pieces = self.encoder.pieces(texts);
        let mut submission = self.executor.submission(ticket);
        loop {
            let start = Instant::now();
            let Some(piece) = pieces.next().await else {
                break;
            };
            tokenize += start.elapsed();
            let piece = piece?;
            tokens += piece.tokens;
            truncated.extend(piece.truncated);
            counts.extend(piece.counts);
            submission.push(piece.sequences).await?;
            let to_come: usize = estimates[truncated.len()..].iter().sum();
            progress(tokens - submission.scored_tokens() + to_come);
        }
        if !truncated.contains(&true) && counts.iter().all(|&n| n == 1) {
            self.density.record(tokens, bytes);
        }
        histogram!("rerankd_tokenize_seconds", "model" => self.info.name.clone())
            .record(tokenize.as_secs_f64());
        let ran = submission.finish().await?;
        Ok(Scored {
            raw: self.decode(&ran.outputs, &counts, each)?,
            tokens,
            truncated,
            timings: Timings {
                tokenize,
                queue: ran.queue_wait,
                inference: ran.inference,
            },
        })
    }
}

impl Served {
    /// Each pair's score, from its sequences' outputs. `each` is how many pairs are of one document.
    fn decode(
        &self,
        outputs: &[Output],
        counts: &[usize],
        each: usize,
    ) -> Result<Vec<RawScore>, ScoreError> {
        let mut rest = outputs;
        let pairs = counts.iter().enumerate().map(|(pair, &n)| {
            let (own, others) = rest.split_at(n.min(rest.len()));
            rest = others;
            let raw = self.encoder.scorer().decode(own);
            raw.ok_or(ScoreError::NotFinite(pair / each.max(1)))
        });
        pairs.collect()
    }
}

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
