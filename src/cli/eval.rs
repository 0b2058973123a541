//! `rerankd eval`: how well a model, or a run file, ranks a judged collection's candidates.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{ModelArgs, number, output};
use crate::app::Loaded;
use crate::config::Override;
use crate::eval::{
    self, Collection, Curve, MEASURES, Measures, Run, best_reachable, interval, measure, ndcg,
    randomisation_test, ranking,
};
use crate::rerank::ScoreRequest;
use crate::types::Caller;

#[derive(Debug, Args)]
#[command(
    after_help = "The folder is in BEIR's format: corpus.jsonl, queries.jsonl, qrels.tsv (or \
    qrels/test.tsv), and candidates.jsonl with lines {\"query_id\", \"candidates\": [{\"doc_id\", \
    \"score\"}]}. Without candidates.jsonl BM25 finds the candidates.\n\nMeasures are trec_eval's; \
    intervals are 95 % bootstrap intervals over queries; models are compared by a paired \
    randomisation test.\n\nExamples:\n  \
    rerankd eval --data scifact\n  \
    rerankd eval --data scifact --model models/a --compare models/b\n  \
    rerankd eval --data scifact --run a.trec --compare b.trec"
)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The collection's folder.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Evaluate this run file in TREC's format in place of a model.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    run: Option<PathBuf>,
    /// Compare with this: a run file, or else a model.
    #[arg(long, value_name = "FILE|MODEL")]
    compare: Option<String>,
    /// How many candidates of each query are reranked.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = number::<100_000>)]
    depth: usize,
    /// Only the first N queries.
    #[arg(long, value_name = "N")]
    queries: Option<usize>,
    /// Where to write the run files, the measures (JSON) and the plot (SVG).
    #[arg(long, value_name = "DIR", default_value = "eval")]
    out: PathBuf,
}

/// What is evaluated: its name, its run, and how long a query took.
struct Ranked {
    name: String,
    run: Run,
    seconds: Option<f64>,
}

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    let collection = Collection::read(&args.data, args.depth, args.queries)?;
    let first = match &args.run {
        Some(path) => from_file(path)?,
        None => from_model(args, &collection, None)?,
    };
    let mut ranked = vec![first];
    if let Some(other) = &args.compare {
        let path = Path::new(other);
        ranked.push(if path.is_file() {
            from_file(path)?
        } else {
            from_model(args, &collection, Some(other))?
        });
        if let [a, b] = &mut ranked[..]
            && a.name == b.name
        {
            b.name.push_str(" (2)");
        }
    }
    report(args, &collection, &ranked)
}

fn from_file(path: &Path) -> Result<Ranked> {
    let name = path.file_stem().unwrap_or(path.as_os_str());
    Ok(Ranked {
        name: name.to_string_lossy().into_owned(),
        run: eval::read_run(path)?,
        seconds: None,
    })
}

fn from_model(args: &EvalArgs, collection: &Collection, model: Option<&str>) -> Result<Ranked> {
    let named: Vec<Override> = model.iter().map(|&m| ("model.id", m.into())).collect();
    let mut settings = args.model.without_server(named)?;
    settings.limits.max_documents = usize::MAX;
    let loaded = Loaded::load(&settings)?;
    super::runtime()?.block_on(async {
        let (served, _engine) = loaded.start(&settings)?;
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(collection.queries.len() as u64)
        } else {
            ProgressBar::hidden()
        };
        let style = format!(
            "{} {{bar:40}} {{pos}}/{{len}} queries, {{eta}} left",
            served.info.name
        );
        bar.set_style(ProgressStyle::with_template(&style)?);
        let mut run = Run::new();
        let mut spent = Duration::ZERO;
        for query in &collection.queries {
            bar.inc(1);
            if query.candidates.is_empty() {
                continue;
            }
            let request = ScoreRequest {
                queries: [query.text.as_str().into()].into(),
                documents: collection.texts(query).into(),
                // A sigmoid near 1 rounds different logits to the same score.
                raw_scores: true,
                fitting: None,
            };
            let start = Instant::now();
            let scoring = served.reranker.score(&request, &Caller::local()).await;
            let scoring = scoring.with_context(|| format!("query {}", query.id))?;
            spent += start.elapsed();
            let candidates = query.candidates.iter().zip(scoring.scores);
            let scored = candidates.map(|((id, _), score)| (id.clone(), score.get()));
            run.insert(query.id.clone(), scored.collect());
        }
        bar.finish_and_clear();
        Ok(Ranked {
            name: served.info.name.clone(),
            seconds: Some(spent.as_secs_f64() / collection.queries.len() as f64),
            run,
        })
    })
}

/// Each query's measures, in the collection's order.
fn measures<'a>(
    collection: &'a Collection,
    of: impl Fn(&'a eval::Query) -> Measures,
) -> Vec<Measures> {
    collection.queries.iter().map(of).collect()
}

