//! Composition root: listens, loads, serves, shuts down. `prepared` is a model but for its weights, `check`
//! the start without serving.

mod check;
mod prepared;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use metrics::gauge;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::Admission;
use crate::config::Settings;
use crate::engine::{self, Device, Model};
use crate::http::{self, AppState, Phase};
use crate::model_store::Usage;
use crate::models::{Info, Models, Served};
use crate::rerank::{Reranker, ScoreCache};
use crate::schedule::{Compute, LaneOptions};
use crate::scoring::{EncodePool, Fit, Strategy, Threads, Truncation};
use crate::shutdown::Signals;
use crate::telemetry::{Metrics, flush_logs, install_metrics};
use crate::tokenize::Direction;
use crate::types::{Batch, Dtype};

pub use check::{Report, check};
use prepared::Prepared;

/// A model loaded and warmed up, with its tokenizer.
pub struct Loaded {
    /// Name in responses.
    pub name: String,
    /// The names that requests may call it by besides: what the settings call it, the hub id, the
    /// folder's name.
    pub names: Vec<String>,
    /// The commit on the hub, if it came from there.
    pub revision: Option<String>,
    /// What whoever uses it should know, in one line.
    pub note: Option<&'static str>,
    /// How its files say it is to be used.
    pub usage: Usage,
    /// What it runs on.
    pub device: Device,
    /// What its weights are kept in.
    pub dtype: Dtype,
    /// The engine.
    pub model: Box<dyn Model>,
    /// How many tokens a second the engine scores, as the warm-up measured.
    pub tokens_per_second: f64,
    /// What makes sequences of texts.
    pub encoder: EncodePool,
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
        Self::load_with(settings, &Threads::start(settings.tokenize_threads())?)
    }

    /// As [`Loaded::load`], with threads that other models have too.
    ///
    /// # Errors
    /// As [`Loaded::load`].
    pub fn load_with(settings: &Settings, threads: &Threads) -> Result<Self> {
        let start = Instant::now();
        for warning in settings.warnings() {
            tracing::warn!("{warning}");
        }
        let device = Device::new(&settings.engine())?;
        let prepared = Prepared::new(settings, &settings.model_store(), &device)?;
        for warning in &prepared.warnings {
            tracing::warn!("{warning}");
        }
        let (name, files) = (prepared.name, prepared.files);
        let (usage, dtype) = (prepared.usage, prepared.dtype);
        let mut model = engine::load(&files, dtype, &device)?;
        let scorer = Arc::new(prepared.scorer);
        let encoder = EncodePool::new(threads.clone(), prepared.tokenizer, scorer);
        let tokens_per_second = warm_up(model.as_mut(), &encoder)?;
        let id = &settings.model.id;
        let names = vec![files.name, id.clone(), id.trim_end_matches('/').to_owned()];
        tracing::info!(
            model = name,
            family = model.spec().family,
            layers = model.spec().layers,
            hidden_size = model.spec().hidden_size,
            max_input_tokens = prepared.max_tokens,
            dtype = dtype.name(),
            activation = %usage.activation,
            load_ms = start.elapsed().as_millis() as u64,
            "model loaded and warmed up"
        );
        if let Some(note) = files.note {
            tracing::info!(model = name, "{note}");
        }
        Ok(Self {
            name,
            names,
            revision: files.revision,
            note: files.note,
            usage,
            device,
            dtype,
            model,
            tokens_per_second,
            encoder,
        })
    }

    /// Starts an engine of its own for the model. Needs a tokio runtime.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub fn start(self, settings: &Settings) -> Result<(Served, Compute)> {
        let compute = Compute::start()?;
        Ok((self.start_on(&compute, settings), compute))
    }

    /// Gives the model to an engine. Needs a tokio runtime.
    #[must_use]
    pub fn start_on(self, compute: &Compute, settings: &Settings) -> Served {
        let spec = self.model.spec().clone();
        let lane = LaneOptions {
            name: self.name.as_str().into(),
            limits: settings.batch(),
            weight: 1.0,
            tokens_per_second: self.tokens_per_second,
        };
        let executor = compute.add(self.model, &lane);
        let loaded_at = SystemTime::now().duration_since(UNIX_EPOCH);
        let info = Info {
            name: self.name,
            names: self.names,
            aliases: settings.model.aliases.clone(),
            revision: self.revision,
            note: self.note,
            device: self.device.name().to_owned(),
            dtype: self.dtype,
            max_batch_tokens: settings.batch.max_tokens,
            tokenize_threads: self.encoder.threads().count(),
            loaded_at: loaded_at.map_or(0, |d| d.as_secs()),
            spec,
        };
        let options = settings.usage(&self.usage);
        Served::new(info, options, self.encoder, executor)
    }
}

