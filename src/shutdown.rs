//! From a signal to the end: not ready, a pause, no new connections, drain, deadline.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How a shutdown goes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long the server answers on while /health/ready already says 503.
    pub pause: Duration,
    /// How long requests in flight then have to finish.
    pub deadline: Duration,
}

/// SIGTERM and SIGINT, caught from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers; call it before anything slow, so that no signal is missed.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal; returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
