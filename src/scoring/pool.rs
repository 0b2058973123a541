//! Encoding on a bounded pool of threads, so that no text is tokenised on an async worker.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::tokenize::{MAX_TOKENS, TextTokenizer, TokenizeError};
use crate::types::Sequence;

use super::work::{Queries, Work};
use super::{EncodedDocument, Fit, Scorer};

/// Maximum number of documents in a piece: few, so that requests interleave and a large one uses all threads.
const DOCUMENTS: usize = 16;

/// Maximum bytes of a piece with several documents, and about how many are read in one turn.
pub const TURN_BYTES: usize = 64 << 10;

/// The threads that encode, for all models; cheap to clone.
#[derive(Debug, Clone)]
pub struct Threads {
    pool: Arc<rayon::ThreadPool>,
    // Limits the turns given to the threads. tokio's semaphore is fair, so requests take turns.
    slots: Arc<Semaphore>,
}

impl Threads {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn start(threads: usize) -> Result<Self, TokenizeError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("tokenize-{i}"))
            .build()
            .map_err(|e| TokenizeError::Failed(e.to_string()))?;
        Ok(Self {
            pool: Arc::new(pool),
            slots: Arc::new(Semaphore::new(threads * 2)),
        })
    }

    /// Runs a job that is no longer than a turn, once a slot is free. None if it panics.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, receiver) = oneshot::channel();
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        self.pool.spawn(move || {
            let _slot = slot;
            if !reply.is_closed()
                && let Ok(done) = catch_unwind(AssertUnwindSafe(job))
            {
                let _ = reply.send(done);
            }
        });
        receiver.await.ok()
    }

    /// Number of threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pool.current_num_threads()
    }
}

/// How queries and documents are paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Every query with every document.
    All,
    /// The first query with the first document, the second with the second, and so on.
    Each,
}

/// The texts to encode.
#[derive(Debug, Clone)]
pub struct Texts {
    /// The queries.
    pub queries: Arc<[Arc<str>]>,
    /// How queries and documents are paired.
    pub pairing: Pairing,
    /// The documents.
    pub documents: Arc<[String]>,
    /// How pairs that are too long are truncated or split into windows.
    pub fit: Fit,
    /// What the request says of the task, for models that take an instruction; `None` is their default.
    pub instruction: Option<Arc<str>>,
    /// Whether what a model makes of the documents may be kept for later requests.
    pub is_kept: bool,
}

impl Texts {
    /// Number of queries of each document.
    #[must_use]
    pub fn queries_of_each(&self) -> usize {
        match self.pairing {
            Pairing::All => self.queries.len(),
            Pairing::Each => 1,
        }
    }

    /// The queries of a document.
    #[must_use]
    pub fn queries_of(&self, document: usize) -> &[Arc<str>] {
        match self.pairing {
            Pairing::All => &self.queries,
            Pairing::Each => self.queries.get(document..=document).unwrap_or_default(),
        }
    }

    /// All pairs of a query and a document, document by document.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let documents = self.documents.iter().enumerate();
        documents.flat_map(|(i, document)| {
            let queries = self.queries_of(i).iter();
            queries.map(|query| (&**query, document.as_str()))
        })
    }

    /// Whether all documents have the same queries.
    pub(super) fn are_queries_shared(&self) -> bool {
        self.pairing == Pairing::All
    }
}

/// Encoded texts: a piece of a request.
#[derive(Debug, Default)]
pub struct Encoded {
    /// Number of documents.
    pub documents: usize,
    /// The sequences, in the order of [`Texts::pairs`].
    pub sequences: Vec<Sequence>,
    /// Number of sequences of each pair, at least 1: `[pairs]`.
    pub counts: Vec<usize>,
    /// Number of tokens in all sequences.
    pub tokens: usize,
    /// Whether each document or one of its queries was truncated, `[documents]`.
    pub truncated: Vec<bool>,
}

/// Encodes one model's texts; cheap to clone.
#[derive(Debug, Clone)]
pub struct EncodePool {
    threads: Threads,
    tokenizer: Arc<TextTokenizer>,
    scorer: Arc<dyn Scorer>,
    #[cfg(test)]
    turns: Arc<std::sync::atomic::AtomicUsize>,
}

impl EncodePool {
    /// An encoder from a model's parts.
    #[must_use]
    pub fn new(threads: Threads, tokenizer: TextTokenizer, scorer: Arc<dyn Scorer>) -> Self {
        Self {
            threads,
            tokenizer: Arc::new(tokenizer),
            scorer,
            #[cfg(test)]
            turns: Arc::default(),
        }
    }

    /// An encoder of the same tokenizer for another side's texts.
    #[must_use]
    pub fn with_scorer(&self, scorer: Arc<dyn Scorer>) -> Self {
        Self {
            scorer,
            ..self.clone()
        }
    }

    /// The model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The same, for jobs of another thread.
    #[must_use]
    pub fn shared_tokenizer(&self) -> Arc<TextTokenizer> {
        Arc::clone(&self.tokenizer)
    }

    /// The model's scorer.
    #[must_use]
    pub fn scorer(&self) -> &dyn Scorer {
        self.scorer.as_ref()
    }

