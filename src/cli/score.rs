//! `rerankd score`: scores files of queries and documents, of any size.
//!
//! A thread reads ahead, a few units of rows are with the engine at a time, and what is scored is written in the
//! input's order. So memory has a bound whatever the file's size, and the engine never waits for the disk.

mod asks;
mod described;
mod pace;
mod stop;
mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::{ModelArgs, Usage, number, output, rerank};
use crate::app::{self, Loaded};
use crate::data_file;
use crate::tables::{Chunk, Codec, Form, Format, Input, Shard, Texts, Wanted};
use asks::Scorer;
use pace::{Pace, Size};
pub(super) use stop::Stopped;
use stop::Stops;
use target::Target;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct ScoreArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// File of rows to score; - is standard input.
    #[arg(value_name = "INPUT")]
    input: PathBuf,
    /// File to write; a folder, if there is one or the name ends with /; - is standard output.
    #[arg(value_name = "OUTPUT")]
    output: PathBuf,
    /// Format of the input: jsonl, jsonl.gz, parquet, arrow or arrows; as its name says if left out.
    #[arg(long, value_name = "FORMAT", value_parser = formats(), hide_possible_values = true)]
    input_format: Option<String>,
    /// Format of the output; if left out as its name says, and the input's for a folder.
    #[arg(long, visible_alias = "format", value_name = "FORMAT", value_parser = formats(),
        hide_possible_values = true)]
    output_format: Option<String>,
    /// Compression of a Parquet output: none, snappy, zstd, lz4 or gzip; snappy if left out.
    #[arg(long, value_name = "NAME", value_parser = codecs(), hide_possible_values = true)]
    compression: Option<String>,
    /// Column with the query.
    #[arg(long, value_name = "NAME", default_value = "query")]
    query_column: String,
    /// Column with the document or the list of documents; "document", else "documents", if left out.
    #[arg(long, value_name = "NAME")]
    document_column: Option<String>,
    /// Field with the text, in documents that are objects.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_field: String,
    /// Column to write scores to; "score", for lists "scores", if left out.
    #[arg(long, value_name = "NAME")]
    score_column: Option<String>,
    /// Write each list's order too: its documents' places, from 0, best first.
    #[arg(long)]
    rank: bool,
    /// Write only so many places of the order.
    #[arg(long, value_name = "N", requires = "rank", value_parser = number::<1_000_000>)]
    top_n: Option<usize>,
    /// Column to write the order to.
    #[arg(long, value_name = "NAME", default_value = "order", requires = "rank")]
    order_column: String,
    /// Write scores before the activation.
    #[arg(long)]
    raw_scores: bool,
    /// What is done with a row, or a document in a list, that can't be scored; a line that is no JSON object always
    /// ends the run.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "fail")]
    on_error: OnError,
    /// Score only one of N equal shares of the rows: 3/16 is the third of sixteen.
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<Shard>,
    /// Go on with a run that broke off; begin one if there is none.
    #[arg(long)]
    resume: bool,
    /// Write a part of the output about so often, in seconds, or as soon as a row is done that takes longer: about so
    /// much is lost when a run is killed.
    #[arg(long, value_name = "S", default_value_t = 60)]
    part_seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnError {
    /// End with an error that names the row.
    Fail,
    /// Give it no score.
    Null,
}

const HELP: &str = "\
A row holds a query and a document, and gets a score; or a query and a list of documents (texts, or objects \
with a text), and gets a list of scores. All other columns are passed through as they are.

  .jsonl .ndjson .json   JSON lines, with .gz behind it compressed
  .parquet .pq           Parquet
  .arrow .feather .ipc   Arrow's IPC file
  .arrows                Arrow's IPC stream

JSON lines that become a table are read once beforehand for their columns' types, and a line that doesn't fit them \
is an error; of standard input the first 1,000 lines say the types. Each line is one object: jq -c '.[]' makes \
lines of an array.

An output file is written in parts, in OUTPUT.parts, which are joined at the end; a folder keeps its parts. \
With --resume, a run that was stopped in any way goes on behind its last part. SIGTERM and SIGINT end a run when \
what is done is written.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 and 143 stopped by SIGINT and SIGTERM.

Examples:
  rerankd score pairs.parquet scored.parquet
  rerankd score candidates.jsonl.gz ranked.parquet --rank --top-n 10
  rerankd score pairs.parquet scored/03.parquet --shard 3/16 --resume
  zcat pairs.jsonl.gz | rerankd score - - --document-column passage";

fn formats() -> PossibleValuesParser {
    PossibleValuesParser::new(Format::ALL.map(Format::name))
}

fn codecs() -> PossibleValuesParser {
    PossibleValuesParser::new(Codec::ALL.map(Codec::name))
}

