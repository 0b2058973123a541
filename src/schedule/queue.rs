//! The waiting sequences in fair order. No threads, no clock of its own. Called by `lane`.
//!
//! Callers take turns by tokens, and so do the requests of each caller (see `turns`). So a request of 5
//! documents overtakes most of one of 1,000, even from the same caller, and a stream of small requests can't
//! delay a waiting request beyond its equal share. The two classes of requests have nothing to do with each other
//! here: `classes` says which is next.

use std::collections::{BTreeMap, HashMap, btree_map};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::types::{Batch, Caller, Output, Priority, Sequence, Standing};

use super::RunError;
use super::planner::{BatchLimits, next_batch};
use super::turns::Turns;

/// A piece of a request: some of its sequences.
#[derive(Debug)]
pub(super) struct Job {
    /// The model's name that it counts under.
    pub(super) name: Arc<str>,
    pub(super) standing: Standing,
    /// The request's number, the same for all of its jobs.
    pub(super) request: u64,
    pub(super) sequences: Vec<Sequence>,
    pub(super) submitted: Instant,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<JobOutputs, RunError>>,
}

/// A job's result.
#[derive(Debug)]
pub(super) struct JobOutputs {
    /// One output per sequence, in the sequences' order.
    pub(super) outputs: Vec<Output>,
    pub(super) submitted: Instant,
    /// Start of the first batch with one of its sequences.
    pub(super) started: Instant,
    /// End of the last such batch.
    pub(super) ended: Instant,
}

#[derive(Debug)]
struct Running {
    job: Job,
    caller: u64,
    outputs: Vec<Option<Output>>,
    unscored: usize,
    /// Tokens of its sequences that wait, without those that they begin with alike.
    waiting: usize,
    started: Option<Instant>,
}

impl Running {
    /// Whether nobody waits for it any more.
    fn is_dead(&self, now: Instant) -> bool {
        self.job.reply.is_closed() || self.job.deadline <= now
    }

    /// Whether what waits of it can't be scored in time: it takes longer than twice the time that is left.
    fn is_late(&self, now: Instant, tokens_per_second: f64) -> bool {
        let left = self.job.deadline.saturating_duration_since(now);
        self.waiting as f64 > 2.0 * tokens_per_second * left.as_secs_f64()
    }
}

/// A sequence's place: its job and its position in the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) job: u64,
    position: usize,
}

/// A planned batch; its sequences stay in the queue until it is taken.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) priority: Priority,
    pub(super) places: Vec<Place>,
    pub(super) batch: Batch,
    /// The name that each place counts under.
    pub(super) names: Vec<Arc<str>>,
}

/// A request's waiting sequences: the tokens of each, in order.
type Waiting = BTreeMap<Place, usize>;

/// A caller's waiting requests.
#[derive(Debug, Default)]
struct Line {
    turns: Turns,
    requests: HashMap<u64, Waiting>,
}

/// A request with jobs here.
#[derive(Debug, Default)]
struct Progress {
    jobs: usize,
    /// Whether a sequence of it was taken.
    is_begun: bool,
}

/// The callers of one class.
#[derive(Debug, Default)]
struct Class {
    turns: Turns,
    lines: HashMap<u64, Line>,
    /// The numbers of callers that have something waiting or have had more than their share.
    callers: HashMap<Caller, u64>,
    next_caller: u64,
}

/// The waiting sequences of all requests, and their jobs.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: HashMap<u64, Running>,
    next_job: u64,
    requests: HashMap<u64, Progress>,
    /// How many of them are begun.
    begun: usize,
    classes: [Class; 2],
    sequences: usize,
    tokens: usize,
}

