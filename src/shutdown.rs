//! From a signal to the end: not ready, a pause, no new connections, drain, deadline.

use std::io::{IsTerminal, stdin};
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

/// SIGTERM, SIGINT and SIGHUP, caught from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Whether the process was started on a terminal.
    on_terminal: bool,
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
            hangup: signal(SignalKind::hangup())?,
            on_terminal: stdin().is_terminal(),
        })
    }

    /// Waits for the next signal to stop; returns its name. At each SIGHUP before it, calls `reload`,
    /// unless it says that the terminal has been closed: then the process must stop too.
    pub async fn next(&mut self, reload: impl Fn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    if self.on_terminal && !stdin().is_terminal() {
                        return "SIGHUP";
                    }
                    reload();
                }
            }
        }
    }
}
