//! Rows in Parquet and in Arrow's files and streams.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Float32Builder, Int32Builder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Float32Array, RecordBatch};
use arrow_cast::cast;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::columns::{Columns, Holds, Layout, Wanted};
use super::writer::RowScores;
use super::{
    CHUNK_BYTES, CHUNK_ROWS, Chunk, Format, Head, Input, Line, Rows, Shard, TableError, Texts,
};

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
        let (schema, batches, size) = batches(path, format)?;
        let columns = columns(&schema)?;
        let chunks = dealt(path, batches, shard, done);
        return Ok(input(columns, size, 0, schema, Box::new(chunks)));
    }
    let builder = parquet(path)?;
    let (schema, columns) = (Arc::clone(builder.schema()), columns(builder.schema())?);
    let groups = builder.metadata().row_groups();
    let bytes: i64 = groups.iter().map(|group| group.total_byte_size()).sum();
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let share = shard.range(rows);
    let (start, end) = ((share.start + done).min(share.end), share.end);
    let builder = builder
        .with_batch_size(rows_at_once(bytes.unsigned_abs(), rows))
        .with_offset(start as usize)
        .with_limit((end - start) as usize);
    let batches = builder.build().map_err(|e| failed(e.to_string()))?;
    let path = path.to_owned();
    let (first, mut row) = (share.start, start);
    let chunks = batches.map(move |batch| {
        let batch = batch.map_err(|error| TableError::new(&path, error))?;
        let before = row;
        row += batch.num_rows() as u64;
        Ok(Chunk {
            rows: Rows::Columns(batch),
            first: before + 1,
            place: row - first,
        })
    });
    let (size, start) = (Some(end - first), start - first);
    Ok(input(columns, size, start, schema, Box::new(chunks)))
}

fn input(
    columns: Columns,
    size: Option<u64>,
    start: u64,
    schema: SchemaRef,
    chunks: Box<dyn Iterator<Item = Result<Chunk, TableError>> + Send>,
) -> Input {
    Input {
        head: Head {
            columns,
            schema: super::Schema::Known(schema),
        },
        size,
        start,
        chunks,
    }
}

