//! What the owner of API keys may use: the limits of a name, which all of its keys share, and its metrics.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use metrics::counter;

use crate::rerank::Cost;
use crate::types::Priority;

/// At most so many names have metrics of their own; the others share those of [`OTHER`].
const MOST_LABELS: usize = 100;
const OTHER: &str = "other";
/// Bytes of a body for a token, as long as it is not known how many tokens are scored.
const BYTES_PER_TOKEN: usize = 4;

/// The headers that tell a limit, what remains of it, and when all of it is there again.
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// All of these headers.
pub(super) fn rate_limit_headers() -> impl Iterator<Item = HeaderName> {
    REQUESTS.into_iter().chain(TOKENS)
}

/// The limits of a name; what is `None` is not limited, or as for everybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) requests_per_minute: Option<u64>,
    pub(super) tokens_per_minute: Option<u64>,
    pub(super) concurrent: Option<u64>,
    pub(super) weight: Option<u64>,
    pub(super) priority: Option<Priority>,
}

/// A limit that a name has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Limited {
    #[error(
        "this API key may send {most} requests a minute; try again in {} s",
        whole(.retry_after)
    )]
    Requests { most: u64, retry_after: Duration },
    #[error(
        "this API key may have {most} tokens scored a minute; try again in {} s",
        whole(.retry_after)
    )]
    Tokens { most: u64, retry_after: Duration },
    #[error(
        "this API key may have {most} requests in flight at a time; try again once one is answered"
    )]
    Concurrent { most: u64 },
}

fn whole(time: &Duration) -> f64 {
    time.as_secs_f64().ceil().max(1.0)
}

impl Limited {
    /// The limit's name.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Requests { .. } => "requests_per_minute",
            Self::Tokens { .. } => "tokens_per_minute",
            Self::Concurrent { .. } => "concurrent",
        }
    }

    /// When the same request would be let in.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Requests { retry_after, .. } | Self::Tokens { retry_after, .. } => *retry_after,
            Self::Concurrent { .. } => Duration::ZERO,
        }
    }
}

/// So much a minute: a bucket that holds what a minute brings, and is filled evenly. What takes more than it was
/// thought to leaves a debt, of what a minute brings at most.
#[derive(Debug)]
struct Bucket {
    per_minute: u64,
    level: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(per_minute: u64, now: Instant) -> Self {
        Self {
            per_minute,
            level: Mutex::new((per_minute as f64, now)),
        }
    }

    /// Changes the level at a time, if `change` allows it.
    fn at<T>(&self, now: Instant, change: impl FnOnce(&mut f64) -> T) -> T {
        let mut state = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let (level, then) = &mut *state;
        let most = self.per_minute as f64;
        let passed = now.saturating_duration_since(*then).as_secs_f64();
        *level = (*level + most * passed / 60.0).min(most);
        *then = now.max(*then);
        change(level)
    }

    /// Takes an amount and returns it, or says when it will be there. An amount that is never there takes what is.
    fn take(&self, amount: f64, now: Instant) -> Result<f64, Duration> {
        let is_ever_there = amount <= self.per_minute as f64;
        let needed = if is_ever_there { amount } else { 1.0 };
        self.at(now, |level| match amount.min(*level) {
            _ if *level < needed => Err(self.time_for(needed - *level)),
            taken => {
                *level -= taken;
                Ok(taken)
            }
        })
    }

    /// Gives an amount back; a negative one is taken.
    fn give(&self, amount: f64, now: Instant) {
        let least = -(self.per_minute as f64);
        self.at(now, |level| *level = (*level + amount).max(least));
    }

    fn time_for(&self, amount: f64) -> Duration {
        let seconds = amount.max(0.0) * 60.0 / self.per_minute as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn tell(&self, names: &[HeaderName; 3], now: Instant, headers: &mut HeaderMap) {
        let level = self.at(now, |level| *level);
        let reset = self.time_for(self.per_minute as f64 - level);
        let [limit, remaining, reset_after] = names.clone();
        headers.insert(limit, self.per_minute.into());
        headers.insert(remaining, (level.max(0.0) as u64).into());
        if let Ok(reset) = HeaderValue::from_str(&in_words(reset)) {
            headers.insert(reset_after, reset);
        }
    }
}

/// A time as clients of OpenAI read it: `1m12s`, `0.25s`.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds < 60.0 {
        true => format!("{}s", (seconds * 1e3).ceil() / 1e3),
        false => {
            let whole = seconds.ceil() as u64;
            format!("{}m{}s", whole / 60, whole % 60)
        }
    }
}

/// A name with its limits and what is used of them.
#[derive(Debug)]
pub(super) struct Account {
    limits: Limits,
    label: Arc<str>,
    in_flight: Arc<AtomicUsize>,
    requests: Option<Arc<Bucket>>,
    tokens: Option<Arc<Bucket>>,
}

