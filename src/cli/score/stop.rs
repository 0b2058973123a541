//! A run that is told to stop: what is done is kept.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal ended the run.
#[derive(Debug, thiserror::Error)]
#[error("stopped by {name}; {left}")]
pub(in crate::cli) struct Stopped {
    name: &'static str,
    number: u8,
    /// What is left of the run.
    left: String,
}

impl Stopped {
    /// As shells have it for what a signal ended.
    pub(in crate::cli) fn exit_code(&self) -> u8 {
        128 + self.number
    }

    pub(super) fn new((name, number): (&'static str, u8), left: String) -> Self {
        Self { name, number, left }
    }
}

/// The signals that end a run.
pub(super) struct Stops {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    pub(super) fn install() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one; its name and number.
    pub(super) async fn next(&mut self) -> (&'static str, u8) {
        tokio::select! {
            _ = self.hangup.recv() => ("SIGHUP", 1),
            _ = self.interrupt.recv() => ("SIGINT", 2),
            _ = self.terminate.recv() => ("SIGTERM", 15),
        }
    }
}
