//! When something happened, and how long it took.

use std::time::{Duration, Instant};

/// A stage of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// How long it took. Less than what lies within its bounds, where other things were done in between.
    pub time: Duration,
    /// Its first begin and its last end; `None` if it never began.
    pub bounds: Option<(Instant, Instant)>,
}

impl Span {
    /// From `begin` to `end`.
    #[must_use]
    pub fn of(begin: Instant, end: Instant) -> Self {
        Self {
            time: end.saturating_duration_since(begin),
            bounds: Some((begin, end)),
        }
    }

    /// From `begin` to now.
    #[must_use]
    pub fn since(begin: Instant) -> Self {
        Self::of(begin, Instant::now())
    }

    /// Both, one after the other.
    #[must_use]
    pub fn then(self, other: Self) -> Self {
        Self {
            time: self.time + other.time,
            bounds: self.joined(other),
        }
    }

    /// Both, at the same time.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self {
            time: self.time.max(other.time),
            bounds: self.joined(other),
        }
    }

    fn joined(self, other: Self) -> Option<(Instant, Instant)> {
        match (self.bounds, other.bounds) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (bounds, None) | (None, bounds) => bounds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_add_up_in_turn_and_overlap_side_by_side() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (a, b) = (Span::of(at(0), at(10)), Span::of(at(30), at(35)));
        for (joined, time) in [(a.then(b), 15), (b.then(a), 15), (a.beside(b), 10)] {
            assert_eq!(joined.time, Duration::from_millis(time));
            assert_eq!(joined.bounds, Some((at(0), at(35))));
        }
        assert_eq!(Span::default().then(a), a);
        assert_eq!(a.beside(Span::default()), a);
    }
}
