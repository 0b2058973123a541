//! Rows in Parquet and in Arrow's files and streams.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, new_empty_array};
use arrow_cast::cast;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_json::writer::{EncoderOptions, make_encoder};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use parquet::schema::types::SchemaDescPtr;

use super::arrow_file::check_blocks;
use super::columns::{Columns, Holds, Layout, Wanted};
use super::parquet_file::{self, ParquetRows, rows_at_once};
use super::scored::of_json;
use super::{CHUNK_ROWS, Chunk, Format, Head, Input, Rows, Shard, TableError, Texts};

/// Batches as the format has them.
type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

pub(super) fn open(
    path: &Path,
    format: Format,
    wanted: &Wanted,
    shard: Shard,
    done: u64,
) -> Result<Input, TableError> {
    let mut input = sound(path, || opened(path, format, wanted, shard, done))??;
    let (path, mut chunks) = (path.to_owned(), input.chunks);
    let mut is_broken = false;
    input.chunks = Box::new(std::iter::from_fn(move || {
        if is_broken {
            return None;
        }
        let next = sound(&path, || chunks.next());
        is_broken = next.is_err();
        next.unwrap_or_else(|error| Some(Err(error)))
    }));
    Ok(input)
}

/// What is read of a file. Arrow's reader panics where lengths in it contradict one another.
fn sound<T>(path: &Path, read: impl FnOnce() -> T) -> Result<T, TableError> {
    let reason = "its content contradicts itself; it is broken, or was cut off: write it again";
    catch_unwind(AssertUnwindSafe(read)).map_err(|_| TableError::new(path, reason))
}

fn opened(
    path: &Path,
    format: Format,
    wanted: &Wanted,
    shard: Shard,
    done: u64,
) -> Result<Input, TableError> {
    let failed = |reason: String| TableError::new(path, reason);
    let columns = |schema: &Schema| columns(schema, wanted).map_err(failed);
    if format != Format::Parquet {
        let share = match shard == Shard::WHOLE {
            true => 0..u64::MAX,
            false if path.as_os_str() == "-" => return Err(failed(super::NO_SHARES.into())),
            false => shard.range(count(path, format)?),
        };
        let is_cut = Arc::default();
        let (schema, batches, size) = batches(path, format, None, &is_cut)?;
        let columns = columns(&schema)?;
        let share = share.start.saturating_add(done)..share.end;
        let chunks = chunks(path, format, batches, share);
        return Ok(Input {
            head: Head {
                columns,
                schema,
                has_one_dictionary: format == Format::Arrow,
                parquet: None,
            },
            first_lines: None,
            size,
            start: 0,
            is_cut,
            chunks: Box::new(chunks),
        });
    }
    let mut rows = ParquetRows::open(path)?;
    let schema = Arc::clone(rows.about.schema());
    let head = Head {
        columns: columns(&schema)?,
        schema,
        has_one_dictionary: false,
        parquet: Some(rows.types()),
    };
    let share = shard.range(rows.len());
    let (start, end) = ((share.start + done).min(share.end), share.end);
    rows.only(start, end);
    let path = path.to_owned();
    let (first, mut row) = (share.start, start);
    let chunks = rows.map(move |batch| {
        let batch = batch.map_err(|error| unreadable(&path, format, &error))?;
        let before = row;
        row += batch.num_rows() as u64;
        Ok(Chunk {
            rows: Rows::Columns(batch),
            first: before + 1,
            place: row - first,
        })
    });
    Ok(Input {
        head,
        first_lines: None,
        size: Some(end - first),
        start: start - first,
        is_cut: Arc::default(),
        chunks: Box::new(chunks),
    })
}

/// Notes that a stream has ended without a mark of its end, which its reader would else have read.
struct ToItsEnd<R> {
    source: R,
    is_cut: Arc<AtomicBool>,
}

impl<R: Read> Read for ToItsEnd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        if read == 0 && !into.is_empty() {
            self.is_cut.store(true, Ordering::Relaxed);
        }
        Ok(read)
    }
}

/// The batches of an Arrow file or stream, of all columns or some, and how many there are.
fn batches(
    path: &Path,
    format: Format,
    only: Option<Vec<usize>>,
    is_cut: &Arc<AtomicBool>,
) -> Result<(SchemaRef, Batches, Option<u64>), TableError> {
    let failed = |error: ArrowError| unreadable(path, format, &error);
    if path.as_os_str() == "-" && format == Format::Arrow {
        let reason =
            "an Arrow file is read from its end; a stream (--input-format arrows) can be piped";
        return Err(TableError::new(path, reason));
    }
    let source: Box<dyn Read + Send> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => {
            let mut file = File::open(path).map_err(|error| TableError::new(path, error))?;
            if format == Format::Arrow {
                check_blocks(&mut file).map_err(failed)?;
                let reader = FileReader::try_new_buffered(file, only).map_err(failed)?;
                let size = reader.num_batches() as u64;
                return Ok((reader.schema(), Box::new(reader), Some(size)));
            }
            Box::new(file)
        }
    };
    let source = ToItsEnd {
        source: BufReader::new(source),
        is_cut: Arc::clone(is_cut),
    };
    let reader = StreamReader::try_new(source, only).map_err(failed)?;
    Ok((reader.schema(), Box::new(reader), None))
}

