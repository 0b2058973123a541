//! Reads documents, and queries from request bodies, from files in common formats.

mod request;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::output;
use crate::data_file::{self, DataError};
use crate::lenient::mend_surrogates;
use crate::tables::Once;
use request::Found;
pub(super) use request::Input;

/// The formats, for `--help`.
pub(super) const HELP: &str = "\
How a file is read, unless --input-format says it:
  .json, .jsonl, .ndjson   JSON
  .csv; .tsv, .tab         CSV; TSV
  all others, and -        JSON if the text begins with { or [, or if its first line is a JSON string;
                           else plain lines
A further .gz is passed over: what is gzip is unpacked. Text is UTF-8.

  json   documents one after the other (JSON lines), an array of them, or a request's body, \
which means what it means to the server (POST /v1/rerank) but for its \"model\"; flags stand before it. Else a \
document is a string, or an object with \"text\", and with \"title\" (read before the text) and \"_id\" or \
\"id\", as in BEIR
  csv    with a header; columns are named as an object's fields are
  tsv    the same with tabs; quotation marks are text
  text   each line that is not blank is a document";

/// The formats, for errors.
const FORMATS: &str = "rerankd reads JSON (lines, an array, a request's body), CSV and TSV with a header, and plain \
    lines; --input-format json, csv, tsv or text says which it is";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Detected from each file's name and beginning.
    Auto,
    /// JSON lines, an array of documents, or a request's body.
    #[value(alias = "jsonl")]
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// Tab-separated values with a header.
    Tsv,
    /// One document per line.
    Text,
}

/// How files of documents are read.
#[derive(Debug, Args)]
pub(super) struct InputArgs {
    /// Format of the files; see below.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "auto")]
    input_format: Format,
    /// Field or column with a document's text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_field: String,
    /// Field or column with a document's id; "_id" or "id" if left out.
    #[arg(long, value_name = "NAME")]
    id_field: Option<String>,
}

impl Default for InputArgs {
    fn default() -> Self {
        Self {
            input_format: Format::Auto,
            text_field: "text".into(),
            id_field: None,
        }
    }
}

/// A document's id and text.
type Document = (Option<String>, String);

impl Found {
    fn add(&mut self, (id, text): Document) {
        self.documents.push((id, text.into()));
    }
}

/// Reads files, `-` for standard input; the query stands before a body's.
pub(super) fn read(paths: &[PathBuf], args: &InputArgs, query: Option<&str>) -> Result<Input> {
    let mut input = Found::default();
    for path in paths {
        if path.as_os_str() == "-" && std::io::stdin().is_terminal() {
            output::note("reading documents from standard input; end with Ctrl-D");
        }
        let text = data_file::read(path).map_err(told)?;
        let added = match args.input_format {
            Format::Auto => detected(path, &text),
            format => format,
        };
        let added = match added {
            Format::Csv => add_table(&mut input, args, &text, b','),
            Format::Tsv => add_table(&mut input, args, &text, b'\t'),
            Format::Text => {
                let lines = text.lines().filter(|line| !line.trim().is_empty());
                lines.for_each(|line| input.add((None, line.to_owned())));
                Ok(())
            }
            Format::Auto | Format::Json => add_json(&mut input, args, path, &text),
        };
        added.map_err(|(line, reason)| DataError::line(path, line, reason))?;
    }
    if input.documents.is_empty() {
        let names: Vec<String> = paths.iter().map(|path| data_file::name(path)).collect();
        bail!("{} holds no documents", names.join(", "));
    }
    input.input(query, args)
}

/// Adds the list of formats to an error about a file's format.
fn told(error: DataError) -> anyhow::Error {
    match error {
        DataError::Line { .. } => anyhow::anyhow!("{error}; {FORMATS}"),
        DataError::File { .. } => error.into(),
    }
}

fn detected(path: &Path, text: &str) -> Format {
    let name = path.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let ending = Path::new(name).extension().and_then(|e| e.to_str());
    let text = text.trim_start();
    let is_string = |line: &str| serde_json::from_str::<String>(&mended(line)).is_ok();
    match ending {
        Some("csv") => Format::Csv,
        Some("tsv" | "tab") => Format::Tsv,
        Some("json" | "jsonl" | "ndjson") => Format::Json,
        _ if text.starts_with(['{', '[']) => Format::Json,
        _ if text.lines().next().is_some_and(is_string) => Format::Json,
        _ => Format::Text,
    }
}

/// JSON without lone surrogates. Positions stay the same.
fn mended(json: &str) -> std::borrow::Cow<'_, str> {
    match mend_surrogates(json.as_bytes()).map(String::from_utf8) {
        Some(Ok(mended)) => mended.into(),
        Some(Err(_)) | None => json.into(),
    }
}

