//! Threads that walk through a model together: one leads, and hands out items of work that all of
//! them take as they come.
//!
//! One wake-up per batch, then atomics, since a batch of one short pair has a dozen rounds of
//! a millisecond each. A thread that waits for others spins as long as it would take to wake it, and
//! then sleeps: whoever waits longer leaves its core to others.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// How long a thread spins before it sleeps.
const SPIN: Duration = Duration::from_micros(100);

/// The threads.
#[derive(Debug)]
pub struct Team {
    pool: ThreadPool,
    /// Held by whoever runs. Of two who ran at once, each could have some of the threads and wait for the
    /// rest forever: that rayon gives every thread its broadcasts in one order is not promised.
    turn: Mutex<()>,
}

impl Team {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let builder = ThreadPoolBuilder::new().num_threads(threads);
        let pool = builder.thread_name(|i| format!("engine-{i}")).build()?;
        Ok(Self {
            pool,
            turn: Mutex::new(()),
        })
    }

    /// Calls `function` once on each of the threads, with its number.
    pub fn on_each<T: Send>(&self, function: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.broadcast(|context| function(context.index()))
    }

    /// How many there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `lead` on one of the threads; the others do the work that it hands out. Whoever calls while
    /// another runs waits for its turn; the threads themselves must not call.
    ///
    /// # Panics
    /// If `lead` panics, or any of its work.
    pub fn run(&self, lead: impl FnOnce(&mut Lead<'_>) + Send) {
        let round = Round {
            followers: self.threads() - 1,
            job: UnsafeCell::new(None),
            published: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            for_work: Wait::default(),
            for_followers: Wait::default(),
            panic: Mutex::new(None),
        };
        let lead = Mutex::new(Some(lead));
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.broadcast(|context| {
            if context.index() > 0 {
                return round.follow(context.index());
            }
            let _over = EndsAtDrop(&round);
            let lead = lead.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(lead) = lead {
                lead(&mut Lead { round: &round });
            }
        });
    }
}

/// Work for all threads: it is called once on each, with the thread's number.
type Job = *const (dyn Fn(usize) + Sync);

/// What leader and followers share.
struct Round {
    followers: usize,
    /// The work of now. Only the leader writes it, when every follower is done with the last one.
    job: UnsafeCell<Option<Job>>,
    /// Jobs published so far.
    published: AtomicUsize,
    /// How many times a follower has done a job.
    done: AtomicUsize,
    over: AtomicBool,
    /// Of the followers, for a job or the end.
    for_work: Wait,
    /// Of the leader, for all followers to be done.
    for_followers: Wait,
    /// What the first follower that panicked said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written by the leader alone, before it publishes the job and after all
// followers are done with the one before; they read it only in between.
unsafe impl Sync for Round {}

struct EndsAtDrop<'a>(&'a Round);

impl Drop for EndsAtDrop<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        self.0.for_work.wake();
    }
}

impl Round {
    /// Does every job that is published, until it is over.
    fn follow(&self, thread: usize) {
        for seen in 0.. {
            self.for_work.until(|| {
                self.published.load(Ordering::Acquire) > seen || self.over.load(Ordering::Acquire)
            });
            if self.published.load(Ordering::Acquire) == seen {
                return;
            }
            // SAFETY: published, and not to be changed before this thread says that it is done.
            let job = unsafe { *self.job.get() };
            if let Some(job) = job {
                // SAFETY: the leader keeps it alive until every follower is done.
                let run = AssertUnwindSafe(|| unsafe { (*job)(thread) });
                if let Err(panic) = catch_unwind(run) {
                    let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(panic);
                }
            }
            // The leader waits for the last of them.
            if self.done.fetch_add(1, Ordering::AcqRel) + 1 == (seen + 1) * self.followers {
                self.for_followers.wake();
            }
        }
    }
}

/// The leader's place among the threads.
#[derive(Debug)]
pub struct Lead<'a> {
    round: &'a Round,
}

impl std::fmt::Debug for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Round").finish_non_exhaustive()
    }
}

