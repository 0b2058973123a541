//! Composition root: listens, loads, serves, shuts down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use metrics::gauge;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::Admission;
use crate::batch::Scorer;
use crate::config::Settings;
use crate::engine::{self, CrossEncoder, ModelFiles};
use crate::http::{self, AppState, ModelInfo, Phase, Served};
use crate::model_store::{self, Usage};
use crate::rerank::Reranker;
use crate::shutdown::Signals;
use crate::telemetry::{Metrics, flush_logs, install_metrics};
use crate::tokenize::{Definition, PairEncoder, TokenizePool, Truncation, Vocabulary};
use crate::types::{Batch, ModelSpec};

/// A model loaded and warmed up, with its tokenizer.
pub struct Loaded {
    /// Name in responses.
    pub name: String,
    /// The commit on the hub, if it came from there.
    pub revision: Option<String>,
    /// What whoever uses it should know, in one line.
    pub note: Option<&'static str>,
    /// How its files say it is to be used.
    pub usage: Usage,
    /// Where and how it runs.
    pub engine: engine::Options,
    /// The engine.
    pub model: Box<dyn CrossEncoder>,
    /// How many tokens a second the engine scores, as the warm-up measured.
    pub tokens_per_second: f64,
    /// The tokenizer.
    pub tokenizer: TokenizePool,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("name", &self.name)
            .field("spec", self.model.spec())
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// Finds, fetches, checks and loads the model, and scores a warm-up batch. Blocks.
    ///
    /// # Errors
    /// With a message that says what is wrong and how to mend it.
    pub fn load(settings: &Settings) -> Result<Self> {
        let start = Instant::now();
        for warning in settings.warnings() {
            tracing::warn!("{warning}");
        }
        let files = model_store::resolve(&settings.model_store())?;
        let usage = model_store::usage(&files, settings.activation())?;
        let engine = settings.engine(files.dtype);
        let mut model = engine::load(&files, &engine)?;
        let setting = settings.model.max_input_tokens;
        let max_tokens = max_input_tokens(model.spec(), usage.max_tokens, setting);
        let definition = tokenizer(&files, &usage)?;
        let encoder = PairEncoder::new(definition, model.spec(), max_tokens)?;
        let tokens_per_second = warm_up(model.as_mut(), &encoder)?;
        let tokenizer = TokenizePool::new(encoder, settings.tokenize())?;
        let name = match settings.model.served_name.as_str() {
            "" => files.name,
            name => name.to_owned(),
        };
        tracing::info!(
            model = name,
            family = model.spec().family,
            layers = model.spec().layers,
            hidden_size = model.spec().hidden_size,
            max_input_tokens = max_tokens,
            dtype = engine.dtype.name(),
            activation = %usage.activation,
            load_ms = start.elapsed().as_millis() as u64,
            "model loaded and warmed up"
        );
        if let Some(note) = files.note {
            tracing::info!(model = name, "{note}");
        }
        Ok(Self {
            name,
            revision: files.revision,
            note: files.note,
            usage,
            engine,
            model,
            tokens_per_second,
            tokenizer,
        })
    }

    /// Starts queue and engine behind the model. Needs a tokio runtime.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub fn start(self, settings: &Settings) -> Result<(Served, JoinHandle<()>)> {
        let spec = self.model.spec().clone();
        let (scorer, engine) = Scorer::start(self.model, settings.batch(), self.tokens_per_second)?;
        let reranker = Reranker::new(
            settings.rerank(&self.usage),
            Admission::new(settings.admission()),
            self.tokenizer,
            scorer,
        );
        let loaded_at = SystemTime::now().duration_since(UNIX_EPOCH);
        let info = ModelInfo {
            name: self.name,
            revision: self.revision,
            note: self.note,
            device: self.engine.device,
            dtype: self.engine.dtype,
            max_batch_tokens: settings.batch.max_tokens,
            tokenize_threads: settings.tokenize().threads,
            loaded_at: loaded_at.map_or(0, |d| d.as_secs()),
            spec,
        };
        Ok((Served { reranker, info }, engine))
    }
}

