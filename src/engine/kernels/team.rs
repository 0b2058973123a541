//! Threads that walk through a model together: every member runs the same phases, takes a phase's
//! items as they come, and waits for the others at its end.
//!
//! One wake-up per batch, then only atomics between phases, since a batch of one short pair has a
//! dozen phases of a millisecond each.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Turns of the waiting loop before it gives the core to others.
const SPINS: u32 = 20_000;

/// The threads.
#[derive(Debug)]
pub(in crate::engine) struct Team {
    pool: ThreadPool,
}

impl Team {
    /// Starts the threads.
    pub(in crate::engine) fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let builder = ThreadPoolBuilder::new().num_threads(threads);
        let pool = builder.thread_name(|i| format!("engine-{i}")).build()?;
        Ok(Self { pool })
    }

    pub(super) fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on every thread; it may have up to `phases` phases.
    ///
    /// # Panics
    /// If `work` panics on any thread; the others then end at their next phase's end.
    pub(super) fn run(&self, phases: usize, work: impl Fn(&mut Member<'_>) + Sync) {
        let shared = Shared {
            threads: self.threads(),
            next: (0..phases).map(|_| AtomicUsize::new(0)).collect(),
            arrived: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        };
        self.pool.broadcast(|context| {
            let _breaks = BreaksOnPanic(&shared);
            work(&mut Member {
                shared: &shared,
                index: context.index(),
                phase: 0,
            });
        });
    }
}

struct Shared {
    threads: usize,
    /// Each phase's next item.
    next: Vec<AtomicUsize>,
    /// Arrivals at the ends of all phases so far.
    arrived: AtomicUsize,
    broken: AtomicBool,
}

/// A member that panics would leave the others waiting for ever.
struct BreaksOnPanic<'a>(&'a Shared);

impl Drop for BreaksOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Release);
        }
    }
}

/// One thread of the team, on its way through the phases.
pub(super) struct Member<'a> {
    shared: &'a Shared,
    index: usize,
    phase: usize,
}

impl Member<'_> {
    /// The thread's number, below the team's size.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Takes items below `items` until there are none, then waits for the others. What any member
    /// wrote in the phase is visible to all after it.
    pub(super) fn phase(&mut self, items: usize, mut run: impl FnMut(usize)) {
        let next = &self.shared.next[self.phase];
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= items {
                break;
            }
            run(item);
        }
        self.phase += 1;
        self.wait();
    }

    fn wait(&self) {
        let all = self.phase * self.shared.threads;
        self.shared.arrived.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0;
        while self.shared.arrived.load(Ordering::Acquire) < all {
            assert!(
                !self.shared.broken.load(Ordering::Acquire),
                "another thread panicked"
            );
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}