impl Class {
    /// Whether nothing of it waits.
    fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.lines.is_empty()
    }

    /// A caller's number; a new one if the caller is not known.
    fn number(&mut self, caller: &Caller) -> u64 {
        if let Some(&number) = self.callers.get(caller) {
            return number;
        }
        if self.callers.len() > 64 + 2 * self.lines.len() {
            let (lines, turns) = (&self.lines, &self.turns);
            self.callers
                .retain(|_, number| lines.contains_key(number) || turns.knows(*number));
        }
        let number = self.next_caller;
        self.next_caller += 1;
        self.callers.insert(caller.clone(), number);
        number
    }

    /// A request's waiting sequences, and the turns of its line.
    fn waiting(&mut self, caller: u64, request: u64) -> Option<(&mut Turns, &mut Waiting)> {
        let line = self.lines.get_mut(&caller)?;
        Some((&mut line.turns, line.requests.get_mut(&request)?))
    }

    /// The waiting sequences with their tokens, in the order in which they would be scored if nothing else
    /// arrived and each batch held one sequence.
    fn fair_order(&self) -> impl Iterator<Item = (Place, usize)> + '_ {
        self.turns.merged(|caller| {
            let line = self.lines.get(&caller);
            line.into_iter().flat_map(|line| {
                line.turns.merged(|request| {
                    let waiting = line.requests.get(&request);
                    let sequences: Option<btree_map::Iter<'_, Place, usize>> =
                        waiting.map(BTreeMap::iter);
                    sequences
                        .into_iter()
                        .flatten()
                        .map(|(&p, &tokens)| (p, tokens))
                })
            })
        })
    }

    /// Removes a request that has nothing waiting, and then its caller if that has nothing waiting either.
    fn leave_if_empty(&mut self, caller: u64, request: u64) {
        let Some(line) = self.lines.get_mut(&caller) else {
            return;
        };
        if line.requests.get(&request).is_some_and(BTreeMap::is_empty) {
            line.requests.remove(&request);
            line.turns.leave(request);
        }
        if line.turns.is_empty() {
            self.lines.remove(&caller);
            self.turns.leave(caller);
        }
    }
}

impl Queue {
    /// Adds some of a request's sequences.
    pub(super) fn push(&mut self, job: Job) {
        let id = self.next_job;
        self.next_job += 1;
        self.requests.entry(job.request).or_default().jobs += 1;
        let class = &mut self.classes[job.standing.priority as usize];
        let caller = class.number(&job.standing.caller);
        let line = class.lines.entry(caller).or_default();
        let requests = line.requests.entry(job.request).or_default();
        let mut waiting = 0;
        for (position, sequence) in job.sequences.iter().enumerate() {
            requests.insert(Place { job: id, position }, sequence.len());
            self.tokens += sequence.len();
            waiting += own(sequence);
        }
        line.turns.join(job.request);
        class.turns.join_with(caller, job.standing.weight);
        self.sequences += job.sequences.len();
        let (outputs, unscored) = (vec![None; job.sequences.len()], job.sequences.len());
        let running = Running {
            job,
            caller,
            outputs,
            unscored,
            waiting,
            started: None,
        };
        self.jobs.insert(id, running);
    }

    /// Drops the jobs whose client has gone away, and those that are or will be late at such a rate, before they
    /// cost engine time.
    pub(super) fn drop_dead(&mut self, now: Instant, tokens_per_second: f64) {
        let is_dead = |r: &Running| r.is_dead(now) || r.is_late(now, tokens_per_second);
        let dead = self.jobs.iter().filter(|(_, r)| is_dead(r));
        let dead: Vec<u64> = dead.map(|(&id, _)| id).collect();
        for id in dead {
            self.fail(id, RunError::DeadlineExceeded);
        }
    }

    /// Whether anybody waits for the outputs of some places, taken or not.
    pub(super) fn is_wanted(&self, places: &[Place], now: Instant) -> bool {
        let mut running = places.iter().filter_map(|place| self.jobs.get(&place.job));
        running.any(|running| !running.is_dead(now))
    }

    /// Whether the sequence at a place still waits.
    pub(super) fn holds(&self, place: Place) -> bool {
        let running = self.jobs.get(&place.job);
        running.is_some_and(|r| {
            let class = &self.classes[r.job.standing.priority as usize];
            let line = class.lines.get(&r.caller);
            let waiting = line.and_then(|line| line.requests.get(&r.job.request));
            waiting.is_some_and(|waiting| waiting.contains_key(&place))
        })
    }

    /// Plans the next batch of a class without taking it.
    pub(super) fn plan(&self, priority: Priority, limits: &BatchLimits) -> Option<Planned> {
        let mut front: Vec<Place> = Vec::new();
        let class = &self.classes[priority as usize];
        let lengths = class.fair_order().map(|(place, tokens)| {
            front.push(place);
            tokens
        });
        let picked = next_batch(lengths, limits);
        if picked.is_empty() {
            return None;
        }
        let places: Vec<Place> = picked.into_iter().map(|i| front[i]).collect();
        let sequences = places
            .iter()
            .filter_map(|place| self.jobs.get(&place.job)?.job.sequences.get(place.position));
        let batch = Batch::pack(sequences);
        let jobs = places.iter().filter_map(|place| self.jobs.get(&place.job));
        let names = jobs.map(|running| Arc::clone(&running.job.name)).collect();
        Some(Planned {
            priority,
            places,
            batch,
            names,
        })
    }