/// Reads what a model's files say of its tokenizer.
fn tokenizer(files: &ModelFiles, usage: &Usage) -> Result<Definition> {
    let read = |name: &str| -> Result<Option<(String, Vec<u8>)>> {
        let Some(file) = files.others.get(name) else {
            return Ok(None);
        };
        let bytes = file.read().with_context(|| file.to_string())?;
        Ok(Some((file.to_string(), bytes.into_owned())))
    };
    let json = |name: &str| files.others.get(name).map(model_store::read_json);
    let json = |name: &str| json(name).transpose().map(Option::unwrap_or_default);
    let whole = read("tokenizer.json")?.map(|(file, json)| (file, Vocabulary::Json(json)));
    let (file, vocabulary) = match whole {
        Some(whole) => whole,
        None => match (read("vocab.txt")?, read("vocab.json")?, read("merges.txt")?) {
            (Some((file, words)), ..) => (file, Vocabulary::WordPieces(words)),
            (_, Some((file, words)), Some((_, merges))) => {
                (file, Vocabulary::BytePairs { words, merges })
            }
            _ => anyhow::bail!("{}: tokenizer.json is missing", files.name),
        },
    };
    Ok(Definition {
        file,
        vocabulary,
        config: usage.config.clone(),
        tokenizer_config: usage.tokenizer_config.clone(),
        special_tokens_map: json("special_tokens_map.json")?,
        added_tokens: json("added_tokens.json")?,
        lowercase: usage.lowercase,
    })
}

/// The least of what the position table, the tokenizer and the settings (0: no limit) allow.
fn max_input_tokens(spec: &ModelSpec, tokenizer: Option<usize>, setting: usize) -> usize {
    let limits = [
        Some(spec.max_positions),
        tokenizer,
        Some(setting).filter(|&n| n > 0),
    ];
    limits.into_iter().flatten().min().unwrap_or(0)
}

/// Scores one real pair: what can't do that must not become ready. Then measures the engine on a longer
/// one, twice, since the first time may wait for memory; returns the tokens it scores in a second.
fn warm_up(model: &mut dyn CrossEncoder, encoder: &PairEncoder) -> Result<f64> {
    const MEASURED_TOKENS: usize = 128;
    let (query, document) = (
        encoder.encode_text("warm up")?,
        encoder.encode_text("a document")?,
    );
    let truncation = Truncation {
        strategy: crate::tokenize::Strategy::LongestFirst,
        direction: crate::tokenize::Direction::Right,
    };
    let pair = encoder.pair(&query, &document, truncation, 0)?;
    let logits = model.forward(&Batch::pack([&pair]))?;
    anyhow::ensure!(
        logits.iter().all(|logit| logit.0.is_finite()),
        "the model gives a logit that is not finite ({logits:?}); its weights must be broken"
    );
    let document = document.repeat(MEASURED_TOKENS.div_ceil(document.len().max(1)));
    let length = MEASURED_TOKENS.min(document.len());
    let pair = encoder.pair(&query, &document[..length], truncation, 0)?;
    let batch = Batch::pack([&pair]);
    let mut fastest = f64::INFINITY;
    for _ in 0..2 {
        let start = Instant::now();
        model.forward(&batch)?;
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    Ok(batch.tokens() as f64 / fastest.max(1e-6))
}

/// The server: bound to its port, not yet serving.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    listener: TcpListener,
    state: AppState,
    metrics: Metrics,
}

impl App {
    /// Binds the port.
    ///
    /// # Errors
    /// If the address can't be bound.
    pub async fn bind(settings: Settings) -> Result<Self> {
        let metrics = install_metrics()?;
        let (host, port) = (settings.server.host.as_str(), settings.server.port);
        let listener = TcpListener::bind((host, port))
            .await
            .with_context(|| format!("can't listen on {host}:{port}"))?;
        let state = AppState::new(settings.http(), metrics.clone())?;
        Ok(Self {
            settings,
            listener,
            state,
            metrics,
        })
    }

