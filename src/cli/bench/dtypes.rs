//! `rerankd bench --dtypes`: what each type of weights costs and changes, measured beside f32.
//!
//! Each type is loaded beside f32, and both score every query one right after the other, so that what else the machine
//! does meets both alike: the ratio of their times says more than either.

mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::{ModelArgs, Usage, number, output, runtime};
use super::median;
use crate::app::{self, Loaded};
use crate::config::{DEFAULTS, Settings};
use crate::engine::{self, Device, ModelFiles, Weights};
use crate::eval::{self, Collection, Qrels, agreement};
use crate::model_store;
use crate::rerank::{PairsAsk, Reranker};
use crate::schedule::Compute;
use crate::types::{Caller, Dtype};
pub(super) use rows::RULE;
use rows::{Row, choose, table};

#[derive(Debug, Args)]
pub(super) struct DtypesArgs {
    /// Folder of a judged collection, as `rerankd eval --data` takes it.
    #[arg(long, value_name = "DIR", requires = "dtypes")]
    data: Option<PathBuf>,
    /// Number of judged queries to use of it.
    #[arg(long, value_name = "N", default_value_t = 50, requires = "data",
        value_parser = number::<1_000_000_000>)]
    queries: usize,
    /// Number of best candidates of each query to score.
    #[arg(long, value_name = "N", default_value_t = 50, requires = "data", value_parser = number::<1000>)]
    depth: usize,
    /// Output format of --dtypes; a table if left out.
    #[arg(long, value_enum, requires = "dtypes")]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Questions about this program's own settings, whose comments are ranked where no collection is given.
const QUESTIONS: [&str; 8] = [
    "how long may a request take before it is cut off?",
    "how much memory may the models take together?",
    "what is done with a document that is longer than the model can read?",
    "on which port does the server listen?",
    "what happens when more requests come than can be answered?",
    "where do the keys of callers come from?",
    "how many threads does the engine use?",
    "are scores of pairs kept that were asked for before?",
];

/// A query with its documents.
struct Task {
    /// In a collection.
    id: String,
    query: Arc<str>,
    documents: Arc<[String]>,
    /// Of the documents.
    ids: Vec<String>,
}

/// A model with its weights kept in one type, ready to score.
struct System {
    reranker: Reranker,
    _compute: Compute,
    weight_bytes: usize,
    ready_seconds: f64,
}

pub(super) fn run(model: &ModelArgs, args: &DtypesArgs) -> Result<()> {
    let mut settings = model.without_server(Vec::new())?;
    // A second scoring would find what the first one left there.
    settings.cache.scores_mb = 0;
    let device = Device::new(&settings.engine())?;
    let (Some(threads), Some(instructions)) = (device.threads(), device.instructions()) else {
        let device = device.name();
        return Err(Usage(format!(
            "--dtypes compares types on a CPU; on {device} there is f32 only"
        ))
        .into());
    };
    let collection = args.data.as_deref().map(|data| read(data, args));
    let collection = collection.transpose()?;
    let tasks = match &collection {
        Some(collection) => of_collection(collection),
        None => of_settings(),
    };
    let pairs: usize = tasks.iter().map(|task| task.documents.len()).sum();
    let files = model_store::resolve(&settings.model_store())?;
    if model_store::usage(&files, settings.activation())?
        .vectors
        .is_some()
    {
        settings.model.vector_cache_mb = 0;
    }
    read_through(&files)?;
    let (rows, failed) =
        runtime()?.block_on(measure(&settings, &tasks, pairs, collection.as_ref()))?;
    let chosen = choose(&rows);
    let of = match &collection {
        Some(collection) => format!(
            "{} queries of {} x their best candidates",
            tasks.len(),
            collection.name
        ),
        None => format!("{} questions x the settings' comments", tasks.len()),
    };
    let auto = settings.dtype();
    let auto = auto.unwrap_or_else(|| engine::suits(&files, &device).dtype);
    let text = match args.format.unwrap_or(Format::Table) {
        Format::Table => {
            let mut text = format!(
                "model {}, {threads} threads ({instructions}), {of}: {pairs} pairs\n\n{}\n",
                settings.name(),
                table(&rows)
            );
            for (dtype, reason) in &failed {
                text += &format!("{}: {reason}\n", dtype.name());
            }
            text + &format!(
                "choice: {} ({RULE}); --dtype auto is {}\n",
                chosen.name(),
                auto.name()
            )
        }
        Format::Json => {
            let failed = failed.iter();
            let failed = failed.map(|(d, reason)| json!({"dtype": d.name(), "error": reason}));
            let dtypes: Vec<Value> = rows
                .iter()
                .map(|r| r.json(&rows[0]))
                .chain(failed)
                .collect();
            let value = json!({
                "model": settings.name(),
                "revision": files.revision,
                "threads": threads,
                "instructions": instructions,
                "data": collection.as_ref().map(|c| &c.name),
                "queries": tasks.len(),
                "pairs": pairs,
                "dtypes": dtypes,
                "choice": chosen.name(),
                "rule": RULE,
                "auto": auto.name(),
            });
            format!("{value:#}\n")
        }
    };
    Ok(output::print(&text)?)
}

