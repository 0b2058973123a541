//! rerankd under load, and under clients that mean it no good: minutes each, so they are not part of
//! `cargo test --release`. `benches/overload.py` offers it more than it can bear.
//!
//! `cargo test --release --test faults -- --ignored --test-threads 1 --nocapture` runs them all and prints
//! what it measures. The load comes from the machine that bears it, so the figures are lower bounds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on should panic"
)]

mod fairness;
mod load;
mod memory;
mod server;
