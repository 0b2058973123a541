//! Logs through tracing, to stderr. Never a query, a document or a key.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Human on a terminal, else JSON.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Whether `level` is a level or a tracing filter.
///
/// # Errors
/// If it is neither.
pub fn check_filter(level: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(level).map(drop)
}

/// Sends the process's logs to stderr. A second call changes nothing.
pub fn init(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(false);
    let human = format == LogFormat::Human || (format == LogFormat::Auto && terminal);
    // An error means that a subscriber is set already, as in tests.
    let _ = if human {
        builder.compact().finish().try_init()
    } else {
        builder.json().flatten_event(true).finish().try_init()
    };
}