/// What is said of a file of which its reader says this.
pub(super) fn unreadable(path: &Path, format: Format, error: &dyn std::fmt::Display) -> TableError {
    let name = format.name();
    let is_empty = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0);
    TableError::new(
        path,
        match is_empty {
            true => format!("it is empty, which no {name} file is, not even one without rows"),
            false => format!(
                "it can't be read as {name}: it is broken, was cut off, or has another format, which --input-format \
                 names ({error})"
            ),
        },
    )
}

/// How many rows an Arrow file or stream has.
fn count(path: &Path, format: Format) -> Result<u64, TableError> {
    let (_, batches, _) = batches(path, format, Some(Vec::new()), &Arc::default())?;
    let rows = batches.map(|batch| batch.map(|batch| batch.num_rows() as u64));
    let rows: Result<u64, ArrowError> = rows.sum();
    rows.map_err(|error| unreadable(path, format, &error))
}

/// A file that this program wrote: its types, also those of Parquet, and its batches.
pub(super) fn written(
    path: &Path,
    format: Format,
) -> Result<(SchemaRef, Option<SchemaDescPtr>, Batches), TableError> {
    if format != Format::Parquet {
        let (schema, batches, _) = batches(path, format, None, &Arc::default())?;
        return Ok((schema, None, batches));
    }
    let rows = ParquetRows::open(path)?;
    let schema = Arc::clone(rows.about.schema());
    let types = rows.types();
    Ok((schema, Some(types), Box::new(rows)))
}

/// Some of the rows, in chunks. Batches may be of any size.
fn chunks(
    path: &Path,
    format: Format,
    mut batches: Batches,
    rows: Range<u64>,
) -> impl Iterator<Item = Result<Chunk, TableError>> + Send + use<> {
    let path = path.to_owned();
    let (mut row, mut read) = (0, 0);
    let mut current: Option<RecordBatch> = None;
    let mut at_once = CHUNK_ROWS;
    std::iter::from_fn(move || {
        while row < rows.end {
            let batch = match current.take() {
                Some(batch) => batch,
                None => match batches.next()? {
                    Ok(batch) => {
                        read += 1;
                        let bytes = batch.get_array_memory_size();
                        at_once = rows_at_once(bytes, batch.num_rows());
                        batch
                    }
                    Err(error) => return Some(Err(unreadable(&path, format, &error))),
                },
            };
            let most = match rows.start.checked_sub(row) {
                Some(before) if before > 0 => before,
                _ => (rows.end - row).min(at_once as u64),
            };
            let taken = batch
                .num_rows()
                .min(usize::try_from(most).unwrap_or(usize::MAX));
            if taken < batch.num_rows() {
                current = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            let first = row;
            row += taken as u64;
            if first >= rows.start && taken > 0 {
                return Some(Ok(Chunk {
                    rows: Rows::Columns(batch.slice(0, taken)),
                    first: first + 1,
                    place: read,
                }));
            }
        }
        None
    })
}

/// Whether a format can hold the types of the columns.
pub(super) fn held(schema: &Schema, format: Format) -> Result<(), String> {
    for field in schema.fields() {
        let not_held = match format {
            Format::Parquet => parquet_file::not_held(field.data_type()),
            Format::Jsonl | Format::JsonlGz => {
                let empty = new_empty_array(&of_json(field.data_type()));
                let field = field
                    .as_ref()
                    .clone()
                    .with_data_type(empty.data_type().clone());
                let (field, options) = (Arc::new(field), EncoderOptions::default());
                let encoder = make_encoder(&field, &empty, &options);
                encoder
                    .err()
                    .map(|error| format!("{} ({error})", field.data_type()))
            }
            Format::Arrow | Format::ArrowStream => None,
        };
        if let Some(what) = not_held {
            return Err(format!(
                "the column \"{}\" holds {what}, which {} can't hold; drop the column or name another format",
                field.name(),
                format.name(),
            ));
        }
    }
    Ok(())
}

fn columns(schema: &Schema, wanted: &Wanted) -> Result<Columns, String> {
    let fields = schema.fields().iter();
    let names: Vec<String> = fields.map(|field| field.name().clone()).collect();
    let twice = names
        .iter()
        .enumerate()
        .find(|(i, name)| names[..*i].contains(name));
    if let Some((_, name)) = twice {
        return Err(format!(
            "two columns are named \"{name}\"; rename one of them"
        ));
    }
    wanted.among(&names, |name| {
        let Ok(field) = schema.field_with_name(name) else {
            return Holds::Other("nothing".into());
        };
        match field.data_type() {
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _)
                if holds_texts(item.data_type(), &wanted.text) =>
            {
                Holds::Lists
            }
            other if holds_texts(other, &wanted.text) && name != wanted.query => Holds::Texts,
            other if is_text(other) => Holds::Texts,
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => no_texts(item.data_type()),
            other => no_texts(other),
        }
    })
}

