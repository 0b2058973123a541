//! Back-pressure: a request is admitted whole or refused whole, before it costs any work.
//!
//! What is counted is tokens in the system, from admission to the answer. The limit is a time, turned
//! into tokens by the engine's measured rate: no more than that is ahead of a request that is admitted.
//! A large request counts with a share of the limit only, since others overtake it; all large ones
//! together may take half, so small ones keep room. A caller who holds less than an equal share is let in
//! though others fill the limit.
//!
//! Before tokenising the count is an estimate; [`Permit::settle`] replaces it. Called by `rerank`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::types::Caller;

/// Limits on what is admitted.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most tokens in the system, queued or being scored.
    pub max_queue_tokens: usize,
    /// How long the engine may have to work on what is ahead of a request.
    pub max_queue: Duration,
}

/// A request that is larger than this part of the limit counts as so much.
const SHARE: usize = 4;
/// All large requests together may hold this part of the limit.
const LARGE: usize = 2;

/// What a request asks for, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Estimate of its tokens.
    pub tokens: usize,
    /// Bytes of its texts.
    pub bytes: usize,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Refused {
    /// There is no room now.
    #[error(
        "the server is busy: it has work for about {:.1} s; try again in {:.0} s",
        .queued.as_secs_f64(), .retry_after.as_secs_f64().ceil().max(1.0)
    )]
    Overloaded {
        /// What the engine needs for all that is in the system.
        queued: Duration,
        /// When there should be room.
        retry_after: Duration,
    },
    /// It could not be answered in time even by an idle server.
    #[error(
        "the request has about {tokens} tokens, which take this server about {:.1} s, but a request may take {:.1} s at most; send fewer or shorter documents",
        .needed.as_secs_f64(), .timeout.as_secs_f64()
    )]
    TooLarge {
        /// Estimate of its tokens.
        tokens: usize,
        /// What they take.
        needed: Duration,
        /// What a request may take.
        timeout: Duration,
    },
}

/// The gate in front of tokeniser and queue; cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    options: Options,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Tokens that count against the limit.
    held: usize,
    /// Those of them that large requests hold.
    large: usize,
    /// Tokens that are left to score of all requests.
    left: usize,
    callers: HashMap<Caller, usize>,
    density: Density,
}

/// The fewest tokens per byte of text of late: what a body's length says at least.
#[derive(Debug, Default)]
struct Density {
    requests: usize,
    least: Option<f64>,
    least_before: Option<f64>,
}

impl Density {
    fn record(&mut self, demand: Demand) {
        const REQUESTS: usize = 64;
        let density = demand.tokens as f64 / demand.bytes.max(1) as f64;
        self.least = Some(self.least.map_or(density, |least| least.min(density)));
        self.requests += 1;
        if self.requests >= REQUESTS {
            self.requests = 0;
            self.least_before = self.least.take();
        }
    }

    fn tokens(&self, bytes: usize) -> usize {
        let least = [self.least, self.least_before].into_iter().flatten();
        (least.fold(f64::INFINITY, f64::min).min(1.0) * bytes as f64) as usize
    }
}