    /// The threads that it runs on.
    #[must_use]
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Encodes one pair on this thread.
    ///
    /// # Errors
    /// If the tokenizer fails, or the pair is too long and truncation is off.
    pub fn encode(
        &self,
        query: &str,
        document: &str,
        fit: &Fit,
    ) -> Result<EncodedDocument, TokenizeError> {
        let direction = fit.truncation.direction;
        let (query, document) = (
            self.scorer.query_text(query),
            self.scorer.document_text(document),
        );
        let query = self
            .tokenizer
            .encode_within(&query, MAX_TOKENS, direction)?;
        let needed = self.scorer.needed(query.ids().len(), fit);
        let document = self.tokenizer.encode_within(&document, needed, direction)?;
        self.scorer.encode(&query, &document, fit, 0)
    }

    /// Encodes each document with its queries, a few documents at a time. Queries that all documents share are
    /// tokenised once. The work begins with the first call of [`Pieces::next`].
    #[must_use]
    pub fn pieces(&self, texts: Texts) -> Pieces {
        Pieces {
            pool: self.clone(),
            texts,
            begun: 0,
            queries: watch::Sender::new(None),
            coming: VecDeque::new(),
        }
    }

    /// Runs turns until the work is done. Publishes the shared queries' tokens once they are known.
    async fn work_off(
        self,
        mut work: Work,
        queries: watch::Sender<Option<Queries>>,
    ) -> Result<Encoded, TokenizeError> {
        while !work.is_done() {
            work = self.turn(work).await?;
            if let Some(shared) = work.shared_queries() {
                queries.send_if_modified(|known| {
                    let news = known.is_none();
                    known.get_or_insert(shared);
                    news
                });
            }
        }
        Ok(work.finish())
    }

    /// Runs one turn on the threads, once a slot is free.
    async fn turn(&self, mut work: Work) -> Result<Work, TokenizeError> {
        let (reply, receiver) = oneshot::channel();
        // The semaphore is never closed; were it, the turn would simply run unbounded.
        let slot = Arc::clone(&self.threads.slots).acquire_owned().await.ok();
        let (tokenizer, scorer) = (Arc::clone(&self.tokenizer), Arc::clone(&self.scorer));
        #[cfg(test)]
        let turns = Arc::clone(&self.turns);
        self.threads.pool.spawn(move || {
            let _slot = slot;
            if reply.is_closed() {
                return;
            }
            #[cfg(test)]
            turns.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            // A panic must fail this request, not the process (rayon would abort).
            let run = || {
                work.run(&tokenizer, scorer.as_ref(), TURN_BYTES, || {
                    reply.is_closed()
                })
            };
            let result = catch_unwind(AssertUnwindSafe(run))
                .unwrap_or_else(|_| Err(TokenizeError::Failed("it panicked".into())));
            // The requester may have gone away meanwhile.
            let _ = reply.send(result.map(|()| work));
        });
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> TokenizeError {
    TokenizeError::Failed("its thread is gone".into())
}

/// A request's encoded pieces, in the documents' order. Dropping it cancels the work.
#[derive(Debug)]
pub struct Pieces {
    pool: EncodePool,
    texts: Texts,
    /// Number of documents in the pieces that were begun.
    begun: usize,
    /// The shared queries' tokens, once the first piece has them.
    queries: watch::Sender<Option<Queries>>,
    /// The pieces that were begun: at most as many as there are threads, which bounds the memory.
    coming: VecDeque<AbortOnDropHandle<Result<Encoded, TokenizeError>>>,
}

impl Pieces {
    /// The next piece; `None` after the last one and after an error. Cancel-safe.
    ///
    /// # Errors
    /// If a pair is too long and truncation is off, or the tokenizer fails.
    pub async fn next(&mut self) -> Option<Result<Encoded, TokenizeError>> {
        while self.coming.len() < self.pool.threads.count()
            && self.begun < self.texts.documents.len()
        {
            let piece = self.begin();
            self.coming.push_back(piece);
        }
        let piece = self.coming.front_mut()?.await;
        self.coming.pop_front();
        let piece = piece.unwrap_or_else(|_| Err(gone()));
        if piece.is_err() {
            self.coming.clear();
            self.begun = self.texts.documents.len();
        }
        Some(piece)
    }

    /// The remaining pieces as one.
    #[cfg(test)]
    async fn all(mut self) -> Result<Encoded, TokenizeError> {
        let mut all = Encoded::default();
        while let Some(piece) = self.next().await {
            let piece = piece?;
            all.documents += piece.documents;
            all.sequences.extend(piece.sequences);
            all.counts.extend(piece.counts);
            all.tokens += piece.tokens;
            all.truncated.extend(piece.truncated);
        }
        Ok(all)
    }

    fn begin(&mut self) -> AbortOnDropHandle<Result<Encoded, TokenizeError>> {
        let documents = self.next_documents();
        let is_first = documents.start == 0;
        self.begun = documents.end;
        let (pool, texts, queries) = (self.pool.clone(), self.texts.clone(), self.queries.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            // The first piece also tokenises the queries, so that a small request is one turn.
            let shared = if is_first || !texts.are_queries_shared() {
                None
            } else {
                let mut known = queries.subscribe();
                let known = known.wait_for(Option::is_some).await;
                known.map_err(|_| gone())?.clone()
            };
            pool.work_off(Work::new(texts, documents, shared), queries)
                .await
        }))
    }

    /// The documents of the next piece.
    fn next_documents(&self) -> Range<usize> {
        let start = self.begun;
        let mut bytes = 0;
        let documents = self.texts.documents[start..].iter().take(DOCUMENTS);
        let few = documents.take_while(|document| {
            bytes += document.len();
            bytes <= TURN_BYTES
        });
        start..start + few.count().max(1)
    }
}

#[cfg(test)]
mod tests;
