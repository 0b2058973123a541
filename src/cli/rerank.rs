//! `rerankd rerank`: ranks files' documents without a server.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::documents::{self, Input, InputArgs};
use super::{ModelArgs, Usage, number, output};
use crate::app::{self, Loaded};
use crate::models::Served;
use crate::rerank::{Ask, Joined, Part, Queries, RerankError, Reranker, Unexplained};
use crate::types::{Caller, Ranked};

/// Number of documents per request to the engine: few enough for a progress bar that moves.
const CHUNK: usize = 64;

#[derive(Debug, Args)]
#[command(after_help = format!("{}\n\n{EXAMPLES}", documents::HELP))]
pub(super) struct RerankArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The query; if left out, the one in a request's body among the files.
    #[arg(long, short)]
    query: Option<String>,
    /// Files of documents, ranked together; - is standard input.
    #[arg(long, short, value_name = "FILE", num_args = 1.., default_value = "-")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    input: InputArgs,
    /// Number of best documents to print; all if left out.
    #[arg(long, short = 'n', value_name = "N", value_parser = number::<1_000_000_000>)]
    top_n: Option<usize>,
    /// Print logits instead of scores.
    #[arg(long)]
    raw_scores: bool,
    /// Say of the best documents (limits.max_explained: 10) which sentences and words their scores come from.
    #[arg(long)]
    explain: bool,
    /// Output format: a table with four digits, or JSON with whole texts and all digits.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  rerankd rerank -q 'what is a vegetable?' -f passages.jsonl -n 3
  rerankd rerank -q 'late delivery' -f tickets.csv --text-field body --id-field ticket
  rerankd rerank -f request.json --format json
  grep -rh timeout logs/ | rerankd rerank -q 'why did the job fail?' --input-format text | head";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What was found.
struct Ranking {
    model: String,
    /// Best first; an index is a document's place in the input.
    ranked: Vec<Ranked>,
    /// The parts of the first of them.
    explanations: Vec<Vec<Part>>,
}

pub(super) fn run(args: &RerankArgs) -> Result<()> {
    let settings = args.model.without_server(vec![])?;
    if args.query.as_deref() == Some("") {
        return Err(Usage("--query is empty".into()).into());
    }
    let mut input = documents::read(&args.file, &args.input, args.query.as_deref())?;
    input.notes.iter().for_each(|note| output::note(note));
    let ask = &mut input.ask;
    ask.raw_scores |= args.raw_scores;
    ask.top_n = args.top_n.or(ask.top_n);
    // Of which documents is known once they are ranked.
    let is_explained = std::mem::take(&mut ask.explain) || args.explain;
    let loaded = Loaded::load(&settings)?;
    super::runtime()?.block_on(async {
        let (served, _engine) = loaded.start(&settings)?;
        let (served, reranker) = (Arc::new(served), app::reranker(&settings));
        reranker.models().add(Arc::clone(&served));
        let (ranked, truncated) = rank(&reranker, &input).await?;
        if truncated > 0 {
            output::note(&match input.is_request {
                false => cut(truncated, input.ids.len(), &served),
                true => format!(
                    "{truncated} of {} documents were too long and were not read whole; the request's \
                     \"max_chunks_per_doc\" sets in how many windows",
                    input.ids.len()
                ),
            });
        }
        let explanations = match is_explained && !ranked.is_empty() {
            true => explain(&reranker, &input.ask, &ranked).await?,
            false => Vec::new(),
        };
        let ranking = Ranking {
            model: served.info().name.clone(),
            ranked,
            explanations,
        };
        let text = render(args.format, &input, &ranking);
        Ok(output::print(&text)?)
    })
}

/// The ranking, and how many documents were cut. A request's is the server's; others are asked for a few documents at a
/// time.
async fn rank(reranker: &Reranker, input: &Input) -> Result<(Vec<Ranked>, usize)> {
    let (ask, count) = (&input.ask, input.ids.len());
    if input.is_request {
        let answer = reranker.rerank(ask, &Caller::local()).await?;
        if answer.instruction_ignored {
            output::note("the model takes no instruction: the request's has no effect");
        }
        if answer.first_stage_ignored {
            output::note(
                "nothing says how to join the first stage's scores (\"fusion\"): they have no effect",
            );
        }
        return Ok((answer.ranked, answer.cost.truncated));
    }
    let bar = output::progress(count, "documents");
    let mut ranked = Vec::with_capacity(count);
    let mut truncated = 0;
    for (chunk, documents) in ask.documents.chunks(CHUNK).enumerate() {
        let ask = Ask {
            documents: documents.into(),
            top_n: None,
            ..ask.clone()
        };
        let answer = reranker.rerank(&ask, &Caller::local()).await?;
        truncated += answer.cost.truncated;
        ranked.extend(answer.ranked.into_iter().map(|r| Ranked {
            index: chunk * CHUNK + r.index,
            ..r
        }));
        bar.inc(documents.len() as u64);
    }
    bar.finish_and_clear();
    ranked.sort_by_key(|r| (std::cmp::Reverse(r.raw), r.index));
    ranked.truncate(ask.top_n.unwrap_or(usize::MAX));
    Ok((ranked, truncated))
}

