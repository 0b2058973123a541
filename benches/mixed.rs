//! Two models on one engine under load at the same time: what each scores alone, what both score
//! together, and whether they share the engine's time by their weights.
//!
//! `cargo bench --bench mixed -- --models builtin=int8 builtin=f32`. A model is `MODEL=DTYPE`, where MODEL is
//! anything that `rerankd serve --model` takes. Each model has clients of its own, which send one request
//! after the other; tokenising, queue and engine are measured, admission, ranking and HTTP are not. With equal
//! shares each model keeps half of what it scores alone, so the sum of the fractions that the models keep is
//! 1 if sharing costs nothing.

mod texts;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use fastrand::Rng;
use rerankd::app::Loaded;
use rerankd::config::Settings;
use rerankd::schedule::{Compute, Executor, LaneOptions, Ticket};
use rerankd::scoring::{EncodePool, Fit, Pairing, Texts};
use rerankd::types::{Caller, Terms};
use tokio::task::JoinSet;

/// Time before the measurement in which the queues fill.
const WARM_UP: Duration = Duration::from_secs(1);
const WEIGHTS: [[f64; 2]; 2] = [[1.0, 1.0], [1.0, 3.0]];

#[derive(Debug, Clone, Parser)]
struct Args {
    /// The two models, each as MODEL=DTYPE.
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    models: Vec<String>,
    /// Clients of each model.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Documents in each request.
    #[arg(long, default_value_t = 8)]
    documents: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Rounds of A alone, B alone and both together; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads of the engine; 0: one for each core.
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A model at the engine.
struct Tenant {
    encoder: EncodePool,
    executor: Executor,
    fit: Fit,
}

impl Tenant {
    fn load(model: &str, weight: f64, args: &Args, compute: &Compute) -> Result<Self> {
        let (id, dtype) = model.split_once('=').context("a model is MODEL=DTYPE")?;
        let overrides = vec![
            ("model.id", id.into()),
            ("engine.dtype", dtype.into()),
            ("engine.threads", args.threads.into()),
        ];
        let settings = Settings::load(None, overrides)?;
        let loaded = Loaded::load(&settings)?;
        let lane = LaneOptions {
            name: model.into(),
            limits: settings.batch(),
            weight,
            tokens_per_second: loaded.tokens_per_second,
        };
        Ok(Self {
            executor: compute.add(loaded.model, &lane),
            encoder: loaded.encoder,
            fit: settings.usage(&loaded.usage).fit,
        })
    }

    async fn score(&self, documents: Arc<[String]>, caller: Caller) -> Result<()> {
        let mut pieces = self.encoder.pieces(Texts {
            queries: [Arc::from("how long do the effects of the treatment last")].into(),
            pairing: Pairing::All,
            documents,
            fit: self.fit,
            instruction: None,
            is_kept: true,
        });
        let mut submission = self.executor.submission(Ticket {
            standing: Terms::from(&caller).standing(None),
            deadline: Instant::now() + Duration::from_secs(3600),
        });
        while let Some(piece) = pieces.next().await {
            submission.push(piece?.sequences).await?;
        }
        submission.finish().await?;
        Ok(())
    }
}

/// Each model's pairs per second while all of them are under load. A request counts with the part of its
/// time that lies within the measurement; the load lasts until all such requests are done.
async fn pairs_per_second(tenants: &[&Arc<Tenant>], args: &Args) -> Result<Vec<f64>> {
    let window = Duration::from_secs(args.seconds);
    let (begin, end) = (Instant::now() + WARM_UP, Instant::now() + WARM_UP + window);
    let left = Arc::new(AtomicUsize::new(tenants.len() * args.clients));
    let mut clients = JoinSet::new();
    for (place, tenant) in tenants.iter().enumerate() {
        for client in 0..args.clients {
            let (tenant, documents) = (Arc::clone(tenant), args.documents);
            let left = Arc::clone(&left);
            let mut rng = Rng::with_seed(client as u64);
            let caller = Caller::Connection((place * args.clients + client) as u64);
            clients.spawn(async move {
                let (mut pairs, mut is_done) = (0.0, false);
                while left.load(Ordering::Relaxed) > 0 {
                    let texts = (0..documents).map(|_| texts::document(&mut rng)).collect();
                    let start = Instant::now();
                    tenant.score(texts, caller.clone()).await?;
                    let done = Instant::now();
                    let within = done.min(end).saturating_duration_since(start.max(begin));
                    let part = within.as_secs_f64() / (done - start).as_secs_f64();
                    pairs += documents as f64 * part;
                    if done > end && !std::mem::replace(&mut is_done, true) {
                        left.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                anyhow::Ok((place, pairs))
            });
        }
    }
    let mut rates = vec![0.0; tenants.len()];
    while let Some(done) = clients.join_next().await {
        let (place, pairs) = done??;
        rates[place] += pairs / window.as_secs_f64();
    }
    Ok(rates)
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Models alone and together, with these weights.
async fn run(weights: [f64; 2], args: &Args) -> Result<()> {
    let compute = Compute::start()?;
    let load = |i: usize| Tenant::load(&args.models[i], weights[i], args, &compute);
    let (a, b) = tokio::task::block_in_place(|| anyhow::Ok((load(0)?, load(1)?)))?;
    let (a, b) = (Arc::new(a), Arc::new(b));
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let of_a = pairs_per_second(&[&a], args).await?[0];
        let of_b = pairs_per_second(&[&b], args).await?[0];
        alone.push([of_a, of_b]);
        together.push(pairs_per_second(&[&a, &b], args).await?);
    }
    let kept = |round: usize, i: usize| together[round][i] / alone[round][i];
    println!("\nweight  model                  alone   together   kept  (pairs/s)");
    for (i, model) in args.models.iter().enumerate() {
        println!(
            "{:6}  {model:18} {:9.1}  {:9.1} {:6.3}",
            weights[i],
            median(alone.iter().map(|round| round[i])),
            median(together.iter().map(|round| round[i])),
            median((0..args.rounds).map(|round| kept(round, i))),
        );
    }
    let sums = (0..args.rounds).map(|round| kept(round, 0) + kept(round, 1));
    let sums: Vec<f64> = sums.collect();
    println!(
        "sum of what is kept: {:.3}; each round: {sums:.3?}",
        median(sums.clone())
    );
    Ok(())
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.models.is_empty() {
        // `cargo bench` and `cargo test --benches` start every target without arguments.
        eprintln!("nothing to do without --models A=DTYPE B=DTYPE; see docs/performance.md");
        return Ok(());
    }
    ensure!(
        args.clients > 0 && args.documents > 0 && args.seconds > 0 && args.rounds > 0,
        "--clients, --documents, --seconds and --rounds must be at least 1"
    );
    println!(
        "{} clients of each model, {} documents of 20 to 200 words in a request, {} rounds of {} s",
        args.clients, args.documents, args.rounds, args.seconds
    );
    tokio::runtime::Runtime::new()?.block_on(async {
        for weights in WEIGHTS {
            run(weights, &args).await?;
        }
        Ok(())
    })
}
