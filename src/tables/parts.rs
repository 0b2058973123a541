//! An output that is written in parts, so that a run that breaks off can go on.
//!
//! Parts are whole files in a folder. Each is written under another name, brought to the disk and then renamed, so
//! whatever has a part's name is complete, and the names tell which rows are done. If the output is one file, the
//! folder stands beside it until the parts are joined.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::writer::{self, Sink, WriteError};
use super::{Form, Head, Writer};

// What begins with this is passed over by programs that read a folder of files as one table.
const RUN: &str = "_run.json";
const LOCK: &str = "_lock";
const WRITING: &str = "_writing";
const DONE: &str = "_SUCCESS";

/// Why an output in parts can't be written.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// There is such an output.
    #[error("{path} is there already; name another output, or remove it")]
    Taken {
        /// Its path.
        path: String,
    },
    /// There is no folder for it.
    #[error("there is no folder {path} to write to; make it first (mkdir -p {path})")]
    NoFolder {
        /// The folder's path.
        path: String,
    },
    /// There is a part of it.
    #[error(
        "{path} holds a run that broke off: --resume goes on with it; to begin anew, remove it"
    )]
    Begun {
        /// The folder's path.
        path: String,
    },
    /// Another process is writing it.
    #[error("{path}: another process is writing there")]
    Busy {
        /// The folder's path.
        path: String,
    },
    /// The run that broke off was another one.
    #[error(
        "{path} holds a run with other settings ({differences}): go on with the same ones, or remove it"
    )]
    Other {
        /// The folder's path.
        path: String,
        /// What differs.
        differences: String,
    },
    /// The folder holds what was not expected there.
    #[error("{path}: {reason}")]
    Damaged {
        /// The folder's or file's path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The operating system refuses, or the format can't hold the rows.
    #[error("{path}: {error}")]
    Write {
        /// The file's path.
        path: String,
        /// What is wrong.
        error: WriteError,
    },
}

/// An output in parts.
#[derive(Debug)]
pub struct Parts {
    folder: PathBuf,
    form: Form,
    /// Where the parts are joined to.
    joined: Option<PathBuf>,
    /// How many rows the parts have.
    pub rows: u64,
    /// Whether it is a folder to which nothing is to be added; [`Parts::begin`] tells whether it is of this run.
    pub is_complete: bool,
    /// Held while this process writes here.
    lock: Option<File>,
    /// Whether this process made the folder.
    is_new: bool,
    /// Whether nothing is left to be done.
    is_ended: bool,
}

fn path_of(path: &Path) -> String {
    path.display().to_string()
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> PartsError + '_ {
    |error| PartsError::Write {
        path: path_of(path),
        error: error.into(),
    }
}

impl Parts {
    /// Looks at an output that is to be a file; `None` if it is there.
    ///
    /// # Errors
    /// If there is something of it, and `resume` does not say that there may be.
    pub fn of_file(file: &Path, form: Form, resume: bool) -> Result<Option<Self>, PartsError> {
        let mut folder = file.as_os_str().to_owned();
        folder.push(".parts");
        Self::find(folder.into(), Some(file.to_owned()), form, resume)
    }

    /// As [`Parts::of_file`], of an output that is to be a folder of parts.
    ///
    /// # Errors
    /// As [`Parts::of_file`].
    pub fn of_folder(folder: &Path, form: Form, resume: bool) -> Result<Option<Self>, PartsError> {
        Self::find(folder.to_owned(), None, form, resume)
    }

    fn find(
        folder: PathBuf,
        joined: Option<PathBuf>,
        form: Form,
        resume: bool,
    ) -> Result<Option<Self>, PartsError> {
        let end = joined.clone().unwrap_or_else(|| folder.join(DONE));
        let mut parts = Self {
            folder,
            form,
            joined,
            rows: 0,
            is_complete: false,
            lock: None,
            is_new: false,
            is_ended: false,
        };
        let above = end.parent().filter(|_| parts.joined.is_some());
        let above = above.or_else(|| parts.folder.parent());
        if let Some(above) = above.filter(|above| !above.as_os_str().is_empty() && !above.is_dir())
        {
            let path = path_of(above);
            return Err(PartsError::NoFolder { path });
        }
        match (end.exists(), resume) {
            (true, false) => {
                let path = path_of(&end);
                return Err(PartsError::Taken { path });
            }
            (true, true) if parts.joined.is_none() => {
                parts.is_complete = true;
                return Ok(Some(parts));
            }
            (true, true) => {
                // It may have been stopped between its last two steps.
                parts.remove()?;
                return Ok(None);
            }
            (false, _) => {}
        }
        parts.rows = parts.found()?.iter().map(|part| part.1).sum();
        if !resume && parts.rows > 0 {
            let path = path_of(&parts.folder);
            return Err(PartsError::Begun { path });
        }
        Ok(Some(parts))
    }

