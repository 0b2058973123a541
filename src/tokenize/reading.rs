//! Tokenising at most what is wanted of a text, in segments, from either end.

use std::ops::Range;

use super::{Direction, PairEncoder, TokenizeError};

/// How much of a text is looked at at once, and how much at most.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    /// Bytes of a segment, up to the next boundary.
    pub(super) segment: usize,
    /// Bytes that are read of a text without a boundary: at least.
    pub(super) shortest_run: usize,
    /// And at most.
    pub(super) longest_run: usize,
    /// Tokens of a query, or of a document in windows, that are considered.
    pub(super) tokens: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            segment: 4 << 10,
            shortest_run: 16 << 10,
            longest_run: 256 << 10,
            tokens: super::MAX_TOKENS,
        }
    }
}

/// A text's tokens, or as many of them as were wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    /// From the text's beginning, or those at its end.
    pub(super) ids: Vec<u32>,
    /// Whether the text has more tokens than these.
    pub(super) more: bool,
    /// Whether a part of the text was left out, since it is too long without a boundary.
    pub(super) skipped: bool,
}

impl Tokens {
    /// Whether these are all of the text's tokens.
    pub(super) fn is_whole(&self) -> bool {
        !self.more && !self.skipped
    }
}

/// A text in the middle of being tokenised.
#[derive(Debug)]
pub(super) struct Reading {
    rest: Range<usize>,
    direction: Direction,
    limit: usize,
    longest_run: usize,
    /// From the end if the direction is [`Direction::Left`]: in reverse.
    ids: Vec<u32>,
    skipped: bool,
}

impl Reading {
    /// Begins with a text of which at most `limit` tokens are wanted: the first with
    /// [`Direction::Right`], the last with [`Direction::Left`].
    pub(super) fn new(
        encoder: &PairEncoder,
        text: &str,
        limit: usize,
        direction: Direction,
    ) -> Self {
        let Sizes {
            shortest_run,
            longest_run,
            ..
        } = encoder.sizes;
        // So many bytes hold so many tokens even if each is the longest one.
        let longest = limit.saturating_mul(encoder.longest_entry);
        Self {
            rest: 0..text.len(),
            direction,
            limit,
            longest_run: longest.clamp(shortest_run, longest_run),
            ids: Vec::new(),
            skipped: false,
        }
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_done(&self) -> bool {
        self.rest.is_empty() || self.ids.len() > self.limit
    }

    /// Tokenises the next segment; returns its bytes.
    pub(super) fn step(
        &mut self,
        encoder: &PairEncoder,
        text: &str,
    ) -> Result<usize, TokenizeError> {
        let (segment, rest) = match self.direction {
            Direction::Right => self.first_segment(encoder, text),
            Direction::Left => self.last_segment(encoder, text),
        };
        let ids = encoder.encode_segment(&text[segment.clone()])?;
        let left_out = self.rest.len() > segment.len() + rest.len();
        // A word that is too long for a vocabulary is one token or none, however long it is.
        self.skipped |= left_out && ids.len() > 1;
        match self.direction {
            Direction::Right => self.ids.extend(ids),
            Direction::Left => self.ids.extend(ids.into_iter().rev()),
        }
        self.rest = rest;
        Ok(segment.len())
    }

    /// The segment at the beginning, and what remains after it.
    fn first_segment(&mut self, encoder: &PairEncoder, text: &str) -> (Range<usize>, Range<usize>) {
        let boundaries = &encoder.boundaries;
        self.rest = boundaries.trim_start(text, self.rest.clone());
        let Range { start, end } = self.rest;
        let near = text.floor_char_boundary(end.min(start + encoder.sizes.segment));
        let far = text.floor_char_boundary(end.min(start.saturating_add(self.longest_run)));
        let near = near.max(text.ceil_char_boundary(end.min(start + 1)));
        let far = far.max(near);
        if let Some(at) = boundaries.first(text, near..far) {
            return (start..at, at..end);
        }
        if far < end {
            // What stands before the long run is read by itself, and then the run.
            let after_start = text.ceil_char_boundary(start + 1)..near;
            if let Some(at) = boundaries.last(text, after_start) {
                return (start..at, at..end);
            }
        }
        let next = boundaries.first(text, far..end).unwrap_or(end);
        (start..far, next..end)
    }

    /// The segment at the end, and what remains before it.
    fn last_segment(&mut self, encoder: &PairEncoder, text: &str) -> (Range<usize>, Range<usize>) {
        let boundaries = &encoder.boundaries;
        self.rest = boundaries.trim_end(text, self.rest.clone());
        let Range { start, end } = self.rest;
        let near = end.saturating_sub(encoder.sizes.segment).max(start);
        let far = end.saturating_sub(self.longest_run).max(start);
        let near = text.ceil_char_boundary(near);
        let near = near.min(text.floor_char_boundary(end.saturating_sub(1).max(start)));
        let far = text.ceil_char_boundary(far).min(near);
        let after = |at: usize| text.ceil_char_boundary(end.min(at + 1));
        if let Some(at) = boundaries.last(text, far..after(near)) {
            return (at..end, start..at);
        }
        if far > start
            && let Some(at) = boundaries.first(text, after(near)..end)
        {
            return (at..end, start..at);
        }
        let next = boundaries.last(text, start..far).unwrap_or(start);
        (far..end, start..next)
    }

    /// The tokens that were found, once all is done.
    pub(super) fn finish(mut self) -> Tokens {
        let more = self.ids.len() > self.limit;
        self.ids.truncate(self.limit);
        if self.direction == Direction::Left {
            self.ids.reverse();
        }
        Tokens {
            more,
            ids: self.ids,
            skipped: self.skipped,
        }
    }
}
