//! The pairs that wait, in fair order. No threads, no clock of its own; called by `worker`.
//!
//! Fair order is start-time fair queueing (Goyal, Vin and Cheng, 1996) over tokens: each pair gets
//! as its tag the queue's virtual time at arrival plus the tokens of its own request before it. So
//! requests advance side by side, and one of 5 documents does not wait for all of one of 1,000.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::types::{Batch, EncodedPair, Logit};

use super::planner::{BatchLimits, next_batch};
use super::{ScoreError, Scored};

/// One request's pairs, as handed to the queue.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) pairs: Vec<EncodedPair>,
    pub(super) submitted: Instant,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Scored, ScoreError>>,
}

#[derive(Debug)]
struct Running {
    job: Job,
    logits: Vec<Logit>,
    unscored: usize,
    started: Option<Instant>,
}

/// A waiting pair's place: (tag, job, position in the job).
pub(super) type Key = (u64, u64, usize);

/// A planned batch; its pairs stay in the queue until it is taken.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) keys: Vec<Key>,
    pub(super) batch: Batch,
}

/// All waiting pairs of all requests, and the requests they belong to.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: HashMap<u64, Running>,
    order: BTreeMap<Key, usize>,
    tokens: usize,
    virtual_time: u64,
    next_job: u64,
}

impl Queue {
    /// Adds a request.
    pub(super) fn push(&mut self, job: Job) {
        let id = self.next_job;
        self.next_job += 1;
        let mut tag = self.virtual_time;
        for (position, pair) in job.pairs.iter().enumerate() {
            self.order.insert((tag, id, position), pair.len());
            self.tokens += pair.len();
            tag += pair.len() as u64;
        }
        let pairs = job.pairs.len();
        self.jobs.insert(
            id,
            Running {
                job,
                logits: vec![Logit(0.0); pairs],
                unscored: pairs,
                started: None,
            },
        );
    }