impl Account {
    /// Its share of the engine.
    pub(super) fn weight(&self) -> u32 {
        let weight = self.limits.weight.unwrap_or(1);
        u32::try_from(weight).unwrap_or(u32::MAX)
    }

    /// The most tokens that one of its requests may have: what it would wait for otherwise never comes.
    pub(super) fn most_tokens(&self) -> Option<u64> {
        self.limits.tokens_per_minute
    }

    /// The class of its requests that say none.
    pub(super) fn priority(&self) -> Priority {
        self.limits.priority.unwrap_or_default()
    }

    /// Lets a request in with a body of so many bytes, if its limits allow it.
    pub(super) fn enter(self: &Arc<Self>, bytes: usize) -> Result<Entered, Limited> {
        let now = Instant::now();
        counter!("rerankd_key_requests_total", "key" => Arc::clone(&self.label)).increment(1);
        // Gives its place back if it is not let in.
        let mut entered = Entered {
            in_flight: Arc::clone(&self.in_flight),
            tokens: self.tokens.clone(),
            reserved: 0.0,
        };
        let others = self.in_flight.fetch_add(1, Ordering::Relaxed) as u64;
        if let Some(most) = self.limits.concurrent.filter(|&most| others >= most) {
            return Err(Limited::Concurrent { most });
        }
        if let Some(bucket) = &self.requests {
            let most = bucket.per_minute;
            let limited = |retry_after| Limited::Requests { most, retry_after };
            bucket.take(1.0, now).map_err(limited)?;
        }
        if let Some(bucket) = &self.tokens {
            let most = bucket.per_minute;
            let amount = (bytes / BYTES_PER_TOKEN).max(1) as f64;
            entered.reserved = bucket.take(amount, now).map_err(|retry_after| {
                if let Some(requests) = &self.requests {
                    requests.give(1.0, now);
                }
                Limited::Tokens { most, retry_after }
            })?;
        }
        Ok(entered)
    }

    /// Counts a request that was refused.
    pub(super) fn count_refused(&self, reason: &'static str) {
        let label = Arc::clone(&self.label);
        counter!("rerankd_key_refused_total", "key" => label, "reason" => reason).increment(1);
    }

    /// Counts the work of a request that was answered.
    pub(super) fn count(&self, cost: &Cost) {
        let label = || Arc::clone(&self.label);
        counter!("rerankd_key_tokens_total", "key" => label()).increment(cost.tokens as u64);
        counter!("rerankd_key_pairs_total", "key" => label()).increment(cost.pairs as u64);
    }

    /// Adds the headers that tell of its limits.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let now = Instant::now();
        if let Some(bucket) = &self.requests {
            bucket.tell(&REQUESTS, now, headers);
        }
        if let Some(bucket) = &self.tokens {
            bucket.tell(&TOKENS, now, headers);
        }
    }
}

/// A request that was let in. Dropped before it is settled, its client has gone: then what was thought to be its tokens
/// are taken to be so.
#[derive(Debug)]
pub(super) struct Entered {
    in_flight: Arc<AtomicUsize>,
    tokens: Option<Arc<Bucket>>,
    reserved: f64,
}

