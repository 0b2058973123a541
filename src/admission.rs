//! Admission control: a request is admitted whole or refused whole, before any work is done for it.
//!
//! The limit is on the engine time of all requests in the system, from admission to the answer. A request's
//! engine time is its tokens over the measured rate of its model, so that models of any speed share one
//! limit. An admitted request never has more than the limit ahead of it.
//! A large request counts only with a quarter of the limit, since others overtake it; all large requests
//! together may take half, so small ones keep room. An eighth of the limit is for callers who hold less than an equal
//! share, so that others can't keep them out.
//!
//! Interactive requests don't see batch work, which they go before. Batch work has what they leave of the limit, and
//! one [`Priority::BATCH_SHARE`]th of it at least, so it is refused first and never starves.
//!
//! Before tokenising, the engine time is an estimate; [`Permit::settle`] corrects it. Called by `rerank`.

mod density;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;

use crate::types::{Caller, Priority, Standing};

use density::Density;

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
/// One `NEWCOMERS`th of the limit is for callers who hold less than an equal share, so that others can't fill it.
const NEWCOMERS: u32 = 8;

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
    /// Even an idle server could not answer it before the client goes.
    #[error(
        "the request takes this server about {} ms, but its client waits for {} ms only (x-request-timeout-ms, \
         grpc-timeout)",
        .needed.as_millis().max(1), .left.as_millis()
    )]
    NoTime {
        /// Engine time for it.
        needed: Duration,
        /// How long the client waits from now on.
        left: Duration,
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
    /// What the requests of each class hold.
    classes: [Class; 2],
    /// Engine time per token of the last request.
    token: Duration,
    /// The requests with work left, by when they were admitted.
    requests: BTreeMap<u64, Request>,
    next: u64,
    density: Density,
}

/// The work of one class.
#[derive(Debug, Default)]
struct Class {
    /// Work that counts against the limit.
    held: Duration,
    /// The part of `held` that large requests hold.
    large: Duration,
    /// Remaining work.
    left: Duration,
    /// What each caller holds.
    callers: HashMap<Caller, Duration>,
}

/// A request with work left.
#[derive(Debug)]
struct Request {
    standing: Standing,
    left: Duration,
}

/// An admitted request's part of the limit, given back on drop.
#[derive(Debug)]
pub struct Permit {
    number: u64,
    state: Arc<Mutex<State>>,
    standing: Standing,
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