/// An error with its line.
type Wrong = (usize, String);

fn add_json(input: &mut Found, args: &InputArgs, path: &Path, text: &str) -> Result<(), Wrong> {
    let text = mended(text);
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Once>();
    let (mut line, mut counted) = (1, 0);
    loop {
        let rest = &text[counted..];
        let start = counted + (rest.len() - rest.trim_start().len());
        line += text[counted..start].matches('\n').count();
        counted = start;
        let Some(value) = values.next() else {
            return Ok(());
        };
        let value = value.map_err(|error| {
            let told = error.to_string();
            let reason = told.split(" at line ").next().unwrap_or_default();
            (error.line(), format!("it is not JSON: {reason}; {FORMATS}"))
        })?;
        let at = |reason| (line, reason);
        if let Some(name) = value.twice {
            return Err(at(format!("\"{name}\" stands twice in one object")));
        }
        match value.value {
            Value::Array(documents) => {
                for (i, value) in documents.into_iter().enumerate() {
                    let document = document(value, args);
                    input.add(document.map_err(|e| at(format!("document {i}: {e}")))?);
                }
            }
            Value::Object(body) if is_body(&body, args) => {
                add_body(input, args, path, body).map_err(at)?;
            }
            document => input.add(self::document(document, args).map_err(at)?),
        }
        let end = values.byte_offset();
        line += text[counted..end].matches('\n').count();
        counted = end;
    }
}

const DOCUMENTS: [&str; 2] = ["documents", "texts"];

fn is_body(object: &Map<String, Value>, args: &InputArgs) -> bool {
    let holds = |name: &str| object.get(name).is_some_and(Value::is_array);
    !object.contains_key(&args.text_field) && DOCUMENTS.into_iter().any(holds)
}

/// Of a body's documents the server's rules say later what is ranked.
fn add_body(
    input: &mut Found,
    args: &InputArgs,
    path: &Path,
    mut body: Map<String, Value>,
) -> Result<(), String> {
    if body.get("query").is_some_and(|query| !query.is_string()) {
        return Err("\"query\" must be a string".into());
    }
    let sent: Vec<Value> = DOCUMENTS
        .into_iter()
        .filter_map(|name| body.remove(name))
        .collect();
    let [Value::Array(documents)] = &sent[..] else {
        return Err("send \"documents\" or \"texts\", not both".into());
    };
    for (i, document) in documents.iter().enumerate() {
        let id = match document {
            Value::String(_) => None,
            Value::Object(fields) => id(fields, args).map_err(|e| format!("document {i}: {e}"))?,
            other => return Err(format!("document {i}: {}", no_document(other))),
        };
        input.documents.push((id, document.clone()));
    }
    let (_, all) = input
        .body
        .get_or_insert_with(|| (data_file::name(path), Map::new()));
    for (name, value) in body {
        if all.contains_key(&name) {
            return Err(format!(
                "there is a second \"{name}\", but only one request can be answered at a time"
            ));
        }
        all.insert(name, value);
    }
    Ok(())
}

fn no_document(found: &Value) -> String {
    format!("a document must be a string or an object, not {found:.40}; {FORMATS}")
}

