//! The command line: commands, flags, and the settings that they override.

mod bench;
mod completions;
mod documents;
mod eval;
mod health;
mod man;
mod models;
mod output;
mod rerank;
mod score;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use toml::Value;

use crate::config::{
    ActivationName, ConfigError, DtypeName, Override, Settings, TruncationName, WindowScoreName,
    variable_of_flag,
};
use crate::engine;
use crate::telemetry::{LogFormat, flush_logs, init_logs, log_last_error, print_error};

/// Rerank documents by relevance to a query.
///
/// Without a command, rerankd serves: `rerankd --model FOLDER` is `rerankd serve --model FOLDER`.
#[derive(Debug, Parser)]
#[command(
    name = "rerankd",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Settings come from, lowest first: the defaults, --config FILE, environment variables \
        RERANKD__SECTION__KEY (such as RERANKD__SERVER__PORT=9000; an empty one counts as not set), flags. \
        `rerankd --print-config` shows them all, `rerankd --check-config` what they come to.\n\n\
        Signals: SIGTERM and SIGINT stop the server in order, a second one at once; SIGHUP reads the API \
        keys again.\n\nThe hub is reached with the usual HF_HOME, HF_HUB_CACHE, HF_TOKEN, \
        HF_ENDPOINT and HF_HUB_OFFLINE.\n\nExamples:\n  \
        rerankd\n  \
        rerankd --model BAAI/bge-reranker-base --port 9000\n  \
        rerankd --model builtin --model large=BAAI/bge-reranker-large\n  \
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
    /// Score files of queries and documents, of any size, without a server.
    Score(score::ScoreArgs),
    /// Measure how well a model ranks a judged collection's candidates.
    Eval(eval::EvalArgs),
    /// Measure the server against its own engine in one run.
    Bench(bench::BenchArgs),
    /// List the families of models that rerankd runs, with examples.
    Models(models::ModelsArgs),
    /// Ask a running server whether it is healthy; exit 0 if so (for Docker's HEALTHCHECK).
    Health(health::HealthArgs),
    /// Print the OpenAPI document as YAML.
    #[command(after_help = "Example:\n  rerankd openapi > openapi.yaml")]
    Openapi,
    /// Print a script that completes rerankd's commands and flags in a shell.
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write those of all commands into a folder.
    Man(man::ManArgs),
}

impl Cli {
    /// Reads the command line; ends the process if it is wrong, or asks for help.
    #[must_use]
    pub fn from_command_line() -> Self {
        let matches = Self::described().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// The commands with their flags, whose help names the variables.
    fn described() -> clap::Command {
        let flag = |flag| with_variable(with_negatives(flag));
        let command = Self::command().mut_args(flag);
        command.mut_subcommands(|command| command.mut_args(flag))
    }
}

/// A flag whose value may be a negative number, so that its own error says which numbers it takes.
fn with_negatives(flag: Arg) -> Arg {
    match flag.get_action().takes_values() {
        true => flag.allow_negative_numbers(true),
        false => flag,
    }
}

/// A flag whose help names the environment variable that sets the same.
fn with_variable(flag: Arg) -> Arg {
    let variable = flag.get_long().map(|long| format!("--{long}"));
    let variable = variable.and_then(|flag| variable_of_flag(&flag));
    match (variable, flag.get_help()) {
        (Some(variable), Some(help)) => {
            let help = format!("{help} [env: {variable}]");
            flag.help(help)
        }
        _ => flag,
    }
}

/// Settings that every command with a model takes. Texts and numbers are read by the settings, so that a
/// wrong one gets the same error wherever it stands.
#[derive(Debug, Args)]
struct ModelArgs {
    /// A folder in the Hugging Face layout, a hub id ORG/NAME, or "builtin", the one within the binary; NAME=
    /// before it names it. More than once: the server has several models, the first of which is the default.
    #[arg(long, value_name = "[NAME=]ID", help_heading = "Model")]
    model: Vec<String>,
    /// Branch, tag or commit on the hub.
    #[arg(long, help_heading = "Model")]
    revision: Option<String>,
    /// Maximum length of a query-document pair in tokens; 0: as long as the model allows.
    #[arg(long, value_name = "N", help_heading = "Model")]
    max_input_tokens: Option<String>,
    /// How a pair that is too long is truncated.
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Model")]
    truncation: Option<TruncationName>,
    /// Maximum number of windows read from a document that does not fit; 1 truncates it instead, 0: the model's
    /// default.
    #[arg(long, value_name = "N", help_heading = "Model")]
    max_chunks_per_doc: Option<String>,
    /// How a long document's score is computed from its windows' scores.
    #[arg(long, value_enum, value_name = "NAME", help_heading = "Model")]
    window_score: Option<WindowScoreName>,
    /// Label whose score documents are ranked by, for a classifier with several labels: its name or its number.
    #[arg(long, value_name = "LABEL", help_heading = "Model")]
    score_label: Option<String>,
    /// Prompt that a decoder reads query and document in; auto: as its files or its name say.
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    prompt: Option<String>,
    /// Instruction in the prompt of requests that have none; empty: the model's own.
    #[arg(long, value_name = "TEXT", help_heading = "Model")]
    instruction: Option<String>,
    /// Function from logits to scores; auto: as the model's files say.
    #[arg(long, value_enum, value_name = "NAME", help_heading = "Model")]
    activation: Option<ActivationName>,
    /// cpu, cuda or cuda:N.
    #[arg(long, help_heading = "Engine")]
    device: Option<String>,
    /// Type of the weights in memory: f32 (exact), f16 or bf16 (half the memory), int8 (fastest); auto: as they are
    /// stored if that changes no score, else f32.
    #[arg(long, value_enum, help_heading = "Engine")]
    dtype: Option<DtypeName>,
    /// Number of engine threads; 0: one for each core that the process may use.
    #[arg(long, value_name = "N", help_heading = "Engine")]
    threads: Option<String>,
    /// Instruction set on a CPU; auto: the best one that the CPU has.
    #[arg(long, value_name = "NAME", help_heading = "Engine",
        value_parser = PossibleValuesParser::new(engine::INSTRUCTIONS))]
    instructions: Option<String>,
    /// Format of log lines; auto: human on a terminal, else json.
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Log")]
    log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace, or a tracing filter such as info,hyper=warn.
    #[arg(long, value_name = "LEVEL", help_heading = "Log")]
    log_level: Option<String>,
    /// A TOML file that overlays the defaults.
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    config: Option<PathBuf>,
}

