//! `rerankd rerank`: ranks a file's documents without a server.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use super::{ModelArgs, output};
use crate::app::Loaded;
use crate::rerank::{RerankRequest, Reranker};
use crate::types::{Caller, Ranked};

/// Documents per request to the engine: often enough for a progress bar that moves.
const CHUNK: usize = 64;

#[derive(Debug, Args)]
pub(super) struct RerankArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The query.
    #[arg(long, short)]
    query: String,
    /// The documents, one a line: JSON objects with "text" (and "title", "_id" as in BEIR), JSON
    /// strings, or plain text; - reads standard input.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// How many of the best to print; all if left out.
    #[arg(long, short = 'n', value_name = "N")]
    top_n: Option<usize>,
    /// Logits instead of scores.
    #[arg(long)]
    raw_scores: bool,
    /// How to print the ranking.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug)]
pub(super) struct Document {
    id: Option<String>,
    pub(super) text: String,
}

pub(super) fn run(args: &RerankArgs) -> Result<()> {
    let settings = args.model.without_server(vec![])?;
    if args.query.is_empty() {
        bail!("--query is empty");
    }
    let documents = read_documents(&args.file)?;
    let loaded = Loaded::load(&settings)?;
    super::runtime()?.block_on(async {
        let (served, _engine) = loaded.start(&settings)?;
        let ranked = rank(&served.reranker, args, &documents).await?;
        let text = render(args, &served.info.name, &documents, &ranked);
        Ok(output::print(&text)?)
    })
}

async fn rank(
    reranker: &Reranker,
    args: &RerankArgs,
    documents: &[Document],
) -> Result<Vec<Ranked>> {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(documents.len() as u64)
    } else {
        ProgressBar::hidden()
    };
    let style = "{bar:40} {pos}/{len} documents, {eta} left";
    bar.set_style(ProgressStyle::with_template(style)?);
    let mut ranked = Vec::with_capacity(documents.len());
    for (chunk, documents) in documents.chunks(CHUNK).enumerate() {
        let request = RerankRequest {
            query: args.query.clone(),
            documents: documents
                .iter()
                .map(|d| d.text.clone())
                .collect::<Arc<[_]>>(),
            top_n: None,
            raw_scores: args.raw_scores,
            fitting: None,
        };
        let scored = reranker.rerank(&request, &Caller::local()).await?.ranked;
        ranked.extend(scored.into_iter().map(|r| Ranked {
            index: chunk * CHUNK + r.index,
            ..r
        }));
        bar.inc(documents.len() as u64);
    }
    bar.finish_and_clear();
    ranked.sort_by_key(|r| (std::cmp::Reverse(r.raw), r.index));
    ranked.truncate(args.top_n.unwrap_or(usize::MAX));
    Ok(ranked)
}

fn render(
    args: &RerankArgs,
    model: &str,
    documents: &[Document],
    ranked: &[Ranked],
) -> String {
    match args.format {
        Format::Json => {
            let results = ranked.iter().map(|r| {
                let document = &documents[r.index];
                serde_json::json!({
                    "index": r.index,
                    "id": document.id,
                    "relevance_score": r.score.get(),
                    "text": document.text,
                })
            });
            let results: Vec<_> = results.collect();
            let answer =
                serde_json::json!({"query": args.query, "model": model, "results": results});
            format!("{answer}\n")
        }
        Format::Table => {
            let head = format!("{:>4}  {:>9}  {:<12}  text\n", "rank", "score", "document");
            let rows = ranked.iter().enumerate().map(|(place, r)| {
                let document = &documents[r.index];
                let name = document.id.clone().unwrap_or_else(|| r.index.to_string());
                let (place, score) = (place + 1, r.score.get());
                let text = snippet(&document.text);
                format!("{place:>4}  {score:>9.4}  {name:<12}  {text}\n")
            });
            std::iter::once(head).chain(rows).collect()
        }
    }
}

/// The first words of a text, on one line.
fn snippet(text: &str) -> String {
    const WIDTH: usize = 90;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= WIDTH {
        return line;
    }
    line.chars().take(WIDTH - 1).chain(['…']).collect()
}

pub(super) fn read_documents(path: &PathBuf) -> Result<Vec<Document>> {
    let name = path.display();
    let mut text = String::new();
    if path.as_os_str() == "-" {
        let mut stdin = std::io::stdin();
        if stdin.is_terminal() {
            output::note("reading documents from standard input, one a line; end with Ctrl-D");
        }
        stdin.read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("can't read {name}"))?;
    }
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty());
    let documents: Vec<Document> = lines
        .map(|(i, line)| {
            document(line).with_context(|| format!("{name}, line {}: bad document", i + 1))
        })
        .collect::<Result<_>>()?;
    if documents.is_empty() {
        bail!("{name} holds no documents");
    }
    Ok(documents)
}

/// One line: a JSON object or string, else plain text.
fn document(line: &str) -> Result<Document> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "expected a JSON string or an object with a string \"text\""
    )]
    enum Line {
        Text(String),
        Object {
            #[serde(alias = "id")]
            _id: Option<serde_json::Value>,
            title: Option<String>,
            text: String,
        },
    }
    if !line.starts_with(['{', '"']) {
        return Ok(Document {
            id: None,
            text: line.to_owned(),
        });
    }
    Ok(match serde_json::from_str(line)? {
        Line::Text(text) => Document { id: None, text },
        Line::Object { _id, title, text } => Document {
            id: _id.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)),
            text: match title.filter(|t| !t.is_empty()) {
                Some(title) => format!("{title} {text}"),
                None => text,
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_object_a_string_or_plain_text() {
        let beir = document(r#"{"_id": "d1", "title": "T", "text": "body"}"#).unwrap();
        assert_eq!(
            (beir.id.as_deref(), beir.text.as_str()),
            (Some("d1"), "T body")
        );
        assert_eq!(document(r#""quoted""#).unwrap().text, "quoted");
        assert_eq!(document("plain words").unwrap().text, "plain words");
        assert!(document(r#"{"body": "x"}"#).is_err());
    }
}
