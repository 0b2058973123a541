//! Bytes of bodies that may be in the server at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;

/// A body above this is a large one.
const LARGE: usize = 1 << 20;
/// The budget's unit in bytes: a semaphore counts in 32 bits.
const UNIT: usize = 1024;
/// The memory that a body needs, by its bytes in the budget.
const MEMORY: usize = 3;
/// The memory that one body's values may need, by the limit on its bytes.
const VALUES: usize = 6;

/// Bytes of bodies that may be in the server at a time, from before they are read until their answers
/// are sent.
#[derive(Debug)]
pub(super) struct BodyBudget {
    /// A quarter, so that large bodies never keep small ones out.
    small: Pool,
    large: Pool,
}

#[derive(Debug)]
struct Pool {
    semaphore: Arc<Semaphore>,
    units: AtomicU32,
}

fn units(bytes: usize) -> u32 {
    let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
    units.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX))
}

impl Pool {
    fn new(bytes: usize) -> Self {
        let units = units(bytes);
        Self {
            semaphore: Arc::new(Semaphore::new(units as usize)),
            units: units.into(),
        }
    }

    /// Lowers its size; what is taken already is given up as it comes back.
    async fn lower_to(&self, bytes: usize) {
        let less = units(bytes);
        let before = self.units.fetch_min(less, Ordering::Relaxed);
        let excess = before.saturating_sub(less);
        if let Ok(permits) = self.semaphore.acquire_many(excess).await {
            permits.forget();
        }
    }

    /// Takes room for so many bytes more for a body that holds these permits.
    async fn take(
        &self,
        bytes: usize,
        holds: &[OwnedSemaphorePermit],
        until: Instant,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        // A body larger than the whole budget gets all of it.
        let holds = holds
            .iter()
            .filter(|permit| Arc::ptr_eq(permit.semaphore(), &self.semaphore));
        let held: usize = holds.map(OwnedSemaphorePermit::num_permits).sum();
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        let most = self.units.load(Ordering::Relaxed).saturating_sub(held);
        let permits = Arc::clone(&self.semaphore).acquire_many_owned(units.min(most));
        match timeout_at(until, permits).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ApiError::NoRoomForBody),
        }
    }
}

impl BodyBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            small: Pool::new(bytes / 4),
            large: Pool::new(bytes - bytes / 4),
        }
    }

    /// The memory that the values of one body may need: never more than there is for all bodies.
    fn most_for_values(&self, body_limit: usize) -> usize {
        let all = self.large.units.load(Ordering::Relaxed) as usize * UNIT;
        (VALUES * body_limit).min(MEMORY * all)
    }

    /// Lowers it, once so much is free.
    pub(super) async fn lower_to(&self, bytes: usize) {
        self.small.lower_to(bytes / 4).await;
        self.large.lower_to(bytes - bytes / 4).await;
    }
}

/// A body's part of the budget, which grows with it where its length is not known.
pub(super) struct Share<'a> {
    budget: &'a BodyBudget,
    pub(super) bytes: usize,
    pub(super) permits: Vec<OwnedSemaphorePermit>,
    /// Waits for no more room after this.
    until: Instant,
}

impl<'a> Share<'a> {
    pub(super) fn new(budget: &'a BodyBudget, until: Instant) -> Self {
        Self {
            budget,
            bytes: 0,
            permits: Vec::new(),
            until,
        }
    }

    pub(super) async fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let pool = if bytes > LARGE {
            &self.budget.large
        } else {
            &self.budget.small
        };
        let permit = pool
            .take(bytes - self.bytes, &self.permits, self.until)
            .await?;
        self.permits.push(permit);
        self.bytes = bytes;
        Ok(())
    }

    /// Makes room for the memory that the values of a body of so many bytes need, beyond what its bytes stand for.
    pub(super) async fn hold_values(
        &mut self,
        memory: usize,
        bytes: usize,
        body_limit: usize,
    ) -> Result<(), ApiError> {
        let most = self.budget.most_for_values(body_limit);
        if memory > most {
            return Err(ApiError::TooManyValues(most));
        }
        let more = memory.saturating_sub(bytes) / MEMORY;
        self.grow_to(self.bytes + more).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_budget_is_lowered_as_bodies_give_back_what_they_hold() {
        let budget = BodyBudget::new(16 << 20);
        let share = async |bytes| {
            let soon = Instant::now() + Duration::from_millis(50);
            let mut share = Share::new(&budget, soon);
            share.grow_to(bytes).await.map(|()| share)
        };
        // 12 MiB are for large bodies, of which 6 are left.
        let held = share(6 << 20).await.unwrap();
        let lowered = budget.lower_to(8 << 20);
        tokio::pin!(lowered);
        assert!(futures_util::poll!(&mut lowered).is_ready(), "6 were free");
        assert!(share(2 << 20).await.is_err());
        drop(held);
        assert!(share(6 << 20).await.is_ok());
        let held = share(6 << 20).await.unwrap();
        let lowered = budget.lower_to(4 << 20);
        tokio::pin!(lowered);
        assert!(futures_util::poll!(&mut lowered).is_pending());
        drop(held);
        lowered.await;
        // What is larger than all of it gets all of it, also bit by bit.
        let mut held = share(2 << 20).await.unwrap();
        held.grow_to(16 << 20).await.unwrap();
        drop(held);
        let held = share(16 << 20).await.unwrap();
        assert!(share(2 << 20).await.is_err());
        drop(held);
    }

    #[tokio::test]
    async fn values_take_room_by_their_memory_and_no_more_than_there_is() {
        let budget = BodyBudget::new(16 << 20);
        let now = Instant::now();
        let mut share = Share::new(&budget, now);
        // Texts: their bytes stand for all of it.
        share.grow_to(2 << 20).await.unwrap();
        share.hold_values(2 << 20, 2 << 20, 16 << 20).await.unwrap();
        assert_eq!(share.bytes, 2 << 20);
        share
            .hold_values(14 << 20, 2 << 20, 16 << 20)
            .await
            .unwrap();
        assert_eq!(share.bytes, 6 << 20);
        assert_eq!(budget.large.semaphore.available_permits(), 6 << 10);
        // Of what three bytes of memory for each of the 12 MiB leave, nothing more is left.
        for (memory, limit) in [((36 << 20) + 1, 16 << 20), ((6 << 20) + 1, 1 << 20)] {
            let refused = share.hold_values(memory, 0, limit).await;
            assert!(matches!(refused, Err(ApiError::TooManyValues(_))));
        }
    }
}
