//! Routes besides the dialects'.

pub(super) mod health;
pub(super) mod metrics;
pub(super) mod models;
