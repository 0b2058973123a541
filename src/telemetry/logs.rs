//! Logs through tracing, to stderr. Never a query, a document or a key.
//!
//! Logging is best effort: a thread of its own writes the lines, and what it can't write (the reader
//! has gone or is too slow, the disk is full) is dropped and counted, so that no request waits or
//! fails for its log line.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use metrics::counter;
use serde::{Deserialize, Serialize};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines that wait for the reader.
const BUFFERED_LINES: usize = 10_000;
/// How long the process's end may wait for the reader.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(1500);

/// Ends the thread that writes.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);
/// Lines for which there was no room.
static OVERFLOWN: OnceLock<ErrorCounter> = OnceLock::new();
/// Whether lines are JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);
/// Lines that stderr did not take.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);

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

/// The levels, and `off`.
pub const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Whether `filter` is a level or a tracing filter.
///
/// # Errors
/// With the word that is wrong. A bare word must be a level, though tracing takes any for a target, of
/// which it then logs everything, and nothing else.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let directives = filter.split(',').map(str::trim).filter(|d| !d.is_empty());
    if directives.clone().next().is_none() {
        return Err(String::new());
    }
    for directive in directives {
        let word = directive.rsplit('=').next().unwrap_or(directive).trim();
        let is_level = word.parse::<LevelFilter>().is_ok() && !word.is_empty();
        let has_span = directive.contains('[') && !directive.contains("]=");
        if !is_level && !has_span {
            return Err(word.to_owned());
        }
    }
    EnvFilter::try_new(filter)
        .map(drop)
        .map_err(|_| filter.to_owned())
}

/// Sends the process's logs to stderr. A second call changes nothing.
pub fn init(format: LogFormat, level: &str) {
    let mut writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
    if OVERFLOWN.get().is_some() {
        return;
    }
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = io::stderr().is_terminal();
    let (lines, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(BUFFERED_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(Stderr);
    let overflown = lines.error_counter();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines)
        .with_ansi(terminal)
        .with_target(false)
        // It would report a failed write to stderr itself, and panic when that fails too.
        .log_internal_errors(false);
    let human = format == LogFormat::Human || (format == LogFormat::Auto && terminal);
    let set = if human {
        builder.compact().finish().try_init()
    } else {
        IS_JSON.store(true, Ordering::Relaxed);
        builder.json().flatten_event(true).finish().try_init()
    };
    // An error means that a subscriber is set already, as in tests.
    if set.is_ok() {
        *writer = Some(guard);
        let _ = OVERFLOWN.set(overflown);
        log_panics();
    }
}

/// Panics go to the log, since the usual message waits for whoever reads stderr. The main thread's
/// end the process, so they stay as they are.
fn log_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name() == Some("main") {
            return usual(info);
        }
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        tracing::error!(backtrace = trace, "{info}");
    }));
}

/// Writes the lines that still wait; to be called once, at the process's end. Gives up after a
/// moment if nobody reads them.
pub fn flush() {
    let writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(writer) = writer {
        try_for_a_moment(move || drop(writer));
    }
}

/// Tells on stderr, after the log, why a command failed. As [`flush`], it waits for no reader.
pub fn print_error(message: &str) {
    flush();
    let line = format!("rerankd: {message}\n");
    try_for_a_moment(move || {
        let _ = io::stderr().write_all(line.as_bytes());
    });
}

/// The same of a server, as the last line of its log, whatever level that has.
pub fn log_last_error(message: &str) {
    if !IS_JSON.load(Ordering::Relaxed) {
        return print_error(message);
    }
    flush();
    let message = message.to_owned();
    try_for_a_moment(move || {
        let json = tracing_subscriber::fmt().json().flatten_event(true);
        let json = json.with_target(false).log_internal_errors(false);
        let json = json.with_writer(|| Stderr).finish();
        tracing::subscriber::with_default(json, || tracing::error!("{message}"));
    });
}

/// Has [`log_last_error`] write JSON though there is no log yet.
pub fn expect_json() {
    IS_JSON.store(true, Ordering::Relaxed);
}

/// Runs `write` on a thread that is left behind when a reader that doesn't read holds it up.
fn try_for_a_moment(write: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = thread::Builder::new().spawn(move || {
        write();
        let _ = done.send(());
    });
    if thread.is_ok() {
        let _ = wait.recv_timeout(LAST_WORDS_WITHIN);
    }
}

/// Brings the metric of dropped lines up to date.
pub(super) fn record_dropped_lines() {
    let overflown = OVERFLOWN.get().map_or(0, ErrorCounter::dropped_lines);
    let dropped = UNWRITTEN.load(Ordering::Relaxed) + overflown as u64;
    counter!("rerankd_log_lines_dropped_total").absolute(dropped);
}

/// Standard error, where a line that can't be written is counted and forgotten.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match io::stderr().write(line) {
            Ok(0) => {}
            Err(error) if error.kind() != ErrorKind::Interrupted => {}
            written => return written,
        }
        UNWRITTEN.fetch_add(1, Ordering::Relaxed);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
