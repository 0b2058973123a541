//! A command's output. Its reader may go away at any time, as `head` does.

use std::io::{self, ErrorKind, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// Why writing to standard output failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    /// The reader has gone away.
    #[error("nobody reads standard output any more")]
    ReaderGone,
    /// A write failed, as on a full disk.
    #[error("can't write to standard output")]
    Write(#[source] io::Error),
}

/// Writes a result to standard output.
pub(super) fn print(text: &str) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => OutputError::ReaderGone,
            _ => OutputError::Write(error),
        })
}

/// Writes a note to stderr.
pub(super) fn note(text: &str) {
    // A note that can't be written must not fail the command.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A progress bar on stderr, if that is a terminal.
pub(super) fn progress(steps: usize, what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {what}, {{eta}} left"));
    let bar = ProgressBar::new(steps as u64);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A progress bar of a share of the whole, with a message, and of the message alone if the whole is not known.
pub(super) fn progress_of(whole: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match whole {
        Some(whole) => (
            ProgressBar::new(whole),
            "{bar:40} {percent}% {msg}, {eta} left",
        ),
        None => (ProgressBar::no_length(), "{spinner} {msg}"),
    };
    let style = ProgressStyle::with_template(template);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Whether a command ended only because its reader had gone away.
pub(super) fn is_reader_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OutputError::ReaderGone))
}
