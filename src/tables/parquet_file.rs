//! Parquet files: reading them in batches of a size in memory, and what their types say beyond Arrow's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, IntervalUnit, Schema};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{LogicalType, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::{ColumnDescriptor, SchemaDescPtr, SchemaDescriptor, Type};

use super::columnar::unreadable;
use super::{CHUNK_BYTES, CHUNK_ROWS, Format, TableError};

/// So many rows tell how large rows are, which a file's encoding hides.
const PROBE_ROWS: usize = 16;

/// Rows of a file, in batches of about [`CHUNK_BYTES`].
pub(super) struct ParquetRows {
    path: PathBuf,
    pub(super) about: ArrowReaderMetadata,
    reader: Option<ParquetRecordBatchReader>,
    row: u64,
    end: u64,
    at_once: usize,
}

impl ParquetRows {
    pub(super) fn open(path: &Path) -> Result<Self, TableError> {
        if path.as_os_str() == "-" {
            return Err(TableError::new(
                path,
                "Parquet is read from its end, so it must be a file",
            ));
        }
        let file = File::open(path).map_err(|error| TableError::new(path, error))?;
        let load = |options| ArrowReaderMetadata::load(&file, options);
        // Other programs leave Arrow's types in the file, some of which are unknown here; Parquet's own always are.
        let options = ArrowReaderOptions::new();
        let about = load(options.clone())
            .or_else(|error| load(options.with_skip_arrow_metadata(true)).map_err(|_| error));
        let about = about.map_err(|error| unreadable(path, Format::Parquet, &error))?;
        let rows = about.metadata().file_metadata().num_rows();
        Ok(Self {
            path: path.to_owned(),
            about,
            reader: None,
            row: 0,
            end: u64::try_from(rows).unwrap_or(0),
            at_once: PROBE_ROWS,
        })
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> u64 {
        self.end
    }

    /// Parquet's own types of the columns.
    pub(super) fn types(&self) -> SchemaDescPtr {
        self.about.metadata().file_metadata().schema_descr_ptr()
    }

    /// Only these rows.
    pub(super) fn only(&mut self, start: u64, end: u64) {
        (self.row, self.end) = (start, end);
    }

    fn read(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.row >= self.end {
            return Ok(None);
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => {
                let file = File::open(&self.path)?;
                let about = self.about.clone();
                let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, about)
                    .with_batch_size(self.at_once)
                    .with_offset(self.row as usize)
                    .with_limit((self.end - self.row) as usize);
                self.reader.insert(builder.build()?)
            }
        };
        let Some(batch) = reader.next().transpose()? else {
            return Ok(None);
        };
        self.row += batch.num_rows() as u64;
        let best = rows_at_once(bytes(&batch), batch.num_rows());
        // Another size needs another reader, which skips what was read.
        if best < self.at_once / 2 || (self.at_once < CHUNK_ROWS / 2 && best > self.at_once * 4) {
            (self.at_once, self.reader) = (best, None);
        }
        Ok(Some(batch))
    }
}

impl Iterator for ParquetRows {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// How many rows of such a size make a chunk.
pub(super) fn rows_at_once(bytes: usize, rows: usize) -> usize {
    let each = bytes / rows.max(1);
    (CHUNK_BYTES / each.max(1)).clamp(1, CHUNK_ROWS)
}

/// How many bytes rows have, without what they share with others.
pub(super) fn bytes(batch: &RecordBatch) -> usize {
    let columns = batch
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) => {
                let all = column.get_buffer_memory_size();
                // Views and keys say little of what they point to, which may be that of more rows.
                all.min(column.len() * CHUNK_BYTES / CHUNK_ROWS)
            }
            _ => {
                let bytes = column.to_data().get_slice_memory_size();
                bytes.unwrap_or_else(|_| column.get_buffer_memory_size())
            }
        });
    columns.sum()
}

/// The types for a schema: those of the file that the first columns come from where they hold the same values,
/// since they tell more (that 16 bytes are a UUID, or a text is JSON).
pub(super) fn types(
    schema: &Schema,
    of_input: Option<&SchemaDescriptor>,
) -> Result<SchemaDescriptor, ParquetError> {
    let made = ArrowSchemaConverter::new().convert(schema)?;
    let Some(given) = of_input else {
        return Ok(made);
    };
    let given = given.root_schema().get_fields();
    let fields = made.root_schema().get_fields().iter().enumerate();
    let fields = fields.map(|(i, field)| match given.get(i) {
        Some(given) if is_alike(given, field) => Arc::clone(given),
        _ => Arc::clone(field),
    });
    let root = Type::group_type_builder(made.root_schema().name()).with_fields(fields.collect());
    Ok(SchemaDescriptor::new(Arc::new(root.build()?)))
}

fn is_alike(given: &Arc<Type>, made: &Arc<Type>) -> bool {
    let of = |field: &Arc<Type>| {
        let root = Type::group_type_builder("schema").with_fields(vec![Arc::clone(field)]);
        root.build()
            .map(|root| SchemaDescriptor::new(Arc::new(root)))
    };
    let (Ok(given), Ok(made)) = (of(given), of(made)) else {
        return false;
    };
    let leaves = given.columns().iter().zip(made.columns());
    given.num_columns() == made.num_columns()
        && leaves.into_iter().all(|(g, m)| is_alike_leaf(g, m))
}

fn is_alike_leaf(given: &ColumnDescriptor, made: &ColumnDescriptor) -> bool {
    let (is, as_made) = (given.logical_type_ref(), made.logical_type_ref());
    given.physical_type() == made.physical_type()
        && given.type_length() == made.type_length()
        && given.max_def_level() == made.max_def_level()
        && given.max_rep_level() == made.max_rep_level()
        && match (made.physical_type(), is, as_made) {
            // Whatever bytes are called, they are the same.
            (Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY, _, None) => true,
            (Physical::BYTE_ARRAY, _, Some(LogicalType::String)) => true,
            (_, Some(LogicalType::Time(is)), Some(LogicalType::Time(made))) => is.unit == made.unit,
            _ => is == as_made,
        }
}

/// The part of a type that Parquet can't hold.
pub(super) fn not_held(of: &DataType) -> Option<String> {
    match of {
        DataType::Union(..) => Some("a union".into()),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            Some("intervals of months, days and nanoseconds".into())
        }
        DataType::Struct(fields) if fields.is_empty() => Some("an object without fields".into()),
        DataType::Struct(fields) => fields.iter().find_map(|f| not_held(f.data_type())),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => not_held(item.data_type()),
        DataType::Dictionary(_, values) => not_packed(values),
        DataType::RunEndEncoded(_, values) => not_packed(values.data_type()),
        _ => None,
    }
}

fn not_packed(values: &DataType) -> Option<String> {
    match values.is_nested() {
        true => Some(format!("a dictionary of {values}")),
        false => not_held(values),
    }
}
