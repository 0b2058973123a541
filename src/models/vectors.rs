//! Scoring by vectors: queries and documents are encoded apart, and meet in the score alone. Documents' vectors are kept
//! in a cache, so that one that comes again costs only the query.

mod cache;
mod plan;

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use metrics::histogram;

use crate::schedule::{RunError, Submission, Ticket};
use crate::scoring::{DocumentVectors, EncodePool, Pairing, QueryVectors, Texts, Workspace};
use crate::tokenize::MAX_TOKENS;
use crate::types::{Cost, Output, RawScore, Similarity, Span, VectorDtype};

pub(super) use cache::VectorCache;
use plan::Plan;

use super::estimate::{Estimate, Known, guess};
use super::served::{Progress, ScoreError, Scored, Served, Timings};

/// Distinct documents that are scored in one turn.
const AT_ONCE: usize = 32;

/// About how many tokens there are around a text.
const AROUND: usize = 4;

/// How a model makes scores of vectors.
#[derive(Debug, Clone)]
pub struct VectorOptions {
    /// How alike two texts' vectors are.
    pub similarity: Similarity,
    /// Most bytes of documents' vectors that are kept; 0: none are.
    pub cache_bytes: u64,
    /// What those are kept in; they are scored in it too, so that a score does not depend on what is kept.
    pub cache_dtype: VectorDtype,
}

/// What a model that makes vectors has besides the encoder of its documents.
#[derive(Debug)]
pub(super) struct Vectors {
    options: VectorOptions,
    /// The encoder of its queries.
    queries: EncodePool,
    cache: Option<Arc<VectorCache>>,
}

impl Vectors {
    pub(super) fn new(options: VectorOptions, queries: EncodePool) -> Self {
        Self {
            cache: VectorCache::new(options.cache_bytes).map(Arc::new),
            options,
            queries,
        }
    }

    /// What each document will take, with its queries, by their characters.
    pub(super) fn estimates(&self, texts: &Texts, known: &Known) -> Vec<Estimate> {
        let cost = &known.cost;
        let tokens = |text: &str| known.tokens(text) + AROUND;
        let most = texts.fit.max_tokens.unwrap_or(usize::MAX);
        let most = most.min(known.longest);
        let read = texts.fit.max_document_tokens.unwrap_or(usize::MAX);
        let most = most.min(read.saturating_add(AROUND));
        let of_queries = self.queries.scorer().max_tokens();
        let documents = texts.documents.iter().enumerate().map(|(i, document)| {
            // Queries that all documents share are encoded once.
            let is_theirs = i == 0 || texts.pairing == Pairing::Each;
            let queries = texts.queries_of(i).iter().filter(|_| is_theirs);
            let queries = queries.map(|query| Estimate::of(tokens(query).min(of_queries), cost));
            Estimate::of(tokens(document).min(most), cost) + queries.sum()
        });
        documents.collect()
    }

    /// Estimates as [`Vectors::estimates`] makes them, without the documents whose vectors are in the cache.
    pub(super) fn less_known(&self, texts: &Texts, mut estimates: Vec<Estimate>) -> Vec<Estimate> {
        let Some(cache) = &self.cache else {
            return estimates;
        };
        for (estimate, document) in estimates.iter_mut().zip(texts.documents.iter()) {
            if cache.has(document, &texts.fit) {
                *estimate = Estimate::default();
            }
        }
        // The queries still count.
        if let Some(first) = estimates.first_mut().filter(|first| first.tokens == 0) {
            let tokens = self.queries.scorer().max_tokens().min(AROUND * 8);
            *first = Estimate::of(tokens, &Cost::default());
        }
        estimates
    }

