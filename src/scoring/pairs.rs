//! How a query and a document become sequences when they may be too long: truncation, or windows of the document, each
//! with the query. The same for every kind of model that reads both together.

use std::ops::Range;

use crate::tokenize::{MAX_TOKENS, Text, TokenizeError, Tokens};
use crate::types::{Output, RawScore, Sequence, WindowScore};

use super::fit::{self, Fit, Strategy};
use super::windows::{self, Windows};
use super::{EncodedDocument, label};

/// What puts a query and a part of a document into one sequence.
pub(super) trait Join {
    /// Most tokens of a sequence that are neither the query's nor the document's.
    fn overhead(&self) -> usize;

    /// The sequence of some of the query's tokens and some of the document's.
    fn join(&self, query: Range<usize>, document: Range<usize>) -> Sequence;
}

/// A text's tokens, or those of one end of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) ids: &'a [u32],
    /// Whether the text has more tokens.
    pub(super) more: bool,
    /// Whether these are all.
    pub(super) whole: bool,
}

impl<'a> From<&'a Tokens> for Side<'a> {
    fn from(tokens: &'a Tokens) -> Self {
        Self {
            ids: &tokens.ids,
            more: tokens.more,
            whole: tokens.is_whole(),
        }
    }
}

/// What a model allows of a pair, and what it makes of the outputs.
#[derive(Debug, Clone)]
pub(super) struct Pairs {
    /// Longest sequence in tokens.
    pub(super) max_tokens: usize,
    /// Maximum number of tokens read from a document whose windows are selected.
    pub(super) most_tokens: usize,
    window_score: WindowScore,
    /// The label whose score is a document's.
    label: usize,
}

impl Pairs {
    pub(super) fn new(max_tokens: usize, window_score: WindowScore, label: usize) -> Self {
        Self {
            max_tokens,
            most_tokens: MAX_TOKENS,
            window_score,
            label,
        }
    }

    /// The longest pair that `fit` allows.
    pub(super) fn longest(&self, fit: &Fit) -> usize {
        let asked = fit.max_tokens.unwrap_or(self.max_tokens);
        asked.min(self.max_tokens)
    }

    /// How many of a document's tokens [`Pairs::encode`] needs beside a query of `query`.
    pub(super) fn needed(&self, overhead: usize, query: usize, fit: &Fit) -> usize {
        let room = self.longest(fit).saturating_sub(overhead);
        let Windows { max, overlap } = fit.windows;
        let needed = if max <= 1 {
            // The longer side is truncated, so enough must be read to know which one that is.
            room.max(query)
        } else if fit.truncation.strategy == Strategy::Off {
            let kept = windows::query_in_windows(query, room);
            let covered = windows::capacity(max, room - kept, overlap);
            covered.min(self.most_tokens).max(room)
        } else {
            // Any window may match best.
            self.most_tokens.max(room)
        };
        // One more token tells whether the document ends there.
        let asked = fit.max_document_tokens.unwrap_or(usize::MAX);
        needed.min(asked).saturating_add(1)
    }

    /// A document's sequences. `index` is its place in the request.
    pub(super) fn encode(
        &self,
        join: &dyn Join,
        query: Side<'_>,
        document: Side<'_>,
        fit: &Fit,
        index: usize,
    ) -> Result<EncodedDocument, TokenizeError> {
        let (max_tokens, overhead) = (self.longest(fit), join.overhead());
        let room = max_tokens.saturating_sub(overhead);
        let direction = fit.truncation.direction;
        let too_long = |tokens: usize| TokenizeError::TooLong {
            document: index,
            tokens: query.ids.len() + tokens + overhead,
            at_least: query.more || document.more,
            max_tokens,
            windows: fit.windows.max,
        };
        let found = document.ids.len();
        if room == 0 {
            return Err(too_long(found));
        }
        let read = fit.max_document_tokens.unwrap_or(usize::MAX).min(found);
        let cut = read < found || !document.whole || !query.whole;
        // Tokens beyond the maximum don't count as unread.
        let unread = document.more && read == found;
        let (asked, from) = (query.ids.len(), fit::cut(found, read, direction).start);
        let is_query_whole = fit.truncation.strategy == Strategy::Document;
        if is_query_whole && asked + read.min(1) > room {
            return Err(TokenizeError::TextTooLong {
                text: Text::Query,
                tokens: asked,
                at_least: query.more,
                max_tokens: room - read.min(1),
            });
        }
        // A document without tokens has no windows, however long the query is.
        if fit.windows.max <= 1 || read == 0 || asked + read <= room {
            let kept = fit::kept(asked, read, room, fit.truncation.strategy);
            let (q, d) = kept.ok_or_else(|| too_long(read))?;
            let Range { start, end } = fit::cut(read, d, direction);
            let pair = join.join(fit::cut(asked, q, direction), from + start..from + end);
            return Ok(EncodedDocument {
                sequences: vec![pair],
                truncated: q < asked || d < read || cut,
            });
        }
        let Windows { max, overlap } = fit.windows;
        let most = match is_query_whole {
            true => asked,
            false => windows::query_in_windows(asked, room),
        };
        let kept = match most {
            // The room that a short document leaves is the query's.
            kept if read <= room - kept && !unread => asked.min(room - read),
            kept => kept,
        };
        let ranges = windows::cover(read, room - kept, overlap);
        let covered = ranges.len() <= max && !unread;
        let whole = covered && kept == asked;
        if !whole && fit.truncation.strategy == Strategy::Off {
            return Err(too_long(found));
        }
        let kept = fit::cut(asked, kept, direction);
        let of_document = &document.ids[from..from + read];
        let ranges = windows::best(&query.ids[kept.clone()], of_document, ranges, max);
        let windows = ranges.into_iter().map(|Range { start, end }| {
            let window = from + start..from + end;
            join.join(kept.clone(), window)
        });
        Ok(EncodedDocument {
            sequences: windows.collect(),
            truncated: cut || !whole,
        })
    }

    /// A document's score, from the outputs of its sequences; `None` if it is not finite.
    pub(super) fn decode(&self, outputs: &[Output]) -> Option<RawScore> {
        let scores = outputs.iter();
        let scores = scores.map(|output| label::score(output, self.label));
        let mut scores: Vec<RawScore> = scores.collect::<Option<_>>()?;
        scores.sort_unstable_by_key(|&raw| std::cmp::Reverse(raw));
        scores.truncate(match self.window_score {
            WindowScore::Best => 1,
            WindowScore::MeanTop3 => 3,
        });
        let sum: f64 = scores.iter().map(|raw| f64::from(raw.get())).sum();
        RawScore::new((sum / scores.len() as f64) as f32)
    }
}