impl Lead<'_> {
    /// Calls `work` with the number of the thread it runs on and each of the items, on all threads;
    /// returns when all items are done. The items are begun in their order.
    ///
    /// # Panics
    /// If `work` panics, when the other threads have done the rest.
    pub fn each<T: Send>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        work: impl Fn(usize, T) + Sync,
    ) {
        let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|i| Mutex::new(Some(i))).collect();
        let next = AtomicUsize::new(0);
        self.on_all(&|thread| {
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                let item = item.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(item) = item {
                    work(thread, item);
                }
            }
        });
    }

    fn on_all(&mut self, job: &(dyn Fn(usize) + Sync)) {
        let round = self.round;
        // SAFETY: only the lifetime is changed. This function returns, or unwinds, when every
        // follower is done with the job.
        let erased = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(std::ptr::from_ref(job))
        };
        // SAFETY: every follower is done with the last job, and awaits the next to be published.
        unsafe { *round.job.get() = Some(erased) };
        let published = round.published.fetch_add(1, Ordering::AcqRel) + 1;
        round.for_work.wake();
        let led = catch_unwind(AssertUnwindSafe(|| job(0)));
        let all_are_done = || round.done.load(Ordering::Acquire) == published * round.followers;
        round.for_followers.until(all_are_done);
        let mut followed = round.panic.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(panic) = led.err().or(followed.take()) {
            drop(followed);
            resume_unwind(panic);
        }
    }
}

/// Where threads wait for something that others do.
#[derive(Default)]
struct Wait {
    asleep: AtomicUsize,
    lock: Mutex<()>,
    woken: Condvar,
}

impl Wait {
    /// Returns once `arrived` says so; whoever makes it so calls [`Self::wake`] then.
    fn until(&self, arrived: impl Fn() -> bool) {
        /// Turns between two looks at the clock.
        const TURNS: u32 = 64;
        let mut since = None;
        loop {
            for _ in 0..TURNS {
                if arrived() {
                    return;
                }
                std::hint::spin_loop();
            }
            if since.get_or_insert_with(Instant::now).elapsed() > SPIN {
                break;
            }
        }
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::Relaxed);
        // Either this thread sees what was done, or whoever did it sees that it is asleep.
        fence(Ordering::SeqCst);
        while !arrived() {
            let woken = self.woken.wait(held);
            held = woken.unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes those who sleep.
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) > 0 {
            // Whoever is about to sleep holds it until it does.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.woken.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_and_the_next_round_sees_it() {
        for threads in [1, 2, 3] {
            let team = Team::new(threads).unwrap();
            let mut values = vec![0; 100];
            team.run(|lead| {
                for round in 0..50 {
                    lead.each(&mut values, |thread, value| {
                        assert!(thread < threads && *value == round);
                        *value += 1;
                    });
                }
            });
            assert!(values.iter().all(|&v| v == 50));
        }
    }

    #[test]
    fn those_who_wait_long_sleep_and_are_woken() {
        let (team, done) = (Team::new(3).unwrap(), AtomicUsize::new(0));
        team.run(|lead| {
            for round in 0..6 {
                // The leader waits for others, others for the leader, and all for work.
                lead.each(0..3, |thread, _| {
                    if thread == round % 3 {
                        std::thread::sleep(10 * SPIN);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                });
                std::thread::sleep(10 * SPIN);
            }
        });
        assert_eq!(done.into_inner(), 18);
    }

    #[test]
    fn those_who_run_at_once_take_turns() {
        let (team, done) = (Team::new(2).unwrap(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        team.run(|lead| {
                            lead.each(0..4, |_, _| {
                                done.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), 3 * 200 * 4);
    }

    #[test]
    fn a_panic_on_any_thread_is_the_callers_and_the_team_lives_on() {
        let team = Team::new(2).unwrap();
        for panics in 0..4 {
            let run = AssertUnwindSafe(|| {
                team.run(|lead| lead.each(0..4, |_, item| assert!(item != panics, "as asked")));
            });
            assert!(catch_unwind(run).is_err());
        }
        let lead = AssertUnwindSafe(|| team.run(|_| panic!("the leader")));
        assert!(catch_unwind(lead).is_err());
        let done = AtomicUsize::new(0);
        team.run(|lead| {
            lead.each(0..10, |_, _| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(done.into_inner(), 10);
    }
}
