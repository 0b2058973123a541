//! What is asked of the documents: by a request's body among the files as the server reads it, and by the flags.

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value};

use super::super::Usage;
use super::InputArgs;
use crate::http;
use crate::rerank::{Ask, Queries};

/// The files' contents, before it is known what of a body's documents is ranked.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What bodies say but for their documents, and the first one's file.
    pub(super) body: Option<(String, Map<String, Value>)>,
    /// Each document's id, and the document: a text, or an object in a body.
    pub(super) documents: Vec<(Option<String>, Value)>,
}

/// What is asked of the documents of all files.
#[derive(Debug)]
pub(in crate::cli) struct Input {
    /// With their texts, in their order.
    pub(in crate::cli) ask: Ask,
    /// Their ids.
    pub(in crate::cli) ids: Vec<Option<String>>,
    /// Whether a request's body is among the files.
    pub(in crate::cli) is_request: bool,
    /// What of it is not read, in sentences.
    pub(in crate::cli) notes: Vec<String>,
}

impl Found {
    /// The documents with the query, the flag's or else the body's.
    pub(super) fn input(self, query: Option<&str>, args: &InputArgs) -> Result<Input> {
        let (ids, documents): (Vec<_>, Vec<Value>) = self.documents.into_iter().unzip();
        let no_query =
            "--query is missing, and no file holds a request's body with a \"query\"".to_owned();
        let Some((file, mut body)) = self.body else {
            let texts = documents.into_iter().map(|document| match document {
                Value::String(text) => text,
                other => other.to_string(),
            });
            let documents = texts.collect();
            let query = query.ok_or(Usage(no_query))?.to_owned();
            return Ok(Input {
                ask: Ask {
                    queries: Queries::One(query),
                    documents,
                    ..Ask::default()
                },
                ids,
                is_request: false,
                notes: Vec::new(),
            });
        };
        if let Some(query) = query {
            body.remove("queries");
            body.remove("combine");
            body.insert("query".into(), query.into());
        }
        if ["query", "queries"]
            .iter()
            .all(|name| body.get(*name).is_none_or(Value::is_null))
        {
            bail!(Usage(no_query));
        }
        if args.text_field != InputArgs::default().text_field {
            body.insert("rank_fields".into(), vec![args.text_field.as_str()].into());
        }
        body.insert("documents".into(), documents.into());
        let (mut ask, ignored) = http::ask_of_body(Value::Object(body).to_string().into_bytes())
            .map_err(|reason| anyhow!("{file}: {reason}"))?;
        let mut notes = Vec::new();
        if let Some(model) = ask.model.take() {
            notes.push(format!(
                "{file}: \"model\" (\"{model}\") is not read here; --model names the model"
            ));
        }
        if let Some(ignored) = ignored {
            notes.push(format!(
                "{file}: not read, since no such field is known: {ignored}"
            ));
        }
        Ok(Input {
            ask,
            ids,
            is_request: true,
            notes,
        })
    }
}
