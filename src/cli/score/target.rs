//! Where scored rows go: standard output, or an output in parts.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Map, Value};

use super::Usage;
use crate::cli::output::OutputError;
use crate::tables::{Chunk, Form, Head, Parts, PartsError, RowScores, WriteError, Writer};

pub(super) enum Target {
    /// Standard output.
    Pipe(Form, Option<Writer>),
    /// A file or a folder, the part that is being written, and when the one before it was ended.
    Parts(Parts, Option<Part>, Instant),
}

/// A part that is being written.
pub(super) struct Part {
    writer: Writer,
    rows: u64,
}

/// Whether an output is a folder.
pub(super) fn is_folder(output: &Path) -> bool {
    output.is_dir() || output.to_string_lossy().ends_with('/')
}

impl Target {
    /// Looks at the output; `None` if it is a file that is there.
    pub(super) fn find(output: &Path, form: Form, resume: bool) -> Result<Option<Self>> {
        if output.as_os_str() != "-" {
            let parts = match is_folder(output) {
                true => Parts::of_folder(output, form, resume),
                false => Parts::of_file(output, form, resume),
            };
            let parts = parts.map_err(told)?;
            return Ok(parts.map(|parts| Self::Parts(parts, None, Instant::now())));
        }
        match resume {
            true => Err(Usage("--resume needs an output that is a file or a folder".into()).into()),
            false => Ok(Some(Self::Pipe(form, None))),
        }
    }

    /// How many rows are done.
    pub(super) fn done(&self) -> u64 {
        match self {
            Self::Pipe(..) => 0,
            Self::Parts(parts, ..) => parts.rows,
        }
    }

    /// Whether it is a folder to which nothing is to be added.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self, Self::Parts(parts, ..) if parts.is_complete)
    }

    /// Whether a run that breaks off can go on.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self, Self::Parts(..))
    }

    /// Begins the run that is described, or goes on with it.
    pub(super) fn begin(&mut self, run: &Map<String, Value>) -> Result<()> {
        match self {
            Self::Pipe(..) => Ok(()),
            Self::Parts(parts, _, since) => {
                *since = Instant::now();
                parts.begin(run).map_err(told)
            }
        }
    }

    /// Writes rows of an input; a part is ended so early that the next rows come before it is as old as `age`.
    pub(super) fn write(
        &mut self,
        input: &str,
        head: &Head,
        chunk: &Chunk,
        rows: &[Option<RowScores>],
        age: Duration,
    ) -> Result<()> {
        match self {
            Self::Pipe(form, writer) => {
                if writer.is_none() {
                    *writer = Some(piped(*form, head)?);
                }
                if let Some(writer) = writer {
                    let written = writer.write(chunk, rows);
                    written.map_err(|error| match error {
                        error @ WriteError::Rows(_) => not_written(input, &"", error),
                        error => not_piped(error),
                    })?;
                    writer.flush().map_err(not_piped)?;
                }
                Ok(())
            }
            Self::Parts(parts, part, since) => {
                let mut current = match part.take() {
                    Some(part) => part,
                    None => Part {
                        writer: parts.writer(head)?,
                        rows: 0,
                    },
                };
                let written = current.writer.write(chunk, rows);
                written.map_err(|error| not_written(input, &parts.folder().display(), error))?;
                current.rows += chunk.len() as u64;
                if since.elapsed() >= age * 5 / 8 {
                    parts.end(current.writer, current.rows)?;
                    *since = Instant::now();
                } else {
                    *part = Some(current);
                }
                Ok(())
            }
        }
    }

    /// Keeps what is written of a run that goes no further, and says what is left of it.
    pub(super) fn stop(&mut self) -> Result<String> {
        let Self::Parts(parts, part, _) = self else {
            return Ok("the output is not whole".into());
        };
        if let Some(part) = part.take() {
            parts.end(part.writer, part.rows)?;
        }
        Ok(match parts.rows {
            0 => "nothing was scored yet".into(),
            rows => format!(
                "{rows} rows are done, in {}; --resume goes on with them",
                parts.folder().display()
            ),
        })
    }

    /// Ends the output.
    pub(super) fn finish(self, head: &Head) -> Result<()> {
        match self {
            Self::Pipe(form, writer) => {
                let writer = writer.map_or_else(|| piped(form, head), Ok)?;
                writer.finish().map_err(not_piped)
            }
            Self::Parts(mut parts, part, _) => {
                if let Some(part) = part {
                    parts.end(part.writer, part.rows)?;
                } else if parts.rows == 0 {
                    // A share may have no rows; its output is a table nevertheless.
                    let writer = parts.writer(head)?;
                    parts.end(writer, 0)?;
                }
                Ok(parts.finish()?)
            }
        }
    }
}

fn piped(form: Form, head: &Head) -> Result<Writer> {
    Writer::new(form, Box::new(io::stdout()), head).map_err(not_piped)
}

/// The rows' fault, or the output's.
fn not_written(input: &str, output: &dyn Display, error: WriteError) -> anyhow::Error {
    match error {
        WriteError::Rows(reason) => anyhow!("{input}, {reason}"),
        WriteError::Io(error) => anyhow!("{output}: {error}"),
    }
}

fn not_piped(error: WriteError) -> anyhow::Error {
    match error {
        WriteError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            OutputError::ReaderGone.into()
        }
        WriteError::Io(error) => OutputError::Write(error).into(),
        error @ WriteError::Rows(_) => error.into(),
    }
}

/// What the user can mend with other arguments is wrong usage.
fn told(error: PartsError) -> anyhow::Error {
    use PartsError::{Begun, NoFolder, Other, Taken};
    match error {
        Taken { .. } | NoFolder { .. } | Begun { .. } | Other { .. } => {
            Usage(error.to_string()).into()
        }
        error => error.into(),
    }
}