    /// Takes a planned batch's sequences out of the queue. Returns the waiting times of the jobs that start
    /// with it, and the names that they count under.
    pub(super) fn take(&mut self, places: &[Place], now: Instant) -> Vec<(Arc<str>, Duration)> {
        let mut waits = Vec::new();
        for &place in places {
            let Some(running) = self.jobs.get_mut(&place.job) else {
                continue;
            };
            if running.started.is_none() {
                running.started = Some(now);
                let wait = now.saturating_duration_since(running.job.submitted);
                waits.push((Arc::clone(&running.job.name), wait));
                if let Some(progress) = self.requests.get_mut(&running.job.request) {
                    self.begun += usize::from(!progress.is_begun);
                    progress.is_begun = true;
                }
            }
            let (caller, request) = (running.caller, running.job.request);
            let class = &mut self.classes[running.job.standing.priority as usize];
            let Some((line, waiting)) = class.waiting(caller, request) else {
                continue;
            };
            if let Some(tokens) = waiting.remove(&place) {
                self.sequences -= 1;
                self.tokens -= tokens;
                let sequence = running.job.sequences.get(place.position);
                running.waiting -= sequence.map_or(0, own);
                line.serve(request, tokens);
                class.turns.serve(caller, tokens);
            }
            class.leave_if_empty(caller, request);
        }
        waits
    }

    /// Records a scored sequence, and answers its job once it was the last one.
    pub(super) fn scored(&mut self, place: Place, output: Output, now: Instant) {
        let Some(running) = self.jobs.get_mut(&place.job) else {
            return; // The client has gone away meanwhile.
        };
        running.outputs[place.position] = Some(output);
        running.unscored -= 1;
        if running.unscored == 0
            && let Some(done) = self.jobs.remove(&place.job)
        {
            self.leave(done.job.request);
            // The client may go away at any time; then nobody needs the answer.
            let _ = done.job.reply.send(Ok(JobOutputs {
                outputs: done.outputs.into_iter().flatten().collect(),
                submitted: done.job.submitted,
                started: done.started.unwrap_or(now),
                ended: now,
            }));
        }
    }

    /// Ends a job with an error and drops its waiting sequences.
    pub(super) fn fail(&mut self, job: u64, error: RunError) {
        let Some(failed) = self.jobs.remove(&job) else {
            return;
        };
        self.leave(failed.job.request);
        let (caller, request) = (failed.caller, failed.job.request);
        let class = &mut self.classes[failed.job.standing.priority as usize];
        if let Some((_, waiting)) = class.waiting(caller, request) {
            waiting.retain(|place, tokens| {
                let keep = place.job != job;
                if !keep {
                    self.sequences -= 1;
                    self.tokens -= *tokens;
                }
                keep
            });
        }
        class.leave_if_empty(caller, request);
        let _ = failed.job.reply.send(Err(error));
    }

    /// Notes that a request has one job less.
    fn leave(&mut self, request: u64) {
        let Some(progress) = self.requests.get_mut(&request) else {
            return;
        };
        progress.jobs -= 1;
        if progress.jobs == 0 {
            self.begun -= usize::from(progress.is_begun);
            self.requests.remove(&request);
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.sequences == 0
    }

    /// Requests none of whose sequences was taken, and others.
    pub(super) fn requests(&self) -> (usize, usize) {
        (self.requests.len() - self.begun, self.begun)
    }

    /// Whether anything of a class waits.
    pub(super) fn waits(&self, priority: Priority) -> bool {
        !self.classes[priority as usize].is_empty()
    }

    /// Waiting sequences and tokens.
    pub(super) fn depth(&self) -> (usize, usize) {
        (self.sequences, self.tokens)
    }
}

/// A sequence's tokens without those that it begins with alike.
fn own(sequence: &Sequence) -> usize {
    sequence.len().saturating_sub(sequence.shared_prefix())
}

#[cfg(test)]
mod tests;
