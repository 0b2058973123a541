//! Rows in JSON lines. A line stays the text that it is.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use super::columns::{Columns, Holds, Layout, Wanted};
use super::{CHUNK_BYTES, CHUNK_ROWS, Chunk, Head, Input, Rows, Shard, TableError, Texts};
use crate::data_file::{self, DataError};
use crate::lenient;

/// From so many lines, or bytes of them, columns and types are inferred.
const FIRST_LINES: usize = 1000;
const FIRST_BYTES: usize = 16 << 20;

#[derive(Debug, Clone)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    pub(super) text: String,
}

/// Counts what is read.
struct Counted<R> {
    source: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

fn told(path: &Path, error: DataError) -> TableError {
    TableError::new(
        path,
        match error {
            DataError::File { error, .. } => error.to_string(),
            DataError::Line { line, reason, .. } => format!("line {line}: {reason}"),
        },
    )
}

pub(super) fn open(
    path: &Path,
    wanted: &Wanted,
    shard: Shard,
    done: u64,
) -> Result<Input, TableError> {
    let failed = |error: io::Error| TableError::new(path, error);
    let bytes = Arc::new(AtomicU64::new(0));
    let (source, size): (Box<dyn Read + Send>, _) = match path.as_os_str() == "-" {
        true => (Box::new(io::stdin()), None),
        false => {
            let file = File::open(path).map_err(failed)?;
            let about = file.metadata().map_err(failed)?;
            let size = about.is_file().then_some(about.len());
            (Box::new(file), size)
        }
    };
    let counted = Counted {
        source,
        bytes: Arc::clone(&bytes),
    };
    let reader = data_file::unpacked(Box::new(counted)).map_err(failed)?;
    let mut lines = data_file::lines_of(path.to_owned(), reader);
    let (mut first, mut first_bytes) = (VecDeque::new(), 0);
    while first.len() < FIRST_LINES && first_bytes < FIRST_BYTES {
        let Some(line) = lines.next() else { break };
        let (number, text) = line.map_err(|error| told(path, error))?;
        first_bytes += text.len();
        first.push_back(Line { number, text });
    }
    let columns = columns(&first, wanted).map_err(|reason| TableError::new(path, reason))?;
    #[cfg(feature = "columnar")]
    let schema = super::Schema::OfLines(first.iter().map(|line| line.text.clone()).collect());
    let path = path.to_owned();
    let first: Vec<Result<Line, TableError>> = first.into_iter().map(Ok).collect();
    let rest = lines.map(move |line| match line {
        Ok((number, text)) => Ok(Line { number, text }),
        Err(error) => Err(told(&path, error)),
    });
    let mut row = 0;
    let dealt = move |line: &Result<Line, TableError>| {
        row += 1;
        line.is_err() || shard.is_dealt(row - 1)
    };
    let mut lines = first.into_iter().chain(rest).filter(dealt);
    let mut left = done;
    let chunks = std::iter::from_fn(move || chunk(&mut lines, &mut left, &bytes));
    Ok(Input {
        head: Head {
            columns,
            #[cfg(feature = "columnar")]
            schema,
        },
        size,
        start: 0,
        chunks: Box::new(chunks),
    })
}

/// The next lines, after those that are `done`.
fn chunk(
    lines: &mut impl Iterator<Item = Result<Line, TableError>>,
    done: &mut u64,
    bytes: &AtomicU64,
) -> Option<Result<Chunk, TableError>> {
    let (mut rows, mut size) = (Vec::new(), 0);
    while rows.len() < CHUNK_ROWS && size < CHUNK_BYTES {
        match lines.next() {
            None => break,
            Some(Err(error)) => return Some(Err(error)),
            Some(Ok(_)) if *done > 0 => *done -= 1,
            Some(Ok(line)) => {
                size += line.text.len();
                rows.push(line);
            }
        }
    }
    if rows.is_empty() {
        return None;
    }
    Some(Ok(Chunk {
        rows: Rows::Lines(rows),
        first: 0,
        place: bytes.load(Ordering::Relaxed),
    }))
}

fn object(line: &Line) -> Result<Map<String, Value>, String> {
    lenient::from_json(line.text.as_bytes()).map_err(|error| {
        let told = error.to_string();
        let told = told.split(" at line ").next().unwrap_or_default();
        format!("line {}: it is no JSON object: {told}", line.number)
    })
}

fn columns(first: &VecDeque<Line>, wanted: &Wanted) -> Result<Columns, String> {
    let Some(line) = first.front() else {
        return Err("it has no rows".into());
    };
    let named = object(line)?;
    let names: Vec<String> = named.keys().cloned().collect();
    wanted.among(&names, |name| {
        // The first line may have a null there.
        let values = first
            .iter()
            .filter_map(|line| object(line).ok()?.remove(name));
        match values.into_iter().find(|value| !value.is_null()) {
            Some(Value::Array(_)) => Holds::Lists,
            Some(Value::String(_) | Value::Object(_)) | None => Holds::Texts,
            Some(other) => Holds::Other(format!("{other:.40}")),
        }
    })
}

pub(super) fn texts(
    lines: &[Line],
    columns: &Columns,
) -> Result<Vec<Result<Texts, String>>, String> {
    let mut last: Option<Arc<str>> = None;
    let rows = lines.iter().map(|line| {
        let mut object = object(line)?;
        let added = [Some(&columns.score), columns.order.as_ref()];
        if let Some(name) = added
            .into_iter()
            .flatten()
            .find(|&name| object.contains_key(name))
        {
            return Err(format!(
                "line {}: there is a \"{name}\" already",
                line.number
            ));
        }
        let document = object.remove(&columns.document);
        let query = match object.remove(&columns.query) {
            Some(Value::String(query)) => query,
            other => return Ok(Err(wrong("query", &columns.query, other.as_ref()))),
        };
        let query = match &last {
            Some(last) if **last == *query => Arc::clone(last),
            _ => Arc::from(query),
        };
        last = Some(Arc::clone(&query));
        let documents = match (columns.layout, document) {
            (Layout::List, Some(Value::Array(documents))) => {
                let texts = documents.into_iter().enumerate();
                let texts = texts.map(|(i, document)| {
                    text(document, &columns.text).map_err(|reason| format!("document {i} {reason}"))
                });
                texts.collect()
            }
            (Layout::List, other) => {
                return Ok(Err(wrong("list", &columns.document, other.as_ref())));
            }
            (Layout::Pair, None) => return Ok(Err(wrong("text", &columns.document, None))),
            (Layout::Pair, Some(document)) => match text(document, &columns.text) {
                Ok(text) => vec![Ok(text)],
                Err(reason) => return Ok(Err(format!("\"{}\" {reason}", columns.document))),
            },
        };
        Ok(Ok(Texts { query, documents }))
    });
    rows.collect()
}

/// A document's text: it is a string, or an object that has one.
fn text(document: Value, field: &str) -> Result<String, String> {
    match document {
        Value::String(text) => Ok(text),
        Value::Object(mut fields) => match fields.remove(field) {
            Some(Value::String(text)) => Ok(text),
            Some(Value::Null) => Err(format!("has a null as its \"{field}\"")),
            Some(_) => Err(format!("has a \"{field}\" that is no text")),
            None => Err(format!("has no \"{field}\" (--text-field names another)")),
        },
        Value::Null => Err("is null".into()),
        other => Err(format!("is no text but {other:.40}")),
    }
}

fn wrong(what: &str, column: &str, found: Option<&Value>) -> String {
    match found {
        None => format!("there is no \"{column}\""),
        Some(Value::Null) => format!("\"{column}\" is null"),
        Some(other) => {
            let what = match what {
                "list" => "a list of documents",
                _ => "a text",
            };
            format!("\"{column}\" is not {what} but {other:.40}")
        }
    }
}

/// The line with more fields at its end.
pub(super) fn with_fields(line: &Line, fields: &[(&str, String)]) -> String {
    let text = line.text.trim_end();
    let body = text.strip_suffix('}').unwrap_or(text).trim_end();
    let mut written = body.to_owned();
    for (name, value) in fields {
        if !written.ends_with('{') {
            written.push(',');
        }
        written += &format!("{}:{value}", Value::from(*name));
    }
    written + "}\n"
}