fn parquet(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, TableError> {
    if path.as_os_str() == "-" {
        return Err(TableError::new(
            path,
            "Parquet is read from its end, so it must be a file",
        ));
    }
    let file = File::open(path).map_err(|error| TableError::new(path, error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| TableError::new(path, error))
}

/// The batches of an Arrow file or stream, and how many there are.
fn batches(path: &Path, format: Format) -> Result<(SchemaRef, Batches, Option<u64>), TableError> {
    let failed = |error: ArrowError| TableError::new(path, error);
    if path.as_os_str() == "-" && format == Format::Arrow {
        let reason =
            "an Arrow file is read from its end; a stream (--input-format arrows) can be piped";
        return Err(TableError::new(path, reason));
    }
    let source: Box<dyn Read + Send> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => {
            let file = File::open(path).map_err(|error| TableError::new(path, error))?;
            if format == Format::Arrow {
                let reader = FileReader::try_new_buffered(file, None).map_err(failed)?;
                let size = reader.num_batches() as u64;
                return Ok((reader.schema(), Box::new(reader), Some(size)));
            }
            Box::new(file)
        }
    };
    let reader = StreamReader::try_new(BufReader::new(source), None).map_err(failed)?;
    Ok((reader.schema(), Box::new(reader), None))
}

/// All batches of a file that this program wrote.
pub(super) fn written(path: &Path, format: Format) -> Result<(SchemaRef, Batches), TableError> {
    if format != Format::Parquet {
        let (schema, batches, _) = batches(path, format)?;
        return Ok((schema, batches));
    }
    let builder = parquet(path)?;
    let schema = Arc::clone(builder.schema());
    let reader = builder.build().map_err(|e| TableError::new(path, e))?;
    Ok((schema, Box::new(reader)))
}

/// How many rows of such a size make a chunk.
fn rows_at_once(bytes: u64, rows: u64) -> usize {
    let each = bytes / rows.max(1);
    (CHUNK_BYTES as u64 / each.max(1)).clamp(1, CHUNK_ROWS as u64) as usize
}

/// The rows of a shard in chunks. Batches may be of any size, so they are cut where blocks of rows end.
fn dealt(
    path: &Path,
    mut batches: Batches,
    shard: Shard,
    done: u64,
) -> impl Iterator<Item = Result<Chunk, TableError>> + Send + use<> {
    let path = path.to_owned();
    let (mut row, mut left, mut read) = (0, done, 0);
    let mut current: Option<RecordBatch> = None;
    let mut at_once = CHUNK_ROWS;
    std::iter::from_fn(move || {
        loop {
            let batch = match current.take() {
                Some(batch) => batch,
                None => match batches.next()? {
                    Ok(batch) => {
                        read += 1;
                        let bytes = batch.get_array_memory_size() as u64;
                        at_once = rows_at_once(bytes, batch.num_rows() as u64);
                        batch
                    }
                    Err(error) => return Some(Err(TableError::new(&path, error))),
                },
            };
            let of_block = Shard::BLOCK - row % Shard::BLOCK;
            let is_ours = shard.is_dealt(row);
            let mut rows = batch.num_rows().min(of_block as usize);
            if is_ours && left > 0 {
                rows = rows.min(usize::try_from(left).unwrap_or(usize::MAX));
            } else if is_ours {
                rows = rows.min(at_once);
            }
            if rows < batch.num_rows() {
                current = Some(batch.slice(rows, batch.num_rows() - rows));
            }
            let first = row + 1;
            row += rows as u64;
            match is_ours {
                false => {}
                true if left > 0 => left -= rows as u64,
                true if rows == 0 => {}
                true => {
                    return Some(Ok(Chunk {
                        rows: Rows::Columns(batch.slice(0, rows)),
                        first,
                        place: read,
                    }));
                }
            }
        }
    })
}

fn columns(schema: &Schema, wanted: &Wanted) -> Result<Columns, String> {
    let fields = schema.fields().iter();
    let names: Vec<String> = fields.map(|field| field.name().clone()).collect();
    wanted.among(&names, |name| {
        let Ok(field) = schema.field_with_name(name) else {
            return Holds::Other("nothing".into());
        };
        match field.data_type() {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
                if holds_texts(item.data_type(), &wanted.text) =>
            {
                Holds::Lists
            }
            other if holds_texts(other, &wanted.text) && name != wanted.query => Holds::Texts,
            other if is_text(other) => Holds::Texts,
            other => Holds::Other(other.to_string()),
        }
    })
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

/// A column's texts; what is null has none.
fn column(array: &ArrayRef, field: &str) -> Result<Vec<Option<String>>, String> {
    if let Some(structs) = array.as_struct_opt() {
        let texts = structs.column_by_name(field).ok_or("there is no text")?;
        let mut texts = column(texts, field)?;
        for (i, text) in texts.iter_mut().enumerate() {
            if structs.is_null(i) {
                *text = None;
            }
        }
        return Ok(texts);
    }
    let texts = cast(array, &DataType::Utf8).map_err(|error| error.to_string())?;
    let texts = texts.as_string::<i32>().iter();
    Ok(texts.map(|text| text.map(str::to_owned)).collect())
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
            documents
                .map(|document| document.map(|d| vec![Ok(d)]))
                .collect()
        }
        Layout::List => lists(documents, &columns.text)?,
    };
    let mut last: Option<Arc<str>> = None;
    let rows = queries
        .into_iter()
        .zip(documents)
        .map(|(query, documents)| {
            let query = query.ok_or_else(|| format!("\"{}\" is null", columns.query))?;
            let documents = documents.ok_or_else(|| format!("\"{}\" is null", columns.document))?;
            let query = match &last {
                Some(last) if **last == *query => Arc::clone(last),
                _ => Arc::from(query),
            };
            last = Some(Arc::clone(&query));
            Ok(Texts { query, documents })
        });
    Ok(rows.collect())
}

/// The documents of one row; none if it has no list.
type List = Option<Vec<Result<String, String>>>;

