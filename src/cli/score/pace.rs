//! How many pairs make a unit, so that something is done soon enough to be written.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::tables::Texts;

/// How large something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) pairs: usize,
    /// Of the documents.
    pub(super) bytes: usize,
}

impl Size {
    /// The size of a row.
    pub(super) fn of(texts: &Texts) -> Self {
        let documents = texts.documents.iter().flatten();
        Self {
            pairs: texts.documents.len(),
            bytes: documents.map(String::len).sum(),
        }
    }
}

impl std::ops::Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            pairs: self.pairs + other.pairs,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// The most in a unit, unless one row has more. How long the first ones take isn't known, so they are a row each.
const MOST: Size = Size {
    pairs: 256,
    bytes: 4 << 20,
};
/// A unit that is smaller says little of larger ones.
const TELLING: Size = Size {
    pairs: 8,
    bytes: 4 << 10,
};

/// How much makes a unit. Pairs count and bytes do: the time that a pair takes follows its length, but what is long is
/// cut.
#[derive(Debug)]
pub(super) struct Pace {
    pairs: AtomicUsize,
    bytes: AtomicUsize,
    /// So long may a unit take.
    each: Duration,
}

impl Pace {
    /// Of a run that writes a part each `part`: units take a quarter of it.
    pub(super) fn new(part: Duration) -> Self {
        Self {
            pairs: AtomicUsize::new(1),
            bytes: AtomicUsize::new(1),
            // Parts can't be written all the time.
            each: (part / 4).max(Duration::from_millis(100)),
        }
    }

    /// Whether a unit of more than one row may be so large.
    pub(super) fn fits(&self, unit: Size) -> bool {
        unit.pairs <= self.pairs.load(Ordering::Relaxed)
            && unit.bytes <= self.bytes.load(Ordering::Relaxed)
    }

    /// A unit of such a size took so long.
    pub(super) fn took(&self, unit: Size, time: Duration) {
        let ratio = self.each.as_secs_f64() / time.as_secs_f64().max(1e-6);
        for (most, unit, telling, limit) in [
            (&self.pairs, unit.pairs, TELLING.pairs, MOST.pairs),
            (&self.bytes, unit.bytes, TELLING.bytes, MOST.bytes),
        ] {
            if unit == 0 {
                continue;
            }
            let (now, fit) = (most.load(Ordering::Relaxed), (unit as f64 * ratio) as usize);
            let next = match fit < unit {
                true => fit,
                false => fit.min(2 * unit.max(telling)).max(now.min(fit)),
            };
            most.store(next.clamp(1, limit), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 1000;

    fn unit(pairs: usize) -> Size {
        Size {
            pairs,
            bytes: pairs * LENGTH,
        }
    }

    /// How many pairs of a length fit.
    fn most(pace: &Pace, length: usize) -> usize {
        let size = |pairs| Size {
            pairs,
            bytes: pairs * length,
        };
        (1..=MOST.pairs)
            .take_while(|&pairs| pace.fits(size(pairs)))
            .count()
    }

    #[test]
    fn units_grow_as_long_as_they_take_no_quarter_of_a_parts_time() {
        let pace = Pace::new(Duration::from_secs(8));
        assert_eq!(most(&pace, LENGTH), 0);
        pace.took(unit(1), Duration::from_millis(10));
        for _ in 0..7 {
            pace.took(unit(most(&pace, LENGTH)), Duration::from_millis(10));
        }
        assert_eq!(most(&pace, LENGTH), MOST.pairs);
        // Four pairs a second: eight take the two seconds that a unit may.
        pace.took(unit(MOST.pairs), Duration::from_secs(64));
        assert_eq!(most(&pace, LENGTH), 8);
        pace.took(unit(1), Duration::from_secs(100));
        assert_eq!(most(&pace, LENGTH), 0);
        pace.took(unit(1), Duration::from_millis(250));
        for _ in 0..9 {
            let pairs = most(&pace, LENGTH);
            pace.took(unit(pairs), Duration::from_millis(250 * pairs as u64));
        }
        assert_eq!(most(&pace, LENGTH), 8);
        // Longer ones come in smaller units before the first has told how long they take.
        assert_eq!(most(&pace, 4 * LENGTH), 2);
        // What was cut tells little of what is short, so as many pairs fit as before.
        assert_eq!(most(&pace, 1), 8);
    }
}
