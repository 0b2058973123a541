//! Tokenises a text in segments, from either end, and only as far as needed.

use std::ops::Range;

use super::{Direction, TextTokenizer, TokenizeError};

/// Sizes in bytes of the parts of a text that are read at once.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    /// Size of a segment, which extends to the next boundary.
    pub(super) segment: usize,
    /// Minimum read from a run without a boundary.
    pub(super) shortest_run: usize,
    /// Maximum read from a run without a boundary.
    pub(super) longest_run: usize,
    /// Number of bytes searched at once for the end of a run that is skipped.
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

/// A text's tokens, up to a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The first tokens of the text, or the last.
    pub(crate) ids: Vec<u32>,
    /// Whether the text has more tokens.
    pub(crate) more: bool,
    /// Whether a part of the text was skipped because it has no boundary for too long.
    pub(crate) skipped: bool,
}

impl Tokens {
    /// The first tokens of the text, or the last.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The ids alone.
    #[must_use]
    pub fn into_ids(self) -> Vec<u32> {
        self.ids
    }

    /// Whether the text has more tokens.
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

/// A text that is being tokenised.
#[derive(Debug)]
pub struct Reading {
    rest: Range<usize>,
    direction: Direction,
    limit: usize,
    longest_run: usize,
    /// The tokens so far, in reverse order if the direction is [`Direction::Left`].
    ids: Vec<u32>,
    /// Whether `rest` begins within a run that was cut, so that it is skipped up to a boundary.
    skipping: bool,
    skipped: bool,
}

/// Searching this many bytes costs no more than tokenising one.
const SCANNED: usize = 16;

impl Reading {
    /// Begins to read at most `limit` tokens of a text: the first with [`Direction::Right`], the last with
    /// [`Direction::Left`].
    #[must_use]
    pub fn new(encoder: &TextTokenizer, text: &str, limit: usize, direction: Direction) -> Self {
        let Sizes {
            shortest_run,
            longest_run,
            ..
        } = encoder.sizes;
        // This many bytes hold `limit` tokens even if each is the longest in the vocabulary.
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

    /// Tokenises the next segment, or searches for the next boundary. Returns the cost in bytes.
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
        // A word that is too long for the vocabulary is one token or none, whatever its length.
        self.skipped |= self.skipping && ids.len() > 1;
        match self.direction {
            Direction::Right => self.ids.extend(ids),
            Direction::Left => self.ids.extend(ids.into_iter().rev()),
        }
        Ok(segment.len() + trimmed.div_ceil(SCANNED))
    }

    /// Skips a run up to the next boundary, or a part of the run.
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
            // The text before the long run is read by itself, and then the run.
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

    /// The tokens, once all steps are done.
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

/// A character boundary about `bytes` bytes after `at`: at least one character, at most `end`.
fn after(text: &str, at: usize, bytes: usize, end: usize) -> usize {
    let least = text.ceil_char_boundary(end.min(at + 1));
    let most = text.floor_char_boundary(end.min(at.saturating_add(bytes)));
    least.max(most)
}

/// A character boundary about `bytes` bytes before `at`: at least one character, not before `start`.
fn before(text: &str, at: usize, bytes: usize, start: usize) -> usize {
    let least = text.floor_char_boundary(start.max(at.saturating_sub(1)));
    let most = text.ceil_char_boundary(start.max(at.saturating_sub(bytes)));
    least.min(most)
}