fn column(measures: &[Measures], i: usize) -> Vec<f64> {
    measures.iter().map(|m| m[i]).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn report(args: &EvalArgs, collection: &Collection, ranked: &[Ranked]) -> Result<()> {
    let judged = |query: &eval::Query| &collection.judgements[&query.id];
    let own = measures(collection, |q| measure(&ranking(&q.candidates), judged(q)));
    let best = measures(collection, |q| {
        let candidates: Vec<&str> = q.candidates.iter().map(|(id, _)| id.as_str()).collect();
        best_reachable(&candidates, judged(q))
    });
    let of_run = |run: &Run| -> Vec<Measures> {
        measures(collection, |q| {
            let scored = run.get(&q.id).map_or(&[][..], Vec::as_slice);
            measure(&ranking(scored), judged(q))
        })
    };
    let mut rows = vec![("candidates".to_owned(), own)];
    rows.extend(ranked.iter().map(|r| (r.name.clone(), of_run(&r.run))));
    rows.push(("best reachable".to_owned(), best));

    let source = if collection.own_candidates {
        "BM25's"
    } else {
        "from candidates.jsonl"
    };
    let mut text = format!(
        "{}: {} queries, up to {} candidates each, {source}\n\n",
        collection.name,
        collection.queries.len(),
        args.depth
    );
    let head = MEASURES.map(|name| format!("  {name:<22}")).concat();
    writeln!(text, "{:<24}{head}", "")?;
    let mut table = Vec::new();
    for (name, measures) in &rows {
        write!(text, "{name:<24}")?;
        let mut written = serde_json::Map::new();
        for (i, measure) in MEASURES.into_iter().enumerate() {
            let values = column(measures, i);
            let (mean, (low, high)) = (mean(&values), interval(&values));
            write!(text, "  {mean:.4} [{low:.4}, {high:.4}]")?;
            written.insert(
                measure.into(),
                json!({"mean": mean, "interval": [low, high]}),
            );
        }
        text.push('\n');
        let seconds = ranked.iter().find(|r| r.name == *name);
        let seconds = seconds.and_then(|r| r.seconds);
        table.push(json!({"name": name, "measures": written, "seconds_per_query": seconds}));
    }
    text.push('\n');
    for r in ranked {
        if let Some(seconds) = r.seconds {
            writeln!(text, "{}: {seconds:.3} seconds per query", r.name)?;
        }
    }
    let mut pairs: Vec<(usize, usize)> = (1..=ranked.len()).map(|i| (i, 0)).collect();
    if ranked.len() == 2 {
        pairs.push((2, 1));
    }
    let mut comparisons = Vec::new();
    for (a, b) in pairs {
        let differences: Vec<f64> = column(&rows[a].1, 0)
            .iter()
            .zip(column(&rows[b].1, 0))
            .map(|(a, b)| a - b)
            .collect();
        let (difference, p) = (mean(&differences), randomisation_test(&differences));
        let (a, b) = (&rows[a].0, &rows[b].0);
        writeln!(
            text,
            "{a} against {b}: nDCG@10 {difference:+.4}, p = {p:.4}"
        )?;
        comparisons.push(
            json!({"a": a, "b": b, "measure": MEASURES[0], "difference": difference, "p": p}),
        );
    }

    let folder = args.out.join(&collection.name);
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    for r in ranked.iter().filter(|r| r.seconds.is_some()) {
        let file = format!("{}.trec", r.name.replace(['/', ' '], "_"));
        eval::write_run(&folder.join(file), &r.run, &r.name)?;
    }
    let curves: Vec<Curve> = ranked
        .iter()
        .map(|r| curve(collection, r, args.depth))
        .collect();
    eval::depth_plot(&folder.join("depth.svg"), &collection.name, &curves)?;
    let written = json!({
        "collection": collection.name,
        "queries": collection.queries.len(),
        "depth": args.depth,
        "rows": table,
        "comparisons": comparisons,
        "depth_curves": curves.iter().map(|c| json!({"name": c.name, "points": c.points})).collect::<Vec<_>>(),
    });
    let path = folder.join("measures.json");
    std::fs::write(&path, serde_json::to_string_pretty(&written)? + "\n")
        .with_context(|| format!("can't write {}", path.display()))?;
    writeln!(text, "\nwritten to {}", folder.display())?;
    // Last, so that the files are there whoever reads this.
    Ok(output::print(&text)?)
}

/// Mean nDCG@10 where only the first candidates are reranked, by how many; the rest stay below them
/// in their own order.
fn curve(collection: &Collection, ranked: &Ranked, deepest: usize) -> Curve {
    let steps = [
        0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000,
    ];
    let mut depths: Vec<usize> = steps.into_iter().filter(|&d| d < deepest).collect();
    depths.push(deepest);
    let points = depths.into_iter().map(|depth| {
        let values = collection.queries.iter().map(|query| {
            let scored = ranked.run.get(&query.id).map_or(&[][..], Vec::as_slice);
            let by_run = ranking(scored);
            let own = ranking(&query.candidates);
            let (top, rest) = own.split_at(depth.min(own.len()));
            let mut order: Vec<&str> = by_run.into_iter().filter(|id| top.contains(id)).collect();
            order.extend(rest);
            ndcg(&order, &collection.judgements[&query.id])
        });
        (depth, mean(&values.collect::<Vec<f64>>()))
    });
    Curve {
        name: ranked.name.clone(),
        points: points.collect(),
    }
}
