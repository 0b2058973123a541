//! `rerankd eval`: how well a model, or a run file, ranks a judged collection's candidates.
//!
//! All that can be wrong with files, names and folders is found before anything is computed.

mod files;
mod fusion;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::{ModelArgs, number, output};
use crate::app::{self, Loaded};
use crate::config::{Override, Settings};
use crate::eval::{self, Collection, Qrels, Run};
use crate::model_store;
use crate::rerank::PairsAsk;
use crate::types::Caller;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The collection's folder.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Judgements qrels/NAME.tsv; if left out, qrels/test.tsv, else qrels.tsv.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// File of judgements outside of the collection's folder.
    #[arg(long, value_name = "FILE", conflicts_with = "split")]
    qrels: Option<PathBuf>,
    /// File of candidates to rerank: a run in TREC's format, or lines as in candidates.jsonl.
    #[arg(long, value_name = "FILE")]
    candidates: Option<PathBuf>,
    /// Run file in TREC's format to evaluate in place of a model.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    run: Option<PathBuf>,
    /// Run file or model to compare with.
    #[arg(long, value_name = "FILE|MODEL")]
    compare: Option<String>,
    /// Also measure each ranking's fusion with the candidates' scores; see below.
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = fusion::ALL,
        value_parser = fusion::parse)]
    fusion: Option<fusion::Fusions>,
    /// Number of best candidates of each query to rerank.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = number::<100_000>)]
    depth: usize,
    /// Evaluate only the first N judged queries.
    #[arg(long, value_name = "N", value_parser = number::<1_000_000_000>)]
    queries: Option<usize>,
    /// Output folder; the files go into a folder within it with the collection's name.
    #[arg(long, value_name = "DIR", default_value = "eval")]
    out: PathBuf,
    /// Overwrite the files of an earlier evaluation.
    #[arg(long)]
    force: bool,
}