/// What names a document in the ranking.
fn id(fields: &Map<String, Value>, args: &InputArgs) -> Result<Option<String>, String> {
    let id = match &args.id_field {
        Some(name) => Some(
            fields
                .get(name)
                .ok_or_else(|| format!("there is no field \"{name}\" (--id-field)"))?,
        ),
        None => fields.get("_id").or(fields.get("id")),
    };
    let id = id.filter(|id| !id.is_null());
    Ok(id.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)))
}

/// A string, or an object with a text.
fn document(value: Value, args: &InputArgs) -> Result<Document, String> {
    let mut fields = match value {
        Value::String(text) => return Ok((None, text)),
        Value::Object(fields) => fields,
        other => return Err(no_document(&other)),
    };
    let id = id(&fields, args)?;
    let title = match fields.get("title") {
        Some(Value::String(title)) => title.clone(),
        Some(title @ (Value::Number(_) | Value::Bool(_))) => title.to_string(),
        _ => String::new(),
    };
    let title = match title.is_empty() || args.text_field == "title" {
        true => String::new(),
        false => title + " ",
    };
    match fields.remove(&args.text_field) {
        Some(Value::String(text)) => Ok((id, title + &text)),
        Some(_) => Err(format!("\"{}\" is not a string", args.text_field)),
        None => Err(no_text("field", fields.keys().map(String::as_str), args)),
    }
}

fn no_text<'a>(what: &str, names: impl Iterator<Item = &'a str>, args: &InputArgs) -> String {
    let names: Vec<String> = names.take(12).map(|name| format!("\"{name}\"")).collect();
    let names = if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    };
    format!(
        "there is no {what} \"{}\" (there is {names}); --text-field names the one with the text",
        args.text_field
    )
}

fn add_table(input: &mut Found, args: &InputArgs, text: &str, delimiter: u8) -> Result<(), Wrong> {
    if let Some(line) = unclosed_quote(text).filter(|_| delimiter != b'\t') {
        return Err((line, format!("a quotation mark is not closed; {FORMATS}")));
    }
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(delimiter != b'\t')
        .trim(csv::Trim::Headers)
        .from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| bad_row(&e))?.clone();
    if header.is_empty() {
        return Ok(());
    }
    let column = |name: &str| header.iter().position(|column| column == name);
    let Some(text_column) = column(&args.text_field) else {
        return Err((1, no_text("column", header.iter(), args)));
    };
    let id_column = match &args.id_field {
        Some(name) => Some(
            column(name)
                .ok_or_else(|| (1, format!("there is no column \"{name}\" (--id-field)")))?,
        ),
        None => column("_id").or(column("id")),
    };
    let title_column = column("title").filter(|&title| title != text_column);
    for row in reader.records() {
        let row = row.map_err(|e| bad_row(&e))?;
        let field = |column: Option<usize>| row.get(column?).filter(|field| !field.is_empty());
        let title = field(title_column).map_or(String::new(), |title| format!("{title} "));
        input.add((
            field(id_column).map(str::to_owned),
            title + &row[text_column],
        ));
    }
    Ok(())
}

/// The line of the quotation mark that opens a field of CSV which nothing closes: the rest of the file
/// would be one field.
fn unclosed_quote(text: &str) -> Option<usize> {
    let (mut line, mut opened, mut may_open) = (1, None, true);
    for byte in text.bytes() {
        let was_open = opened.is_some();
        if byte == b'"' && (was_open || may_open) {
            opened = (!was_open).then_some(line);
        }
        // A second mark after a closing one opens again.
        may_open = matches!(byte, b',' | b'\n' | b'\r') || (byte == b'"' && was_open);
        line += usize::from(byte == b'\n');
    }
    opened
}

fn bad_row(error: &csv::Error) -> Wrong {
    let line = error.position().map_or(1, csv::Position::line) as usize;
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("the row has {len} fields, but the header has {expected_len}; {FORMATS}")
        }
        _ => error.to_string(),
    };
    (line, reason)
}

#[cfg(test)]
mod tests;