    /// Admits a request, or refuses it whole. `timeout` is its time limit, `is_own` whether that is how long the client
    /// waits.
    ///
    /// An idle system admits a request of any size that it can answer in time.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn admit(
        &self,
        standing: &Standing,
        demand: Demand,
        timeout: Duration,
        is_own: bool,
    ) -> Result<Permit, Refused> {
        let token = demand.work / u32::try_from(demand.tokens).unwrap_or(u32::MAX).max(1);
        let bounds = self.bounds(token);
        let mut state = lock(&self.state);
        state.token = token;
        if !demand.work.is_zero() {
            state.density.record(demand);
        }
        if demand.work > timeout + timeout / ROUGH {
            return Err(match is_own {
                true => Refused::NoTime {
                    needed: demand.work,
                    left: timeout,
                },
                false => Refused::TooLarge {
                    tokens: demand.tokens,
                    needed: demand.work,
                    timeout,
                },
            });
        }
        state.check(standing, demand.work, bounds, timeout)?;
        let share = bounds.share;
        let number = state.next;
        state.next += 1;
        let mut permit = Permit {
            number,
            state: Arc::clone(&self.state),
            standing: standing.clone(),
            share,
            is_large: demand.work > share,
            held: Duration::ZERO,
            left: Duration::ZERO,
        };
        permit.set(&mut state, demand.work);
        drop(state);
        Ok(permit)
    }

    /// Refuses a request that there will be no room for, or that can't be answered within `timeout`, before its body
    /// of `bytes` bytes is read.
    ///
    /// # Errors
    /// [`Refused::Overloaded`].
    pub fn check(
        &self,
        standing: &Standing,
        bytes: usize,
        timeout: Duration,
    ) -> Result<(), Refused> {
        let state = lock(&self.state);
        let work = state.density.work(bytes);
        state.check(standing, work, self.bounds(state.token), timeout)
    }

    /// Work in the system that counts against the limit.
    #[must_use]
    pub fn held(&self) -> Duration {
        lock(&self.state)
            .classes
            .iter()
            .map(|class| class.held)
            .sum()
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
        standing: &Standing,
        work: Duration,
        Bounds { limit, share }: Bounds,
        timeout: Duration,
    ) -> Result<(), Refused> {
        let [interactive, batch] = &self.classes;
        let (class, limit, ahead) = match standing.priority {
            Priority::Interactive => (interactive, limit, interactive.left),
            Priority::Batch => {
                let least = limit / Priority::BATCH_SHARE;
                let left = limit.saturating_sub(interactive.held).max(least);
                (batch, left, interactive.left + batch.left)
            }
        };
        // What costs nothing, since all of it is in the cache, needs no room.
        if work.is_zero() || self.requests.is_empty() {
            return Ok(());
        }
        let hold = work.min(share);
        let refused = |retry_after| Err(Refused::Overloaded { retry_after });
        let planned = timeout - timeout / MARGIN;
        if ahead.saturating_add(work) > planned {
            // Small requests overtake the large ones.
            let until_done = match work <= share {
                true => self.until_done(standing, work),
                false => ahead.saturating_add(work),
            };
            if until_done > planned {
                return refused(ahead.min(until_done));
            }
        }
        if class.held.is_zero() {
            return Ok(());
        }
        let own = class.callers.get(&standing.caller).copied();
        let own = own.unwrap_or_default();
        let callers = class.callers.len() + usize::from(own.is_zero());
        let equal_share = limit / u32::try_from(callers).unwrap_or(u32::MAX);
        let is_within_equal_share = callers > 1 && own + hold <= equal_share;
        let is_large = work > share;
        let leaves_room = !is_large || class.large + hold <= limit - share;
        if is_within_equal_share && class.held < limit && leaves_room {
            return Ok(());
        }
        let most = limit - limit / NEWCOMERS;
        if class.held >= most {
            // Small requests overtake the large ones, which give back little of what they hold until they end.
            let excess = class.held - most;
            let is_small_ones = excess < class.held - class.large;
            return refused(if is_small_ones { excess } else { ahead });
        }
        if is_large && class.large + hold > limit / LARGE {
            return refused(ahead);
        }
        Ok(())
    }

    /// The engine time until a request would be done that takes fair turns with those that are in: of what goes
    /// before it or beside it, each caller has done as much as this one's share of the time then.
    fn until_done(&self, standing: &Standing, work: Duration) -> Duration {
        let mut own = work;
        let mut others: HashMap<&Caller, (Duration, u32)> = HashMap::new();
        let mut before = Duration::ZERO;
        for request in self.requests.values() {
            let other = &request.standing;
            if other.priority < standing.priority {
                before += request.left;
            } else if other.priority > standing.priority {
                // One batch of it at most is before, as any.
            } else if other.caller == standing.caller {
                own += request.left.min(work);
            } else {
                let (left, weight) = others.entry(&other.caller).or_default();
                *left += request.left;
                *weight = other.weight;
            }
        }
        let beside = others.values().map(|&(left, weight)| {
            let turns = f64::from(weight) / f64::from(standing.weight.max(1));
            left.min(own.mul_f64(turns))
        });
        let beside: Duration = beside.sum();
        before + own + beside
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
        let before = before.map(|(_, request)| request);
        let before = before.filter(|r| r.standing.priority <= self.standing.priority);
        let ahead: Duration = before.map(|request| request.left).sum();
        // The rate is measured, not known. If several can't be in time together, the first of them are to be.
        let most = if ahead.is_zero() {
            until + until / MARGIN
        } else {
            until
        };
        (left.saturating_add(ahead) > most).then_some(ahead)
    }

    fn set(&mut self, state: &mut State, left: Duration) {
        if left.is_zero() {
            state.requests.remove(&self.number);
        } else {
            let request = || Request {
                standing: self.standing.clone(),
                left,
            };
            let request = state.requests.entry(self.number).or_insert_with(request);
            request.left = left;
        }
        let hold = left.min(self.share);
        let class = &mut state.classes[self.standing.priority as usize];
        class.left = class.left - self.left + left;
        class.held = class.held - self.held + hold;
        if self.is_large {
            class.large = class.large - self.held + hold;
        }
        let own = class.callers.entry(self.standing.caller.clone());
        let own = own.or_default();
        *own = *own - self.held + hold;
        if own.is_zero() {
            class.callers.remove(&self.standing.caller);
        }
        (self.held, self.left) = (hold, left);
        let limit = self.share.saturating_mul(SHARE).as_secs_f64();
        let held: Duration = state.classes.iter().map(|class| class.held).sum();
        gauge!("rerankd_load").set(held.as_secs_f64() / limit.max(f64::MIN_POSITIVE));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests;
