//! What several tests need.

pub(crate) mod app;
pub(crate) mod gate;
pub(crate) mod models;
pub(crate) mod process;