/// The parts of the best documents, which are asked for once it is known which these are.
async fn explain(reranker: &Reranker, ask: &Ask, ranked: &[Ranked]) -> Result<Vec<Vec<Part>>> {
    let best = ranked.iter().take(reranker.limits().max_explained.max(1));
    let best: Vec<usize> = best.map(|r| r.index).collect();
    let ask = Ask {
        documents: best.iter().map(|&i| ask.documents[i].clone()).collect(),
        first_stage: None,
        fusion: Joined::Off,
        min_score: None,
        top_n: None,
        explain: true,
        ..ask.clone()
    };
    let answer = reranker.rerank(&ask, &Caller::local()).await;
    let answer = answer.map_err(|error| match error {
        RerankError::Unexplained(Unexplained::TooLong { document, bytes }) => {
            let document = best.get(document).copied().unwrap_or(document);
            Unexplained::TooLong { document, bytes }.into()
        }
        other => other,
    })?;
    let mut explanations = vec![Vec::new(); best.len()];
    for (ranked, parts) in answer.ranked.iter().zip(answer.explanations) {
        explanations[ranked.index] = parts;
    }
    Ok(explanations)
}

/// The note about truncated documents.
pub(super) fn cut(truncated: usize, documents: usize, served: &Served) -> String {
    let (tokens, windows) = (served.max_input_tokens(), served.options().fit.windows.max);
    let read = match windows {
        0 | 1 => format!("the model reads {tokens} tokens of query and document"),
        n => format!("the model reads {n} windows of {tokens} tokens"),
    };
    format!(
        "{truncated} of {documents} documents were too long and were not read whole: {read}; \
         --max-chunks-per-doc sets in how many windows"
    )
}

fn render(format: Format, input: &Input, ranking: &Ranking) -> String {
    let (documents, ids) = (&input.ask.documents, &input.ids);
    let Ranking {
        model,
        ranked,
        explanations,
    } = ranking;
    match format {
        Format::Json => {
            let results = ranked.iter().enumerate().map(|(place, r)| {
                let mut result = serde_json::json!({
                    "index": r.index,
                    "id": ids[r.index],
                    "relevance_score": digits(r.score.get()),
                    "text": documents[r.index],
                });
                if let Some(parts) = explanations.get(place) {
                    result["explanation"] = parts.iter().map(json).collect();
                }
                result
            });
            let results: Vec<_> = results.collect();
            let (asked, query) = match &input.ask.queries {
                Queries::One(query) => ("query", query.as_str().into()),
                Queries::Several { queries, .. } => ("queries", serde_json::json!(queries)),
            };
            let answer = serde_json::json!({asked: query, "model": model, "results": results});
            format!("{answer}\n")
        }
        Format::Table => {
            let head = format!("{:>4}  {:>9}  {:<12}  text\n", "rank", "score", "document");
            let rows = ranked.iter().enumerate().map(|(place, r)| {
                let name = ids[r.index].as_deref().map(printable);
                let name = name.unwrap_or_else(|| r.index.to_string());
                let (place, score) = (place + 1, r.score.get());
                let text = snippet(&documents[r.index]);
                let parts = explanations.get(place - 1).into_iter().flatten();
                let parts: String = parts.map(lines).collect();
                format!("{place:>4}  {score:>9.4}  {name:<12}  {text}\n{parts}")
            });
            std::iter::once(head).chain(rows).collect()
        }
    }
}

/// A number as the server writes it, without the digits of a wider type.
fn digits(number: f32) -> Option<f64> {
    number.to_string().parse().ok()
}

/// A part of a document as JSON.
fn json(part: &Part) -> serde_json::Value {
    let mut json = serde_json::json!({"text": part.text, "weight": digits(part.weight)});
    if let Some(words) = &part.words {
        let words = words.iter();
        let words = words.map(|w| serde_json::json!({"text": w.text, "weight": digits(w.weight)}));
        json["words"] = words.collect();
    }
    json
}

/// A part of a document as a line of the table, and one for its words.
fn lines(part: &Part) -> String {
    let line = |weight: f32, text: &str| format!("{weight:>+31.2}  {}\n", snippet(text));
    let words = part.words.iter().map(|words| {
        let words = words.iter();
        let words = words.map(|w| format!("{} {:+.2}", printable(&w.text), w.weight));
        let words: Vec<String> = words.collect();
        format!("{:>33}{}\n", "", words.join(" | "))
    });
    line(part.weight, &part.text) + &words.collect::<String>()
}

/// A text on one line. Control characters, with which a document could drive the terminal, become U+FFFD.
fn printable(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    words.join(" ").chars().map(shown).collect()
}

/// The first words of a text, on one line.
fn snippet(text: &str) -> String {
    const WIDTH: usize = 90;
    let line = printable(text);
    if line.chars().count() <= WIDTH {
        return line;
    }
    line.chars().take(WIDTH - 1).chain(['…']).collect()
}
