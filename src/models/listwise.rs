//! Scoring of lists: documents are read in blocks, each in one sequence with the query. Scores depend on what else is in
//! the list, so nothing of them is cached and equal documents are read as often as they are there.

use std::sync::Arc;
use std::time::Instant;

use metrics::histogram;

use crate::schedule::{RunError, Ticket};
use crate::scoring::{CutText, EncodePool, Listwise, Pairing, TURN_BYTES, Texts};
use crate::tokenize::{TextTokenizer, TokenizeError};
use crate::types::{RawScore, Sequence, Span};

use super::estimate::{Estimate, Known};
use super::served::{Progress, ScoreError, Scored, Served, Timings};

/// What a listwise model has.
#[derive(Debug, Clone)]
pub(super) struct Lists(pub(super) Arc<Listwise>);

/// A query with the documents that are ranked for it, by their places.
#[derive(Debug)]
struct List {
    query: usize,
    documents: Vec<usize>,
    /// Its blocks: documents of each.
    blocks: Vec<usize>,
}

/// A request's texts, cut.
#[derive(Debug)]
struct Cut {
    queries: Vec<CutText>,
    documents: Vec<CutText>,
    instruction: Option<Arc<str>>,
}

impl Lists {
    /// What each document will take: its own tokens, and its part of what stands around lists.
    pub(super) fn estimates(&self, texts: &Texts, known: &Known) -> Vec<Estimate> {
        let most = self.0.longest_texts();
        let tokens = |text: &str| known.tokens(text);
        let read = texts.fit.max_document_tokens.unwrap_or(usize::MAX);
        let query = |query: &Arc<str>| 2 * tokens(query).min(most.query);
        let instruction = texts.instruction.as_deref().map_or(0, tokens);
        let lengths = texts.documents.iter();
        let lengths = lengths.map(|text| tokens(text).min(most.document).min(read) + most.around);
        let lengths: Vec<usize> = lengths.collect();
        let of_list = |query: usize, all: usize| {
            let around = known.around.tokens + instruction + query;
            // A list is longer than a block by what stands around each of its blocks.
            let room = known.longest.saturating_sub(around).max(1);
            let (full, rest) = (all / room, all % room);
            let blocks = Estimate::of(room + around, &known.cost).times(full);
            match rest {
                0 => blocks,
                rest => blocks + Estimate::of(rest + around, &known.cost),
            }
        };
        let all: usize = lengths.iter().sum();
        let whole: Estimate = match texts.pairing {
            Pairing::All => texts.queries.iter().map(|q| of_list(query(q), all)).sum(),
            Pairing::Each => {
                // Documents with one query are one list; how many there are is not looked into.
                let first = texts.queries.first().map_or(0, query);
                of_list(first, all)
            }
        };
        let share = |&own: &usize| {
            let share = own as f64 / all.max(1) as f64;
            Estimate {
                tokens: (whole.tokens as f64 * share).ceil() as usize,
                cost: whole.cost * share,
            }
        };
        lengths.iter().map(share).collect()
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
        let encoder = served.encoder();
        let start = Instant::now();
        let texts = Arc::new(texts);
        let cut = Arc::new(self.cut(encoder, &texts).await?);
        let mut tokenize = Span::since(start);
        let mut lists = lists(&texts);
        let mut submission = served.executor().submission(ticket);
        let (mut tokens, whole) = (0, estimates.iter().map(|e| e.cost).sum::<f64>());
        for list in &mut lists {
            let lengths = list.documents.iter().map(|&d| cut.documents[d].tokens);
            let lengths: Vec<usize> = lengths.collect();
            let query = cut.queries[list.query].tokens;
            for block in self.0.blocks(query, &lengths) {
                let start = Instant::now();
                let documents = list.documents[block].to_vec();
                list.blocks.push(documents.len());
                let sequence = self.sequence(encoder, &cut, list.query, documents).await?;
                tokenize = tokenize.then(Span::since(start));
                tokens += sequence.len();
                submission.push(vec![sequence]).await?;
                progress(submission.left() + (whole - submission.cost()).max(0.0))?;
            }
        }
        let name = served.info().name.clone();
        histogram!("rerankd_tokenize_seconds", "model" => name).record(tokenize.time.as_secs_f64());
        let ran = submission.finish().await?;
        let each = texts.queries_of_each();
        let mut raw = vec![None; texts.documents.len() * each];
        let mut truncated: Vec<bool> = cut.documents.iter().map(|text| text.truncated).collect();
        let mut outputs = &ran.outputs[..];
        for list in &lists {
            let (own, rest) = outputs.split_at(list.blocks.len().min(outputs.len()));
            outputs = rest;
            let of_query = match texts.pairing {
                Pairing::All => list.query,
                Pairing::Each => 0,
            };
            for (&document, score) in list.documents.iter().zip(Listwise::decode(own)) {
                raw[document * each + of_query] = score;
                truncated[document] |= cut.queries[list.query].truncated;
            }
        }
        let raw = raw
            .iter()
            .enumerate()
            .map(|(pair, score): (_, &Option<RawScore>)| {
                score.ok_or(ScoreError::NotFinite(pair / each.max(1)))
            });
        Ok(Scored {
            raw: raw.collect::<Result<_, _>>()?,
            tokens,
            truncated,
            timings: Timings {
                tokenize,
                queue: ran.queue,
                inference: ran.inference,
            },
        })
    }