fn no_texts(of: &DataType) -> Holds {
    match of {
        DataType::Struct(fields) => {
            Holds::Objects(fields.iter().map(|field| field.name().clone()).collect())
        }
        other => Holds::Other(other.to_string()),
    }
}

fn is_text(of: &DataType) -> bool {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// Whether they are texts, or structs that have one.
fn holds_texts(of: &DataType, field: &str) -> bool {
    match of {
        DataType::Struct(fields) => fields
            .find(field)
            .is_some_and(|(_, field)| is_text(field.data_type())),
        other => is_text(other),
    }
}

/// A column's texts, or what is wrong with them.
fn column(array: &ArrayRef, field: &str) -> Result<Vec<Result<String, String>>, String> {
    if let Some(structs) = array.as_struct_opt() {
        let texts = structs.column_by_name(field).ok_or("there is no text")?;
        let mut texts = column(texts, field)?;
        for (i, text) in texts.iter_mut().enumerate() {
            if structs.is_null(i) {
                *text = Err(NULL.into());
            } else if text.is_err() {
                *text = Err(format!("has a null as its \"{field}\""));
            }
        }
        return Ok(texts);
    }
    let texts = cast(array, &DataType::Utf8).map_err(|error| error.to_string())?;
    let texts = texts.as_string::<i32>().iter();
    let text = |text: Option<&str>| text.map(str::to_owned).ok_or_else(|| NULL.to_owned());
    Ok(texts.map(text).collect())
}

pub(super) fn texts(
    batch: &RecordBatch,
    columns: &Columns,
) -> Result<Vec<Result<Texts, String>>, String> {
    let of = |name: &str| {
        let found = batch.column_by_name(name);
        found.ok_or_else(|| format!("the column \"{name}\" is missing"))
    };
    let (queries, documents) = (of(&columns.query)?, of(&columns.document)?);
    let queries = column(queries, &columns.text)?;
    let documents = match columns.layout {
        Layout::Pair => {
            let documents = column(documents, &columns.text)?.into_iter();
            documents.map(|d| d.map(|d| vec![Ok(d)])).collect()
        }
        Layout::List => lists(documents, &columns.text)?,
    };
    let wrong = |name: &str, reason: String| format!("\"{name}\" {reason}");
    let mut last: Option<Arc<str>> = None;
    let rows = queries
        .into_iter()
        .zip(documents)
        .map(|(query, documents)| {
            let query = query.map_err(|reason| wrong(&columns.query, reason))?;
            let documents = documents.map_err(|reason| wrong(&columns.document, reason))?;
            let query = match &last {
                Some(last) if **last == *query => Arc::clone(last),
                _ => Arc::from(query),
            };
            last = Some(Arc::clone(&query));
            Ok(Texts { query, documents })
        });
    Ok(rows.collect())
}

const NULL: &str = "is null";

/// The documents of one row, or what is wrong with it.
type List = Result<Vec<Result<String, String>>, String>;

fn lists(array: &ArrayRef, field: &str) -> Result<Vec<List>, String> {
    let list = |row: usize| {
        if array.is_null(row) {
            return Ok(Err(NULL.into()));
        }
        let items = match array.data_type() {
            DataType::List(_) => array.as_list::<i32>().value(row),
            DataType::LargeList(_) => array.as_list::<i64>().value(row),
            DataType::ListView(_) => array.as_list_view::<i32>().value(row),
            DataType::LargeListView(_) => array.as_list_view::<i64>().value(row),
            _ => array.as_fixed_size_list().value(row),
        };
        let texts = column(&items, field)?.into_iter().enumerate();
        let texts =
            texts.map(|(i, text)| text.map_err(|reason| format!("document {} {reason}", i + 1)));
        Ok(Ok(texts.collect()))
    };
    (0..array.len()).map(list).collect()
}
