//! Writing rows with their scores.

use std::io::{self, BufWriter, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

#[cfg(feature = "columnar")]
use super::columnar;
use super::columns::{Columns, Layout};
#[cfg(feature = "columnar")]
use super::dictionaries;
#[cfg(feature = "columnar")]
use super::scored;
use super::{Chunk, Format, Head, Rows, lines};

/// A row's scores.
#[derive(Debug, Clone, PartialEq)]
pub struct RowScores {
    /// Each document's; none if it can't be scored.
    pub scores: Vec<Option<f32>>,
    /// Which documents are best, best first.
    pub order: Vec<i32>,
}

/// Where rows are written to.
pub type Sink = Box<dyn Write + Send>;

/// Why rows can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The operating system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The format can't hold them.
    #[error("{0}")]
    Rows(String),
}

/// How a Parquet file's pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// Quickly.
    Snappy,
    /// Well.
    Zstd,
    /// Quickly, in the form that is called LZ4_RAW.
    Lz4,
    /// As everybody can read it.
    Gzip,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::Snappy, Self::Zstd, Self::Lz4, Self::Gzip];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
        }
    }
}

/// How files are written.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Their format.
    pub format: Format,
    /// What compresses them if they are Parquet.
    pub codec: Codec,
}

#[cfg(feature = "columnar")]
mod tables {
    use std::io;
    use std::sync::Arc;

    use arrow_array::RecordBatch;
    use arrow_ipc::writer::{FileWriter, StreamWriter};
    use arrow_schema::{ArrowError, SchemaRef};
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_writer::ArrowWriterOptions;
    use parquet::basic::{Compression, GzipLevel, ZstdLevel};
    use parquet::errors::ParquetError;
    use parquet::file::properties::WriterProperties;
    use parquet::schema::types::SchemaDescriptor;

    use super::super::parquet_file;
    use super::{Codec, Form, Format, Sink, WriteError};

    /// So many bytes of rows make a row group, which is kept in memory until it is written.
    const GROUP_BYTES: usize = 64 << 20;

    pub(super) enum Tables {
        /// With how many bytes the row group's rows have.
        Parquet(Box<ArrowWriter<Sink>>, usize),
        Arrow(Box<FileWriter<Sink>>),
        Stream(Box<StreamWriter<Sink>>),
    }

    impl From<ArrowError> for WriteError {
        fn from(error: ArrowError) -> Self {
            match error {
                ArrowError::IoError(_, error) => Self::Io(error),
                other => Self::Rows(other.to_string()),
            }
        }
    }

    impl From<ParquetError> for WriteError {
        fn from(error: ParquetError) -> Self {
            match error {
                ParquetError::External(error) => match error.downcast::<io::Error>() {
                    Ok(error) => Self::Io(*error),
                    Err(other) => Self::Rows(other.to_string()),
                },
                other => Self::Rows(other.to_string()),
            }
        }
    }

    impl Tables {
        /// For rows of these types, of which the Parquet file that they come from may tell more.
        pub(super) fn new(
            form: Form,
            sink: Sink,
            schema: &SchemaRef,
            of_input: Option<&SchemaDescriptor>,
        ) -> Result<Self, WriteError> {
            Ok(match form.format {
                Format::Arrow => Self::Arrow(Box::new(FileWriter::try_new(sink, schema)?)),
                Format::ArrowStream => Self::Stream(Box::new(StreamWriter::try_new(sink, schema)?)),
                _ => {
                    let codec = match form.codec {
                        Codec::None => Compression::UNCOMPRESSED,
                        Codec::Snappy => Compression::SNAPPY,
                        Codec::Zstd => Compression::ZSTD(ZstdLevel::default()),
                        Codec::Lz4 => Compression::LZ4_RAW,
                        Codec::Gzip => Compression::GZIP(GzipLevel::default()),
                    };
                    let properties = WriterProperties::builder().set_compression(codec).build();
                    let options = ArrowWriterOptions::new()
                        .with_properties(properties)
                        .with_parquet_schema(parquet_file::types(schema, of_input)?);
                    let schema = Arc::clone(schema);
                    let writer = ArrowWriter::try_new_with_options(sink, schema, options)?;
                    Self::Parquet(Box::new(writer), 0)
                }
            })
        }

        pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
            match self {
                Self::Arrow(writer) => writer.write(batch)?,
                Self::Stream(writer) => writer.write(batch)?,
                Self::Parquet(writer, bytes) => {
                    writer.write(batch)?;
                    *bytes += parquet_file::bytes(batch);
                    if (*bytes).max(writer.memory_size()) >= GROUP_BYTES {
                        writer.flush()?;
                        *bytes = 0;
                    }
                }
            }
            Ok(())
        }

        pub(super) fn flush(&mut self) -> Result<(), WriteError> {
            match self {
                Self::Arrow(writer) => writer.flush()?,
                Self::Stream(writer) => writer.flush()?,
                Self::Parquet(..) => {}
            }
            Ok(())
        }

        pub(super) fn finish(self) -> Result<(), WriteError> {
            match self {
                Self::Arrow(mut writer) => writer.finish()?,
                Self::Stream(mut writer) => writer.finish()?,
                Self::Parquet(writer, _) => {
                    writer.close()?;
                }
            }
            Ok(())
        }
    }
}

enum To {
    Lines(BufWriter<Sink>),
    Gzip(Box<GzEncoder<BufWriter<Sink>>>),
    #[cfg(feature = "columnar")]
    Tables {
        tables: tables::Tables,
        /// Of the columns that come from the input, as they are written.
        schema: arrow_schema::SchemaRef,
        with_scores: arrow_schema::SchemaRef,
        /// Whether some of them come with dictionaries and are written without.
        is_unpacked: bool,
    },
}

/// Writes rows with their scores in a format.
pub struct Writer {
    columns: Columns,
    to: To,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// For rows of an input.
    ///
    /// # Errors
    /// If they fit no table, or the sink can't be written to.
    pub fn new(form: Form, sink: Sink, head: &Head) -> Result<Self, WriteError> {
        let to = match form.format {
            Format::Jsonl => To::Lines(BufWriter::new(sink)),
            Format::JsonlGz => {
                let sink = BufWriter::new(sink);
                To::Gzip(Box::new(GzEncoder::new(sink, Compression::default())))
            }
            #[cfg(feature = "columnar")]
            _ => {
                let schema = match form.format == Format::Arrow && !head.has_one_dictionary {
                    true => dictionaries::without(&head.schema),
                    false => std::sync::Arc::clone(&head.schema),
                };
                let with_scores = scored::with_scores(&schema, &head.columns);
                let of_input = head.parquet.as_deref();
                To::Tables {
                    tables: tables::Tables::new(form, sink, &with_scores, of_input)?,
                    is_unpacked: schema != head.schema,
                    schema,
                    with_scores,
                }
            }
            #[cfg(not(feature = "columnar"))]
            _ => return Err(WriteError::Rows(super::NOT_BUILT.into())),
        };
        let columns = head.columns.clone();
        Ok(Self { columns, to })
    }

    /// Writes rows with their scores, `None` for a row that can't be scored.
    ///
    /// # Errors
    /// If the format can't hold them, or the sink can't be written to.
    pub fn write(&mut self, chunk: &Chunk, scores: &[Option<RowScores>]) -> Result<(), WriteError> {
        self.add(chunk, scores)
            .map_err(|error| match (error, &chunk.rows) {
                // What is said of lines has their numbers.
                #[cfg(feature = "columnar")]
                (WriteError::Rows(reason), Rows::Columns(_)) => WriteError::Rows(format!(
                    "{} or one of those behind it: {reason}",
                    chunk.name(0)
                )),
                (error, _) => error,
            })
    }

    fn add(&mut self, chunk: &Chunk, scores: &[Option<RowScores>]) -> Result<(), WriteError> {
        let columns = &self.columns;
        match &mut self.to {
            To::Lines(sink) => write_lines(sink, chunk, columns, scores),
            To::Gzip(sink) => write_lines(sink, chunk, columns, scores),
            #[cfg(feature = "columnar")]
            To::Tables {
                tables,
                schema,
                with_scores,
                is_unpacked,
            } => {
                let made;
                let batch = match &chunk.rows {
                    Rows::Columns(batch) if *is_unpacked => {
                        made = dictionaries::unpacked(batch, schema)?;
                        &made
                    }
                    Rows::Columns(batch) => batch,
                    Rows::Lines(lines) => {
                        made = scored::from_lines(lines, schema).map_err(WriteError::Rows)?;
                        &made
                    }
                };
                tables.write(&scored::scored(batch, with_scores, columns, scores)?)
            }
        }
    }

