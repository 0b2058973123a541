//! Encoding on a bounded pool of threads, so that no text is ever tokenised on an async thread.

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

/// Documents of one piece at most: few, so that requests interleave and a large one uses all threads.
const DOCUMENTS: usize = 16;

/// Bytes of a piece, unless one document has more; and bytes read in one turn.
const BYTES: usize = 64 << 10;

/// The threads that encode, for all models; cheap to clone.
#[derive(Debug, Clone)]
pub struct Threads {
    pool: Arc<rayon::ThreadPool>,
    // Bounds the turns handed to the threads; tokio's semaphore is fair, so requests take turns.
    slots: Arc<Semaphore>,
}

impl Threads {
    /// Starts so many threads.
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

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pool.current_num_threads()
    }
}

/// Which documents a query goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Each with all of them.
    All,
    /// The first with the first, the second with the second.
    Each,
}

/// What a request asks of the pool.
#[derive(Debug, Clone)]
pub struct Texts {
    /// The queries.
    pub queries: Arc<[Arc<str>]>,
    /// Which documents they go with.
    pub pairing: Pairing,
    /// The documents.
    pub documents: Arc<[String]>,
    /// How pairs that are too long are made to fit.
    pub fit: Fit,
}

impl Texts {
    /// The queries that go with a document.
    #[must_use]
    pub fn queries_of(&self, document: usize) -> &[Arc<str>] {
        match self.pairing {
            Pairing::All => &self.queries,
            Pairing::Each => self.queries.get(document..=document).unwrap_or_default(),
        }
    }

    /// Each pair of a query and a document, document after document.
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

/// A request's texts as sequences, or the next few of them.
#[derive(Debug, Default)]
pub struct Encoded {
    /// How many documents they are of.
    pub documents: usize,
    /// The sequences, in the order of [`Texts::pairs`].
    pub sequences: Vec<Sequence>,
    /// How many of the sequences are each pair's: at least 1.
    pub counts: Vec<usize>,
    /// Tokens of all sequences.
    pub tokens: usize,
    /// Whether each document was cut (or a query of it), `[documents]`.
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
    /// Puts a model's parts together.
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

    /// The model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// How the model scores.
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
        let query = self.tokenizer.encode_within(query, MAX_TOKENS, direction)?;
        let needed = self.scorer.needed(query.ids().len(), fit);
        let document = self.tokenizer.encode_within(document, needed, direction)?;
        self.scorer.encode(&query, &document, fit, 0)
    }

    /// Encodes each document with its queries (read once, if the documents share them), a few documents at a
    /// time. The work begins when the first piece is asked for.
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

    /// Takes turns until the work is done. Tells the queries' tokens as soon as they are known.
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

    /// Hands the work to the threads for one turn, once a slot is free.
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
            let run = || work.run(&tokenizer, scorer.as_ref(), BYTES, || reply.is_closed());
            let result = catch_unwind(AssertUnwindSafe(run))
                .unwrap_or_else(|_| Err(TokenizeError::Failed("it panicked".into())));
            // The requester may have gone meanwhile.
            let _ = reply.send(result.map(|()| work));
        });
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> TokenizeError {
    TokenizeError::Failed("its thread is gone".into())
}

/// A request's sequences, piece by piece in the documents' order. Dropping it stops the work.
#[derive(Debug)]
pub struct Pieces {
    pool: EncodePool,
    texts: Texts,
    /// Documents of the pieces that were begun.
    begun: usize,
    /// The shared queries' tokens, once the first piece has them.
    queries: watch::Sender<Option<Queries>>,
    /// At most as many as there are threads, so that what waits for the caller is bounded.
    coming: VecDeque<AbortOnDropHandle<Result<Encoded, TokenizeError>>>,
}

impl Pieces {
    /// The next documents' sequences; `None` after the last. Nothing is lost if the future is dropped.
    ///
    /// After an error there is nothing more.
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

    /// All the remaining pieces as one.
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

    /// The documents of the piece to begin next.
    fn next_documents(&self) -> Range<usize> {
        let start = self.begun;
        let mut bytes = 0;
        let documents = self.texts.documents[start..].iter().take(DOCUMENTS);
        let few = documents.take_while(|document| {
            bytes += document.len();
            bytes <= BYTES
        });
        start..start + few.count().max(1)
    }
}

#[cfg(test)]
mod tests;
