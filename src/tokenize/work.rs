//! Some documents of a request in the middle of being tokenised.

use std::ops::Range;
use std::sync::Arc;

use crate::types::Sequence;

use super::pool::{Texts, Tokenized};
use super::{Fitted, PairEncoder, Reading, TokenizeError, Tokens};

/// Documents that are tokenised one after the other, in turns of bounded length.
#[derive(Debug)]
pub(super) struct Work {
    texts: Texts,
    /// What is still to do; the first of these may have been begun.
    documents: Range<usize>,
    /// Of the request, or of the first document if each has its own.
    query: Option<Arc<Tokens>>,
    /// The text in the middle of which the last turn ended.
    reading: Option<Reading>,
    done: Vec<Fitted>,
}

impl Work {
    pub(super) fn new(texts: Texts, documents: Range<usize>, query: Option<Arc<Tokens>>) -> Self {
        Self {
            texts,
            documents,
            query,
            reading: None,
            done: Vec::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.documents.is_empty()
    }

    /// The query's tokens, if all documents share it and it has been tokenised.
    pub(super) fn shared_query(&self) -> Option<Arc<Tokens>> {
        let shared = self.texts.queries.len() == 1;
        self.query.clone().filter(|_| shared)
    }

    /// Goes on until about so many bytes are read or all is done; with `stop`, not even so far.
    pub(super) fn run(
        &mut self,
        encoder: &PairEncoder,
        bytes: usize,
        stop: impl Fn() -> bool,
    ) -> Result<(), TokenizeError> {
        let texts = self.texts.clone();
        let fit = &texts.fit;
        let mut turn = Turn { bytes, stop };
        while let Some(index) = self.documents.clone().next() {
            let query = match &self.query {
                Some(query) => Arc::clone(query),
                None => {
                    let text = texts.queries.get(index).or(texts.queries.first());
                    let text = text.map_or("", |query| query);
                    let limit = encoder.sizes.tokens;
                    let Some(query) = self.read(encoder, text, limit, &mut turn)? else {
                        return Ok(());
                    };
                    Arc::clone(self.query.insert(Arc::new(query)))
                }
            };
            let text = &texts.documents[index];
            let limit = encoder.needed(query.ids.len(), fit);
            let Some(document) = self.read(encoder, text, limit, &mut turn)? else {
                return Ok(());
            };
            self.done.push(encoder.fit(&query, &document, fit, index)?);
            self.documents.start += 1;
            if texts.queries.len() > 1 {
                self.query = None;
            }
        }
        Ok(())
    }

    /// Begins a text or goes on with it; `None` if the turn is over before its end.
    fn read(
        &mut self,
        encoder: &PairEncoder,
        text: &str,
        limit: usize,
        turn: &mut Turn<impl Fn() -> bool>,
    ) -> Result<Option<Tokens>, TokenizeError> {
        let direction = self.texts.fit.truncation.direction;
        let begin = || Reading::new(encoder, text, limit, direction);
        let mut reading = self.reading.take().unwrap_or_else(begin);
        while !reading.is_done() {
            if turn.bytes == 0 || (turn.stop)() {
                self.reading = Some(reading);
                return Ok(None);
            }
            let read = reading.step(encoder, text)?;
            turn.bytes = turn.bytes.saturating_sub(read);
        }
        Ok(Some(reading.finish()))
    }

    /// What was made of the documents.
    pub(super) fn finish(self) -> Tokenized {
        let documents = self.done;
        let sequences = documents.iter().flat_map(|d| &d.sequences);
        Tokenized {
            truncated: documents.iter().filter(|d| d.truncated).count(),
            windows: documents.iter().map(|d| d.sequences.len()).collect(),
            tokens: sequences.map(Sequence::len).sum(),
            sequences: documents.into_iter().flat_map(|d| d.sequences).collect(),
        }
    }
}

/// What may still be done before others have their turn.
struct Turn<Stop> {
    bytes: usize,
    stop: Stop,
}