    /// Where the server listens.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves at once (with 503 until the model is loaded), loads the model, and ends after
    /// `signals` have asked for it.
    ///
    /// # Errors
    /// If the model can't be loaded, or requests had to be cut off at the shutdown's deadline.
    pub async fn run(self, mut signals: Signals) -> Result<()> {
        let (state, pause) = (self.state.clone(), self.settings.shutdown().pause);
        let _shutdown = AbortOnDropHandle::new(tokio::spawn(async move {
            let signal = signals.next().await;
            tracing::info!(signal, pause_ms = pause.as_millis() as u64, "shutting down");
            state.enter(Phase::Pausing);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                signal = signals.next() => exit_at_once(signal),
            }
            state.enter(Phase::Draining);
            exit_at_once(signals.next().await);
        }));
        self.serve().await
    }

    /// As [`App::run`], with a token in place of signals and no pause.
    ///
    /// # Errors
    /// As [`App::run`].
    pub async fn run_until(self, stop: CancellationToken) -> Result<()> {
        let state = self.state.clone();
        let _shutdown = AbortOnDropHandle::new(tokio::spawn(async move {
            stop.cancelled().await;
            state.enter(Phase::Draining);
        }));
        self.serve().await
    }

    async fn serve(self) -> Result<()> {
        tracing::info!(address = %self.local_addr()?, version = env!("CARGO_PKG_VERSION"), "listening");
        let _upkeep = keep_up(self.metrics);
        let state = self.state;
        let server = http::serve(self.listener, state.clone());
        let mut server = AbortOnDropHandle::new(tokio::spawn(server));
        let keys_file = self.settings.http().keys_file;
        let _reload = keys_file.map(|_| watch_keys(&state));

        let settings = Arc::new(self.settings);
        let for_load = Arc::clone(&settings);
        let load = tokio::task::spawn_blocking(move || Loaded::load(&for_load));
        let loaded = tokio::select! {
            loaded = load => loaded.context("loading the model panicked")?,
            // Asked to stop while loading: there is nothing to drain.
            ended = &mut server => return ended.context("the server panicked"),
        };
        let (served, engine) = loaded?.start(&settings)?;
        let info = &served.info;
        gauge!(
            "rerankd_model_info",
            "model" => info.name.clone(),
            "revision" => info.revision.clone().unwrap_or_default(),
            "family" => info.spec.family,
            "device" => info.device.clone(),
            "dtype" => info.dtype.name(),
        )
        .set(1.0);
        state.set_served(served);
        tracing::info!("ready");

        let deadline = settings.shutdown().deadline;
        let expire = async {
            state.reached(Phase::Draining).await;
            tokio::time::sleep(deadline).await;
            state.enter(Phase::Expired);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = &mut server => ended.context("the server panicked")?,
            () = expire => {}
        }
        state.close();
        let engine = tokio::task::spawn_blocking(move || engine.join());
        if tokio::time::timeout(Duration::from_secs(5), engine)
            .await
            .is_err()
        {
            tracing::warn!("the engine did not end in time");
        }
        let cut_off = state.cut_off();
        anyhow::ensure!(
            cut_off == 0,
            "{cut_off} requests were still in flight {} ms after the drain began; they were answered with 503",
            deadline.as_millis()
        );
        tracing::info!("stopped");
        Ok(())
    }
}

/// Reads the API keys again when their file changes, until dropped.
fn watch_keys(state: &AppState) -> AbortOnDropHandle<()> {
    const INTERVAL: Duration = Duration::from_secs(1);
    let state = state.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let state = state.clone();
            // A file may be on a slow mount. It panics for nothing; the next round tries again.
            let _ = tokio::task::spawn_blocking(move || state.reload_keys()).await;
        }
    }))
}

/// Keeps the metrics small when nobody scrapes them, until dropped.
fn keep_up(metrics: Metrics) -> AbortOnDropHandle<()> {
    const INTERVAL: Duration = Duration::from_secs(5);
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            metrics.upkeep();
        }
    }))
}

fn exit_at_once(signal: &str) -> ! {
    tracing::warn!(signal, "second signal: exiting at once");
    flush_logs();
    std::process::exit(130)
}