    /// See [`Served::score`].
    pub(super) async fn score(
        &self,
        served: &Served,
        texts: Texts,
        estimates: &[Estimate],
        ticket: Ticket,
        progress: Progress<'_>,
    ) -> Result<Scored, ScoreError> {
        let threads = self.queries.threads();
        let cache = self.cache.clone();
        let plan = threads.run(move || Plan::new(&texts, cache.as_deref()));
        let plan = Arc::new(plan.await.ok_or_else(panicked)?);
        if let Some(cache) = &self.cache {
            cache.record(&served.info().name, plan.known(), plan.missing.len());
        }
        let mut run = Run {
            vectors: self,
            plan: Arc::clone(&plan),
            submission: served.executor().submission(ticket),
            pending: Vec::new(),
            queries: None,
            encoded: 0,
            truncated: Vec::new(),
            scores: vec![None; plan.pairs],
            tokens: 0,
            tokenize: Span::default(),
        };
        let estimated: f64 = estimates.iter().map(|estimate| estimate.cost).sum();
        let mut untold = |_: &Submission| Ok(());
        let queries = run.push(&self.queries, &plan.query_texts, &mut untold);
        let cut_queries = queries.await?;
        let of_queries = run.tokens;
        let mut tell = |submission: &Submission| {
            let to_come = (estimated - submission.cost()).max(0.0);
            progress(submission.left() + to_come)
        };
        let documents = run.push(served.encoder(), &plan.missing_texts, &mut tell);
        let cut = documents.await?;
        let texts = &plan.missing_texts.documents;
        if !texts.is_empty() && !cut.contains(&true) {
            let own = run.tokens.saturating_sub(of_queries + AROUND * texts.len());
            let guessed = texts.iter().map(|text| guess(text, MAX_TOKENS)).sum();
            served.ratio().record(own, guessed);
        }
        loop {
            run.consume().await?;
            if !run.submission.wait().await? {
                break;
            }
        }
        let name = served.info().name.clone();
        histogram!("rerankd_tokenize_seconds", "model" => name)
            .record(run.tokenize.time.as_secs_f64());
        run.finish(&cut_queries).await
    }
}

/// A request on its way.
struct Run<'a> {
    vectors: &'a Vectors,
    plan: Arc<Plan>,
    submission: Submission,
    /// Outputs that nothing was made of yet.
    pending: Vec<Output>,
    /// Once all their outputs are there.
    queries: Option<Arc<[QueryVectors]>>,
    /// How many of the missing documents' outputs have come.
    encoded: usize,
    /// Whether each of the missing documents was truncated.
    truncated: Vec<bool>,
    /// `[pairs]`
    scores: Vec<Option<RawScore>>,
    tokens: usize,
    tokenize: Span,
}

