//! How many pairs make a unit, so that something is done soon enough to be written.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The most pairs in a unit, unless one row has more.
const MOST: usize = 256;
/// Those in the first ones, of which it isn't known how long they take.
const FIRST: usize = 16;

/// How many pairs make a unit.
#[derive(Debug)]
pub(super) struct Pace {
    pairs: AtomicUsize,
    /// So long may a unit take.
    each: Duration,
}

impl Pace {
    /// Of a run that writes a part each `part`: units take a quarter of it, but half a second is not too much.
    pub(super) fn new(part: Duration) -> Self {
        Self {
            pairs: AtomicUsize::new(FIRST),
            each: (part / 4).max(Duration::from_millis(500)),
        }
    }

    /// How many pairs the next unit may have.
    pub(super) fn pairs(&self) -> usize {
        self.pairs.load(Ordering::Relaxed)
    }

    /// A unit of so many pairs took so long.
    pub(super) fn took(&self, pairs: usize, time: Duration) {
        let ratio = self.each.as_secs_f64() / time.as_secs_f64().max(1e-6);
        let fit = (pairs as f64 * ratio) as usize;
        // One of few pairs, at a table's end, says little of larger ones.
        let most = (2 * pairs.max(FIRST / 2)).min(MOST);
        let next = match fit < pairs {
            true => fit,
            false => fit.min(most).max(self.pairs().min(fit)),
        };
        self.pairs.store(next.clamp(1, MOST), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_grow_as_long_as_they_take_no_quarter_of_a_parts_time() {
        let pace = Pace::new(Duration::from_secs(8));
        assert_eq!(pace.pairs(), FIRST);
        for _ in 0..4 {
            pace.took(pace.pairs(), Duration::from_millis(10));
        }
        assert_eq!(pace.pairs(), MOST);
        // Four pairs a second: eight take the two seconds that a unit may.
        pace.took(MOST, Duration::from_secs(64));
        assert_eq!(pace.pairs(), 8);
        pace.took(1, Duration::from_secs(100));
        assert_eq!(pace.pairs(), 1);
        for _ in 0..9 {
            let pairs = pace.pairs();
            pace.took(pairs, Duration::from_millis(250 * pairs as u64));
        }
        assert_eq!(pace.pairs(), 8);
    }
}