    /// Hands on what the format lets go of.
    ///
    /// # Errors
    /// If the sink can't be written to.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        match &mut self.to {
            To::Lines(sink) => Ok(sink.flush()?),
            To::Gzip(sink) => Ok(sink.flush()?),
            #[cfg(feature = "columnar")]
            To::Tables { tables, .. } => tables.flush(),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// If the sink can't be written to.
    pub fn finish(self) -> Result<(), WriteError> {
        match self.to {
            To::Lines(mut sink) => Ok(sink.flush()?),
            To::Gzip(sink) => Ok(sink.finish()?.flush()?),
            #[cfg(feature = "columnar")]
            To::Tables { tables, .. } => tables.finish(),
        }
    }
}

/// Writes rows as JSON lines.
fn write_lines(
    sink: &mut impl Write,
    chunk: &Chunk,
    columns: &Columns,
    scores: &[Option<RowScores>],
) -> Result<(), WriteError> {
    match &chunk.rows {
        Rows::Lines(lines) => {
            for (line, scores) in lines.iter().zip(scores) {
                let fields = fields(columns, scores.as_ref()).map_err(io::Error::from)?;
                sink.write_all(lines::with_fields(line, &fields).as_bytes())?;
            }
            Ok(())
        }
        #[cfg(feature = "columnar")]
        Rows::Columns(batch) => {
            let batch = scored::for_json(batch)?;
            let schema = scored::with_scores(&batch.schema(), columns);
            let batch = scored::scored(&batch, &schema, columns, scores)?;
            let mut writer = arrow_json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow_json::writer::LineDelimited>(sink);
            writer.write(&batch)?;
            Ok(writer.finish()?)
        }
    }
}

/// What is added to a line: names and their JSON, in which a score has no more digits than tell it from others.
fn fields<'a>(
    columns: &'a Columns,
    row: Option<&RowScores>,
) -> serde_json::Result<Vec<(&'a str, String)>> {
    let scores = row.map(|row| row.scores.as_slice());
    let scores = match columns.layout {
        Layout::Pair => serde_json::to_string(&scores.and_then(|scores| *scores.first()?)),
        Layout::List => serde_json::to_string(&scores),
    };
    let mut fields = vec![(columns.score.as_str(), scores?)];
    if let Some(name) = &columns.order {
        let order = serde_json::to_string(&row.map(|row| &row.order))?;
        fields.push((name, order));
    }
    Ok(fields)
}

/// Joins files of one form to one.
pub(super) fn join(form: Form, parts: &[std::path::PathBuf], sink: Sink) -> Result<(), WriteError> {
    match form.format {
        Format::Jsonl | Format::JsonlGz => {
            // What was packed in pieces unpacks as one.
            let mut sink = sink;
            for part in parts {
                io::copy(&mut std::fs::File::open(part)?, &mut sink)?;
            }
            Ok(sink.flush()?)
        }
        #[cfg(feature = "columnar")]
        _ => {
            let mut tables = None;
            let mut sink = Some(sink);
            for part in parts {
                let rows = |error: super::TableError| WriteError::Rows(error.to_string());
                let (schema, types, batches) =
                    columnar::written(part, form.format).map_err(rows)?;
                if let Some(sink) = sink.take() {
                    tables = Some(tables::Tables::new(form, sink, &schema, types.as_deref())?);
                }
                for batch in batches {
                    if let Some(tables) = &mut tables {
                        tables.write(&batch?)?;
                    }
                }
            }
            tables.map_or(Ok(()), tables::Tables::finish)
        }
        #[cfg(not(feature = "columnar"))]
        _ => Err(WriteError::Rows(super::NOT_BUILT.into())),
    }
}