    /// Forgets the requests whose client has gone or whose deadline has passed: they cost no
    /// further compute.
    pub(super) fn drop_dead(&mut self, now: Instant) {
        let dead: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, r)| r.job.reply.is_closed() || r.job.deadline <= now)
            .map(|(&id, _)| id)
            .collect();
        for id in dead {
            self.fail(id, ScoreError::DeadlineExceeded);
        }
    }

    /// Whether the request that a waiting pair belongs to is still there.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.order.contains_key(key)
    }

    /// Plans the next batch without taking it.
    pub(super) fn plan(&self, limits: &BatchLimits) -> Option<Planned> {
        let picked = next_batch(self.order.values().copied(), limits);
        let last = *picked.iter().max()?;
        let front: Vec<Key> = self.order.keys().take(last + 1).copied().collect();
        let keys: Vec<Key> = picked.into_iter().map(|position| front[position]).collect();
        let pairs = keys
            .iter()
            .filter_map(|&(_, job, position)| self.jobs.get(&job)?.job.pairs.get(position));
        let batch = Batch::pack(pairs);
        Some(Planned { keys, batch })
    }

    /// Takes a planned batch's pairs out of the queue. Returns how long each request in it that
    /// starts now has waited.
    pub(super) fn take(&mut self, keys: &[Key], now: Instant) -> Vec<Duration> {
        // The head's tag: what arrives from here on competes with what is being served now.
        if let Some(tag) = keys.iter().map(|k| k.0).min() {
            self.virtual_time = self.virtual_time.max(tag);
        }
        let mut waits = Vec::new();
        for key in keys {
            if let Some(tokens) = self.order.remove(key) {
                self.tokens -= tokens;
            }
            if let Some(running) = self.jobs.get_mut(&key.1)
                && running.started.is_none()
            {
                running.started = Some(now);
                waits.push(now.saturating_duration_since(running.job.submitted));
            }
        }
        waits
    }

    /// Records a scored pair, and answers its request once it was the last one.
    pub(super) fn scored(&mut self, key: &Key, logit: Logit, now: Instant) {
        let Some(running) = self.jobs.get_mut(&key.1) else {
            return; // The client has gone meanwhile.
        };
        running.logits[key.2] = logit;
        running.unscored -= 1;
        if running.unscored == 0
            && let Some(done) = self.jobs.remove(&key.1)
        {
            let started = done.started.unwrap_or(now);
            // The client may go at any time; then nobody wants the answer.
            let _ = done.job.reply.send(Ok(Scored {
                logits: done.logits,
                queue_wait: started.saturating_duration_since(done.job.submitted),
                inference: now.saturating_duration_since(started),
            }));
        }
    }

    /// Ends a request with an error and drops what still waits of it.
    pub(super) fn fail(&mut self, job: u64, error: ScoreError) {
        let Some(failed) = self.jobs.remove(&job) else {
            return;
        };
        let tokens = &mut self.tokens;
        self.order.retain(|key, length| {
            let keep = key.1 != job;
            if !keep {
                *tokens -= *length;
            }
            keep
        });
        let _ = failed.job.reply.send(Err(error));
    }

    /// Waiting pairs and tokens.
    pub(super) fn depth(&self) -> (usize, usize) {
        (self.order.len(), self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits = BatchLimits {
        max_tokens: 100,
        max_pairs: 64,
        window_tokens: 100,
    };

    type Reply = oneshot::Receiver<Result<Scored, ScoreError>>;

    fn job(lengths: &[usize]) -> (Job, Reply) {
        let (reply, receiver) = oneshot::channel();
        let pair = |&n: &usize| EncodedPair {
            ids: vec![n as u32; n],
            type_ids: vec![0; n],
            truncated: false,
        };
        let now = Instant::now();
        let job = Job {
            pairs: lengths.iter().map(pair).collect(),
            submitted: now,
            deadline: now + Duration::from_secs(60),
            reply,
        };
        (job, receiver)
    }

    /// Runs one batch, each pair's logit its length.
    fn step(queue: &mut Queue) -> usize {
        let Some(planned) = queue.plan(&LIMITS) else {
            return 0;
        };
        let now = Instant::now();
        queue.take(&planned.keys, now);
        for (key, length) in planned.keys.iter().zip(planned.batch.lengths()) {
            queue.scored(key, Logit(length as f32), now);
        }
        planned.keys.len()
    }

    #[test]
    fn a_small_request_does_not_wait_for_a_large_one() {
        let mut queue = Queue::default();
        let (large, mut large_reply) = job(&[10; 1000]);
        queue.push(large);
        for _ in 0..5 {
            step(&mut queue);
        }
        let (small, mut small_reply) = job(&[10; 5]);
        queue.push(small);
        step(&mut queue);
        step(&mut queue);
        let scored = small_reply
            .try_recv()
            .expect("two batches are enough")
            .unwrap();
        assert_eq!(scored.logits, vec![Logit(10.0); 5]);
        assert!(large_reply.try_recv().is_err());
        while step(&mut queue) > 0 {}
        assert_eq!(large_reply.try_recv().unwrap().unwrap().logits.len(), 1000);
        assert_eq!(queue.depth(), (0, 0));
    }

    #[test]
    fn logits_come_back_in_the_requests_own_order() {
        let mut queue = Queue::default();
        let lengths = [70, 3, 40, 90, 12, 12, 55];
        let (first, mut reply) = job(&lengths);
        queue.push(first);
        queue.push(job(&[33; 9]).0);
        while step(&mut queue) > 0 {}
        let logits = reply.try_recv().unwrap().unwrap().logits;
        let expected: Vec<Logit> = lengths.iter().map(|&n| Logit(n as f32)).collect();
        assert_eq!(logits, expected);
    }

    #[test]
    fn a_request_whose_client_has_gone_costs_no_further_compute() {
        let mut queue = Queue::default();
        let (gone, reply) = job(&[10; 50]);
        queue.push(gone);
        step(&mut queue);
        drop(reply);
        queue.drop_dead(Instant::now());
        assert_eq!(queue.depth(), (0, 0));
        assert_eq!(step(&mut queue), 0);
    }

    #[test]
    fn a_request_past_its_deadline_is_told_so() {
        let mut queue = Queue::default();
        let (late, mut reply) = job(&[10]);
        let deadline = late.deadline;
        queue.push(late);
        queue.drop_dead(deadline);
        assert!(matches!(
            reply.try_recv(),
            Ok(Err(ScoreError::DeadlineExceeded))
        ));
    }
}
