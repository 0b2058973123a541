//! The tokeniser's own bounded thread pool, so that no text is ever tokenised on an async thread.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::types::Sequence;

use super::work::Work;
use super::{Fit, PairEncoder, TokenizeError, Tokens};

/// Documents of one piece at most: few, so that requests interleave and a large one uses all threads.
const DOCUMENTS: usize = 16;

/// Bytes of a piece, unless one document has more; and bytes read in one turn.
const BYTES: usize = 64 << 10;

/// Size of the pool.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads that tokenise.
    pub threads: usize,
}

/// A request's texts as pairs of ids, or the next few of them.
#[derive(Debug, Default)]
pub struct Tokenized {
    /// The pairs, in the documents' order; a document's windows one after the other.
    pub sequences: Vec<Sequence>,
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
    // Bounds the turns handed to the threads; tokio's semaphore is fair, so requests take turns.
    slots: Arc<Semaphore>,
    #[cfg(test)]
    turns: Arc<std::sync::atomic::AtomicUsize>,
}

/// What a request asks of the pool.
#[derive(Debug, Clone)]
pub struct Texts {
    /// One query for all documents, or one for each.
    pub queries: Arc<[Arc<str>]>,
    /// The documents.
    pub documents: Arc<[String]>,
    /// How pairs that are too long are made to fit.
    pub fit: Fit,
}