fn read(data: &Path, args: &DtypesArgs) -> Result<Collection> {
    let mut collection = Collection::read(data, Qrels::Default, Some(args.queries))?;
    collection.find_candidates(None, args.depth)?;
    for warning in &collection.warnings {
        output::note(&format!("warning: {warning}"));
    }
    Ok(collection)
}

fn of_collection(collection: &Collection) -> Vec<Task> {
    let queries = collection.queries.iter();
    let queries = queries.filter(|query| !query.candidates.is_empty());
    let task = |query: &eval::Query| Task {
        id: query.id.clone(),
        query: query.text.as_str().into(),
        documents: collection.texts(query).into(),
        ids: query.candidates.iter().map(|(id, _)| id.clone()).collect(),
    };
    queries.map(task).collect()
}

/// The comments of this program's settings, each as one document.
fn of_settings() -> Vec<Task> {
    let mut comments = vec![String::new()];
    for line in DEFAULTS.lines() {
        match (line.strip_prefix("# "), comments.last_mut()) {
            (Some(words), Some(comment)) if comment.is_empty() => *comment += words,
            (Some(words), Some(comment)) => *comment = format!("{comment} {words}"),
            (None, _) => comments.push(String::new()),
            (Some(_), None) => {}
        }
    }
    comments.retain(|comment| comment.split_whitespace().count() >= 8);
    let documents: Arc<[String]> = comments.into();
    let ids: Vec<String> = (0..documents.len()).map(|i| i.to_string()).collect();
    let task = |query: &str| Task {
        id: query.to_owned(),
        query: query.into(),
        documents: Arc::clone(&documents),
        ids: ids.clone(),
    };
    QUESTIONS.map(task).into()
}