    /// Cuts all texts, some in a turn of the tokenizer's threads.
    async fn cut(&self, encoder: &EncodePool, texts: &Arc<Texts>) -> Result<Cut, ScoreError> {
        let mut queries = Vec::new();
        for query in texts.queries.iter() {
            let (scorer, query, fit) = (Arc::clone(&self.0), Arc::clone(query), texts.fit);
            let read = run(encoder, move |tokenizer| {
                scorer.cut(tokenizer, &query, &fit, None)
            });
            queries.push(read.await.ok_or_else(panicked)??);
        }
        let mut documents = Vec::new();
        while documents.len() < texts.documents.len() {
            let (scorer, texts, first) = (Arc::clone(&self.0), Arc::clone(texts), documents.len());
            let read = run(encoder, move |tokenizer| {
                let (mut read, mut bytes) = (Vec::new(), 0);
                for (i, document) in texts.documents.iter().enumerate().skip(first) {
                    read.push(scorer.cut(tokenizer, document, &texts.fit, Some(i))?);
                    bytes += document.len();
                    if bytes > TURN_BYTES {
                        break;
                    }
                }
                Ok::<_, TokenizeError>(read)
            });
            documents.extend(read.await.ok_or_else(panicked)??);
        }
        Ok(Cut {
            queries,
            documents,
            instruction: texts.instruction.clone(),
        })
    }

    /// The sequence of a block.
    async fn sequence(
        &self,
        encoder: &EncodePool,
        cut: &Arc<Cut>,
        query: usize,
        documents: Vec<usize>,
    ) -> Result<Sequence, ScoreError> {
        let (scorer, cut) = (Arc::clone(&self.0), Arc::clone(cut));
        let made = run(encoder, move |tokenizer| {
            let documents = documents.iter().map(|&d| &*cut.documents[d].text);
            let documents: Vec<&str> = documents.collect();
            let (query, instruction) = (&cut.queries[query].text, cut.instruction.as_deref());
            scorer.sequence(tokenizer, query, instruction, &documents)
        });
        Ok(made.await.ok_or_else(panicked)??)
    }
}

/// The lists of a request: all documents for each query, or each document for its own.
fn lists(texts: &Texts) -> Vec<List> {
    let list = |query, documents| List {
        query,
        documents,
        blocks: Vec::new(),
    };
    match texts.pairing {
        Pairing::All => {
            let all = || (0..texts.documents.len()).collect();
            (0..texts.queries.len())
                .map(|query| list(query, all()))
                .collect()
        }
        Pairing::Each => (0..texts.documents.len())
            .map(|i| list(i, vec![i]))
            .collect(),
    }
}

/// Runs a job on the tokenizer's threads; `None` if it panics.
async fn run<T: Send + 'static>(
    encoder: &EncodePool,
    job: impl FnOnce(&TextTokenizer) -> T + Send + 'static,
) -> Option<T> {
    let tokenizer = encoder.shared_tokenizer();
    encoder.threads().run(move || job(&tokenizer)).await
}

fn panicked() -> ScoreError {
    RunError::Engine("making a prompt panicked".into()).into()
}
