//! The engine's measured rate in tokens per second, which converts what sequences cost to seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The current rate, for readers; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Rate(Arc<AtomicU64>);

impl Rate {
    pub(super) fn new(tokens_per_second: f64) -> Self {
        Self(Arc::new(AtomicU64::new(tokens_per_second.to_bits())))
    }

    pub(super) fn tokens_per_second(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Measures the rate; the engine's thread owns it.
#[derive(Debug)]
pub(super) struct RateMeter {
    rate: Rate,
    /// Exponentially decayed sums of tokens and seconds.
    tokens: f64,
    seconds: f64,
    /// A smaller batch counts only if it was faster than expected: it says little of a full batch's rate.
    full: f64,
}

/// Time constant of the decay in seconds: after it, a measurement counts with about a third (1/e).
const MEMORY: f64 = 2.0;
/// A batch's time is limited to this multiple of the expected time, so that one stall of the machine does not
/// close the queue.
const HICCUP: f64 = 4.0;

impl RateMeter {
    /// Starts from a first estimate. `max_tokens` is a full batch.
    pub(super) fn new(rate: Rate, max_tokens: usize) -> Self {
        Self {
            tokens: rate.tokens_per_second() * MEMORY,
            seconds: MEMORY,
            rate,
            full: max_tokens as f64 / 4.0,
        }
    }

    /// The recent rate in tokens per second.
    pub(super) fn tokens_per_second(&self) -> f64 {
        self.rate.tokens_per_second()
    }

    /// Records a batch that cost as much as so many tokens that see no others.
    pub(super) fn record(&mut self, tokens: f64, elapsed: Duration) {
        let rate = self.rate.tokens_per_second();
        let expected = tokens / rate;
        let seconds = elapsed.as_secs_f64().clamp(1e-6, HICCUP * expected);
        if tokens < self.full && seconds > expected {
            return;
        }
        let fade = (-seconds / MEMORY).exp();
        self.tokens = self.tokens * fade + tokens;
        self.seconds = self.seconds * fade + seconds;
        let rate = self.tokens / self.seconds;
        self.rate.0.store(rate.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(meter: &mut RateMeter, batches: usize, tokens: u32, seconds: f64) -> f64 {
        for _ in 0..batches {
            meter.record(tokens.into(), Duration::from_secs_f64(seconds));
        }
        meter.rate.tokens_per_second()
    }

    #[test]
    fn the_rate_follows_the_engine() {
        let mut meter = RateMeter::new(Rate::new(1000.0), 2048);
        let rate = run(&mut meter, 100, 2000, 0.2);
        assert!((rate / 10_000.0 - 1.0).abs() < 0.01, "{rate}");
        let rate = run(&mut meter, 100, 2000, 2.0);
        assert!((rate / 1000.0 - 1.0).abs() < 0.01, "{rate}");
    }

    #[test]
    fn small_batches_and_hiccups_do_not_lower_it() {
        let mut meter = RateMeter::new(Rate::new(10_000.0), 2048);
        assert!(run(&mut meter, 1000, 20, 0.1) > 9_999.0);
        assert!(run(&mut meter, 1, 2000, 60.0) > 5_000.0);
        // A small batch that was faster counts.
        assert!(run(&mut meter, 1000, 200, 0.01) > 15_000.0);
    }
}
