//! `rerankd bench`: the server against its own engine, in one run on the same pairs.
//!
//! Ratios and differences of medians over alternating rounds, since machines are noisy: the
//! server's pairs per second under concurrent clients against the engine alone on the same batches,
//! the engine's arithmetic against the machine's own sgemm, and a lone request's time over HTTP
//! against the engine's for the same pair. With --dtypes the types of weights against each other.

mod dtypes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::documents::{self, InputArgs};
use super::{ModelArgs, number, output};
use crate::app::{App, Loaded};
use crate::engine;
use crate::schedule::{BatchLimits, planner};
use crate::types::{Batch, Sequence};

#[derive(Debug, Args)]
#[command(
    after_help = format!("Prints the engine's and the server's pairs per second and their ratio, and the time \
    that HTTP adds to a lone request; the first line says what was measured.\n\n\
    --dtypes loads each type of weights beside f32 and scores every query with both in turn, a query's documents at a \
    time, without HTTP. Its columns: pairs a second; the median ratio of f32's time to the type's; memory of the \
    weights; seconds to load; Kendall's tau of the order against f32's, in the mean over queries and at least; by how \
    much raw scores are off, in the mean and at most; of how many queries the first document is the same, and which \
    share of the first ten; with --data, nDCG@10 and by how much it moves. Its last line is a choice: \
    {}. Without --data it ranks the comments of the settings by questions about them, which measures speed well and \
    the order roughly: decide on documents like yours.\n\nExamples:\n  \
    rerankd bench\n  \
    rerankd bench --dtype f32 --threads 1\n  \
    rerankd bench --model models/a --file passages.jsonl --clients 16 --documents 100\n  \
    rerankd bench --model models/a --dtypes --data scifact --queries 100", dtypes::RULE)
)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Measure each type of weights instead: speed, memory, and what it changes in the ranking; see below.
    #[arg(long, conflicts_with_all = ["dtype", "clients", "documents", "requests", "rounds", "lone", "file"])]
    dtypes: bool,
    #[command(flatten)]
    of_dtypes: dtypes::DtypesArgs,
    /// Concurrent clients.
    #[arg(long, default_value_t = 8, value_parser = number::<1000>)]
    clients: usize,
    /// Documents in each request.
    #[arg(long, default_value_t = 32, value_parser = number::<100_000>)]
    documents: usize,
    /// Requests of each client in each round, one after the other.
    #[arg(long, default_value_t = 2, value_parser = number::<100_000>)]
    requests: usize,
    /// Number of rounds, each with the engine alone and then the server.
    #[arg(long, default_value_t = 3, value_parser = number::<1000>)]
    rounds: usize,
    /// Number of lone requests with one pair.
    #[arg(long, default_value_t = 40, value_parser = number::<1_000_000>)]
    lone: usize,
    /// File of documents in any format of `rerankd rerank`; generated documents of 20 to 200 words if left out.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Maximum number of pairs in a round, since they are kept in memory.
const MAX_PAIRS: usize = 1_000_000;