    /// The parts, in order: their first rows, how many rows, and their paths.
    fn found(&self) -> Result<Vec<(u64, u64, PathBuf)>, PartsError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io_error(&self.folder))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error(&self.folder))?;
            let name = entry.file_name();
            let Some(rows) = name.to_str().and_then(|name| {
                let name = name.strip_prefix("part-")?;
                let (numbers, ending) = name.split_once('.')?;
                let (first, rows) = numbers.split_once('-')?;
                Some((
                    first.parse::<u64>().ok()?,
                    rows.parse::<u64>().ok()?,
                    ending.to_owned(),
                ))
            }) else {
                continue;
            };
            if rows.2 != self.form.format.name() {
                return Err(PartsError::Damaged {
                    path: path_of(&entry.path()),
                    reason: format!("a part in another format than {}", self.form.format.name()),
                });
            }
            found.push((rows.0, rows.1, entry.path()));
        }
        found.sort_unstable();
        let mut next = 0;
        for (first, rows, path) in &found {
            if *first != next {
                return Err(PartsError::Damaged {
                    path: path_of(path),
                    reason: format!(
                        "the part before it is missing: it should begin with row {next}"
                    ),
                });
            }
            next += rows;
        }
        Ok(found)
    }

    /// Begins, or goes on with, a run of which `run` says all that decides its rows.
    ///
    /// # Errors
    /// If the run that broke off was another one, or the folder can't be written to.
    pub fn begin(&mut self, run: &Map<String, Value>) -> Result<(), PartsError> {
        let folder = &self.folder;
        self.is_new = match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).map_err(io_error(folder))?,
        };
        let path = folder.join(LOCK);
        let lock = File::create(&path).map_err(io_error(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = path_of(folder);
                return Err(PartsError::Busy { path });
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(_)) => {}
        }
        self.lock = Some(lock);
        let path = folder.join(RUN);
        let text = match fs::read(&path) {
            // Complete, but not by this program.
            _ if self.is_complete && !path.exists() => {
                let path = path_of(&self.folder.join(DONE));
                return Err(PartsError::Taken { path });
            }
            // Of a run without a part nothing is lost.
            _ if self.rows == 0 && !self.is_complete => {
                let text = Value::Object(run.clone()).to_string();
                let writing = folder.join(WRITING);
                let written = fs::write(&writing, text).and_then(|()| settle(&writing, &path));
                return written.map_err(io_error(&path));
            }
            Err(error) if is_missing(&error) => {
                return Err(PartsError::Damaged {
                    path: path_of(&path),
                    reason: "it is missing, and nothing else says what the parts beside it were made with; to begin \
                             anew, remove them"
                        .into(),
                });
            }
            text => text.map_err(io_error(&path))?,
        };
        let before: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|error| PartsError::Damaged {
                path: path_of(&path),
                reason: error.to_string(),
            })?;
        let names = run
            .keys()
            .chain(before.keys().filter(|name| !run.contains_key(*name)));
        let differences = names.filter_map(|name| {
            let (was, is) = (before.get(name), run.get(name));
            let shown = |value: Option<&Value>| value.map_or("none".into(), Value::to_string);
            (was != is).then(|| format!("{name} was {}, not {}", shown(was), shown(is)))
        });
        let differences: Vec<String> = differences.collect();
        match differences.is_empty() {
            true if self.is_complete => self.remove(),
            true => Ok(()),
            false => Err(PartsError::Other {
                path: path_of(folder),
                differences: differences.join("; "),
            }),
        }
    }

    /// Where the parts are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the next part.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn writer(&self, head: &Head) -> Result<Writer, PartsError> {
        let path = self.folder.join(WRITING);
        let file = File::create(&path).map_err(io_error(&path))?;
        self.told(&path, Writer::new(self.form, Box::new(file), head))
    }

    /// Ends a part that has so many rows.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn end(&mut self, writer: Writer, rows: u64) -> Result<(), PartsError> {
        let path = self.folder.join(WRITING);
        self.told(&path, writer.finish())?;
        let name = format!("part-{:012}-{rows}.{}", self.rows, self.form.format.name());
        let name = self.folder.join(name);
        settle(&path, &name).map_err(io_error(&name))?;
        self.rows += rows;
        Ok(())
    }

    /// Ends the run: joins the parts if the output is a file.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(mut self) -> Result<(), PartsError> {
        self.is_ended = true;
        let writing = self.folder.join(WRITING);
        let file = File::create(&writing).map_err(io_error(&writing))?;
        let Some(joined) = &self.joined else {
            let done = self.folder.join(DONE);
            drop(file);
            settle(&writing, &done).map_err(io_error(&done))?;
            return self.remove();
        };
        let parts = self.found()?.into_iter().map(|part| part.2);
        let parts: Vec<PathBuf> = parts.collect();
        let sink: Sink = Box::new(io::BufWriter::new(file));
        self.told(joined, writer::join(self.form, &parts, sink))?;
        settle(&writing, joined).map_err(io_error(joined))?;
        self.remove()
    }

    /// Removes what only a run that goes on needs.
    fn remove(&self) -> Result<(), PartsError> {
        let is_ours = self.folder.join(RUN).exists();
        let removed = match self.joined.is_some() {
            true if is_ours => fs::remove_dir_all(&self.folder),
            true => Ok(()),
            // What it was made with stays: --resume must know.
            false => [WRITING, LOCK].into_iter().try_for_each(|name| {
                let removed = fs::remove_file(self.folder.join(name));
                removed.or_else(|error| match error.kind() {
                    io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })
            }),
        };
        removed.map_err(io_error(&self.folder))
    }

    fn told<T>(&self, path: &Path, result: Result<T, WriteError>) -> Result<T, PartsError> {
        result.map_err(|error| PartsError::Write {
            path: path_of(path),
            error,
        })
    }
}

/// Of a run without a part nothing is left behind.
impl Drop for Parts {
    fn drop(&mut self) {
        if self.lock.is_none() || self.rows > 0 || self.is_complete || self.is_ended {
            return;
        }
        for name in [WRITING, RUN, LOCK] {
            let _ = fs::remove_file(self.folder.join(name));
        }
        if self.is_new || self.joined.is_some() {
            // What is not empty stays.
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Brings a file to the disk, and then to its name.
fn settle(written: &Path, name: &Path) -> io::Result<()> {
    File::open(written)?.sync_all()?;
    fs::rename(written, name)?;
    // Until the folder is on the disk too, the name may be lost with the machine's power; not every file system
    // lets it be asked for.
    if let Some(folder) = name.parent() {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}
