//! The command line: what can be said, and which settings it overrides.

mod bench;
mod documents;
mod eval;
mod health;
mod output;
mod rerank;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, Override, Settings};
use crate::telemetry::{LogFormat, flush_logs, init_logs, print_error};

/// Rerank documents by relevance to a query with a cross-encoder.
///
/// Without a command, rerankd serves: `rerankd --model FOLDER` is `rerankd serve --model FOLDER`.
#[derive(Debug, Parser)]
#[command(
    name = "rerankd",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Settings come from, lowest first: the defaults, --config FILE, environment variables \
        RERANKD__SECTION__KEY (such as RERANKD__SERVER__PORT=9000), flags. `rerankd --print-config` \
        shows them all.\n\nThe hub is reached with the usual HF_HOME, HF_HUB_CACHE, HF_TOKEN, \
        HF_ENDPOINT and HF_HUB_OFFLINE.\n\nExamples:\n  \
        rerankd\n  \
        rerankd --model BAAI/bge-reranker-base --port 9000\n  \
        rerankd rerank --query 'capital of France' --file docs.jsonl\n  \
        rerankd eval --data scifact\n\n`rerankd COMMAND --help` shows more of each."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve rerank requests over HTTP (the default).
    #[command(after_help = "Examples:\n  \
        rerankd serve\n  \
        rerankd serve --model BAAI/bge-reranker-base --host 0.0.0.0 --port 9000\n  \
        rerankd serve --config production.toml --check-config")]
    Serve(serve::ServeArgs),
    /// Rerank a file's documents without a server.
    Rerank(rerank::RerankArgs),
    /// Measure how well a model ranks a judged collection's candidates.
    Eval(eval::EvalArgs),
    /// Measure the server against its own engine in one run.
    Bench(bench::BenchArgs),
    /// Ask a running server whether it is healthy; exit 0 if so (for Docker's HEALTHCHECK).
    Health(health::HealthArgs),
    /// Print the OpenAPI document as YAML.
    #[command(after_help = "Example:\n  rerankd openapi > openapi.yaml")]
    Openapi,
}

/// Settings that every command with a model takes.
#[derive(Debug, Args)]
struct ModelArgs {
    /// A TOML file that overlays the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A folder in the Hugging Face layout, a hub id ORG/NAME, or "builtin", the one within the binary.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Branch, tag or commit on the hub.
    #[arg(long)]
    revision: Option<String>,
    /// cpu, cuda or cuda:N.
    #[arg(long)]
    device: Option<String>,
    /// What the weights are kept in: f32 (exact), f16, bf16 (half the memory), int8 (fastest), or auto: int8
    /// for the built-in model, f32 for others.
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<String>,
    /// Threads of the engine; 0: all cores the process may use.
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Longest query-document pair in tokens; 0: what the model allows.
    #[arg(long, value_name = "N")]
    max_input_tokens: Option<u32>,
    /// How a pair that is too long is cut: longest_first, document or off.
    #[arg(long, value_name = "HOW")]
    truncation: Option<String>,
    /// In how many windows a document that is too long is read; 1 cuts it, 0: as suits the model.
    #[arg(long, value_name = "N")]
    max_chunks_per_doc: Option<u32>,
    /// Score of a logit: auto (as the model's files say), sigmoid or identity.
    #[arg(long, value_name = "NAME")]
    activation: Option<String>,
    /// auto, human or json.
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace, or a tracing filter.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ModelArgs {
    /// The settings, these flags and `more` on top.
    fn settings(&self, more: Vec<Override>) -> Result<Settings, ConfigError> {
        let format = self.log_format.map(|f| match f {
            LogFormat::Auto => "auto",
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        });
        let texts = [
            ("model.id", self.model.as_deref()),
            ("model.revision", self.revision.as_deref()),
            ("model.truncation", self.truncation.as_deref()),
            ("model.activation", self.activation.as_deref()),
            ("engine.device", self.device.as_deref()),
            ("engine.dtype", self.dtype.as_deref()),
            ("log.format", format),
            ("log.level", self.log_level.as_deref()),
        ];
        let numbers = [
            ("engine.threads", self.threads),
            ("model.max_input_tokens", self.max_input_tokens),
            ("model.max_chunks_per_doc", self.max_chunks_per_doc),
        ];
        let texts = texts.into_iter().filter_map(|(k, v)| Some((k, v?.into())));
        let numbers = numbers
            .into_iter()
            .filter_map(|(k, v)| Some((k, v?.into())));
        let overrides = texts.chain(numbers).chain(more).collect();
        Settings::load(self.config.as_deref(), overrides)
    }

    /// As [`Self::settings`], for a command that runs a model itself; starts the logs.
    fn without_server(&self, more: Vec<Override>) -> Result<Settings, ConfigError> {
        let mut settings = self.settings(more)?;
        // Here the user waits for all of it, so a server's time-out makes no sense.
        settings.limits.request_timeout_ms = u64::from(u32::MAX);
        if self.log_level.is_none() {
            settings.log.level = "warn".into();
        }
        init_logs(settings.log.format, &settings.log.level);
        Ok(settings)
    }
}

/// The command line can't be followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Runs what the command line asks for. Exit codes: 0 done, 1 failed, 2 wrong usage or settings.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Rerank(args)) => rerank::run(&args),
        Some(Command::Eval(args)) => eval::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Health(args)) => health::run(&args),
        Some(Command::Openapi) => openapi(),
    };
    match result {
        Err(error) if !output::is_reader_gone(&error) => {
            print_error(&format!("{error:#}"));
            let usage = error.is::<ConfigError>() || error.is::<Usage>();
            ExitCode::from(if usage { 2 } else { 1 })
        }
        // Whoever closes the pipe has read enough, as with `| head`.
        Ok(()) | Err(_) => {
            flush_logs();
            ExitCode::SUCCESS
        }
    }
}

fn openapi() -> anyhow::Result<()> {
    let yaml = crate::http::openapi_yaml().map_err(anyhow::Error::msg)?;
    Ok(output::print(&yaml)?)
}

/// A flag's number, from 1 to `MAX`.
fn number<const MAX: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=MAX).contains(n));
    number.ok_or_else(|| format!("it must be a number from 1 to {MAX}"))
}

/// An async runtime with all drivers.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}
