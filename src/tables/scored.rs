//! Columns as they are written: with the scores, from JSON lines, for JSON lines.

use std::sync::Arc;

use arrow_array::builder::{Float32Builder, Int32Builder, ListBuilder};
use arrow_array::{ArrayRef, Float32Array, RecordBatch};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, Layout};
use super::writer::RowScores;
use super::{Line, types};

/// The type that JSON's writer knows: a time in a zone that has a name is written in UTC.
pub(super) fn of_json(of: &DataType) -> DataType {
    match of {
        DataType::Timestamp(unit, Some(zone)) if !zone.starts_with(['+', '-']) => {
            DataType::Timestamp(*unit, Some("+00:00".into()))
        }
        other => other.clone(),
    }
}

/// Rows as JSON's writer knows them.
pub(super) fn for_json(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter();
    let columns = columns.map(|column| cast(column, &of_json(column.data_type())));
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    let fields = batch.schema_ref().fields().iter();
    let fields = fields.map(|f| f.as_ref().clone().with_data_type(of_json(f.data_type())));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
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

/// Lines as columns of these types.
pub(super) fn from_lines(lines: &[Line], schema: &SchemaRef) -> Result<RecordBatch, String> {
    for line in lines {
        // The decoder takes 1.5 for 1 and "7" for 7.
        types::check(line.number, &line.text, schema)?;
    }
    let decoded = || {
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
    decoded().map_err(|error| {
        let first = lines.first().map_or(0, |line| line.number);
        format!("line {first} or one of those behind it: {error}")
    })
}
