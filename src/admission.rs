//! Back-pressure: a request is admitted whole or refused whole, before it costs any work.
//!
//! What is counted is tokens in the system, from admission to the answer. Before tokenising the
//! count is an estimate; [`Permit::settle`] replaces it with the true one. Called by `rerank`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Limits on what is admitted.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most tokens in the system, queued or being scored.
    pub max_queue_tokens: usize,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue holds {queued_tokens} tokens of at most {max_queue_tokens}")]
pub struct Overloaded {
    /// Tokens in the system when the request came.
    pub queued_tokens: usize,
    /// The limit.
    pub max_queue_tokens: usize,
}

/// The gate in front of tokeniser and queue; cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    options: Options,
    tokens: Arc<AtomicUsize>,
}

/// A place in the system, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    held: usize,
    tokens: Arc<AtomicUsize>,
}

impl Admission {
    /// An empty system.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            tokens: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Admits a request of about `tokens` tokens, or refuses it whole.
    ///
    /// An empty system admits a request of any size: it could otherwise never be served, and the
    /// limits on documents and body bytes already bound it.
    pub fn admit(&self, tokens: usize) -> Result<Permit, Overloaded> {
        self.tokens
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                let fits = held.saturating_add(tokens) <= self.options.max_queue_tokens;
                (fits || held == 0).then_some(held.saturating_add(tokens))
            })
            .map(|_| Permit {
                held: tokens,
                tokens: Arc::clone(&self.tokens),
            })
            .map_err(|queued_tokens| Overloaded {
                queued_tokens,
                max_queue_tokens: self.options.max_queue_tokens,
            })
    }

    /// Tokens in the system now.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens.load(Ordering::Acquire)
    }
}

impl Permit {
    /// Replaces the estimate by the true number of tokens. Never refuses: the request is in.
    pub fn settle(&mut self, tokens: usize) {
        if tokens >= self.held {
            self.tokens.fetch_add(tokens - self.held, Ordering::AcqRel);
        } else {
            self.tokens.fetch_sub(self.held - tokens, Ordering::AcqRel);
        }
        self.held = tokens;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.tokens.fetch_sub(self.held, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_admitted_whole_or_refused_whole() {
        let gate = Admission::new(Options {
            max_queue_tokens: 100,
        });
        let first = gate.admit(60).unwrap();
        let refused = gate.admit(41).unwrap_err();
        assert_eq!(refused.queued_tokens, 60);
        assert_eq!(gate.tokens(), 60, "a refused request leaves nothing behind");
        let _second = gate.admit(40).unwrap();
        drop(first);
        assert_eq!(gate.tokens(), 40);
    }

    #[test]
    fn settling_and_dropping_give_back_what_was_taken() {
        let gate = Admission::new(Options {
            max_queue_tokens: 100,
        });
        let mut permit = gate.admit(50).unwrap();
        permit.settle(70);
        assert_eq!(gate.tokens(), 70);
        permit.settle(10);
        assert_eq!(gate.tokens(), 10);
        drop(permit);
        assert_eq!(gate.tokens(), 0);
    }

    #[test]
    fn an_empty_system_admits_a_request_larger_than_the_queue() {
        let gate = Admission::new(Options {
            max_queue_tokens: 10,
        });
        let big = gate.admit(1000).unwrap();
        assert!(gate.admit(1).is_err());
        drop(big);
        assert!(gate.admit(1).is_ok());
    }
}
