//! Tokenising at most what is wanted of a text, in segments, from either end.

use std::ops::Range;

use super::{Direction, TextTokenizer, TokenizeError};

/// How much of a text is looked at at once, and how much at most.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    /// Bytes of a segment, up to the next boundary.
    pub(super) segment: usize,
    /// Bytes that are read of a text without a boundary: at least.
    pub(super) shortest_run: usize,
    /// And at most.
    pub(super) longest_run: usize,
    /// Bytes that are looked through at once for the end of what is passed over.
    pub(super) scan: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            segment: 4 << 10,
            shortest_run: 16 << 10,
            longest_run: 256 << 10,
            scan: 1 << 20,
        }
    }
}

/// A text's tokens, or as many of them as were wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// From the text's beginning, or those at its end.
    pub(crate) ids: Vec<u32>,
    /// Whether the text has more tokens than these.
    pub(crate) more: bool,
    /// Whether a part of the text was left out, since it is too long without a boundary.
    pub(crate) skipped: bool,
}

impl Tokens {
    /// From the text's beginning, or those at its end.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The ids alone.
    #[must_use]
    pub fn into_ids(self) -> Vec<u32> {
        self.ids
    }

    /// Whether the text has more tokens than these.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Whether these are all of the text's tokens.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.more && !self.skipped
    }
}

/// A text in the middle of being tokenised.
#[derive(Debug)]
pub struct Reading {
    rest: Range<usize>,
    direction: Direction,
    limit: usize,
    longest_run: usize,
    /// From the end if the direction is [`Direction::Left`]: in reverse.
    ids: Vec<u32>,
    /// Whether `rest` begins within a run that was cut, so that it is passed over to a boundary.
    skipping: bool,
    skipped: bool,
}

/// To look at so many bytes costs no more than to tokenise one.
const SCANNED: usize = 16;

impl Reading {
    /// Begins with a text of which at most `limit` tokens are wanted: the first with
    /// [`Direction::Right`], the last with [`Direction::Left`].
    #[must_use]
    pub fn new(encoder: &TextTokenizer, text: &str, limit: usize, direction: Direction) -> Self {
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
            skipping: false,
            skipped: false,
        }
    }

    /// Whether there is nothing left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.rest.is_empty() || self.ids.len() > self.limit
    }

    /// Tokenises the next segment, or looks for the next boundary; returns the cost in bytes.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn step(&mut self, encoder: &TextTokenizer, text: &str) -> Result<usize, TokenizeError> {
        let before = self.rest.len();
        if self.skipping {
            self.skip(encoder, text);
            return Ok((before - self.rest.len()).div_ceil(SCANNED));
        }
        let segment = match self.direction {
            Direction::Right => self.first_segment(encoder, text),
            Direction::Left => self.last_segment(encoder, text),
        };
        let trimmed = before - segment.len() - self.rest.len();
        let ids = encoder.encode_segment(&text[segment.clone()])?;
        // A word that is too long for a vocabulary is one token or none, however long it is.
        self.skipped |= self.skipping && ids.len() > 1;
        match self.direction {
            Direction::Right => self.ids.extend(ids),
            Direction::Left => self.ids.extend(ids.into_iter().rev()),
        }
        Ok(segment.len() + trimmed.div_ceil(SCANNED))
    }

    /// Passes over a run to the next boundary, or a part of it.
    fn skip(&mut self, encoder: &TextTokenizer, text: &str) {
        let Range { start, end } = self.rest;
        let (boundary, beyond) = match self.direction {
            Direction::Right => {
                let to = after(text, start, encoder.sizes.scan, end);
                (encoder.boundaries.first(text, start..to), to)
            }
            Direction::Left => {
                let from = before(text, end, encoder.sizes.scan, start);
                (encoder.boundaries.last(text, from..end), from)
            }
        };
        let at = boundary.unwrap_or(beyond);
        self.rest = match self.direction {
            Direction::Right => at..end,
            Direction::Left => start..at,
        };
        self.skipping = boundary.is_none() && !self.rest.is_empty();
    }

    /// Takes the segment at the beginning.
    fn first_segment(&mut self, encoder: &TextTokenizer, text: &str) -> Range<usize> {
        let (boundaries, sizes) = (&encoder.boundaries, &encoder.sizes);
        let Range { start, end } = self.rest;
        let to = after(text, start, sizes.scan, end);
        let start = boundaries.skip_blank(text, start..to);
        let near = after(text, start, sizes.segment, end);
        let far = after(text, start, self.longest_run, end).max(near);
        let mut at = boundaries.first(text, near..far);
        if at.is_none() && far < end {
            // What stands before the long run is read by itself, and then the run.
            at = boundaries.last(text, after(text, start, 1, end)..near);
        }
        self.skipping = at.is_none() && far < end;
        let at = at.unwrap_or(far);
        self.rest = at..end;
        start..at
    }

    /// Takes the segment at the end.
    fn last_segment(&mut self, encoder: &TextTokenizer, text: &str) -> Range<usize> {
        let (boundaries, sizes) = (&encoder.boundaries, &encoder.sizes);
        let Range { start, end } = self.rest;
        let from = before(text, end, sizes.scan, start);
        let end = boundaries.skip_blank_back(text, from..end);
        let near = before(text, end, sizes.segment, start);
        let far = before(text, end, self.longest_run, start).min(near);
        let next = after(text, near, 1, end);
        let mut at = boundaries.last(text, far..next);
        if at.is_none() && far > start {
            at = boundaries.first(text, next..end);
        }
        self.skipping = at.is_none() && far > start;
        let at = at.unwrap_or(far);
        self.rest = start..at;
        at..end
    }

    /// The tokens that were found, once all is done.
    #[must_use]
    pub fn finish(mut self) -> Tokens {
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

/// The place so many bytes after another, or a little less: at least a character, at most `end`.
fn after(text: &str, at: usize, bytes: usize, end: usize) -> usize {
    let least = text.ceil_char_boundary(end.min(at + 1));
    let most = text.floor_char_boundary(end.min(at.saturating_add(bytes)));
    least.max(most)
}

/// The place so many bytes before another, or a little less: at least a character, at least `start`.
fn before(text: &str, at: usize, bytes: usize, start: usize) -> usize {
    let least = text.floor_char_boundary(start.max(at.saturating_sub(1)));
    let most = text.ceil_char_boundary(start.max(at.saturating_sub(bytes)));
    least.min(most)
}
