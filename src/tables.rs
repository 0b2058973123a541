//! Rows of queries and documents in files, read a chunk at a time, and the same rows written with their scores.
//! Knows no model.
//!
//! A row is a query and a document, or a query and a list of documents. All its other columns go from input to
//! output as they are: the text of a JSON line is not written anew, and Arrow's columns keep their types.

#[cfg(feature = "columnar")]
mod arrow_file;
#[cfg(feature = "columnar")]
mod columnar;
mod columns;
#[cfg(feature = "columnar")]
mod dictionaries;
mod lines;
mod once;
#[cfg(feature = "columnar")]
mod parquet_file;
mod parts;
#[cfg(feature = "columnar")]
mod scored;
#[cfg(feature = "columnar")]
mod types;
mod writer;

pub(crate) use once::Once;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[cfg(feature = "columnar")]
use arrow_array::RecordBatch;
#[cfg(feature = "columnar")]
use arrow_schema::SchemaRef;

use crate::data_file;
pub use columns::{Columns, Layout, Wanted};
use lines::Line;
pub use parts::{Parts, PartsError};
pub use writer::{Codec, Form, RowScores, Sink, WriteError, Writer};

/// The format of a file of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON lines.
    Jsonl,
    /// JSON lines, written as gzip.
    JsonlGz,
    /// Parquet.
    Parquet,
    /// Arrow's IPC file, which Feather is too.
    Arrow,
    /// Arrow's IPC stream.
    ArrowStream,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Jsonl,
        Self::JsonlGz,
        Self::Parquet,
        Self::Arrow,
        Self::ArrowStream,
    ];

    /// The format that a file's name tells.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let (name, is_gzip) = match name.strip_suffix(".gz") {
            Some(name) => (name, true),
            None => (&*name, false),
        };
        match (Path::new(name).extension()?.to_str()?, is_gzip) {
            ("jsonl" | "ndjson" | "json", false) => Some(Self::Jsonl),
            ("jsonl" | "ndjson" | "json", true) => Some(Self::JsonlGz),
            ("parquet" | "pq", false) => Some(Self::Parquet),
            ("arrow" | "feather" | "ipc", false) => Some(Self::Arrow),
            ("arrows", false) => Some(Self::ArrowStream),
            _ => None,
        }
    }

    /// Its name, which is also the ending of its files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::JsonlGz => "jsonl.gz",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::ArrowStream => "arrows",
        }
    }

    fn is_lines(self) -> bool {
        matches!(self, Self::Jsonl | Self::JsonlGz)
    }
}

/// What is wrong with a file of rows.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TableError {
    path: String,
    reason: String,
}

impl TableError {
    fn new(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self {
            path: data_file::name(path),
            reason: reason.to_string(),
        }
    }
}

/// One of several equal shares of a file's rows, which together are all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which one, from 0.
    pub index: u64,
    /// How many there are.
    pub of: u64,
}

impl Shard {
    /// The only one.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Its rows.
    fn range(self, rows: u64) -> Range<u64> {
        let bound = |i: u64| (u128::from(rows) * u128::from(i) / u128::from(self.of)) as u64;
        bound(self.index)..bound(self.index + 1)
    }
}

/// The most rows in a chunk.
const CHUNK_ROWS: usize = 256;
/// So many bytes of rows make a chunk, however few rows these are.
const CHUNK_BYTES: usize = 4 << 20;

/// A few rows of a file.
#[derive(Debug)]
pub struct Chunk {
    rows: Rows,
    /// The first row's number in the file, from 1. A line has its own.
    first: u64,
    /// How far into the file it reaches, in the unit of [`Input::size`].
    pub place: u64,
}

#[derive(Debug)]
enum Rows {
    Lines(Vec<Line>),
    #[cfg(feature = "columnar")]
    Columns(RecordBatch),
}

/// The texts of a row.
#[derive(Debug, PartialEq, Eq)]
pub struct Texts {
    /// The query; rows one after the other that have the same share it.
    pub query: Arc<str>,
    /// The documents, or why they can't be scored.
    pub documents: Vec<Result<String, String>>,
}

