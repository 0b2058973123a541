//! One model of the engine, with its queue and metrics. Called by `compute`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::sync::Notify;

use crate::engine::Model;
use crate::types::Priority;

use super::planner::BatchLimits;
use super::queue::{Job, Planned, Queue};
use super::rate::{Rate, RateMeter};

/// A batch of batch work has at most one `BATCH_PART`th of the tokens of another.
const BATCH_PART: usize = 4;

/// Options of a model's lane.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// The model's name in metrics.
    pub name: Arc<str>,
    /// Limits of its batches.
    pub limits: BatchLimits,
    /// Its share of the engine's time, relative to the other models that have work.
    pub weight: f64,
    /// Initial estimate of its rate, in tokens per second, where a token is one that sees no others.
    pub tokens_per_second: f64,
}

/// The metrics of a queue and its batches.
#[derive(Debug)]
struct Recorded {
    capacity: Gauge,
    queue_requests: Gauge,
    running_requests: Gauge,
    queue_pairs: Gauge,
    queue_tokens: Gauge,
    inference: Histogram,
    batch_tokens: Histogram,
    batch_pairs: Histogram,
    stopped: Counter,
}

impl Recorded {
    fn of(model: &Arc<str>) -> Self {
        let model = || Arc::clone(model);
        Self {
            capacity: gauge!("rerankd_capacity_tokens_per_second", "model" => model()),
            queue_requests: gauge!("rerankd_queue_requests", "model" => model()),
            running_requests: gauge!("rerankd_running_requests", "model" => model()),
            queue_pairs: gauge!("rerankd_queue_pairs", "model" => model()),
            queue_tokens: gauge!("rerankd_queue_tokens", "model" => model()),
            inference: histogram!("rerankd_inference_seconds", "model" => model()),
            batch_tokens: histogram!("rerankd_batch_tokens", "model" => model()),
            batch_pairs: histogram!("rerankd_batch_pairs", "model" => model()),
            stopped: counter!("rerankd_batches_stopped_total", "model" => model()),
        }
    }
}

/// The metrics of the requests that count under a name: several names may share weights, and so a queue.
#[derive(Debug)]
struct OfName {
    queue_wait: Histogram,
    pairs: Counter,
    tokens: Counter,
}

impl OfName {
    fn of(model: &Arc<str>) -> Self {
        let model = || Arc::clone(model);
        Self {
            queue_wait: histogram!("rerankd_queue_wait_seconds", "model" => model()),
            pairs: counter!("rerankd_pairs_scored_total", "model" => model()),
            tokens: counter!("rerankd_tokens_scored_total", "model" => model()),
        }
    }
}

/// A model with its queue.
pub(super) struct Lane {
    pub(super) queue: Queue,
    prepared: Option<Planned>,
    /// `None` while the engine runs a batch with it.
    pub(super) model: Option<Box<dyn Model>>,
    pub(super) closed: bool,
    /// Notified when a batch is taken, so that the next one is prepared.
    pub(super) taken: Arc<Notify>,
    limits: BatchLimits,
    weight: f64,
    meter: RateMeter,
    recorded: Recorded,
    by_name: HashMap<Arc<str>, OfName>,
}

impl Lane {
    pub(super) fn new(model: Box<dyn Model>, options: &LaneOptions, rate: Rate) -> Self {
        let recorded = Recorded::of(&options.name);
        recorded.capacity.set(options.tokens_per_second);
        Self {
            queue: Queue::default(),
            prepared: None,
            model: Some(model),
            closed: false,
            taken: Arc::default(),
            limits: options.limits,
            weight: options.weight,
            meter: RateMeter::new(rate, options.limits.max_tokens),
            recorded,
            by_name: HashMap::from([(Arc::clone(&options.name), OfName::of(&options.name))]),
        }
    }

