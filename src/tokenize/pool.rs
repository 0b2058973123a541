//! The tokeniser's own bounded thread pool, so that no text is ever tokenised on an async thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use crate::types::EncodedPair;

use super::{PairEncoder, TokenizeError, Truncation};

/// Documents per job: small, so that requests interleave and a large one uses all threads.
const CHUNK: usize = 16;

/// Size of the pool.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads that tokenise.
    pub threads: usize,
}

/// A request's texts as pairs of ids.
#[derive(Debug)]
pub struct Tokenized {
    /// One pair per document, in the documents' order.
    pub pairs: Vec<EncodedPair>,
    /// Tokens of all pairs.
    pub tokens: usize,
    /// Documents that were cut (or whose query was).
    pub truncated: usize,
}

/// Tokenises on threads of its own; cheap to clone.
#[derive(Debug, Clone)]
pub struct TokenizePool {
    encoder: Arc<PairEncoder>,
    threads: Arc<rayon::ThreadPool>,
    // Bounds the jobs handed to the threads; tokio's semaphore is fair, so requests take turns.
    slots: Arc<Semaphore>,
}

type Chunk = Result<(Arc<[u32]>, Vec<EncodedPair>), TokenizeError>;

impl TokenizePool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn new(encoder: PairEncoder, options: Options) -> Result<Self, TokenizeError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("tokenize-{i}"))
            .build()
            .map_err(|e| TokenizeError::Failed(e.to_string()))?;
        Ok(Self {
            encoder: Arc::new(encoder),
            threads: Arc::new(threads),
            slots: Arc::new(Semaphore::new(options.threads * 2)),
        })
    }

    /// The encoder that the pool runs.
    #[must_use]
    pub fn encoder(&self) -> &PairEncoder {
        &self.encoder
    }

    /// Tokenises the query once and each document, and puts the pairs together.
    ///
    /// Dropping the future stops the work at the next chunk of documents.
    ///
    /// # Errors
    /// If a pair is too long and truncation is off, or the tokenizer fails.
    pub async fn encode(
        &self,
        query: &str,
        documents: &Arc<[String]>,
        truncation: Truncation,
    ) -> Result<Tokenized, TokenizeError> {
        let mut pairs = Vec::with_capacity(documents.len());
        // The first chunk also tokenises the query, so that a small request is one job.
        let text = query.to_owned();
        let encoder = Arc::clone(&self.encoder);
        let first = self.spawn(documents, 0, truncation, move || {
            encoder.encode_text(&text).map(Arc::from)
        });
        let (query, chunk) = received(first.await).await?;
        pairs.extend(chunk);

        let mut chunks = Vec::new();
        for start in (CHUNK..documents.len()).step_by(CHUNK) {
            let query = Arc::clone(&query);
            chunks.push(
                self.spawn(documents, start, truncation, move || Ok(query))
                    .await,
            );
        }
        for chunk in chunks {
            pairs.extend(received(chunk).await?.1);
        }
        Ok(Tokenized {
            tokens: pairs.iter().map(EncodedPair::len).sum(),
            truncated: pairs.iter().filter(|p| p.truncated).count(),
            pairs,
        })
    }

    /// Hands one chunk of documents to the threads, once a slot is free.
    async fn spawn(
        &self,
        documents: &Arc<[String]>,
        start: usize,
        truncation: Truncation,
        query: impl FnOnce() -> Result<Arc<[u32]>, TokenizeError> + Send + 'static,
    ) -> oneshot::Receiver<Chunk> {
        let (reply, receiver) = oneshot::channel();
        // The semaphore is never closed; were it, the job would simply run unbounded.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        let (encoder, documents) = (Arc::clone(&self.encoder), Arc::clone(documents));
        self.threads.spawn(move || {
            let _slot = slot;
            if reply.is_closed() {
                return;
            }
            let end = documents.len().min(start + CHUNK);
            // A panic must fail this request, not the process (rayon would abort).
            let chunk = catch_unwind(AssertUnwindSafe(|| {
                let query = query()?;
                let mut pairs = Vec::with_capacity(end - start);
                for index in start..end {
                    let document = encoder.encode_text(&documents[index])?;
                    pairs.push(encoder.pair(&query, &document, truncation, index)?);
                }
                Ok((query, pairs))
            }))
            .unwrap_or_else(|_| Err(TokenizeError::Failed("it panicked".into())));
            // The requester may have gone meanwhile.
            let _ = reply.send(chunk);
        });
        receiver
    }
}

async fn received(chunk: oneshot::Receiver<Chunk>) -> Chunk {
    chunk
        .await
        .unwrap_or_else(|_| Err(TokenizeError::Failed("its thread is gone".into())))
}