impl Chunk {
    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Lines(lines) => lines.len(),
            #[cfg(feature = "columnar")]
            Rows::Columns(batch) => batch.num_rows(),
        }
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What messages call a row.
    #[must_use]
    pub fn name(&self, row: usize) -> String {
        match &self.rows {
            Rows::Lines(lines) => format!("line {}", lines[row].number),
            #[cfg(feature = "columnar")]
            Rows::Columns(_) => format!("row {}", self.first + row as u64),
        }
    }

    /// Each row's texts, or why the row can't be scored.
    ///
    /// # Errors
    /// If it can't even be written without scores.
    pub fn texts(&self, columns: &Columns) -> Result<Vec<Result<Texts, String>>, String> {
        match &self.rows {
            Rows::Lines(lines) => lines::texts(lines, columns),
            #[cfg(feature = "columnar")]
            Rows::Columns(batch) => columnar::texts(batch, columns),
        }
    }

    /// Takes the first rows off.
    #[must_use]
    pub fn take(&mut self, rows: usize) -> Self {
        let taken = match &mut self.rows {
            Rows::Lines(lines) => {
                let rest = lines.split_off(rows);
                Rows::Lines(std::mem::replace(lines, rest))
            }
            #[cfg(feature = "columnar")]
            Rows::Columns(batch) => {
                let taken = batch.slice(0, rows);
                *batch = batch.slice(rows, batch.num_rows() - rows);
                Rows::Columns(taken)
            }
        };
        let first = self.first;
        self.first += rows as u64;
        Self {
            rows: taken,
            first,
            place: self.place,
        }
    }
}

/// A file of rows, open for reading.
pub struct Input {
    /// What its rows have.
    pub head: Head,
    /// The digest of the first lines, of what is piped.
    pub first_lines: Option<String>,
    /// How much there is to read, if that is known: rows or bytes.
    pub size: Option<u64>,
    /// How much of it had been read before.
    pub start: u64,
    /// Set at the end of a stream that has no mark of its end, and so may have been cut off.
    pub is_cut: Arc<AtomicBool>,
    chunks: Box<dyn Iterator<Item = Result<Chunk, TableError>> + Send>,
}

/// What an input's rows have, from which follows what an output's have.
#[derive(Debug, Clone)]
pub struct Head {
    /// Where the texts stand, and where scores go.
    pub columns: Columns,
    /// The types of its columns, if the output is a table.
    #[cfg(feature = "columnar")]
    schema: SchemaRef,
    /// Whether a column's dictionary is the same for all rows.
    #[cfg(feature = "columnar")]
    has_one_dictionary: bool,
    /// The types in a Parquet file, which tell more than the others.
    #[cfg(feature = "columnar")]
    parquet: Option<parquet::schema::types::SchemaDescPtr>,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl Input {
    /// Opens a file, `-` for standard input, whose rows go to a format, and finds its columns. Of the shard, the
    /// first `done` rows are left out.
    ///
    /// # Errors
    /// If it can't be read, lacks a column, or has one that the format it goes to can't hold.
    pub fn open(
        path: &Path,
        format: Format,
        to: Format,
        wanted: &Wanted,
        shard: Shard,
        done: u64,
    ) -> Result<Self, TableError> {
        #[cfg(feature = "columnar")]
        {
            let input = match format.is_lines() {
                true => lines::open(path, to, wanted, shard, done)?,
                false => columnar::open(path, format, wanted, shard, done)?,
            };
            let held = columnar::held(&input.head.schema, to);
            held.map_err(|reason| TableError::new(path, reason))?;
            Ok(input)
        }
        #[cfg(not(feature = "columnar"))]
        match format.is_lines() && to.is_lines() {
            true => lines::open(path, to, wanted, shard, done),
            false => Err(TableError::new(path, NOT_BUILT)),
        }
    }
}

impl Iterator for Input {
    type Item = Result<Chunk, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chunks.next()
    }
}

const NO_SHARES: &str = "what is piped can't be divided into shards, since the number of its rows isn't known \
    before its end; write it to a file first";

#[cfg(not(feature = "columnar"))]
const NOT_BUILT: &str =
    "this rerankd was built without the feature columnar, so it reads and writes JSON lines only";

#[cfg(test)]
mod tests;
