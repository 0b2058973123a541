//! rerankd's side of `benches/peers`: loads a model, reads requests from standard input, one JSON
//! object a line (`{"query", "documents"}`), and answers each with its logits and seconds. What is
//! timed is the whole use case without HTTP: admission, tokenising, queue, engine, ranking.
//!
//! `cargo bench --bench worker -- --model FOLDER --threads 2` starts it; `benches/peers/run.py`
//! does.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rerankd::app::{self, Loaded};
use rerankd::config::Settings;
use rerankd::rerank::{Ask, Queries};
use rerankd::types::Caller;

#[derive(serde::Deserialize)]
struct Line {
    query: String,
    documents: Vec<String>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |flag: &str| {
        let place = arguments.iter().position(|a| a == flag)?;
        arguments.get(place + 1).map(String::as_str)
    };
    let Some(model) = value("--model") else {
        // `cargo bench` and `cargo test --benches` start every target without arguments.
        eprintln!("nothing to do without --model FOLDER; see benches/peers/README.md");
        return Ok(());
    };
    let threads: u32 = value("--threads").unwrap_or("0").parse()?;
    let overrides = vec![
        ("model.id", model.into()),
        ("engine.threads", threads.into()),
        (
            "engine.instructions",
            value("--instructions").unwrap_or("auto").into(),
        ),
        ("engine.dtype", value("--dtype").unwrap_or("f32").into()),
        ("limits.request_timeout_ms", 3_600_000.into()),
    ];
    let settings = Settings::load(None, overrides)?;
    let start = Instant::now();
    let loaded = Loaded::load(&settings)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (served, _engine) = loaded.start(&settings)?;
        let reranker = app::reranker(&settings);
        reranker.models().add(Arc::new(served));
        println!(
            "{}",
            serde_json::json!({"load_seconds": start.elapsed().as_secs_f64()})
        );
        for line in std::io::stdin().lock().lines() {
            let line: Line = serde_json::from_str(&line?).context("bad request line")?;
            let ask = Ask {
                queries: Queries::One(line.query),
                documents: line.documents.into(),
                raw_scores: true,
                ..Ask::default()
            };
            let start = Instant::now();
            let answer = reranker.rerank(&ask, &Caller::local()).await?;
            let seconds = start.elapsed().as_secs_f64();
            let mut logits = vec![0.0; ask.documents.len()];
            for ranked in &answer.ranked {
                logits[ranked.index] = ranked.score.get();
            }
            let answer = serde_json::json!({
                "seconds": seconds, "logits": logits, "tokens": answer.cost.tokens,
            });
            println!("{answer}");
            std::io::stdout().flush()?;
        }
        Ok(())
    })
}
