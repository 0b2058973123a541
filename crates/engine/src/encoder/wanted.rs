//! Whether anybody still waits for a batch's outputs: asked between layers, so that a long pass ends soon after the last
//! who waits has gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Small batches have many layers in this time; asking takes a lock.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks from time to time whether the outputs are wanted, for all threads.
pub(super) struct Wanted<'a> {
    ask: &'a (dyn Fn() -> bool + Sync),
    start: Instant,
    /// When it is asked next, in microseconds from `start`.
    next: AtomicU64,
    ended: AtomicBool,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(ask: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self {
            ask,
            start: Instant::now(),
            next: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Whether they are wanted; once they are not, they stay so.
    pub(super) fn still(&self) -> bool {
        if self.has_ended() {
            return false;
        }
        let now = self.start.elapsed().as_micros() as u64;
        if now < self.next.load(Ordering::Relaxed) {
            return true;
        }
        let next = now + INTERVAL.as_micros() as u64;
        self.next.store(next, Ordering::Relaxed);
        let is_wanted = (self.ask)();
        if !is_wanted {
            self.ended.store(true, Ordering::Relaxed);
        }
        is_wanted
    }

    /// Whether the pass was given up.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}
