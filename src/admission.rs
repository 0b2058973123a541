//! Admission control: a request is admitted whole or refused whole, before any work is done for it.
//!
//! The limit is on the engine time of all requests in the system, from admission to the answer. A request's
//! engine time is its tokens over the measured rate of its model, so that models of any speed share one
//! limit. An admitted request never has more than the limit ahead of it.
//! A large request counts only with a quarter of the limit, since others overtake it; all large requests
//! together may take half, so small ones keep room. A caller who holds less than an equal share is admitted
//! even if others fill the limit.
//!
//! Before tokenising, the engine time is an estimate; [`Permit::settle`] corrects it. Called by `rerank`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;

use crate::types::Caller;

/// Limits on what is admitted.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Maximum number of tokens in the system, queued or being scored, however fast the engine is.
    pub max_queue_tokens: usize,
    /// Maximum engine time of the work ahead of a request.
    pub max_queue: Duration,
}

/// A larger request counts as one `SHARE`th of the limit.
const SHARE: u32 = 4;
/// Before tokenising, the estimate is rough, so only what is one `ROUGH`th too large is refused for good.
const ROUGH: u32 = 4;
/// Of a request's time, one `MARGIN`th is not planned for: large requests take turns, so that where there is too little
/// time all of them would be late.
const MARGIN: u32 = 8;
/// All large requests together may hold one `LARGE`th of the limit.
const LARGE: u32 = 2;

/// A request's estimated size.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Estimate of its tokens.
    pub tokens: usize,
    /// Engine time for them.
    pub work: Duration,
    /// Bytes of its texts.
    pub bytes: usize,
}

/// Engine time for what costs as much as so many tokens, at a rate in tokens per second.
#[must_use]
pub fn work(tokens: f64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(tokens / rate.max(1e-3)).unwrap_or(Duration::MAX)
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Refused {
    /// There is no room now.
    #[error(
        "the server is busy: it has work for about {:.1} s before there is room; try again in {:.0} s",
        .retry_after.as_secs_f64().max(0.1), .retry_after.as_secs_f64().ceil().max(1.0)
    )]
    Overloaded {
        /// Engine time until there should be room.
        retry_after: Duration,
    },
    /// Even an idle server could not answer it in time.
    #[error(
        "the request has about {tokens} tokens, which take this server about {:.1} s, but a request may take {:.1} s at most; send fewer or shorter documents, have less of each read (such as max_tokens_per_doc), or \
         raise limits.request_timeout_ms",
        .needed.as_secs_f64(), .timeout.as_secs_f64()
    )]
    TooLarge {
        /// Estimate of its tokens.
        tokens: usize,
        /// Engine time for them.
        needed: Duration,
        /// Time limit of a request.
        timeout: Duration,
    },
}

/// Admission control in front of tokenizer and queue; cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    options: Options,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Work that counts against the limit.
    held: Duration,
    /// The part of `held` that large requests hold.
    large: Duration,
    /// Remaining work of all requests.
    left: Duration,
    /// Engine time per token of the last request.
    token: Duration,
    /// Remaining work of each request, by when it was admitted.
    requests: BTreeMap<u64, Duration>,
    next: u64,
    callers: HashMap<Caller, Duration>,
    density: Density,
}

/// The minimum work per byte of text among recent requests: a lower bound for a body of known length.
#[derive(Debug, Default)]
struct Density {
    requests: usize,
    least: Option<f64>,
    least_before: Option<f64>,
}

impl Density {
    fn record(&mut self, demand: Demand) {
        const REQUESTS: usize = 64;
        let density = demand.work.as_secs_f64() / demand.bytes.max(1) as f64;
        self.least = Some(self.least.map_or(density, |least| least.min(density)));
        self.requests += 1;
        if self.requests >= REQUESTS {
            self.requests = 0;
            self.least_before = self.least.take();
        }
    }

    /// The minimum work for a number of bytes; zero as long as nothing is known.
    fn work(&self, bytes: usize) -> Duration {
        let least = [self.least, self.least_before].into_iter().flatten();
        let least = least.reduce(f64::min).unwrap_or(0.0);
        Duration::try_from_secs_f64(least * bytes as f64).unwrap_or(Duration::MAX)
    }
}

