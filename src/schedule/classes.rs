//! Which class of requests is next: interactive ones, but while both wait, one [`Priority::BATCH_SHARE`]th of the
//! engine's time is for batch work. Pure. Called by `compute`.
//!
//! Batch work saves up its share and is served once that is enough for a full batch. So a short burst of interactive
//! work is not held up by it at all. An engine batch never holds work of both classes, since it would only be longer,
//! and one of batch work is smaller.

use crate::types::Priority;

/// The share that batch work has saved up, in seconds.
#[derive(Debug, Default)]
pub(super) struct Classes {
    saved: f64,
}

impl Classes {
    /// The class that is next, where both wait. A full batch of batch work takes `full` seconds.
    pub(super) fn next(&self, full: f64) -> Priority {
        match self.saved >= full {
            true => Priority::Batch,
            false => Priority::Interactive,
        }
    }

    /// Records that a class is served for so many seconds, while the other `waits` or not.
    pub(super) fn serve(&mut self, priority: Priority, seconds: f64, waits: bool) {
        self.saved = match priority {
            _ if !waits => 0.0,
            Priority::Interactive => self.saved + seconds / f64::from(Priority::BATCH_SHARE - 1),
            Priority::Batch => self.saved - seconds,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each class is served while both wait.
    fn served(turns: usize, interactive: f64, batch: f64) -> [f64; 2] {
        let mut classes = Classes::default();
        let mut served = [0.0; 2];
        for _ in 0..turns {
            let next = classes.next(0.1);
            let seconds = [interactive, batch][next as usize];
            served[next as usize] += seconds;
            classes.serve(next, seconds, true);
        }
        served
    }

    #[test]
    fn batch_work_has_a_sixteenth_while_interactive_work_waits() {
        // Whatever their batches take: full ones, short ones, and of one long document.
        for (interactive, batch) in [(0.1, 0.1), (0.02, 0.1), (0.1, 0.01), (0.1, 0.7)] {
            let [first, second] = served(10_000, interactive, batch);
            let share = second / (first + second);
            assert!(
                (share - 1.0 / 16.0).abs() < 0.002,
                "{interactive} {batch}: {share}"
            );
        }
    }

    #[test]
    fn a_burst_of_interactive_work_goes_first() {
        assert_eq!(served(15, 0.1, 0.1)[1], 0.0);
        let mut classes = Classes::default();
        for _ in 0..14 {
            classes.serve(Priority::Interactive, 0.1, true);
        }
        // What was saved up is spent as soon as the engine has nothing else to do.
        classes.serve(Priority::Batch, 0.1, false);
        classes.serve(Priority::Interactive, 0.1, true);
        assert_eq!(classes.next(0.1), Priority::Interactive);
    }
}