impl Texts {
    /// Each document with its query.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.documents.iter().enumerate().map(|(i, document)| {
            let query = self.queries.get(i).or(self.queries.first());
            (query.map_or("", |query| query), document.as_str())
        })
    }
}

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
            #[cfg(test)]
            turns: Arc::default(),
        })
    }

    /// The encoder that the pool runs.
    #[must_use]
    pub fn encoder(&self) -> &PairEncoder {
        &self.encoder
    }

    /// Tokenises each document and the query (once, if the documents share it), and puts the pairs
    /// together, a few documents at a time. The work begins when the first piece is asked for.
    #[must_use]
    pub fn pieces(&self, texts: Texts) -> Pieces {
        Pieces {
            pool: self.clone(),
            texts,
            begun: 0,
            query: watch::Sender::new(None),
            coming: VecDeque::new(),
        }
    }

    /// Takes turns until the work is done. Tells the query's tokens as soon as they are known.
    async fn work_off(
        self,
        mut work: Work,
        query: watch::Sender<Option<Arc<Tokens>>>,
    ) -> Result<Tokenized, TokenizeError> {
        while !work.is_done() {
            work = self.turn(work).await?;
            if let Some(shared) = work.shared_query() {
                query.send_if_modified(|known| {
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
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        let encoder = Arc::clone(&self.encoder);
        #[cfg(test)]
        let turns = Arc::clone(&self.turns);
        self.threads.spawn(move || {
            let _slot = slot;
            if reply.is_closed() {
                return;
            }
            #[cfg(test)]
            turns.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            // A panic must fail this request, not the process (rayon would abort).
            let run = || work.run(&encoder, BYTES, || reply.is_closed());
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

/// A request's pairs, piece by piece in the documents' order. Dropping it stops the work.
#[derive(Debug)]
pub struct Pieces {
    pool: TokenizePool,
    texts: Texts,
    /// Documents of the pieces that were begun.
    begun: usize,
    /// The shared query's tokens, once the first piece has them.
    query: watch::Sender<Option<Arc<Tokens>>>,
    /// At most as many as there are threads, so that what waits for the caller is bounded.
    coming: VecDeque<AbortOnDropHandle<Result<Tokenized, TokenizeError>>>,
}

impl Pieces {
    /// The next documents' pairs; `None` after the last. Nothing is lost if the future is dropped.
    ///
    /// After an error there is nothing more.
    ///
    /// # Errors
    /// If a pair is too long and truncation is off, or the tokenizer fails.
    pub async fn next(&mut self) -> Option<Result<Tokenized, TokenizeError>> {
        while self.coming.len() < self.pool.threads.current_num_threads()
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
    async fn all(mut self) -> Result<Tokenized, TokenizeError> {
        let mut all = Tokenized::default();
        while let Some(piece) = self.next().await {
            let piece = piece?;
            all.sequences.extend(piece.sequences);
            all.windows.extend(piece.windows);
            all.tokens += piece.tokens;
            all.truncated += piece.truncated;
        }
        Ok(all)
    }

    fn begin(&mut self) -> AbortOnDropHandle<Result<Tokenized, TokenizeError>> {
        let documents = self.next_documents();
        let is_first = documents.start == 0;
        self.begun = documents.end;
        let (pool, texts, query) = (self.pool.clone(), self.texts.clone(), self.query.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            // The first piece also tokenises the query, so that a small request is one turn.
            let shared = if is_first || texts.queries.len() > 1 {
                None
            } else {
                let mut known = query.subscribe();
                let known = known.wait_for(Option::is_some).await;
                known.map_err(|_| gone())?.clone()
            };
            pool.work_off(Work::new(texts, documents, shared), query)
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
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::super::tests::encoder;
    use super::super::{Direction, Strategy, Truncation, Windows};
    use super::*;

    fn pool(threads: usize) -> TokenizePool {
        let encoder = encoder("tests/fixtures/models/tiny-bert", 64);
        TokenizePool::new(encoder, Options { threads }).unwrap()
    }

    fn texts(queries: &[&str], documents: Vec<String>) -> Texts {
        let truncation = Truncation {
            strategy: Strategy::LongestFirst,
            direction: Direction::Right,
        };
        Texts {
            queries: queries.iter().map(|&q| q.into()).collect(),
            documents: documents.into(),
            fit: Fit {
                truncation,
                max_tokens: None,
                max_document_tokens: None,
                windows: Windows { max: 4, overlap: 8 },
            },
        }
    }

    /// Megabytes of which every byte is read: words too long for the vocabulary, a token each.
    fn large() -> String {
        format!("{} ", "x".repeat(3000)).repeat(5400)
    }

    #[tokio::test]
    async fn pieces_are_all_documents_in_order() {
        let words = ["river", "sea", "bread", "cat"];
        let document = |i: usize| match i % 9 {
            0 => String::new(),
            8 => large()[..100_000].to_owned(),
            _ => vec![words[i % 4]; i * i].join(" "),
        };
        let documents: Vec<String> = (0..70).map(document).collect();
        let each: Vec<&str> = (0..70).map(|i| words[i % 3]).collect();
        for queries in [&["the river"][..], &each] {
            let texts = texts(queries, documents.clone());
            let pool = pool(3);
            let mut expected = Vec::new();
            for (i, document) in documents.iter().enumerate() {
                let within = |text| {
                    let tokens = pool
                        .encoder
                        .encode_within(text, usize::MAX, Direction::Right);
                    tokens.unwrap()
                };
                let query = within(queries.get(i).unwrap_or(&queries[0]));
                let pairs = pool.encoder.fit(&query, &within(document), &texts.fit, i);
                expected.push(pairs.unwrap());
            }
            let mut pieces = pool.pieces(texts.clone());
            let mut number = 0;
            while let Some(piece) = pieces.next().await {
                number += 1;
                assert!(pieces.coming.len() < 3);
                assert!(piece.unwrap().windows.len() <= DOCUMENTS);
            }
            assert!(number > 10);
            let all = pool.pieces(texts).all().await.unwrap();
            let windows: Vec<usize> = expected.iter().map(|d| d.sequences.len()).collect();
            assert_eq!(all.windows, windows);
            let truncated = expected.iter().filter(|d| d.truncated);
            assert_eq!(all.truncated, truncated.count());
            let sequences: Vec<_> = expected.into_iter().flat_map(|d| d.sequences).collect();
            assert_eq!(all.sequences, sequences);
        }
    }

    #[tokio::test]
    async fn an_error_ends_the_pieces() {
        let mut texts = texts(&["river"], vec!["sea ".repeat(200); 90]);
        texts.fit.truncation.strategy = Strategy::Off;
        texts.fit.windows.max = 1;
        let mut pieces = pool(2).pieces(texts);
        let error = pieces.next().await.unwrap().unwrap_err().to_string();
        assert!(
            error.contains("document 0 and the query are at least 6"),
            "{error}"
        );
        assert!(pieces.next().await.is_none());
    }

    #[tokio::test]
    async fn a_small_request_waits_for_few_turns_of_a_large_one() {
        let pool = pool(1);
        let slots = pool.slots.available_permits();
        let mut pieces = pool.pieces(texts(&["river"], vec![large(); 3]));
        let large = tokio::spawn(async move { pieces.next().await });
        while pool.turns.load(SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        let before = pool.turns.load(SeqCst);
        let small = pool.pieces(texts(&["river"], vec!["sea".into()]));
        assert_eq!(small.all().await.unwrap().sequences.len(), 1);
        let turns = pool.turns.load(SeqCst) - before;
        assert!(turns <= slots + 2, "{turns} turns");
        assert!(!large.is_finished());
        large.abort();
    }

    #[tokio::test]
    async fn a_large_document_takes_many_turns_and_stops_when_nobody_waits_for_it() {
        let pool = pool(2);
        let text = large();
        let mut pieces = pool.pieces(texts(&["river"], vec![text; 4]));
        let large = tokio::spawn(async move { pieces.next().await });
        while pool.turns.load(SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        large.abort();
        assert!(large.await.unwrap_err().is_cancelled());
        // All slots are free only once the last turn is over.
        let all = pool.slots.acquire_many(4).await.unwrap();
        let stopped = pool.turns.load(SeqCst);
        drop(all);
        let small = pool.pieces(texts(&["river"], vec!["sea".into()]));
        small.all().await.unwrap();
        assert_eq!(pool.turns.load(SeqCst), stopped + 1);
        assert!(stopped < 20, "{stopped}");
    }

    #[test]
    fn a_turn_is_short_and_ends_between_segments() {
        let encoder = encoder("tests/fixtures/models/tiny-bert", 64);
        let text = &large()[..1 << 20];
        let documents = vec![text.to_owned()];
        let mut work = Work::new(texts(&["river"], documents), 0..1, None);
        work.run(&encoder, BYTES, || true).unwrap();
        assert!(work.shared_query().is_none());
        let asked = std::cell::Cell::new(0);
        let after_three = || asked.replace(asked.get() + 1) == 3;
        work.run(&encoder, BYTES, after_three).unwrap();
        assert!(work.shared_query().is_some() && !work.is_done());
        let mut turns = 0;
        while !work.is_done() {
            work.run(&encoder, BYTES, || false).unwrap();
            turns += 1;
        }
        assert!((14..=17).contains(&turns), "{turns}");
    }
}
