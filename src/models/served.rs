//! One model that is ready to score.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use metrics::histogram;

use crate::rank::fusion::Fusion;
use crate::schedule::{Executor, RunError, Ticket};
use crate::scoring::{EncodePool, Encoded, Fit, Listwise, PromptInfo, TURN_BYTES, Texts};
use crate::tokenize::{Direction, MAX_TOKENS, TokenizeError};
use crate::types::{
    Activation, Cost, Dtype, ModelKind, ModelSpec, Output, RawScore, Span, WindowScore,
};

use super::estimate::{Estimate, Known, Ratio, estimates, guess};
use super::listwise::Lists;
use super::vectors::{VectorOptions, Vectors};

/// A model's description, as /info and answers give it.
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
    /// A one-line note to users.
    pub note: Option<&'static str>,
    /// Architecture and sizes.
    pub spec: ModelSpec,
    /// How its scores come about.
    pub kind: ModelKind,
    /// The number of the label that documents are ranked by.
    pub label: usize,
    /// `cpu`, `cuda`, ...
    pub device: String,
    /// Type of the weights in memory.
    pub dtype: Dtype,
    /// Maximum number of tokens in a batch.
    pub max_batch_tokens: usize,
    /// Number of tokenizer threads.
    pub tokenize_threads: usize,
    /// The prompt that it reads query and document in, if it has one.
    pub prompt: Option<PromptInfo>,
    /// When it was loaded, in seconds since 1970.
    pub loaded_at: u64,
}

impl Info {
    /// The name of the label that documents are ranked by.
    #[must_use]
    pub fn label(&self) -> &str {
        self.spec.labels.get(self.label).map_or("", String::as_str)
    }

    /// Whether requests may have an instruction.
    #[must_use]
    pub fn takes_instruction(&self) -> bool {
        let prompt = self.prompt.as_ref();
        prompt.is_some_and(|prompt| prompt.instruction.is_some())
    }
}

/// How a model is used, unless a request says otherwise.
#[derive(Debug, Clone)]
pub struct Options {
    /// How pairs that are too long are truncated or split into windows.
    pub fit: Fit,
    /// How a document's score is computed from its windows' logits.
    pub window_score: WindowScore,
    /// The function from raw scores to the scores that are shown.
    pub activation: Activation,
    /// Text that is put before each query, for models that were trained with one.
    pub query_prompt: String,
    /// How the first stage's scores, if a request has them, are combined with the model's.
    pub fusion: Option<Fusion>,
}

/// How long each stage of a request took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Tokenising, including the wait for a thread.
    pub tokenize: Span,
    /// From the queue to the start of the first batch.
    pub queue: Span,
    /// From there to the end of the last batch.
    pub inference: Span,
}

impl Timings {
    /// Those of two rounds that ran one after the other.
    #[must_use]
    pub fn then(self, other: Self) -> Self {
        self.joined(other, Span::then)
    }

    /// Those of two requests that ran at the same time.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        self.joined(other, Span::beside)
    }

    fn joined(self, other: Self, join: impl Fn(Span, Span) -> Span) -> Self {
        Self {
            tokenize: join(self.tokenize, other.tokenize),
            queue: join(self.queue, other.queue),
            inference: join(self.inference, other.inference),
        }
    }
}

/// Documents' scores by one model.
#[derive(Debug, Clone, Default)]
pub struct Scored {
    /// Each pair's raw score, in the order of [`Texts::pairs`].
    pub raw: Vec<RawScore>,
    /// Tokens of all sequences, special tokens included.
    pub tokens: usize,
    /// Whether each document was truncated, `[documents]`.
    pub truncated: Vec<bool>,
    /// How long each stage took.
    pub timings: Timings,
}

/// Why texts have no scores.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// Tokenising failed, or a pair is too long with truncation off.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// The engine failed, or the deadline passed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The model returned NaN or an infinity.
    #[error(
        "the score of document {0} (counted from 0) is not finite; the model's weights may be broken"
    )]
    NotFinite(usize),
}

