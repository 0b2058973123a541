//! What a body of known length takes at least.

use std::time::Duration;

use super::Demand;

/// A request with fewer bytes of text says nothing of what larger bodies take.
const SMALL: usize = 4 << 10;

/// The minimum work per byte of text among recent requests: a lower bound for a body of known length.
#[derive(Debug, Default)]
pub(super) struct Density {
    requests: usize,
    least: Option<f64>,
    least_before: Option<f64>,
}

impl Density {
    pub(super) fn record(&mut self, demand: Demand) {
        const REQUESTS: usize = 64;
        // Of a small one most is what stands around its texts.
        if demand.bytes < SMALL {
            return;
        }
        let density = demand.work.as_secs_f64() / demand.bytes.max(1) as f64;
        self.least = Some(self.least.map_or(density, |least| least.min(density)));
        self.requests += 1;
        if self.requests >= REQUESTS {
            self.requests = 0;
            self.least_before = self.least.take();
        }
    }

    /// The minimum work for a number of bytes; zero as long as nothing is known.
    pub(super) fn work(&self, bytes: usize) -> Duration {
        let least = [self.least, self.least_before].into_iter().flatten();
        let least = least.reduce(f64::min).unwrap_or(0.0);
        Duration::try_from_secs_f64(least * bytes as f64).unwrap_or(Duration::MAX)
    }
}