const QUERY: &str = "how long do the effects of the treatment last";

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    if args.dtypes {
        return dtypes::run(&args.model, &args.of_dtypes);
    }
    let pairs = args.clients * args.documents * args.requests;
    ensure!(
        pairs <= MAX_PAIRS,
        "--clients x --documents x --requests is {pairs}, but it must be at most {MAX_PAIRS}"
    );
    let mut settings = args.model.of_one_model(vec![("server.port", 0.into())])?;
    settings.server.host = "127.0.0.1".into();
    settings.limits.request_timeout_ms = 3_600_000;
    settings.limits.max_queue_ms = 3_600_000;
    settings.limits.max_queue_tokens = usize::MAX;
    settings.limits.max_documents = args.documents;
    args.model.init_quiet_logs(&settings);
    let documents = documents(args, pairs)?;
    output::note("loading the model twice: for the engine alone and for the server");
    let mut engine = Loaded::load(&settings)?;
    let (limits, isa) = (settings.batch(), engine.device.instructions());
    output::print(&format!(
        "model {}, {}, {} threads{}, {} clients x {} requests x {} documents\n",
        engine.info.name,
        engine.dtype.name(),
        engine.device.threads().unwrap_or_default(),
        isa.map_or(String::new(), |isa| format!(" ({isa})")),
        args.clients,
        args.requests,
        args.documents
    ))?;

    super::runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let app = App::bind(settings).await?;
        let client = Client {
            http: reqwest::Client::builder().no_proxy().build()?,
            base: format!("http://{}", app.local_addr()?),
        };
        let server = tokio::spawn(app.run_until(stop.clone()));
        client.wait_until_ready(&server).await?;

        throughput(args, &mut engine, &limits, &client, &documents).await?;
        lone(args, &mut engine, &client, &documents[0]).await?;
        stop.cancel();
        server.await?
    })
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    async fn wait_until_ready(&self, server: &tokio::task::JoinHandle<Result<()>>) -> Result<()> {
        let url = format!("{}/health", self.base);
        while !self.http.get(&url).send().await?.status().is_success() {
            ensure!(!server.is_finished(), "the server did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn rerank(&self, documents: &[String]) -> Result<()> {
        let url = format!("{}/v1/rerank", self.base);
        let body = json!({"query": QUERY, "documents": documents});
        let answer = self.http.post(&url).json(&body).send().await?;
        let answer: serde_json::Value = answer.error_for_status()?.json().await?;
        let results = answer["results"].as_array().map_or(0, Vec::len);
        ensure!(results == documents.len(), "{results} results");
        Ok(())
    }
}

async fn throughput(
    args: &BenchArgs,
    loaded: &mut Loaded,
    limits: &BatchLimits,
    client: &Client,
    documents: &Arc<[String]>,
) -> Result<()> {
    // One request of each client is in the queue at a time.
    let at_once = args.clients * args.documents;
    let batches: Vec<Batch> = encode(loaded, documents)?
        .chunks(at_once)
        .flat_map(|pairs| {
            let lengths: Vec<usize> = pairs.iter().map(Sequence::len).collect();
            let plan = planner::plan(&lengths, limits);
            let pack = |batch: Vec<usize>| Batch::pack(batch.into_iter().map(|i| &pairs[i]));
            plan.into_iter().map(pack).collect::<Vec<_>>()
        })
        .collect();
    let (mut alone, mut served) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        let start = Instant::now();
        tokio::task::block_in_place(|| -> Result<()> {
            for batch in &batches {
                loaded.model.forward(batch)?;
            }
            Ok(())
        })?;
        alone.push(start.elapsed().as_secs_f64());

        let start = Instant::now();
        let mut clients = JoinSet::new();
        for i in 0..args.clients {
            let (client, documents) = (client.clone(), Arc::clone(documents));
            let (of_each, requests) = (args.documents, args.requests);
            let stride = args.clients;
            clients.spawn(async move {
                for request in 0..requests {
                    let first = (request * stride + i) * of_each;
                    client.rerank(&documents[first..first + of_each]).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = clients.join_next().await {
            done??;
        }
        served.push(start.elapsed().as_secs_f64());
        output::note(&format!(
            "round {round}: engine {:.2} s, server {:.2} s",
            alone[round - 1],
            served[round - 1]
        ));
    }
    let flops: f64 = batches.iter().map(|batch| loaded.model.flops(batch)).sum();
    let rate = flops / median(&mut alone) / 1e9;
    let machine = tokio::task::block_in_place(engine::sgemm_rate)?;
    let pairs = documents.len() as f64;
    let (alone, served) = (pairs / median(&mut alone), pairs / median(&mut served));
    let text = format!(
        "engine alone  {alone:8.1} pairs/s\n\
         server        {served:8.1} pairs/s\n\
         server/engine {:8.3}\n\
         engine's work {rate:8.1} GFLOP/s, {:.2} of this machine's sgemm ({machine:.1})\n",
        served / alone,
        rate / machine
    );
    Ok(output::print(&text)?)
}

async fn lone(
    args: &BenchArgs,
    engine: &mut Loaded,
    client: &Client,
    document: &str,
) -> Result<()> {
    let document = [document.to_owned()];
    let batch = Batch::pack(&encode(engine, &document)?);
    let (mut alone, mut served) = (Vec::new(), Vec::new());
    for _ in 0..args.lone {
        let start = Instant::now();
        tokio::task::block_in_place(|| engine.model.forward(&batch))?;
        alone.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        client.rerank(&document).await?;
        served.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let (alone, served) = (median(&mut alone), median(&mut served));
    let text = format!(
        "lone pair of {} tokens, medians of {}:\n\
         engine alone  {alone:8.2} ms\n\
         server        {served:8.2} ms\n\
         server-engine {:8.2} ms\n",
        batch.tokens(),
        args.lone,
        served - alone
    );
    Ok(output::print(&text)?)
}

fn encode(engine: &Loaded, documents: &[String]) -> Result<Vec<Sequence>> {
    use crate::scoring::{Strategy, Truncation};
    use crate::tokenize::Direction;
    let truncation = Truncation {
        strategy: Strategy::LongestFirst,
        direction: Direction::Right,
    };
    let encode = |text: &String| engine.encoder.encode(QUERY, text, &truncation.into());
    let mut sequences = Vec::with_capacity(documents.len());
    for document in documents {
        sequences.extend(encode(document)?.sequences);
    }
    Ok(sequences)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// `count` documents: the file's, repeated as needed, or generated from a fixed seed.
fn documents(args: &BenchArgs, count: usize) -> Result<Arc<[String]>> {
    if let Some(path) = &args.file {
        // The query is another one.
        let (paths, query) = (std::slice::from_ref(path), Some("a query"));
        let input = documents::read(paths, &InputArgs::default(), query)?;
        let texts = input.ask.documents.iter().cloned();
        return Ok(texts.cycle().take(count).collect());
    }
    const WORDS: &str = "the of and patients study treatment effect result group control after \
        during clinical trial dose response weeks significant measured increase blood pressure \
        high low risk disease therapy outcome cells protein gene expression analysis method data \
        model system time rate flow surface temperature boundary layer velocity";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        // xorshift64, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let text = |_| {
        let length = 20 + next(181);
        let text: Vec<&str> = (0..length).map(|_| words[next(words.len())]).collect();
        text.join(" ")
    };
    let documents: Arc<[String]> = (0..count).map(text).collect();
    documents.first().context("no documents")?;
    Ok(documents)
}