/// `I/N`, with I from 1 to N.
fn shard(text: &str) -> Result<Shard, String> {
    let parsed = text.split_once('/').and_then(|(index, of)| {
        let (index, of) = (index.parse::<u64>().ok()?, of.parse().ok()?);
        (1..=of).contains(&index).then(|| Shard {
            index: index - 1,
            of,
        })
    });
    parsed.ok_or_else(|| "it must be I/N with I from 1 to N, such as 3/16".into())
}

/// Units that are with the engine at a time.
const IN_FLIGHT: usize = 4;
/// Units that are read ahead.
const READ_AHEAD: usize = 2;

/// Rows that are scored together.
struct Unit {
    chunk: Chunk,
    /// Each row's texts, or why it can't be scored.
    texts: Vec<Result<Texts, String>>,
    size: Size,
}

pub(super) fn run(args: &ScoreArgs) -> Result<()> {
    let settings = args.model.without_server(vec![])?;
    if args.input.is_dir() {
        let input = args.input.display();
        return Err(Usage(format!(
            "{input} is a folder: score its files one by one, each to its own output, as in: for f in {input}/part-*; \
             do rerankd score \"$f\" \"OUTPUT/$(basename \"$f\")\"; done"
        ))
        .into());
    }
    let (input_format, output) = args.formats()?;
    let Some(mut target) = Target::find(&args.output, output, args.resume)? else {
        output::note(&format!(
            "{} is there already, and taken as complete; --resume does not know what it was made with",
            args.output.display()
        ));
        return Ok(());
    };
    let wanted = Wanted {
        query: args.query_column.clone(),
        document: args.document_column.clone(),
        text: args.text_field.clone(),
        score: args.score_column.clone(),
        order: args.rank.then(|| args.order_column.clone()),
    };
    let shard = args.shard.unwrap_or(Shard::WHOLE);
    let is_pipe = match std::fs::metadata(&args.input) {
        Ok(about) => !about.is_file() && !about.is_dir(),
        Err(_) => args.input.as_os_str() == "-",
    };
    if is_pipe && shard != Shard::WHOLE {
        let reason =
            "--shard needs a file: of what is piped, the number of rows isn't known before its end";
        return Err(Usage(reason.into()).into());
    }
    let (from, to) = (input_format, output.format);
    let input = Input::open(&args.input, from, to, &wanted, shard, target.done())?;
    let loaded = Loaded::load(&settings)?;
    if target.is_kept() {
        target.begin(&args.described(&settings, &loaded, &input)?)?;
    }
    if target.is_complete() {
        output::note(&format!("{} is complete", args.output.display()));
        return Ok(());
    }
    super::runtime()?.block_on(async {
        let (served, _engine) = loaded.start(&settings)?;
        let (served, reranker) = (Arc::new(served), app::reranker(&settings));
        reranker.models().add(Arc::clone(&served));
        let scorer = Scorer {
            reranker,
            is_listwise: served.is_listwise(),
            raw_scores: args.raw_scores,
            top_n: args.top_n.unwrap_or(usize::MAX),
        };
        let is_cut = Arc::clone(&input.is_cut);
        let done = all(args, scorer, input, target).await?;
        if is_cut.load(Ordering::Relaxed) {
            output::note(&format!(
                "warning: {} has no mark of its end; if it was cut off, rows are missing",
                data_file::name(&args.input)
            ));
        }
        if done.truncated > 0 {
            output::note(&rerank::cut(done.truncated, done.pairs, &served));
        }
        done.note();
        Ok(())
    })
}

impl ScoreArgs {
    fn formats(&self) -> Result<(Format, Form), Usage> {
        let named = |name: &String| Format::ALL.into_iter().find(|f| f.name() == name);
        let of = |path: &PathBuf, flag: &str, name: &Option<String>| {
            let is_pipe = path.as_os_str() == "-";
            let format = name.as_ref().and_then(named).or_else(|| Format::of(path));
            let format = format.or(is_pipe.then_some(Format::Jsonl));
            let path = data_file::name(path);
            format.ok_or_else(|| {
                let names = Format::ALL.map(Format::name).join(", ");
                Usage(format!(
                    "{path}: the name tells no format; {flag} does ({names})"
                ))
            })
        };
        let input = of(&self.input, "--input-format", &self.input_format)?;
        let is_folder = target::is_folder(&self.output);
        let output = match (&self.output_format, is_folder) {
            (None, true) => input,
            (format, _) => of(&self.output, "--output-format", format)?,
        };
        if self.compression.is_some() && output != Format::Parquet {
            let reason = "--compression is that of a Parquet output; .jsonl.gz is the name of compressed lines";
            return Err(Usage(reason.into()));
        }
        let codec = self.compression.as_ref();
        let codec = codec.and_then(|name| Codec::ALL.into_iter().find(|c| c.name() == name));
        let form = Form {
            format: output,
            codec: codec.unwrap_or(Codec::Snappy),
        };
        Ok((input, form))
    }
}

/// What a run did.
#[derive(Default)]
struct Done {
    rows: u64,
    pairs: usize,
    /// Pairs that have no score.
    unscored: usize,
    truncated: usize,
    spent: Duration,
}