/// What answers requests, without a model yet.
#[must_use]
pub fn reranker(settings: &Settings) -> Reranker {
    let admission = Admission::new(settings.admission());
    let cache = ScoreCache::new(settings.cache_bytes());
    Reranker::new(settings.rerank(), admission, Models::default(), cache)
}

/// The listener, or the error that names the settings.
fn listening<T>(bound: io::Result<T>, host: &str, port: u16) -> Result<T> {
    bound.with_context(|| format!("can't listen on {host}, port {port} (server.host, server.port)"))
}

/// Scores one real pair: what can't do that must not become ready. Then measures the engine on a longer
/// one, twice, since the first time may wait for memory; returns the tokens it scores in a second.
fn warm_up(model: &mut dyn Model, encoder: &EncodePool) -> Result<f64> {
    const MEASURED_TOKENS: usize = 128;
    let truncation = Truncation {
        strategy: Strategy::LongestFirst,
        direction: Direction::Right,
    };
    let batch = |document: &str, max_tokens| {
        let mut fit = Fit::from(truncation);
        fit.max_tokens = max_tokens;
        let encoded = encoder.encode("warm up", document, &fit)?;
        Ok::<_, anyhow::Error>(Batch::pack(&encoded.sequences))
    };
    let logits = model.forward(&batch("a document", None)?)?;
    anyhow::ensure!(
        logits.iter().all(|logit| logit.values()[0].is_finite()),
        "the model gives a logit that is not finite ({logits:?}); its weights must be broken"
    );
    let batch = batch(
        &"a document ".repeat(MEASURED_TOKENS),
        Some(MEASURED_TOKENS),
    )?;
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
        let listener = listening(TcpListener::bind((host, port)).await, host, port)?;
        let state = AppState::new(settings.http(), metrics.clone(), reranker(&settings))?;
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
        let reloaded = self.state.clone();
        let reload = move || {
            let state = reloaded.clone();
            tokio::task::spawn_blocking(move || state.reload());
        };
        let _shutdown = AbortOnDropHandle::new(tokio::spawn(async move {
            let signal = signals.next(&reload).await;
            tracing::info!(signal, pause_ms = pause.as_millis() as u64, "shutting down");
            state.enter(Phase::Pausing);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                signal = signals.next(&reload) => exit_at_once(signal),
            }
            state.enter(Phase::Draining);
            exit_at_once(signals.next(&reload).await);
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
        let _watch = keys_file.map(|_| watch_files(&state));

        let settings = Arc::new(self.settings);
        let for_load = Arc::clone(&settings);
        let load = tokio::task::spawn_blocking(move || Loaded::load(&for_load));
        let loaded = tokio::select! {
            loaded = load => loaded.context("loading the model panicked")?,
            // Asked to stop while loading: there is nothing to drain.
            ended = &mut server => return ended.context("the server panicked"),
        };
        let compute = Compute::start()?;
        let served = loaded?.start_on(&compute, &settings);
        let info = served.info();
        gauge!(
            "rerankd_model_info",
            "model" => info.name.clone(),
            "revision" => info.revision.clone().unwrap_or_default(),
            "family" => info.spec.family,
            "device" => info.device.clone(),
            "dtype" => info.dtype.name(),
        )
        .set(1.0);
        state.reranker().models().add(Arc::new(served));
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
        state.reranker().models().close();
        compute.close();
        let engine = tokio::task::spawn_blocking(move || compute.join());
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

/// Reads files again when they change, until dropped.
fn watch_files(state: &AppState) -> AbortOnDropHandle<()> {
    const INTERVAL: Duration = Duration::from_secs(1);
    let state = state.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let state = state.clone();
            // A file may be on a slow mount. It panics for nothing; the next round tries again.
            let _ = tokio::task::spawn_blocking(move || state.reload_changed()).await;
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