/// Reads the files of the weights once, or the first type would wait for the disk and the others not.
fn read_through(files: &ModelFiles) -> Result<()> {
    if let Weights::Safetensors(paths) | Weights::Pytorch(paths) = &files.weights {
        for path in paths {
            let copied = std::fs::File::open(path)
                .and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()));
            copied.with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Scores everything in each type, beside f32; also says which types the model can't be kept in, and why.
async fn measure(
    settings: &Settings,
    tasks: &[Task],
    pairs: usize,
    collection: Option<&Collection>,
) -> Result<(Vec<Row>, Vec<(Dtype, String)>)> {
    let load = |dtype| tokio::task::block_in_place(|| System::load(settings, dtype));
    let exact = load(Dtype::F32)?;
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    let mut exact_rates = Vec::new();
    let mut exact_scores = Vec::new();
    let row = |system: &System, dtype, scores: &[Vec<f32>], exact: &[Vec<f32>]| {
        let agreements = exact.iter().zip(scores);
        Row {
            dtype,
            pairs_per_second: 0.0,
            speed: 1.0,
            weight_bytes: system.weight_bytes,
            ready_seconds: system.ready_seconds,
            agreements: agreements.map(|(e, s)| agreement(e, s)).collect(),
            ndcg: collection.map(|c| ndcg(c, tasks, scores)),
        }
    };
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::Int8] {
        let system = match load(dtype) {
            Ok(system) => system,
            // Of the two, whose range is shorter than f32's.
            Err(error) if dtype != Dtype::Bf16 => {
                failed.push((dtype, format!("{error:#}")));
                continue;
            }
            Err(error) => return Err(error),
        };
        let bar = output::progress(tasks.len(), &format!("queries in f32 and {}", dtype.name()));
        let (mut all, mut times) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for (i, task) in tasks.iter().enumerate() {
            // Each is first as often as the other.
            for which in [i % 2, (i + 1) % 2] {
                let system = [&exact, &system][which];
                let start = Instant::now();
                all[which].push(system.score(task).await?);
                times[which].push(start.elapsed().as_secs_f64());
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let [of_exact, of_type] = &times;
        let mut ratios: Vec<f64> = of_exact.iter().zip(of_type).map(|(e, t)| e / t).collect();
        let rate = |times: &[f64]| pairs as f64 / times.iter().sum::<f64>();
        let [scores_of_exact, scores] = all;
        rows.push(Row {
            pairs_per_second: rate(of_type),
            speed: median(&mut ratios),
            ..row(&system, dtype, &scores, &scores_of_exact)
        });
        exact_rates.push(rate(of_exact));
        exact_scores = scores_of_exact;
    }
    let first = Row {
        pairs_per_second: median(&mut exact_rates),
        ..row(&exact, Dtype::F32, &exact_scores, &exact_scores)
    };
    rows.insert(0, first);
    Ok((rows, failed))
}

impl System {
    fn load(settings: &Settings, dtype: Dtype) -> Result<Self> {
        output::note(&format!("loading the model in {}", dtype.name()));
        let mut settings = settings.clone();
        settings.engine.dtype = dtype.into();
        let start = Instant::now();
        let loaded = match dtype {
            // The first one.
            Dtype::F32 => Loaded::load(&settings),
            _ => Loaded::load_again(&settings),
        }?;
        let ready_seconds = start.elapsed().as_secs_f64();
        let weight_bytes = loaded.model.weight_bytes();
        let (served, compute) = loaded.start(&settings)?;
        let reranker = app::reranker(&settings);
        reranker.models().add(Arc::new(served));
        Ok(Self {
            reranker,
            _compute: compute,
            weight_bytes,
            ready_seconds,
        })
    }

    async fn score(&self, task: &Task) -> Result<Vec<f32>> {
        let ask = PairsAsk {
            queries: [Arc::clone(&task.query)].into(),
            documents: Arc::clone(&task.documents),
            raw_scores: true,
            ..PairsAsk::default()
        };
        let answer = self.reranker.score(&ask, &Caller::local()).await;
        let answer = answer.with_context(|| format!("query {}", task.id))?;
        Ok(answer.raw.into_iter().map(|score| score.get()).collect())
    }
}

/// nDCG@10 in the mean; a query without candidates counts as 0.
fn ndcg(collection: &Collection, tasks: &[Task], scores: &[Vec<f32>]) -> f64 {
    let each = tasks.iter().zip(scores).map(|(task, scores)| {
        let ids = task.ids.iter().cloned();
        let scored: Vec<(String, f32)> = ids.zip(scores.iter().copied()).collect();
        eval::ndcg(&eval::ranking(&scored), &collection.judgements[&task.id])
    });
    each.sum::<f64>() / collection.queries.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_comments_are_documents() {
        let tasks = of_settings();
        assert_eq!(tasks.len(), QUESTIONS.len());
        let documents = &tasks[0].documents;
        assert!(documents.len() > 50, "{}", documents.len());
        assert!(
            documents
                .iter()
                .any(|d| d.starts_with("Number of threads on a CPU"))
        );
    }
}