/// Called with what the remaining tokens will cost, see [`crate::types::Cost`]; says whether to go on.
pub type Progress<'a> = &'a mut (dyn FnMut(f64) -> Result<(), RunError> + Send);

/// A loaded model with its tokenizer and its queue.
#[derive(Debug)]
pub struct Served {
    number: u64,
    info: Arc<Info>,
    options: Options,
    encoder: EncodePool,
    executor: Executor,
    ratio: Ratio,
    /// If it makes vectors; `encoder` is then that of documents.
    vectors: Option<Vectors>,
    /// If it reads documents together.
    lists: Option<Lists>,
}

impl Served {
    /// Combines the stages. The tokenizer's truncation direction replaces the one in `options`.
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
            ratio: Ratio::default(),
            vectors: None,
            lists: None,
        }
    }

    /// The same model, which makes vectors: its encoder is that of documents, and `queries` that of queries.
    #[must_use]
    pub fn with_vectors(mut self, options: VectorOptions, queries: EncodePool) -> Self {
        self.vectors = Some(Vectors::new(options, queries));
        self
    }

    /// The same model, which reads documents together.
    #[must_use]
    pub fn with_lists(mut self, scorer: Arc<Listwise>) -> Self {
        self.lists = Some(Lists(scorer));
        self
    }

    /// Whether a document's score depends on the others, so that it may neither be kept nor be computed once for equal
    /// ones.
    #[must_use]
    pub fn is_listwise(&self) -> bool {
        self.lists.is_some()
    }

    /// Another model of the same weights, at the same engine.
    #[must_use]
    pub fn beside(&self, info: Info, options: Options, encoder: EncodePool) -> Self {
        let executor = self.executor.named(&info.name);
        Self::new(info, options, encoder, executor)
    }

    /// A number that no other loaded model has, nor this one once it is loaded again.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its description.
    #[must_use]
    pub fn info(&self) -> &Arc<Info> {
        &self.info
    }

    /// Its defaults, which requests can override.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The longest pair in tokens.
    #[must_use]
    pub fn max_input_tokens(&self) -> usize {
        self.encoder.scorer().max_tokens()
    }

    /// What a sequence costs, by its length.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.executor.cost()
    }

    /// Number of tokens of each text, without those that are put around it; at most as many as a pair may have.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub async fn count_tokens(&self, texts: &Arc<[String]>) -> Result<Vec<usize>, ScoreError> {
        let longest = self.max_input_tokens();
        let mut counts = Vec::with_capacity(texts.len());
        while counts.len() < texts.len() {
            let (texts, first) = (Arc::clone(texts), counts.len());
            let tokenizer = self.encoder.shared_tokenizer();
            let counted = self.encoder.threads().run(move || {
                let (mut counts, mut bytes) = (Vec::new(), 0);
                for text in &texts[first..] {
                    let tokens = tokenizer.encode_within(text, longest, Direction::Right)?;
                    counts.push(tokens.ids().len());
                    bytes += text.len();
                    if bytes > TURN_BYTES {
                        break;
                    }
                }
                Ok::<_, TokenizeError>(counts)
            });
            let panicked = || TokenizeError::Failed("the tokenizer panicked".into());
            counts.extend(counted.await.ok_or_else(panicked)??);
        }
        Ok(counts)
    }

    /// The engine's recent rate for this model, in tokens per second, where a token is one that sees no others.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        self.executor.tokens_per_second()
    }

    /// Closes its queue: what waits is still scored, later requests are refused.
    pub fn close(&self) {
        self.executor.close();
    }

    /// What each document will take, by its characters, before anything is tokenised.
    #[must_use]
    pub fn estimates(&self, texts: &Texts) -> Vec<Estimate> {
        let known = Known {
            longest: self.max_input_tokens(),
            ratio: self.ratio.get(),
            around: self.encoder.scorer().around(),
            cost: self.cost(),
        };
        match (&self.vectors, &self.lists) {
            (Some(vectors), _) => vectors.estimates(texts, &known),
            (None, Some(lists)) => lists.estimates(texts, &known),
            (None, None) => estimates(texts, &known),
        }
    }

    /// As [`Served::estimates`], but none of a document whose vectors are in the cache.
    #[must_use]
    pub fn estimates_now(&self, texts: &Texts) -> Vec<Estimate> {
        let estimates = self.estimates(texts);
        match &self.vectors {
            None => estimates,
            Some(vectors) => vectors.less_known(texts, estimates),
        }
    }

    /// Scores documents; `estimates` are those of [`Served::estimates`]. The documents are tokenised piece by
    /// piece, and each piece goes to the queue, so that the engine starts before the last document is
    /// tokenised and only a part of a large request is in memory as tokens. Dropping the future cancels the
    /// remaining work.
    ///
    /// # Errors
    /// See [`ScoreError`].
    pub async fn score(
        &self,
        texts: Texts,
        estimates: &[Estimate],
        ticket: Ticket,
        progress: Progress<'_>,
    ) -> Result<Scored, ScoreError> {
        if let Some(lists) = &self.lists {
            return lists.score(self, texts, estimates, ticket, progress).await;
        }
        match &self.vectors {
            None => self.score_pairs(texts, estimates, ticket, progress).await,
            Some(vectors) => {
                let scored = vectors.score(self, texts, estimates, ticket, progress);
                scored.await
            }
        }
    }
}

