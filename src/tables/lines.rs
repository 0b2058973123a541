//! Rows in JSON lines. A line stays the text that it is.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use super::columns::{Columns, Holds, Layout, Wanted};
use super::once::Once;
use super::{CHUNK_BYTES, CHUNK_ROWS, Chunk, Format, Head, Input, Rows, Shard, TableError, Texts};
use crate::data_file::{self, DataError, Digest};
use crate::lenient;

/// So many lines, or bytes of them, say which columns there are, and in a pipe their types.
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

/// Opens lines; for a table, their columns' types are found too: of all of a file, of the first of a pipe.
pub(super) fn open(
    path: &Path,
    to: Format,
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
    let is_table = !to.is_lines();
    let all = match size.is_some() && (is_table || shard != Shard::WHOLE) {
        true => Some(Found::in_all(path, is_table)?),
        false => None,
    };
    let share = match &all {
        Some(found) => shard.range(found.rows),
        None if shard == Shard::WHOLE => 0..u64::MAX,
        None => return Err(TableError::new(path, super::NO_SHARES)),
    };
    let counted = Counted {
        source,
        bytes: Arc::clone(&bytes),
    };
    let reader = data_file::unpacked(Box::new(counted)).map_err(failed)?;
    let mut lines = data_file::lines_of(path.to_owned(), reader);
    let (mut first, mut first_bytes) = (Vec::new(), 0);
    while first.len() < FIRST_LINES && first_bytes < FIRST_BYTES {
        let Some(line) = lines.next() else { break };
        let (number, text) = line.map_err(|error| told(path, error))?;
        first_bytes += text.len();
        first.push(Line { number, text });
    }
    let wrong = |reason: String| TableError::new(path, reason);
    let columns = columns(&first, wanted).map_err(wrong)?;
    #[cfg(feature = "columnar")]
    let schema = match all {
        Some(found) => found.types.schema(),
        None if is_table => Found::in_first(&first).and_then(|found| found.types.schema()),
        None => Ok(arrow_schema::Schema::empty()),
    };
    let head = Head {
        columns,
        #[cfg(feature = "columnar")]
        schema: Arc::new(schema.map_err(wrong)?),
        #[cfg(feature = "columnar")]
        has_one_dictionary: true,
        #[cfg(feature = "columnar")]
        parquet: None,
    };
    let first_lines = size.is_none().then(|| {
        let mut digest = Digest::default();
        for line in &first {
            digest.add(line.text.as_bytes());
        }
        digest.text()
    });
    let path = path.to_owned();
    let first: Vec<Result<Line, TableError>> = first.into_iter().map(Ok).collect();
    let rest = lines.map(move |line| match line {
        Ok((number, text)) => Ok(Line { number, text }),
        Err(error) => Err(told(&path, error)),
    });
    let start = share.start.saturating_add(done).min(share.end);
    let mut lines = first
        .into_iter()
        .chain(rest)
        .skip(usize::try_from(start).unwrap_or(usize::MAX))
        .take(usize::try_from(share.end - start).unwrap_or(usize::MAX));
    let chunks = std::iter::from_fn(move || chunk(&mut lines, &bytes));
    Ok(Input {
        head,
        first_lines,
        size,
        start: 0,
        is_cut: Arc::default(),
        chunks: Box::new(chunks),
    })
}

/// What is known of lines before they are scored.
#[derive(Default)]
struct Found {
    rows: u64,
    #[cfg(feature = "columnar")]
    types: super::types::Types,
}

impl Found {
    /// Reads a whole file, which takes little time beside scoring it.
    fn in_all(path: &Path, is_table: bool) -> Result<Self, TableError> {
        let mut found = Self::default();
        for line in data_file::lines(path).map_err(|error| told(path, error))? {
            let (number, text) = line.map_err(|error| told(path, error))?;
            if is_table {
                let added = found.add(number, &text);
                added.map_err(|reason| TableError::new(path, reason))?;
            }
            found.rows += 1;
        }
        Ok(found)
    }

    #[cfg(feature = "columnar")]
    fn in_first(lines: &[Line]) -> Result<Self, String> {
        let mut found = Self::default();
        for line in lines {
            found.add(line.number, &line.text)?;
        }
        Ok(found)
    }

    #[cfg(feature = "columnar")]
    fn add(&mut self, number: usize, text: &str) -> Result<(), String> {
        self.types.add(number, text)
    }

    #[cfg(not(feature = "columnar"))]
    fn add(&mut self, _: usize, _: &str) -> Result<(), String> {
        Err(super::NOT_BUILT.into())
    }
}

/// The next lines.
fn chunk(
    lines: &mut impl Iterator<Item = Result<Line, TableError>>,
    bytes: &AtomicU64,
) -> Option<Result<Chunk, TableError>> {
    let (mut rows, mut size) = (Vec::new(), 0);
    while rows.len() < CHUNK_ROWS && size < CHUNK_BYTES {
        match lines.next() {
            None => break,
            Some(Err(error)) => return Some(Err(error)),
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
    let wrong = |reason: &str| Err(no_object(line.number, &line.text, reason));
    match lenient::from_json(line.text.as_bytes()) {
        Ok(Once {
            twice: Some(name), ..
        }) => Err(format!("line {}: \"{name:.60}\" {TWICE}", line.number)),
        Ok(Once {
            value: Value::Object(object),
            ..
        }) => Ok(object),
        Ok(Once { value, .. }) => wrong(&format!("{value:.40}")),
        Err(error) => wrong(&error.to_string()),
    }
}

/// What is said of a field, after its name.
pub(super) const TWICE: &str = "stands twice in one object, of which one would be lost";

/// What is said of a line that holds no object.
pub(super) fn no_object(number: usize, text: &str, error: &str) -> String {
    let error = error.split(" at line ").next().unwrap_or_default();
    let hint = match text.trim() {
        text if text.starts_with('[') => "; jq -c '.[]' makes lines of an array",
        text if text.starts_with('{') && !text.ends_with('}') => {
            "; jq -c . makes lines of objects that stand on several"
        }
        _ => "",
    };
    format!("line {number}: it is no JSON object, of which each line must hold one: {error}{hint}")
}

fn columns(first: &[Line], wanted: &Wanted) -> Result<Columns, String> {
    let Some(line) = first.first() else {
        return Ok(wanted.of_no_rows());
    };
    object(line)?;
    let objects: Vec<_> = first.iter().filter_map(|line| object(line).ok()).collect();
    let mut names: Vec<String> = Vec::new();
    let mut known = HashSet::new();
    for name in objects.iter().flat_map(Map::keys) {
        if known.insert(name) {
            names.push(name.clone());
        }
    }
    wanted.among(&names, |name| {
        // The first line may have a null there, or nothing.
        let values = objects.iter().filter_map(|object| object.get(name));
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
                    text(document, &columns.text)
                        .map_err(|reason| format!("document {} {reason}", i + 1))
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
