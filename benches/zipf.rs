//! What the score cache is worth where queries and documents come again: requests drawn from pools by a Zipf
//! law, without the cache and with it.
//!
//! `cargo bench --bench zipf -- --model builtin`. The item of rank r is drawn with a probability proportional
//! to 1 / r^s; the documents of one request are all different. Each round starts with an empty cache and the
//! same requests. The whole use case but HTTP is measured.

mod texts;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use fastrand::Rng;
use rerankd::app::{self, Loaded};
use rerankd::config::Settings;
use rerankd::rerank::{Ask, Queries, Reranker};
use rerankd::telemetry::{Metrics, install_metrics};
use rerankd::types::Caller;
use tokio::task::JoinSet;

#[derive(Debug, Parser)]
struct Args {
    /// A model, as `rerankd serve --model` takes it.
    #[arg(long)]
    model: Option<String>,
    /// Exponent of the Zipf law.
    #[arg(long, default_value_t = 1.0)]
    s: f64,
    /// Queries in the pool.
    #[arg(long, default_value_t = 200)]
    queries: usize,
    /// Documents in the pool.
    #[arg(long, default_value_t = 2000)]
    documents: usize,
    /// Documents in each request.
    #[arg(long, default_value_t = 32)]
    depth: usize,
    /// Requests of each round.
    #[arg(long, default_value_t = 300)]
    requests: usize,
    /// Concurrent clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Rounds of without and with the cache, in turn.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Megabytes of the cache.
    #[arg(long, default_value_t = 64)]
    scores_mb: u32,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Draws ranks, from 0, by a Zipf law.
struct Zipf {
    /// The sum of the weights up to each rank.
    sums: Vec<f64>,
}

impl Zipf {
    fn new(items: usize, s: f64) -> Self {
        let weights = (1..=items).map(|rank| (rank as f64).powf(-s));
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self {
            sums: sums.collect(),
        }
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let at = rng.f64() * self.sums.last().copied().unwrap_or_default();
        let rank = self.sums.partition_point(|&sum| sum <= at);
        rank.min(self.sums.len() - 1)
    }
}

fn requests(args: &Args) -> Vec<Ask> {
    let mut rng = Rng::with_seed(1);
    let queries: Vec<String> = (0..args.queries)
        .map(|_| texts::text(&mut rng, 8))
        .collect();
    let documents: Vec<String> = (0..args.documents)
        .map(|_| texts::document(&mut rng))
        .collect();
    let (query, document) = (
        Zipf::new(args.queries, args.s),
        Zipf::new(args.documents, args.s),
    );
    let request = |_| {
        let mut ranks = Vec::with_capacity(args.depth);
        while ranks.len() < args.depth {
            let rank = document.draw(&mut rng);
            if !ranks.contains(&rank) {
                ranks.push(rank);
            }
        }
        Ask {
            queries: Queries::One(queries[query.draw(&mut rng)].clone()),
            documents: ranks
                .into_iter()
                .map(|rank| documents[rank].clone())
                .collect(),
            ..Ask::default()
        }
    };
    (0..args.requests).map(request).collect()
}

/// The seconds that all requests take, as many at a time as there are clients.
async fn seconds(reranker: &Reranker, requests: &Arc<[Ask]>, clients: usize) -> Result<f64> {
    let (start, next) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let mut running = JoinSet::new();
    for client in 0..clients {
        let (reranker, requests) = (reranker.clone(), Arc::clone(requests));
        let (next, caller) = (Arc::clone(&next), Caller::Connection(client as u64));
        running.spawn(async move {
            while let Some(ask) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = reranker.rerank(ask, &caller).await?;
                ensure!(
                    answer.ranked.len() == ask.documents.len(),
                    "documents are missing"
                );
            }
            Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Pairs found in the cache since the process began.
fn hits(metrics: &Metrics) -> Result<f64> {
    let text = metrics.render(&[]);
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with("rerankd_score_cache_hits_total{"));
    let number = line.and_then(|line| line.rsplit(' ').next());
    Ok(number.unwrap_or("0").parse()?)
}

/// One round, in two halves: the cache is empty before the first.
async fn round(model: &str, scores_mb: u32, requests: &[Ask], args: &Args) -> Result<()> {
    let settings = Settings::load(
        None,
        vec![
            ("model.id", model.into()),
            ("cache.scores_mb", scores_mb.into()),
            ("limits.request_timeout_ms", 3_600_000.into()),
            ("limits.max_queue_ms", 3_600_000.into()),
        ],
    )?;
    let metrics = install_metrics()?;
    let loaded = tokio::task::block_in_place(|| Loaded::load(&settings))?;
    let dtype = loaded.dtype.name();
    let (served, _engine) = loaded.start(&settings)?;
    let reranker = app::reranker(&settings);
    reranker.models().add(Arc::new(served));
    let (first, second) = requests.split_at(requests.len() / 2);
    for (name, half) in [("first half", first), ("second half", second)] {
        let half: Arc<[Ask]> = half.into();
        let pairs = (half.len() * args.depth) as f64;
        let before = hits(&metrics)?;
        let seconds = seconds(&reranker, &half, args.clients).await?;
        println!(
            "{dtype}, cache {scores_mb:3} MB, {name:11}: {:7.1} pairs/s, hit rate {:.3}",
            pairs / seconds,
            (hits(&metrics)? - before) / pairs
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let args = Args::parse();
    let Some(model) = &args.model else {
        // `cargo bench` and `cargo test --benches` start every target without arguments.
        eprintln!("nothing to do without --model MODEL; see docs/performance.md");
        return Ok(());
    };
    ensure!(
        args.queries > 0 && args.depth > 0 && args.depth <= args.documents && args.clients > 0,
        "--queries, --depth and --clients must be at least 1, and --depth at most --documents"
    );
    let requests = requests(&args);
    requests.first().context("--requests must be at least 1")?;
    println!(
        "{} requests of {} documents, {} queries x {} documents, s = {}, {} clients",
        args.requests, args.depth, args.queries, args.documents, args.s, args.clients
    );
    tokio::runtime::Runtime::new()?.block_on(async {
        for _ in 0..args.rounds {
            round(model, 0, &requests, &args).await?;
            round(model, args.scores_mb, &requests, &args).await?;
        }
        Ok(())
    })
}