/// A place in the system, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    state: Arc<Mutex<State>>,
    caller: Caller,
    /// The most that counts of this request.
    share: usize,
    is_large: bool,
    held: usize,
    left: usize,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing panics under the lock; were it to, the numbers would still be whole.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds(tokens: usize, tokens_per_second: f64) -> Duration {
    Duration::try_from_secs_f64(tokens as f64 / tokens_per_second.max(1e-3))
        .unwrap_or(Duration::MAX)
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

    /// The limit in tokens at a rate.
    fn limit(&self, tokens_per_second: f64) -> usize {
        let by_time = tokens_per_second * self.options.max_queue.as_secs_f64();
        self.options.max_queue_tokens.min(by_time as usize).max(1)
    }

    /// Admits a request, or refuses it whole. `timeout` is what it may take in all.
    ///
    /// An empty system admits a request of any size that it can answer in time.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn admit(
        &self,
        caller: &Caller,
        demand: Demand,
        tokens_per_second: f64,
        timeout: Duration,
    ) -> Result<Permit, Refused> {
        let limit = self.limit(tokens_per_second);
        let mut state = lock(&self.state);
        state.density.record(demand);
        let tokens = demand.tokens;
        // The estimate is rough, so only what is clearly too large is refused for good.
        let needed = seconds(tokens, tokens_per_second);
        if needed > timeout + timeout / 4 {
            return Err(Refused::TooLarge {
                tokens,
                needed,
                timeout,
            });
        }
        state.check(caller, tokens, limit, tokens_per_second, timeout)?;
        let share = share(limit);
        let mut permit = Permit {
            state: Arc::clone(&self.state),
            caller: caller.clone(),
            share,
            is_large: tokens > share,
            held: 0,
            left: 0,
        };
        permit.set(&mut state, tokens);
        drop(state);
        Ok(permit)
    }

    /// Refuses a request that there will be no room for, before its body of so many bytes is read.
    ///
    /// # Errors
    /// [`Refused::Overloaded`].
    pub fn check(
        &self,
        caller: &Caller,
        bytes: usize,
        tokens_per_second: f64,
    ) -> Result<(), Refused> {
        let limit = self.limit(tokens_per_second);
        let state = lock(&self.state);
        let tokens = state.density.tokens(bytes);
        state.check(caller, tokens, limit, tokens_per_second, Duration::MAX)
    }

    /// Tokens in the system now that count against the limit.
    #[must_use]
    pub fn tokens(&self) -> usize {
        lock(&self.state).held
    }
}

fn share(limit: usize) -> usize {
    (limit / SHARE).max(1)
}

impl State {
    fn check(
        &self,
        caller: &Caller,
        tokens: usize,
        limit: usize,
        tokens_per_second: f64,
        timeout: Duration,
    ) -> Result<(), Refused> {
        if self.held == 0 {
            return Ok(());
        }
        let share = share(limit);
        let hold = tokens.min(share);
        let refused = |after: usize| {
            Err(Refused::Overloaded {
                queued: seconds(self.left, tokens_per_second),
                retry_after: seconds(after, tokens_per_second),
            })
        };
        if seconds(self.left.saturating_add(tokens), tokens_per_second) > timeout {
            return refused(self.left);
        }
        let own = self.callers.get(caller).copied().unwrap_or(0);
        let callers = self.callers.len() + usize::from(own == 0);
        let is_within_equal_share = own + hold <= limit / callers && self.held + hold <= 2 * limit;
        if callers > 1 && is_within_equal_share {
            return Ok(());
        }
        if self.held >= limit {
            return refused(self.held - limit);
        }
        if tokens > share && self.large + hold > limit / LARGE {
            return refused(self.left);
        }
        Ok(())
    }
}

impl Permit {
    /// Replaces the count by what is left to score. Never refuses: the request is in.
    pub fn settle(&mut self, left: usize) {
        let state = Arc::clone(&self.state);
        self.set(&mut lock(&state), left);
    }