impl Run<'_> {
    /// Encodes texts and puts them into the queue, piece by piece, and makes scores of what comes out meanwhile. Tells of
    /// each text whether it was truncated. `tell` is called with what was put there so far.
    async fn push(
        &mut self,
        encoder: &EncodePool,
        texts: &Texts,
        tell: &mut (dyn FnMut(&Submission) -> Result<(), RunError> + Send),
    ) -> Result<Vec<bool>, ScoreError> {
        let mut truncated = Vec::new();
        let is_documents = Arc::ptr_eq(&texts.documents, &self.plan.missing_texts.documents);
        let mut pieces = encoder.pieces(texts.clone());
        loop {
            let start = Instant::now();
            let Some(piece) = pieces.next().await else {
                return Ok(truncated);
            };
            self.tokenize = self.tokenize.then(Span::since(start));
            let piece = piece.map_err(|error| self.plan.relocated(error))?;
            self.tokens += piece.tokens;
            truncated.extend(&piece.truncated);
            if is_documents {
                self.truncated.extend(piece.truncated);
            }
            self.submission.push(piece.sequences).await?;
            tell(&self.submission)?;
            self.consume().await?;
        }
    }

    /// Makes vectors and scores of the outputs that have come.
    async fn consume(&mut self) -> Result<(), ScoreError> {
        self.pending.extend(self.submission.take());
        let similarity = self.vectors.options.similarity;
        let queries = match &self.queries {
            Some(queries) => Arc::clone(queries),
            None => {
                let count = self.plan.query_texts.documents.len();
                if self.pending.len() < count {
                    return Ok(());
                }
                let rest = self.pending.split_off(count);
                let outputs = std::mem::replace(&mut self.pending, rest);
                let made = move || -> Arc<[QueryVectors]> {
                    let outputs = outputs.iter();
                    outputs
                        .map(|output| QueryVectors::new(output, &similarity))
                        .collect()
                };
                let made = self.threads().run(made).await.ok_or_else(panicked)?;
                self.queries = Some(Arc::clone(&made));
                let known = self.plan.known_slots();
                let jobs = known.chunks(AT_ONCE).map(|slots| {
                    let (plan, queries, slots) =
                        (Arc::clone(&self.plan), Arc::clone(&made), slots.to_vec());
                    self.threads().run(move || {
                        let mut work = Workspace::default();
                        let scored = slots.into_iter().flat_map(|slot| {
                            let vectors = plan.slots[slot].known.as_deref();
                            let vectors = vectors.map(|known| &known.vectors);
                            vectors.map_or_else(Vec::new, |vectors| {
                                scores(&plan, slot, &queries, vectors, &mut work)
                            })
                        });
                        scored.collect::<Vec<_>>()
                    })
                });
                let scored = join_all(jobs).await;
                for scored in scored {
                    self.set(scored.ok_or_else(panicked)?);
                }
                made
            }
        };
        let outputs = std::mem::take(&mut self.pending);
        if outputs.is_empty() {
            return Ok(());
        }
        let first = self.encoded;
        self.encoded += outputs.len();
        let truncated = self.truncated[first..self.encoded].to_vec();
        let (plan, cache) = (Arc::clone(&self.plan), self.vectors.cache.clone());
        let is_kept = plan.missing_texts.is_kept;
        let dtype = match cache {
            Some(_) => self.vectors.options.cache_dtype,
            None => VectorDtype::F32,
        };
        let scored = self.threads().run(move || {
            let mut work = Workspace::default();
            let slots = plan.missing[first..].iter().zip(outputs).zip(truncated);
            let scored = slots.flat_map(|((&slot, output), truncated)| {
                let vectors = DocumentVectors::new(&output, &similarity, dtype);
                let scored = scores(&plan, slot, &queries, &vectors, &mut work);
                // What has no score now should have another chance.
                let is_whole = scored.iter().all(|(_, score)| score.is_some());
                if let Some(cache) = cache.as_ref().filter(|_| is_kept && is_whole) {
                    cache.insert(plan.slots[slot].key, vectors, truncated);
                }
                scored
            });
            scored.collect::<Vec<_>>()
        });
        let scored = scored.await.ok_or_else(panicked)?;
        self.set(scored);
        Ok(())
    }

    fn threads(&self) -> &crate::scoring::Threads {
        self.vectors.queries.threads()
    }

    fn set(&mut self, scored: Vec<(usize, Option<RawScore>)>) {
        for (pair, score) in scored {
            self.scores[pair] = score;
        }
    }

    async fn finish(self, cut_queries: &[bool]) -> Result<Scored, ScoreError> {
        let ran = self.submission.finish().await?;
        let each = self.plan.each.max(1);
        let raw = self.scores.iter().enumerate().map(|(pair, score)| {
            let document = pair / each;
            score.ok_or(ScoreError::NotFinite(document))
        });
        Ok(Scored {
            raw: raw.collect::<Result<_, _>>()?,
            tokens: self.tokens,
            truncated: self.plan.truncated(&self.truncated, cut_queries),
            timings: Timings {
                tokenize: self.tokenize,
                queue: ran.queue,
                inference: ran.inference,
            },
        })
    }
}

/// The scores of a distinct document's pairs.
fn scores(
    plan: &Plan,
    slot: usize,
    queries: &[QueryVectors],
    vectors: &DocumentVectors,
    work: &mut Workspace,
) -> Vec<(usize, Option<RawScore>)> {
    let pairs = plan.slots[slot].pairs.iter();
    let scored = pairs.map(|&(pair, query)| (pair, queries[query].score(vectors, work)));
    scored.collect()
}

fn panicked() -> ScoreError {
    RunError::Engine("scoring vectors panicked".into()).into()
}
