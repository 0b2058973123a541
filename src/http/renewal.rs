//! A file, or several, that are read again when they change. What can't be used leaves what is in force as it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use metrics::gauge;

/// What files held when they were read, as a hash, or why they could not be read. Times and lengths don't tell that a
/// link leads elsewhere now, as it does when Kubernetes renews a secret.
pub(super) type Seen = Result<[u8; 32], String>;

/// When to use files again that were used once.
#[derive(Debug)]
pub(super) struct Renewal {
    seen: Mutex<Seen>,
    is_current: AtomicBool,
    /// The metric that tells it.
    metric: &'static str,
}

impl Renewal {
    /// Of files that are in force.
    pub(super) fn new(seen: Seen, metric: &'static str) -> Self {
        let renewal = Self {
            seen: Mutex::new(seen),
            is_current: AtomicBool::new(true),
            metric,
        };
        renewal.set_current(true);
        renewal
    }

    /// Reads files again and puts what they hold in force; returns what `put` does, or why they can't be used. `None` if
    /// they hold what they did, and only changes count.
    pub(super) fn renew<T, U, E>(
        &self,
        only_changes: bool,
        read: impl FnOnce() -> (Seen, Result<T, E>),
        put: impl FnOnce(T) -> U,
    ) -> Option<Result<U, E>> {
        let mut last = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, found) = read();
        if only_changes && seen == *last {
            return None;
        }
        *last = seen;
        let put = found.map(put);
        self.set_current(put.is_ok());
        Some(put)
    }

    fn set_current(&self, is_current: bool) {
        self.is_current.store(is_current, Ordering::Relaxed);
        gauge!(self.metric).set(f64::from(u8::from(is_current)));
    }

    /// Whether the files now hold what is in force.
    pub(super) fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Relaxed)
    }
}