fn lists(array: &ArrayRef, field: &str) -> Result<Vec<List>, String> {
    let list = |row: usize| {
        if array.is_null(row) {
            return Ok(None);
        }
        let items = match array.data_type() {
            DataType::List(_) => array.as_list::<i32>().value(row),
            DataType::LargeList(_) => array.as_list::<i64>().value(row),
            _ => array.as_fixed_size_list().value(row),
        };
        let texts = column(&items, field)?.into_iter().enumerate();
        let texts = texts.map(|(i, text)| text.ok_or_else(|| format!("document {i} is null")));
        Ok(Some(texts.collect()))
    };
    (0..array.len()).map(list).collect()
}

/// The schema with the columns that are added.
pub(super) fn with_scores(schema: &Schema, columns: &Columns) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    let list = |of| DataType::List(Arc::new(Field::new_list_field(of, true)));
    let scores = match columns.layout {
        Layout::Pair => DataType::Float32,
        Layout::List => list(DataType::Float32),
    };
    fields.push(Arc::new(Field::new(&columns.score, scores, true)));
    if let Some(order) = &columns.order {
        fields.push(Arc::new(Field::new(order, list(DataType::Int32), true)));
    }
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The rows with their scores, in a schema of [`with_scores`].
pub(super) fn scored(
    batch: &RecordBatch,
    schema: &SchemaRef,
    columns: &Columns,
    scores: &[Option<RowScores>],
) -> Result<RecordBatch, ArrowError> {
    let mut arrays = batch.columns().to_vec();
    arrays.push(match columns.layout {
        Layout::Pair => {
            let one = |row: &Option<RowScores>| row.as_ref()?.scores.first().copied().flatten();
            Arc::new(scores.iter().map(one).collect::<Float32Array>())
        }
        Layout::List => {
            let mut lists = ListBuilder::new(Float32Builder::new());
            for row in scores {
                lists.append_option(row.as_ref().map(|row| row.scores.iter().copied()));
            }
            Arc::new(lists.finish())
        }
    });
    if columns.order.is_some() {
        let mut lists = ListBuilder::new(Int32Builder::new());
        for row in scores {
            lists.append_option(row.as_ref().map(|row| row.order.iter().copied().map(Some)));
        }
        arrays.push(Arc::new(lists.finish()));
    }
    RecordBatch::try_new(Arc::clone(schema), arrays)
}

/// The types of the columns that lines have.
pub(super) fn inferred(lines: &[String]) -> Result<Schema, String> {
    let values = lines.iter().map(|line| {
        let value = crate::lenient::from_json::<serde_json::Value>(line.as_bytes());
        value.map_err(|error| ArrowError::JsonError(error.to_string()))
    });
    arrow_json::reader::infer_json_schema_from_iterator(values).map_err(|error| {
        format!("its lines fit no table: {error}; JSON lines can be written whatever they hold")
    })
}

/// Lines as columns of these types.
pub(super) fn from_lines(lines: &[Line], schema: &SchemaRef) -> Result<RecordBatch, String> {
    let decoded = |lines: &[Line]| {
        let decoder = arrow_json::ReaderBuilder::new(Arc::clone(schema))
            .with_batch_size(lines.len())
            .with_strict_mode(true);
        let mut decoder = decoder.build_decoder()?;
        for line in lines {
            let mended = crate::lenient::mend_surrogates(line.text.as_bytes());
            decoder.decode(mended.as_deref().unwrap_or(line.text.as_bytes()))?;
            decoder.decode(b"\n")?;
        }
        let batch = decoder.flush()?;
        batch.ok_or_else(|| ArrowError::JsonError("there is no row".into()))
    };
    decoded(lines).map_err(|error| {
        let wrong = lines
            .iter()
            .find_map(|line| Some((line, decoded(std::slice::from_ref(line)).err()?)));
        let (line, error) = match wrong {
            Some((line, error)) => (line.number, error),
            None => (lines[0].number, error),
        };
        format!(
            "line {line} doesn't fit the types of the first lines: {error}; JSON lines can be written whatever they hold"
        )
    })
}