impl Done {
    fn rate(&self) -> f64 {
        self.pairs as f64 / self.spent.as_secs_f64().max(1e-3)
    }

    /// Beside the progress bar.
    fn shown(&self) -> String {
        format!("{} pairs, {:.1}/s", self.pairs, self.rate())
    }

    /// At the end.
    fn note(&self) {
        let unscored = match self.unscored {
            0 => String::new(),
            n => format!(", {n} of them without a score"),
        };
        output::note(&format!(
            "scored {} rows, {} pairs{unscored}, in {:.1} s: {:.1} pairs/s",
            self.rows,
            self.pairs,
            self.spent.as_secs_f64(),
            self.rate(),
        ));
    }
}

/// Reads, scores and writes.
async fn all(args: &ScoreArgs, scorer: Scorer, input: Input, mut target: Target) -> Result<Done> {
    let mut stops = Stops::install()?;
    let bar = output::progress_of(input.size);
    bar.set_position(input.start);
    bar.reset_eta();
    let (head, path) = (input.head.clone(), data_file::name(&args.input));
    let (send, units) = mpsc::channel(READ_AHEAD);
    let part = Duration::from_secs(args.part_seconds);
    let pace = Arc::new(Pace::new(part));
    let reading = (input, path.clone(), Arc::clone(&pace));
    let reading =
        tokio::task::spawn_blocking(move || read(reading.0, &reading.1, &reading.2, &send));
    let scorer = Arc::new(scorer);
    let units = stream::unfold(units, async |mut units| Some((units.recv().await?, units)));
    let scored = units.map(|unit: Result<Unit>| {
        let (scorer, pace) = (Arc::clone(&scorer), Arc::clone(&pace));
        // A task of its own goes on while another's rows are being written.
        tokio::spawn(async move {
            let (unit, start) = (unit?, Instant::now());
            let scored = scorer.score(&unit.texts).await?;
            pace.took(unit.size, start.elapsed());
            anyhow::Ok((unit.chunk, scored))
        })
    });
    let mut scored = std::pin::pin!(scored.buffered(IN_FLIGHT));
    let (start, mut done) = (Instant::now(), Done::default());
    loop {
        let result = tokio::select! {
            biased;
            signal = stops.next() => {
                bar.finish_and_clear();
                let left = tokio::task::block_in_place(|| target.stop())?;
                return Err(Stopped::new(signal, left).into());
            }
            result = scored.next() => result,
        };
        let Some(result) = result else { break };
        let (chunk, scored) = result??;
        if let (OnError::Fail, Some((row, reason))) = (args.on_error, &scored.failed) {
            bail!(
                "{path}, {}: {reason}; --on-error null leaves such rows without a score",
                chunk.name(*row)
            );
        }
        tokio::task::block_in_place(|| target.write(&path, &head, &chunk, &scored.rows, part))?;
        done.rows += chunk.len() as u64;
        done.pairs += scored.pairs;
        done.unscored += scored.unscored;
        done.truncated += scored.truncated;
        done.spent = start.elapsed();
        bar.set_position(chunk.place);
        bar.set_message(done.shown());
    }
    reading.await?;
    let finishing = tokio::task::spawn_blocking(move || target.finish(&head));
    tokio::select! {
        biased;
        signal = stops.next() => {
            bar.finish_and_clear();
            // The writing can't be called off, so the process ends beneath it.
            let stopped = Stopped::new(signal, "all rows were scored: --resume ends what was begun".into());
            output::note(&stopped.to_string());
            std::process::exit(stopped.exit_code().into());
        }
        finished = finishing => finished??,
    }
    bar.finish_and_clear();
    Ok(done)
}

/// Reads all rows and sends them in units, until nobody wants them.
fn read(input: Input, path: &str, pace: &Pace, units: &mpsc::Sender<Result<Unit>>) {
    let columns = input.head.columns.clone();
    for chunk in input {
        let read = chunk.map_err(anyhow::Error::from).and_then(|chunk| {
            let texts = chunk.texts(&columns);
            Ok((chunk, texts.map_err(|reason| anyhow!("{path}, {reason}"))?))
        });
        let (mut chunk, texts) = match read {
            Ok(read) => read,
            Err(error) => {
                let _ = units.blocking_send(Err(error));
                return;
            }
        };
        let mut texts = texts.into_iter().peekable();
        while texts.peek().is_some() {
            let (mut rows, mut size) = (Vec::new(), Size::default());
            let of = |row: &Result<Texts, String>| row.as_ref().map(Size::of).unwrap_or_default();
            while let Some(row) = texts.next_if(|row| rows.is_empty() || pace.fits(size + of(row)))
            {
                size = size + of(&row);
                rows.push(row);
            }
            let unit = Unit {
                chunk: chunk.take(rows.len()),
                texts: rows,
                size,
            };
            if units.blocking_send(Ok(unit)).is_err() {
                return;
            }
        }
    }
}