impl Served {
    pub(super) fn encoder(&self) -> &EncodePool {
        &self.encoder
    }

    pub(super) fn executor(&self) -> &Executor {
        &self.executor
    }

    pub(super) fn ratio(&self) -> &Ratio {
        &self.ratio
    }

    /// As [`Served::score`], where query and document are read together.
    async fn score_pairs(
        &self,
        mut texts: Texts,
        estimates: &[Estimate],
        ticket: Ticket,
        progress: Progress<'_>,
    ) -> Result<Scored, ScoreError> {
        let prompt = &self.options.query_prompt;
        if !prompt.is_empty() {
            texts.queries = prompted(prompt, &texts.queries);
        }
        let (mut tokens, mut truncated, mut tokenize) = (0, Vec::new(), Span::default());
        let mut counts = Vec::new();
        let each = texts.queries_of_each();
        let mut pieces = self.encoder.pieces(texts.clone());
        let mut submission = self.executor.submission(ticket);
        loop {
            let start = Instant::now();
            let Some(piece) = pieces.next().await else {
                break;
            };
            tokenize = tokenize.then(Span::since(start));
            let piece = piece?;
            if counts.is_empty() {
                self.learn(&texts, &piece);
            }
            tokens += piece.tokens;
            truncated.extend(piece.truncated);
            counts.extend(piece.counts);
            submission.push(piece.sequences).await?;
            let to_come = estimates[truncated.len()..].iter();
            let to_come: f64 = to_come.map(|estimate| estimate.cost).sum();
            progress(submission.left() + to_come)?;
        }
        histogram!("rerankd_tokenize_seconds", "model" => self.info.name.clone())
            .record(tokenize.time.as_secs_f64());
        let ran = submission.finish().await?;
        Ok(Scored {
            raw: self.decode(&ran.outputs, &counts, each)?,
            tokens,
            truncated,
            timings: Timings {
                tokenize,
                queue: ran.queue,
                inference: ran.inference,
            },
        })
    }

    /// Corrects later estimates by a request's first piece, if its texts were read to their ends.
    fn learn(&self, texts: &Texts, piece: &Encoded) {
        if piece.truncated.contains(&true) || piece.counts.iter().any(|&n| n != 1) {
            return;
        }
        let pairs = piece.counts.len();
        let instruction = texts.instruction.as_deref();
        let instruction = instruction.map_or(0, |text| guess(text, MAX_TOKENS));
        let around = pairs * (self.encoder.scorer().around().tokens + instruction);
        let texts = texts.pairs().take(pairs);
        let guessed =
            texts.map(|(query, document)| guess(query, MAX_TOKENS) + guess(document, MAX_TOKENS));
        self.ratio
            .record(piece.tokens.saturating_sub(around), guessed.sum());
    }

    /// Each pair's score, from its sequences' outputs. `each` is the number of pairs per document.
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

/// The queries with the prompt before each. Neighbours that share one `Arc` still do.
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
