//! What the cache of documents' vectors is worth: pairs a second of a model that makes vectors, against the share of each
//! request's documents that is in the cache; and the time that MaxSim takes by itself.
//!
//! `cargo bench --bench vectors -- --model target/shapes/colbert-17m`. Each round asks the same number of requests, one
//! after the other; a share of 50 % means that half of each request's documents have been asked for before. The whole use
//! case but HTTP is measured. `--pairs MODEL` adds a cross-encoder's pairs a second on the same texts.

mod texts;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use fastrand::Rng;
use rerankd::app::{self, Loaded};
use rerankd::config::Settings;
use rerankd::rerank::{Ask, Queries, Reranker};
use rerankd::scoring::{DocumentVectors, QueryVectors, Workspace};
use rerankd::types::{Caller, Output, Similarity, VectorDtype};

#[derive(Debug, Parser)]
struct Args {
    /// A model that makes vectors, as `rerankd serve --model` takes it.
    #[arg(long)]
    model: Option<String>,
    /// A cross-encoder to compare it with.
    #[arg(long)]
    pairs: Option<String>,
    /// Documents in each request.
    #[arg(long, default_value_t = 100)]
    depth: usize,
    /// Words of a document; 0: 20 to 200.
    #[arg(long, default_value_t = 120)]
    words: usize,
    /// Requests for each share.
    #[arg(long, default_value_t = 20)]
    requests: usize,
    /// Type of the weights.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Type of the vectors in the cache.
    #[arg(long, default_value = "f16")]
    cache_dtype: String,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// MaxSim of 100 documents of 180 vectors of 48 values with a query of 32, on one thread.
fn maxsim() -> Result<()> {
    const DOCUMENTS: usize = 100;
    let similarity = Similarity {
        normalises: true,
        dimensions: None,
        is_cosine: false,
        is_mean: false,
    };
    for (tokens, width) in [(180, 48), (180, 96), (180, 128)] {
        let mut rng = Rng::with_seed(1);
        let mut output = |rows: usize| {
            let values = (0..rows * width).map(|_| rng.f32() - 0.5);
            Output::new(values.collect(), width)
        };
        let query = QueryVectors::new(&output(32), &similarity);
        let outputs: Vec<Output> = (0..DOCUMENTS).map(|_| output(tokens)).collect();
        for dtype in [VectorDtype::F32, VectorDtype::F16, VectorDtype::Int8] {
            let documents = outputs.iter();
            let documents = documents.map(|o| DocumentVectors::new(o, &similarity, dtype));
            let documents: Vec<_> = documents.collect();
            let bytes: usize = documents.iter().map(DocumentVectors::bytes).sum();
            let (mut work, mut best) = (Workspace::default(), f64::INFINITY);
            for _ in 0..20 {
                let start = Instant::now();
                let scores = documents.iter().map(|d| query.score(d, &mut work));
                ensure!(scores.flatten().count() == DOCUMENTS, "a score is missing");
                best = best.min(start.elapsed().as_secs_f64());
            }
            println!(
                "MaxSim, {DOCUMENTS} documents x {tokens} x {width}, 32 query vectors, {dtype:?}: {:.2} ms, {} bytes a document",
                best * 1e3,
                bytes / DOCUMENTS
            );
        }
    }
    Ok(())
}

/// A model that is asked one request after the other, with a cache of vectors that never is full.
async fn reranker(model: &str, args: &Args) -> Result<Reranker> {
    let settings = Settings::load(
        None,
        vec![
            ("model.id", model.into()),
            ("engine.dtype", args.dtype.as_str().into()),
            ("model.vector_cache_mb", 4096.into()),
            ("model.vector_cache_dtype", args.cache_dtype.as_str().into()),
            ("limits.request_timeout_ms", 3_600_000.into()),
            ("limits.max_queue_ms", 3_600_000.into()),
        ],
    )?;
    let loaded = tokio::task::block_in_place(|| Loaded::load(&settings))?;
    let (served, engine) = loaded.start(&settings)?;
    // The thread ends with the process.
    std::mem::forget(engine);
    let reranker = app::reranker(&settings);
    reranker.models().add(Arc::new(served));
    Ok(reranker)
}

/// Pairs a second of some requests.
async fn rate(reranker: &Reranker, requests: &[Ask]) -> Result<f64> {
    let (start, mut pairs) = (Instant::now(), 0);
    for ask in requests {
        let answer = reranker.rerank(ask, &Caller::local()).await?;
        pairs += answer.ranked.len();
    }
    Ok(pairs as f64 / start.elapsed().as_secs_f64())
}

fn document_of(rng: &mut Rng, words: usize) -> String {
    match words {
        0 => texts::document(rng),
        words => texts::text(rng, words),
    }
}

/// Requests of which so many percent of the documents are among `known`.
fn requests(rng: &mut Rng, known: &[String], share: usize, args: &Args) -> Vec<Ask> {
    let request = |_| {
        let of_known = args.depth * share / 100;
        let document = |i: usize| match i < of_known {
            true => known[i].clone(),
            false => document_of(rng, args.words),
        };
        let documents = (0..args.depth).map(document).collect();
        Ask {
            queries: Queries::One(texts::text(rng, 8)),
            documents,
            ..Ask::default()
        }
    };
    (0..args.requests).map(request).collect()
}

fn main() -> Result<()> {
    let args = Args::parse();
    let Some(model) = &args.model else {
        // `cargo bench` and `cargo test --benches` start every target without arguments.
        eprintln!("nothing to do without --model MODEL; see docs/performance.md");
        return Ok(());
    };
    ensure!(
        args.depth > 0 && args.requests > 0,
        "--depth and --requests must be at least 1"
    );
    maxsim()?;
    println!(
        "{} requests of {} documents of {} words for each share, {} weights, {} vectors",
        args.requests, args.depth, args.words, args.dtype, args.cache_dtype
    );
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut rng = Rng::with_seed(1);
        let known: Vec<String> = (0..args.depth)
            .map(|_| document_of(&mut rng, args.words))
            .collect();
        if let Some(pairs) = &args.pairs {
            let reranker = reranker(pairs, &args).await?;
            let asked = requests(&mut rng, &known, 0, &args);
            println!(
                "{pairs}: {:.1} pairs/s",
                rate(&reranker, &asked[..asked.len().min(5)]).await?
            );
        }
        let reranker = reranker(model, &args).await?;
        let warm = requests(&mut rng, &known, 100, &args);
        rate(&reranker, &warm[..1]).await?;
        for share in [0, 50, 90, 100] {
            let asked = requests(&mut rng, &known, share, &args);
            println!(
                "{model}, {share:3} % in the cache: {:9.1} pairs/s",
                rate(&reranker, &asked).await?
            );
        }
        Ok(())
    })
}
