//! The encoding of a piece of a request, in turns.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::tokenize::{MAX_TOKENS, Reading, TextTokenizer, TokenizeError, Tokens};
use crate::types::Sequence;

use super::pool::{Encoded, Texts};
use super::{EncodedDocument, Scorer};

/// The tokens of a document's queries.
pub(super) type Queries = Arc<[Tokens]>;

/// A piece's documents, encoded one after the other in turns of bounded length.
#[derive(Debug)]
pub(super) struct Work {
    texts: Texts,
    /// The remaining documents; the first may be partly read.
    documents: Range<usize>,
    /// The next document's queries, once all are tokenised.
    queries: Option<Queries>,
    /// Those queries that are tokenised so far.
    read_queries: Vec<Tokens>,
    /// The scorer of the texts' instruction, once it is made, if it is one of its own.
    instructed: Option<Arc<dyn Scorer>>,
    /// The text that the last turn did not finish, with a copy of it if it is not as it came.
    reading: Option<(Reading, Option<String>)>,
    done: Vec<EncodedDocument>,
    first: usize,
}

impl Work {
    pub(super) fn new(texts: Texts, documents: Range<usize>, queries: Option<Queries>) -> Self {
        Self {
            texts,
            first: documents.start,
            documents,
            queries,
            read_queries: Vec::new(),
            instructed: None,
            reading: None,
            done: Vec::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.documents.is_empty()
    }

    /// The queries' tokens, if all documents share them and they have been tokenised.
    pub(super) fn shared_queries(&self) -> Option<Queries> {
        let shared = self.texts.are_queries_shared();
        self.queries.clone().filter(|_| shared)
    }

    /// Runs one turn: ends after about `bytes` bytes, when all is done, or when `stop` returns true.
    pub(super) fn run(
        &mut self,
        tokenizer: &TextTokenizer,
        scorer: &dyn Scorer,
        bytes: usize,
        stop: impl Fn() -> bool,
    ) -> Result<(), TokenizeError> {
        let texts = self.texts.clone();
        let fit = &texts.fit;
        if let (Some(instruction), None) = (&texts.instruction, &self.instructed) {
            self.instructed = scorer.instructed(tokenizer, instruction)?;
        }
        let own = self.instructed.clone();
        let scorer = own.as_deref().unwrap_or(scorer);
        let mut turn = Turn { bytes, stop };
        while let Some(index) = self.documents.clone().next() {
            let queries = match &self.queries {
                Some(queries) => Arc::clone(queries),
                None => {
                    let Some(queries) =
                        self.read_queries(tokenizer, scorer, &texts, index, &mut turn)?
                    else {
                        return Ok(());
                    };
                    Arc::clone(self.queries.insert(queries))
                }
            };
            let needed = queries.iter().map(|q| scorer.needed(q.ids().len(), fit));
            let limit = needed.max().unwrap_or(0);
            let text = || scorer.document_text(&texts.documents[index]);
            let Some(document) = self.read(tokenizer, text, limit, &mut turn)? else {
                return Ok(());
            };
            for query in queries.iter() {
                self.done.push(scorer.encode(query, &document, fit, index)?);
            }
            self.documents.start += 1;
            if !texts.are_queries_shared() {
                self.queries = None;
            }
        }
        Ok(())
    }

    /// Continues with a document's queries; `None` if the turn ends before they are tokenised.
    fn read_queries(
        &mut self,
        tokenizer: &TextTokenizer,
        scorer: &dyn Scorer,
        texts: &Texts,
        document: usize,
        turn: &mut Turn<impl Fn() -> bool>,
    ) -> Result<Option<Queries>, TokenizeError> {
        let queries = texts.queries_of(document);
        while let Some(text) = queries.get(self.read_queries.len()) {
            match self.read(tokenizer, || scorer.query_text(text), MAX_TOKENS, turn)? {
                Some(query) => self.read_queries.push(query),
                None => return Ok(None),
            }
        }
        Ok(Some(std::mem::take(&mut self.read_queries).into()))
    }

    /// Begins or continues a text; `None` if the turn ends before it is tokenised.
    fn read<'a>(
        &mut self,
        tokenizer: &TextTokenizer,
        text: impl FnOnce() -> Cow<'a, str>,
        limit: usize,
        turn: &mut Turn<impl Fn() -> bool>,
    ) -> Result<Option<Tokens>, TokenizeError> {
        let direction = self.texts.fit.truncation.direction;
        let (mut reading, text) = match self.reading.take() {
            Some((reading, Some(copy))) => (reading, copy.into()),
            Some((reading, None)) => (reading, text()),
            None => {
                let text = text();
                (Reading::new(tokenizer, &text, limit, direction), text)
            }
        };
        while !reading.is_done() {
            if turn.bytes == 0 || (turn.stop)() {
                let copy = match text {
                    Cow::Owned(text) => Some(text),
                    Cow::Borrowed(_) => None,
                };
                self.reading = Some((reading, copy));
                return Ok(None);
            }
            let read = reading.step(tokenizer, &text)?;
            turn.bytes = turn.bytes.saturating_sub(read);
        }
        Ok(Some(reading.finish()))
    }

    /// The encoded documents.
    pub(super) fn finish(self) -> Encoded {
        let sequences = self.done.iter().flat_map(|d| &d.sequences);
        let tokens = sequences.map(Sequence::len).sum();
        let documents = self.documents.start - self.first;
        let each = (self.done.len() / documents.max(1)).max(1);
        let truncated = self.done.chunks(each);
        let truncated = truncated.map(|d| d.iter().any(|d| d.truncated)).collect();
        Encoded {
            documents,
            counts: self.done.iter().map(|d| d.sequences.len()).collect(),
            tokens,
            truncated,
            sequences: self.done.into_iter().flat_map(|d| d.sequences).collect(),
        }
    }
}

/// What is left of a turn.
struct Turn<Stop> {
    bytes: usize,
    stop: Stop,
}