/// An admitted request's part of the limit, given back on drop.
#[derive(Debug)]
pub struct Permit {
    number: u64,
    state: Arc<Mutex<State>>,
    caller: Caller,
    /// Maximum that this request counts with.
    share: Duration,
    is_large: bool,
    held: Duration,
    left: Duration,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing panics under the lock; were it to, the numbers would still be whole.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Admission {
    /// An empty system.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            state: Arc::default(),
        }
    }

    /// The limits for a model that takes `token` for one token.
    fn bounds(&self, token: Duration) -> Bounds {
        let tokens = token.as_secs_f64() * self.options.max_queue_tokens as f64;
        let tokens = Duration::try_from_secs_f64(tokens).unwrap_or(Duration::MAX);
        let limit = tokens.min(self.options.max_queue).max(token);
        Bounds {
            limit,
            share: (limit / SHARE).max(token),
        }
    }

    /// Admits a request, or refuses it whole. `timeout` is its time limit.
    ///
    /// An idle system admits a request of any size that it can answer in time.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn admit(
        &self,
        caller: &Caller,
        demand: Demand,
        timeout: Duration,
    ) -> Result<Permit, Refused> {
        let token = demand.work / u32::try_from(demand.tokens).unwrap_or(u32::MAX).max(1);
        let bounds = self.bounds(token);
        let mut state = lock(&self.state);
        state.token = token;
        if !demand.work.is_zero() {
            state.density.record(demand);
        }
        if demand.work > timeout + timeout / ROUGH {
            return Err(Refused::TooLarge {
                tokens: demand.tokens,
                needed: demand.work,
                timeout,
            });
        }
        state.check(caller, demand.work, bounds, timeout)?;
        let share = bounds.share;
        let number = state.next;
        state.next += 1;
        let mut permit = Permit {
            number,
            state: Arc::clone(&self.state),
            caller: caller.clone(),
            share,
            is_large: demand.work > share,
            held: Duration::ZERO,
            left: Duration::ZERO,
        };
        permit.set(&mut state, demand.work);
        drop(state);
        Ok(permit)
    }

    /// Refuses a request that there will be no room for, before its body of `bytes` bytes is read.
    ///
    /// # Errors
    /// [`Refused::Overloaded`].
    pub fn check(&self, caller: &Caller, bytes: usize) -> Result<(), Refused> {
        let state = lock(&self.state);
        let work = state.density.work(bytes);
        state.check(caller, work, self.bounds(state.token), Duration::MAX)
    }

    /// Work in the system that counts against the limit.
    #[must_use]
    pub fn held(&self) -> Duration {
        lock(&self.state).held
    }
}

/// The limits as engine time; each at least the work of one token.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// For all requests.
    limit: Duration,
    /// What one request counts with at most.
    share: Duration,
}

impl State {
    fn check(
        &self,
        caller: &Caller,
        work: Duration,
        Bounds { limit, share }: Bounds,
        timeout: Duration,
    ) -> Result<(), Refused> {
        // What costs nothing, since all of it is in the cache, needs no room.
        if self.held.is_zero() || work.is_zero() {
            return Ok(());
        }
        let hold = work.min(share);
        let refused = |retry_after| Err(Refused::Overloaded { retry_after });
        if self.left.saturating_add(work) > timeout - timeout / MARGIN {
            return refused(self.left);
        }
        let own = self.callers.get(caller).copied().unwrap_or_default();
        let callers = self.callers.len() + usize::from(own.is_zero());
        let equal_share = limit / u32::try_from(callers).unwrap_or(u32::MAX);
        let is_within_equal_share = own + hold <= equal_share && self.held + hold <= 2 * limit;
        if callers > 1 && is_within_equal_share {
            return Ok(());
        }
        if self.held >= limit {
            // Small requests overtake the large ones, which give back little of what they hold until they end.
            let excess = self.held - limit;
            let is_small_ones = excess < self.held - self.large;
            return refused(if is_small_ones { excess } else { self.left });
        }
        if work > share && self.large + hold > limit / LARGE {
            return refused(self.left);
        }
        Ok(())
    }
}

impl Permit {
    /// Sets the request's remaining work. Never refuses, since the request has been admitted.
    pub fn settle(&mut self, left: Duration) {
        let state = Arc::clone(&self.state);
        self.set(&mut lock(&state), left);
    }

    /// Whether the remaining work can't be done by then, with what is left of the requests that were admitted before:
    /// that work, or `None` if there is time.
    ///
    /// A request that small ones overtake only is meant: a small one is done before.
    #[must_use]
    pub fn late(&self, left: Duration, until: Duration) -> Option<Duration> {
        if left <= self.share {
            return None;
        }
        let state = lock(&self.state);
        let before = state.requests.range(..self.number);
        let ahead: Duration = before.map(|(_, left)| *left).sum();
        // The rate is measured, not known.
        (left.saturating_add(ahead) > until + until / MARGIN).then_some(ahead)
    }

    fn set(&mut self, state: &mut State, left: Duration) {
        match left.is_zero() {
            true => state.requests.remove(&self.number),
            false => state.requests.insert(self.number, left),
        };
        let hold = left.min(self.share);
        state.left = state.left - self.left + left;
        state.held = state.held - self.held + hold;
        if self.is_large {
            state.large = state.large - self.held + hold;
        }
        let own = state.callers.entry(self.caller.clone()).or_default();
        *own = *own - self.held + hold;
        if own.is_zero() {
            state.callers.remove(&self.caller);
        }
        (self.held, self.left) = (hold, left);
        let limit = self.share.saturating_mul(SHARE).as_secs_f64();
        gauge!("rerankd_load").set(state.held.as_secs_f64() / limit.max(f64::MIN_POSITIVE));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests;