    /// Adds jobs, drops dead ones, and plans the next batch.
    pub(super) fn prepare(&mut self, jobs: impl IntoIterator<Item = Job>) {
        for job in jobs {
            self.queue.push(job);
        }
        let rate = self.meter.tokens_per_second();
        self.queue.drop_dead(Instant::now(), rate);
        let mut plans = Priority::ALL.into_iter();
        self.prepared = plans.find_map(|priority| self.plan(priority));
        self.publish_depth();
    }

    /// Drops the jobs that nobody waits for, or that can't be in time.
    pub(super) fn drop_dead(&mut self, now: Instant) {
        self.queue.drop_dead(now, self.meter.tokens_per_second());
        self.publish_depth();
    }

    /// Takes the next batch of a class, if there is one.
    pub(super) fn take(&mut self, priority: Priority, now: Instant) -> Option<Planned> {
        let prepared = self.prepared.take();
        let prepared = prepared.filter(|p| p.priority == priority);
        let prepared = prepared.filter(|p| p.places.iter().all(|&place| self.queue.holds(place)));
        let planned = prepared.or_else(|| self.plan(priority))?;
        for (name, wait) in self.queue.take(&planned.places, now) {
            self.of_name(&name).queue_wait.record(wait.as_secs_f64());
        }
        self.publish_depth();
        self.taken.notify_one();
        Some(planned)
    }

    /// The estimated engine time in seconds of a batch that costs so much.
    pub(super) fn seconds(&self, cost: f64) -> f64 {
        cost / self.meter.tokens_per_second()
    }

    /// That of a full batch of batch work.
    pub(super) fn full_batch(&self) -> f64 {
        self.seconds(self.limits_of(Priority::Batch).max_tokens as f64)
    }

    /// Plans the next batch of a class.
    fn plan(&self, priority: Priority) -> Option<Planned> {
        self.queue.plan(priority, &self.limits_of(priority))
    }

    /// The limits of a class's batches: an interactive request may have to wait for one of batch work, so these are
    /// smaller.
    fn limits_of(&self, priority: Priority) -> BatchLimits {
        let max_tokens = match priority {
            Priority::Interactive => self.limits.max_tokens,
            Priority::Batch => self.limits.max_tokens.div_ceil(BATCH_PART),
        };
        BatchLimits {
            max_tokens,
            ..self.limits
        }
    }

    /// The engine time of a batch in microseconds, divided by the model's weight.
    pub(super) fn turn(&self, cost: f64) -> usize {
        (self.seconds(cost) * 1e6 / self.weight).clamp(1.0, 1e12) as usize
    }

    /// Records a batch that has run.
    pub(super) fn record(&mut self, planned: &Planned, cost: f64, elapsed: Duration) {
        self.meter.record(cost, elapsed);
        let batch = &planned.batch;
        let recorded = &self.recorded;
        recorded.capacity.set(self.meter.tokens_per_second());
        recorded.inference.record(elapsed.as_secs_f64());
        recorded.batch_tokens.record(batch.tokens() as f64);
        recorded.batch_pairs.record(batch.sequences() as f64);
        for (name, tokens) in planned.names.iter().zip(batch.lengths()) {
            let of_name = self.of_name(name);
            of_name.pairs.increment(1);
            of_name.tokens.increment(tokens as u64);
        }
    }

    fn of_name(&mut self, name: &Arc<str>) -> &OfName {
        // One for each model of these weights.
        let known = self.by_name.entry(Arc::clone(name));
        known.or_insert_with(|| OfName::of(name))
    }

    /// Records a batch that ended early.
    pub(super) fn record_stopped(&self) {
        self.recorded.stopped.increment(1);
    }

    fn publish_depth(&self) {
        let (sequences, tokens) = self.queue.depth();
        let (waiting, running) = self.queue.requests();
        self.recorded.queue_requests.set(waiting as f64);
        self.recorded.running_requests.set(running as f64);
        self.recorded.queue_pairs.set(sequences as f64);
        self.recorded.queue_tokens.set(tokens as f64);
    }
}