impl Entered {
    /// Ends it, once it is known how many tokens were scored.
    pub(super) fn settle(self, tokens: usize) {
        if let Some(bucket) = &self.tokens {
            bucket.give(self.reserved - tokens as f64, Instant::now());
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All names of a file of keys.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_name: HashMap<Arc<str>, Arc<Account>>,
    labels: BTreeSet<Arc<str>>,
}

impl Accounts {
    /// Takes other names and limits. What was used of a limit stays so if its number does.
    pub(super) fn renew(&mut self, limits: &HashMap<Arc<str>, Limits>) {
        let now = Instant::now();
        let accounts = limits.iter().map(|(name, limits)| {
            let before = self.by_name.get(name);
            let bucket = |number: Option<u64>, before: Option<&Arc<Bucket>>| {
                let number = number?;
                let same = before.filter(|bucket| bucket.per_minute == number);
                Some(same.map_or_else(|| Arc::new(Bucket::new(number, now)), Arc::clone))
            };
            let account = Account {
                limits: *limits,
                label: label(&mut self.labels, name),
                in_flight: before.map_or_else(Arc::default, |b| Arc::clone(&b.in_flight)),
                requests: bucket(
                    limits.requests_per_minute,
                    before.and_then(|before| before.requests.as_ref()),
                ),
                tokens: bucket(
                    limits.tokens_per_minute,
                    before.and_then(|before| before.tokens.as_ref()),
                ),
            };
            (Arc::clone(name), Arc::new(account))
        });
        self.by_name = accounts.collect();
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Account>> {
        self.by_name.get(name).cloned()
    }
}

/// The name that metrics tell: its own for the first ones of this process.
fn label(labels: &mut BTreeSet<Arc<str>>, name: &Arc<str>) -> Arc<str> {
    if !labels.contains(name) {
        if labels.len() >= MOST_LABELS {
            return OTHER.into();
        }
        labels.insert(Arc::clone(name));
    }
    Arc::clone(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn account(limits: Limits) -> (Accounts, Arc<Account>) {
        let mut accounts = Accounts::default();
        accounts.renew(&HashMap::from([("a".into(), limits)]));
        let account = accounts.get("a").unwrap();
        (accounts, account)
    }

    #[test]
    fn a_bucket_gives_a_minutes_amount_at_once_and_then_evenly() {
        let start = Instant::now();
        let bucket = Bucket::new(60, start);
        for _ in 0..60 {
            bucket.take(1.0, start).unwrap();
        }
        assert_eq!(bucket.take(1.0, start), Err(seconds(1.0)));
        assert_eq!(bucket.take(1.0, start + seconds(0.75)), Err(seconds(0.25)));
        assert!(bucket.take(1.0, start + seconds(1.0)).is_ok());
        // It never holds more than a minute's.
        let later = start + seconds(3600.0);
        let taken = (0..100).take_while(|_| bucket.take(1.0, later).is_ok());
        assert_eq!(taken.count(), 60);
    }

    #[test]
    fn what_takes_more_than_was_thought_leaves_a_debt() {
        let start = Instant::now();
        let bucket = Bucket::new(600, start);
        bucket.take(100.0, start).unwrap();
        // It was 700: 100 are missing now, and 10 come each second.
        bucket.give(100.0 - 700.0, start);
        assert_eq!(bucket.take(50.0, start), Err(seconds(15.0)));
        // What is never there needs something, and takes all.
        assert_eq!(bucket.take(9000.0, start), Err(seconds(10.1)));
        let later = start + seconds(70.0);
        assert_eq!(bucket.take(9000.0, later), Ok(600.0));
        // Whatever it was, a minute later something is there again.
        bucket.give(600.0 - 38_500.0, later);
        assert_eq!(bucket.take(1.0, later), Err(seconds(60.1)));
    }

    #[test]
    fn places_are_given_back_and_tokens_settled() {
        let (_, account) = account(Limits {
            concurrent: Some(2),
            tokens_per_minute: Some(1000),
            ..Limits::default()
        });
        let remaining = || {
            let mut headers = HeaderMap::new();
            account.tell(&mut headers);
            let remaining = &headers["x-ratelimit-remaining-tokens"];
            remaining.to_str().unwrap().parse::<u64>().unwrap() / 100
        };
        let first = account.enter(400).unwrap();
        let second = account.enter(400).unwrap();
        let third = account.enter(400).unwrap_err();
        assert_eq!(third, Limited::Concurrent { most: 2 });
        assert_eq!(remaining(), 8);
        first.settle(0);
        assert_eq!(remaining(), 9);
        second.settle(500);
        assert_eq!(remaining(), 5);
        // One that goes is taken to have cost what was thought.
        drop(account.enter(400));
        assert_eq!(remaining(), 4);
        let _large = account.enter(400_000).unwrap();
        let refused = account.enter(400).unwrap_err();
        assert_eq!(refused.reason(), "tokens_per_minute");
        assert!((5.0..=6.0).contains(&refused.retry_after().as_secs_f64()));
    }

    #[test]
    fn what_was_used_stays_used_while_the_number_stays() {
        let limits = |requests, tokens| Limits {
            requests_per_minute: Some(requests),
            tokens_per_minute: Some(tokens),
            concurrent: Some(1),
            ..Limits::default()
        };
        let (mut accounts, account) = account(limits(2, 100_000));
        let held = account.enter(0).unwrap();
        let mut renew = |limits| {
            accounts.renew(&HashMap::from([("a".into(), limits)]));
            accounts.get("a").unwrap()
        };
        let same = renew(limits(2, 100_001));
        assert_eq!(same.enter(0).unwrap_err().reason(), "concurrent");
        drop(held);
        assert!(same.enter(0).is_ok());
        assert_eq!(same.enter(0).unwrap_err().reason(), "requests_per_minute");
        assert!(renew(limits(3, 100_001)).enter(0).is_ok());
    }

    #[test]
    fn a_hundred_names_have_labels_of_their_own() {
        let mut accounts = Accounts::default();
        let names = |names: std::ops::Range<usize>| -> HashMap<Arc<str>, Limits> {
            let names = names.map(|i| (format!("n{i}").into(), Limits::default()));
            names.collect()
        };
        accounts.renew(&names(0..60));
        accounts.renew(&names(60..160));
        let accounts = accounts.by_name.values();
        let other = accounts.filter(|account| &*account.label == OTHER);
        assert_eq!(other.count(), 60);
    }

    #[test]
    fn times_are_told_as_clients_read_them() {
        for (time, text) in [
            (0.0, "0s"),
            (0.25, "0.25s"),
            (59.9, "59.9s"),
            (72.0, "1m12s"),
        ] {
            assert_eq!(in_words(seconds(time)), text);
        }
    }
}