    fn set(&mut self, state: &mut State, left: usize) {
        let hold = left.min(self.share);
        state.left = state.left - self.left + left;
        state.held = state.held - self.held + hold;
        if self.is_large {
            state.large = state.large - self.held + hold;
        }
        let own = state.callers.entry(self.caller.clone()).or_insert(0);
        *own = *own - self.held + hold;
        if *own == 0 {
            state.callers.remove(&self.caller);
        }
        (self.held, self.left) = (hold, left);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const RATE: f64 = 100.0;

    /// 100 tokens a second, one second of them.
    fn gate() -> Admission {
        Admission::new(Options {
            max_queue_tokens: usize::MAX,
            max_queue: Duration::from_secs(1),
        })
    }

    fn admit(gate: &Admission, caller: u64, tokens: usize) -> Result<Permit, Refused> {
        let demand = Demand {
            tokens,
            bytes: 4 * tokens,
        };
        gate.admit(&Caller::Connection(caller), demand, RATE, TIMEOUT)
    }

    fn retry_after(refused: Result<Permit, Refused>) -> f64 {
        match refused.unwrap_err() {
            Refused::Overloaded { retry_after, .. } => retry_after.as_secs_f64(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_request_is_admitted_whole_or_refused_whole() {
        let gate = gate();
        let mut held: Vec<Permit> = (0..4).map(|_| admit(&gate, 1, 24).unwrap()).collect();
        held.push(admit(&gate, 1, 24).unwrap());
        assert_eq!(retry_after(admit(&gate, 1, 24)), 0.2);
        assert_eq!(
            gate.tokens(),
            120,
            "a refused request leaves nothing behind"
        );
        drop(held.pop());
        assert!(admit(&gate, 1, 24).is_ok());
    }

    #[test]
    fn settling_and_dropping_give_back_what_was_taken() {
        let gate = gate();
        let mut permit = admit(&gate, 1, 10).unwrap();
        permit.settle(22);
        assert_eq!(gate.tokens(), 22);
        permit.settle(3);
        assert_eq!(gate.tokens(), 3);
        drop(permit);
        assert_eq!(gate.tokens(), 0);
        assert!(lock(&gate.state).callers.is_empty());
    }

    #[test]
    fn a_large_request_leaves_room_for_small_ones() {
        let gate = gate();
        // 20 seconds of work, but it is in the queue a quarter of a second at a time.
        let mut large = admit(&gate, 1, 2000).unwrap();
        assert_eq!(gate.tokens(), 25);
        let small: Vec<Permit> = (0..8).map(|_| admit(&gate, 1, 10).unwrap()).collect();
        assert!(admit(&gate, 1, 10).is_err());
        drop(small);
        let second = admit(&gate, 1, 500).unwrap();
        // A third large one would leave the small ones less than half.
        assert_eq!(retry_after(admit(&gate, 1, 100)), 25.0);
        assert!(admit(&gate, 1, 25).is_ok());
        drop(second);
        large.settle(5);
        assert_eq!(gate.tokens(), 5, "what is left of it counts in the end");
    }

    #[test]
    fn what_can_not_be_answered_in_time_is_refused_at_once() {
        let gate = gate();
        assert!(matches!(
            admit(&gate, 1, 4000),
            Err(Refused::TooLarge { tokens: 4000, .. })
        ));
        let _large = admit(&gate, 1, 2000).unwrap();
        // 20 s are ahead of it.
        assert_eq!(retry_after(admit(&gate, 2, 1100)), 20.0);
        assert!(admit(&gate, 2, 900).is_ok());
    }

    #[test]
    fn a_caller_is_let_in_to_an_equal_share_though_another_fills_the_limit() {
        let gate = gate();
        let _flood: Vec<Permit> = (0..10).map(|_| admit(&gate, 1, 10).unwrap()).collect();
        assert!(admit(&gate, 1, 10).is_err());
        let _two: Vec<Permit> = (0..5).map(|_| admit(&gate, 2, 10).unwrap()).collect();
        assert!(admit(&gate, 2, 10).is_err(), "no more than half");
        assert!(admit(&gate, 3, 20).is_ok());
    }

    #[test]
    fn a_body_is_refused_unread_only_if_it_can_not_fit() {
        let gate = gate();
        let check = |bytes| gate.check(&Caller::Connection(1), bytes, RATE);
        assert!(check(usize::MAX).is_ok(), "an empty system takes anything");
        let mut held: Vec<Permit> = (0..9).map(|_| admit(&gate, 1, 10).unwrap()).collect();
        assert!(check(40).is_ok());
        held.push(admit(&gate, 2, 10).unwrap());
        // The limit is reached; 50 tokens more would be another caller's equal share. Of late, 4 bytes
        // were a token.
        let other = |bytes| gate.check(&Caller::Connection(3), bytes, RATE);
        assert!(check(40).is_err());
        assert!(other(4 * 25).is_ok());
        // One request whose documents were cut to little shows that bytes need not be tokens.
        drop(held);
        let cut = Demand {
            tokens: 1,
            bytes: 1000,
        };
        let _large = [(); 2].map(|()| admit(&gate, 1, 100).unwrap());
        assert!(check(4 * 100).is_err(), "a third large one");
        let permit = gate.admit(&Caller::Connection(1), cut, RATE, TIMEOUT);
        assert!(permit.is_ok() && check(4 * 100).is_ok());
    }

    #[test]
    fn the_limit_follows_the_engines_rate_up_to_the_tokens_allowed() {
        let gate = Admission::new(Options {
            max_queue_tokens: 500,
            max_queue: Duration::from_secs(2),
        });
        assert_eq!(gate.limit(10.0), 20);
        assert_eq!(gate.limit(1e9), 500);
        assert_eq!(gate.limit(0.0), 1);
    }
}