impl ModelArgs {
    /// The settings, these flags and `more` on top.
    fn settings(&self, more: Vec<Override>) -> Result<Settings, ConfigError> {
        fn name(value: Option<impl ValueEnum>) -> Option<String> {
            Some(value?.to_possible_value()?.get_name().to_owned())
        }
        let flags = [
            ("model.revision", self.revision.clone()),
            ("model.max_input_tokens", self.max_input_tokens.clone()),
            ("model.truncation", name(self.truncation)),
            ("model.max_chunks_per_doc", self.max_chunks_per_doc.clone()),
            ("model.window_score", name(self.window_score)),
            ("model.score_label", self.score_label.clone()),
            ("model.prompt", self.prompt.clone()),
            ("model.instruction", self.instruction.clone()),
            ("model.activation", name(self.activation)),
            ("engine.device", self.device.clone()),
            ("engine.dtype", name(self.dtype)),
            ("engine.threads", self.threads.clone()),
            ("engine.instructions", self.instructions.clone()),
            ("log.format", name(self.log_format)),
            ("log.level", self.log_level.clone()),
        ];
        let flags = flags.into_iter();
        let flags = flags.filter_map(|(key, value)| Some((key, value?.into())));
        let overrides = named(&self.model).into_iter().chain(flags).chain(more);
        let overrides = overrides.collect();
        Settings::load(self.config.as_deref(), overrides)
    }

    /// As [`Self::settings`], for a command that takes one model: the default one, if there are several.
    fn of_one_model(&self, more: Vec<Override>) -> anyhow::Result<Settings> {
        if self.model.len() > 1 {
            return Err(
                Usage("--model may stand once here: only a server has several".into()).into(),
            );
        }
        let mut settings = self.settings(more)?;
        settings.models.clear();
        Ok(settings)
    }

    /// As [`Self::of_one_model`], for a command that runs the model itself; starts the logs.
    fn without_server(&self, more: Vec<Override>) -> anyhow::Result<Settings> {
        let mut settings = self.of_one_model(more)?;
        // Here the user waits for all of it, so a server's limits make no sense.
        settings.limits.request_timeout_ms = u64::from(u32::MAX);
        settings.limits.max_queue_ms = settings.limits.request_timeout_ms;
        settings.limits.max_queue_tokens = usize::MAX;
        settings.limits.max_documents = usize::MAX;
        self.init_quiet_logs(&settings);
        Ok(settings)
    }

    /// Starts the logs of a command without a server: from warnings on, unless a level is asked for.
    fn init_quiet_logs(&self, settings: &Settings) {
        let level = match settings.log.level.as_str() {
            "info" if self.log_level.is_none() => "warn",
            level => level,
        };
        init_logs(settings.log.format, level);
    }
}

/// What `--model` names.
fn named(models: &[String]) -> Vec<Override> {
    let parts = models.iter().map(|model| match model.split_once('=') {
        // A folder's name may have the sign too.
        Some((name, id)) if !name.contains('/') && !Path::new(model).is_dir() => {
            (Some(name), id.to_owned())
        }
        _ => (None, model.clone()),
    });
    let mut parts: Vec<(Option<&str>, String)> = parts.collect();
    if parts.len() > 1 {
        let tables = parts.into_iter().map(|(name, id)| {
            let name = name.map(|name| ("name".to_owned(), name.into()));
            let keys = name.into_iter().chain([("id".to_owned(), id.into())]);
            Value::Table(keys.collect())
        });
        return vec![("models", tables.collect::<Vec<Value>>().into())];
    }
    let Some((name, id)) = parts.pop() else {
        return Vec::new();
    };
    let name = name.map(|name| ("model.served_name", name.into()));
    [("model.id", id.into())].into_iter().chain(name).collect()
}

/// The command line can't be followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Runs what the command line asks for. Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 128 and its number
/// for a signal.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let is_server = matches!(cli.command, None | Some(Command::Serve(_)));
    let result = match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Rerank(args)) => rerank::run(&args),
        Some(Command::Score(args)) => score::run(&args),
        Some(Command::Eval(args)) => eval::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Models(args)) => models::run(&args),
        Some(Command::Health(args)) => health::run(&args),
        Some(Command::Openapi) => openapi(),
        Some(Command::Completions(args)) => completions::run(&args),
        Some(Command::Man(args)) => man::run(&args),
    };
    match result {
        Err(error) if !output::is_reader_gone(&error) => {
            let print = if is_server {
                log_last_error
            } else {
                print_error
            };
            print(&format!("{error:#}"));
            let usage = error.is::<ConfigError>()
                || error.is::<Usage>()
                || error.is::<serve::CannotStart>();
            match error.downcast_ref::<score::Stopped>() {
                Some(stopped) => ExitCode::from(stopped.exit_code()),
                None => ExitCode::from(if usage { 2 } else { 1 }),
            }
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
