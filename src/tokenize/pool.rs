//! The tokeniser's own bounded thread pool, so that no text is ever tokenised on an async thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use crate::types::EncodedPair;

use super::{Fitting, PairEncoder, TokenizeError};

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
    /// The pairs, in the documents' order; a document's windows one after the other.
    pub pairs: Vec<EncodedPair>,
    /// How many of the pairs are each document's windows: at least 1.
    pub windows: Vec<usize>,
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

/// What a request asks of the pool.
#[derive(Debug, Clone)]
pub struct Texts {
    /// One query for all documents, or one for each.
    pub queries: Arc<[String]>,
    /// The documents.
    pub documents: Arc<[String]>,
    /// How pairs that are too long are made to fit.
    pub fitting: Fitting,
}

/// A chunk's pairs by document, and the tokens of the query if all documents share it.
type Chunk = Result<(Option<Arc<[u32]>>, Vec<Vec<EncodedPair>>), TokenizeError>;

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

    /// The request's pieces.
    #[must_use]
    pub fn pieces(&self, texts: Texts) -> Pieces {
        Pieces {
            pool: self.clone(),
            texts: Some(texts),
        }
    }

    /// Tokenises each document and the query (once, if the documents share it), and puts the pairs
    /// together.
    ///
    /// Dropping the future stops the work at the next chunk of documents.
    ///
    /// # Errors
    /// If a pair is too long and truncation is off, or the tokenizer fails.
    pub async fn encode(&self, texts: &Texts) -> Result<Tokenized, TokenizeError> {
        // The first chunk also tokenises the query, so that a small request is one job.
        let first = self.spawn(texts, 0, None);
        let (query, first) = received(first.await).await?;

        let mut chunks = Vec::new();
        for start in (CHUNK..texts.documents.len()).step_by(CHUNK) {
            chunks.push(self.spawn(texts, start, query.clone()).await);
        }
        let mut documents = first;
        for chunk in chunks {
            documents.extend(received(chunk).await?.1);
        }
        let truncated = documents.iter().filter(|d| d.iter().any(|p| p.truncated));
        Ok(Tokenized {
            truncated: truncated.count(),
            windows: documents.iter().map(Vec::len).collect(),
            tokens: documents.iter().flatten().map(EncodedPair::len).sum(),
            pairs: documents.into_iter().flatten().collect(),
        })
    }

    /// Hands one chunk of documents to the threads, once a slot is free.
    async fn spawn(
        &self,
        texts: &Texts,
        start: usize,
        query: Option<Arc<[u32]>>,
    ) -> oneshot::Receiver<Chunk> {
        let (reply, receiver) = oneshot::channel();
        // The semaphore is never closed; were it, the job would simply run unbounded.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        let (encoder, texts) = (Arc::clone(&self.encoder), texts.clone());
        self.threads.spawn(move || {
            let _slot = slot;
            if reply.is_closed() {
                return;
            }
            // A panic must fail this request, not the process (rayon would abort).
            let chunk = catch_unwind(AssertUnwindSafe(|| encode(&encoder, &texts, start, query)))
                .unwrap_or_else(|_| Err(TokenizeError::Failed("it panicked".into())));
            // The requester may have gone meanwhile.
            let _ = reply.send(chunk);
        });
        receiver
    }
}

fn encode(encoder: &PairEncoder, texts: &Texts, start: usize, query: Option<Arc<[u32]>>) -> Chunk {
    let shared = match (query, &texts.queries[..]) {
        (Some(query), _) => Some(query),
        (None, [query]) => Some(encoder.encode_text(query)?.into()),
        (None, _) => None,
    };
    let end = texts.documents.len().min(start + CHUNK);
    let mut documents = Vec::with_capacity(end - start);
    for index in start..end {
        let query = match &shared {
            Some(query) => Arc::clone(query),
            None => encoder.encode_text(&texts.queries[index])?.into(),
        };
        let document = encoder.encode_text(&texts.documents[index])?;
        documents.push(encoder.fit(&query, &document, &texts.fitting, index)?);
    }
    Ok((shared, documents))
}

async fn received(chunk: oneshot::Receiver<Chunk>) -> Chunk {
    chunk
        .await
        .unwrap_or_else(|_| Err(TokenizeError::Failed("its thread is gone".into())))
}

/// A request's pieces, one after the other.
#[derive(Debug)]
pub struct Pieces {
    pool: TokenizePool,
    texts: Option<Texts>,
}

impl Pieces {
    /// The next piece.
    pub async fn next(&mut self) -> Option<Result<Tokenized, TokenizeError>> {
        let texts = self.texts.take()?;
        Some(self.pool.encode(&texts).await)
    }
}