const HELP: &str = "\
The collection's folder is in BEIR's format, each file plain or gzip (NAME.gz):
  corpus.jsonl      {\"_id\", \"title\", \"text\"}
  queries.jsonl     {\"_id\", \"text\"}
  qrels.tsv, or qrels/test.tsv, dev.tsv, ...: query, document, relevance; or TREC's query, 0,
                    document, relevance; divided by tabs or spaces, with or without a line of names
  candidates.jsonl  {\"query_id\", \"candidates\": [{\"doc_id\", \"score\"}]}; without it, and without
                    --candidates, BM25 finds them

Written are
  measures.json     means, 95 % bootstrap intervals over queries, paired randomisation tests, depth
                    curves; what was measured, on what, with which settings
  per_query.tsv     query, system, and each measure
  NAME.trec         each model's ranking, with its logits; where two are equal, one is a least step
                    lower
  depth.svg         nDCG@10 by how many candidates are reranked

--fusion joins each ranking with the candidates' scores (without scores, their order) and tests it against the \
ranking alone. WEIGHT is the candidates' share, from 0 to 1:
  --fusion weighted:WEIGHT  sum of both sides' scores, each scaled to 0..1 within the query, times
                            their shares; without WEIGHT 0.2
  --fusion rrf:K:WEIGHT     reciprocal rank fusion: sum of share / (K + rank); without WEIGHT 0.5,
                            which makes both sides equal, without K 60
  --fusion                  weighted:0.1, weighted:0.2, weighted:0.3, weighted:0.5 and rrf, each

Measures are trec_eval's, ties too: equal scores (in 32 bits) are ranked by document id, descending. A \
judged query without a ranking counts as 0. What doesn't fit together is an error or a warning, before \
anything is computed. Exit codes: 0 done, 1 failed, 2 wrong usage or settings.

Examples:
  rerankd eval --data scifact
  rerankd eval --data scifact --model models/a --compare models/b
  rerankd eval --data scifact --split dev --candidates splade.trec --depth 100
  rerankd eval --data scifact --fusion
  rerankd eval --data scifact --candidates splade.trec --fusion weighted:0.3
  rerankd eval --data scifact --run a.trec --compare b.trec --out other --force";

/// Name of the row for the candidates' own order.
const CANDIDATES: &str = "candidates";
/// Name of the row for the best possible order.
const BEST: &str = "best reachable";

/// A system to evaluate.
struct System {
    name: String,
    source: Source,
}

enum Source {
    Run(Run),
    Model(Box<Settings>),
}

/// An evaluated system: its name, its run, and for a model how it ran.
struct Ranked {
    name: String,
    run: Run,
    model: Option<Value>,
}

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    let qrels = match (&args.qrels, &args.split) {
        (Some(file), _) => Qrels::File(file),
        (None, Some(split)) => Qrels::Split(split),
        (None, None) => Qrels::Default,
    };
    let first = args.run.as_deref();
    let mut runs: Vec<&Path> = first.into_iter().collect();
    let compared = args.compare.as_deref().map(Path::new);
    runs.extend(compared.filter(|path| path.is_file()));
    // Settings first: they may be wrong, and they start the logs.
    let systems = systems(args)?;
    let names = systems
        .iter()
        .filter(|s| matches!(s.source, Source::Model(_)));
    let names: Vec<&str> = names.map(|s| s.name.as_str()).collect();
    let files = files::Files::new(&args.out, &args.data, &names);
    let inputs: Vec<&Path> = runs
        .iter()
        .copied()
        .chain(args.candidates.as_deref())
        .collect();
    files.check(&inputs, args.force)?;

    let mut collection = Collection::read(&args.data, qrels, args.queries)?;
    let read = systems.iter().filter_map(|s| match &s.source {
        Source::Run(run) => Some(run),
        Source::Model(_) => None,
    });
    for (path, run) in runs.into_iter().zip(read) {
        collection.check_run(path, run)?;
    }
    collection.find_candidates(args.candidates.as_deref(), args.depth)?;
    for warning in &collection.warnings {
        output::note(&format!("warning: {warning}"));
    }

    files.make_folder()?;
    let mut ranked = Vec::with_capacity(systems.len());
    for System { name, source } in systems {
        ranked.push(match source {
            Source::Run(run) => Ranked {
                name,
                run,
                model: None,
            },
            Source::Model(settings) => {
                let ranked = from_model(name, &settings, &collection)?;
                // Written at once, so that it is not lost if the next model fails.
                eval::write_run(&files.run(&ranked.name), &ranked.run, &ranked.name)?;
                ranked
            }
        });
    }
    let fused = args.fusion.as_ref();
    let fused = fused.map_or_else(Vec::new, |fusions| fusions.of(&ranked, &collection));
    report::report(args, &collection, &ranked, &fused, &files)
}

/// The systems that the flags name: run files are read, models are found but not loaded.
fn systems(args: &EvalArgs) -> Result<Vec<System>> {
    let mut systems = vec![match &args.run {
        Some(path) => run_file(path)?,
        None => model(args, None)?,
    }];
    if let Some(other) = &args.compare {
        let path = Path::new(other);
        let mut second = match path.is_file() {
            true => run_file(path)?,
            false => model(args, Some(other)).with_context(|| {
                format!(
                    "--compare {other}: there is no such file, so it is no run, and no model either"
                )
            })?,
        };
        if second.name == systems[0].name {
            second.name.push_str(" (2)");
        }
        systems.push(second);
    }
    let is_taken = |name: &str| [CANDIDATES, BEST].contains(&name);
    for system in systems.iter_mut().filter(|s| is_taken(&s.name)) {
        system.name.push_str(" (run)");
    }
    Ok(systems)
}

fn run_file(path: &Path) -> Result<System> {
    let name = path.file_stem().unwrap_or(path.as_os_str());
    Ok(System {
        name: name.to_string_lossy().into_owned(),
        source: Source::Run(eval::read_run(path)?),
    })
}

fn model(args: &EvalArgs, model: Option<&str>) -> Result<System> {
    let named: Vec<Override> = model.iter().map(|&m| ("model.id", m.into())).collect();
    let mut settings = args.model.without_server(named)?;
    settings.limits.max_documents = usize::MAX;
    model_store::resolve(&settings.model_store())?;
    Ok(System {
        name: settings.name(),
        source: Source::Model(Box::new(settings)),
    })
}

fn from_model(name: String, settings: &Settings, collection: &Collection) -> Result<Ranked> {
    let loaded = Loaded::load(settings)?;
    let (device, dtype) = (loaded.device.clone(), loaded.dtype);
    let revision = loaded.info.revision.clone();
    super::runtime()?.block_on(async {
        let (served, _engine) = loaded.start(settings)?;
        let (served, reranker) = (Arc::new(served), app::reranker(settings));
        reranker.models().add(Arc::clone(&served));
        let bar = output::progress(collection.queries.len(), &format!("queries, {name}"));
        let mut run = Run::new();
        let (mut spent, mut truncated, mut pairs) = (Duration::ZERO, 0, 0);
        for query in &collection.queries {
            bar.inc(1);
            if query.candidates.is_empty() {
                continue;
            }
            let ask = PairsAsk {
                queries: [query.text.as_str().into()].into(),
                documents: collection.texts(query).into(),
                raw_scores: true,
                ..PairsAsk::default()
            };
            let start = Instant::now();
            let scoring = reranker.score(&ask, &Caller::local()).await;
            let scoring = scoring.with_context(|| format!("query {}", query.id))?;
            spent += start.elapsed();
            truncated += scoring.cost.truncated;
            pairs += scoring.raw.len();
            let candidates = query.candidates.iter().zip(scoring.raw);
            let scored = candidates.map(|((id, _), score)| (id.clone(), score.get()));
            run.insert(query.id.clone(), scored.collect());
        }
        bar.finish_and_clear();
        let options = served.options();
        let model = json!({
            "id": settings.model.id,
            "revision": revision,
            "device": device.name(),
            "dtype": dtype.name(),
            "threads": device.threads(),
            "instructions": device.instructions(),
            "activation": options.activation.to_string(),
            "max_input_tokens": served.max_input_tokens(),
            "truncation": settings.model.truncation,
            "max_chunks_per_doc": options.fit.windows.max,
            "overlap_tokens": settings.model.overlap_tokens,
            "score_label": served.info().label(),
            "window_score": settings.model.window_score,
            "pairs": pairs,
            "truncated_documents": truncated,
            "seconds_per_query": spent.as_secs_f64() / collection.queries.len() as f64,
        });
        Ok(Ranked {
            name,
            run,
            model: Some(model),
        })
    })
}
