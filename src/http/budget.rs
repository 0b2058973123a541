//! Bytes of bodies that may be in the server at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;

/// A body above this is a large one.
const LARGE: usize = 1 << 20;
/// The budget's unit in bytes: a semaphore counts in 32 bits.
const UNIT: usize = 1024;

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
    units: u32,
}

impl Pool {
    fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        let units = units.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self {
            semaphore: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    async fn take(&self, bytes: usize, until: Instant) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        // A body larger than the whole budget gets all of it.
        let permits = Arc::clone(&self.semaphore).acquire_many_owned(units.min(self.units));
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
        let permit = pool.take(bytes - self.bytes, self.until).await?;
        self.permits.push(permit);
        self.bytes = bytes;
        Ok(())
    }
}
