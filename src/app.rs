//! Composition root: listens, loads, serves, shuts down. `prepared` is a model but for its weights, `models`
//! loads those that are served, `check` is the start without serving.

mod check;
mod faults;
mod models;
mod prepared;
mod prompts;
mod upkeep;
mod vectors;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::Admission;
use crate::config::Settings;
use crate::engine::{self, Device, Model, ModelFiles};
use crate::http::{self, AppState, Phase};
use crate::model_store::Usage;
use crate::models::{Info, Models, Served};
use crate::rerank::{Reranker, ScoreCache};
use crate::schedule::{Compute, LaneOptions};
use crate::scoring::{EncodePool, Fit, Listwise, Strategy, Threads, Truncation};
use crate::shutdown::Signals;
use crate::telemetry::{Metrics, flush_logs, flush_traces, install_metrics, install_traces};
use crate::tokenize::Direction;
use crate::types::{Batch, Dtype, Output, ScoreKind};

pub use check::{Report, check};
pub use faults::is_settings_fault;
use models::Loader;
use prepared::Prepared;
use upkeep::{fit_bodies, keep_up, record_settings, watch_files};

/// A model loaded and warmed up, with its tokenizer.
pub struct Loaded {
    /// What is said of it.
    pub info: Info,
    /// Its files.
    pub files: ModelFiles,
    /// How its files say it is to be used.
    pub usage: Usage,
    /// What it runs on.
    pub device: Device,
    /// What its weights are kept in.
    pub dtype: Dtype,
    /// The engine.
    pub model: Box<dyn Model>,
    /// How many tokens a second the engine scores, as the warm-up measured, where a token is one that sees no others.
    pub tokens_per_second: f64,
    /// What makes sequences of texts; of documents, if the model makes vectors.
    pub encoder: EncodePool,
    /// What makes sequences of queries then.
    pub queries: Option<EncodePool>,
    /// What reads documents together, if the model does.
    pub lists: Option<Arc<Listwise>>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// Finds, fetches, checks and loads the model, and scores a warm-up batch. Blocks.
    ///
    /// # Errors
    /// With a message that says what is wrong and how to mend it.
    pub fn load(settings: &Settings) -> Result<Self> {
        warn(&settings.warnings());
        Self::load_saying(settings, warn)
    }

    /// As [`Loaded::load`], of a model that was loaded before with settings that differ little: what they ask for in
    /// vain has been told.
    ///
    /// # Errors
    /// As [`Loaded::load`].
    pub fn load_again(settings: &Settings) -> Result<Self> {
        Self::load_saying(settings, |_| {})
    }

    fn load_saying(settings: &Settings, warn: impl Fn(&[String])) -> Result<Self> {
        let threads = Threads::start(settings.tokenize_threads())?;
        let device = Device::new(&settings.engine())?;
        let prepared = Prepared::new(settings, &settings.model_store(), &device)?;
        warn(&prepared.warnings);
        Self::of(prepared, device, settings, &threads)
    }

    /// Loads what is prepared, with threads that other models have too.
    fn of(
        prepared: Prepared,
        device: Device,
        settings: &Settings,
        threads: &Threads,
    ) -> Result<Self> {
        let start = Instant::now();
        let info = prepared.info(settings, &device);
        let (usage, dtype) = (prepared.usage, prepared.dtype);
        let mut model = engine::load(&prepared.files, dtype, &device)?;
        let encoder = EncodePool::new(threads.clone(), prepared.tokenizer, prepared.scorer);
        let queries = prepared.queries.map(|scorer| encoder.with_scorer(scorer));
        let tokens_per_second = warm_up(model.as_mut(), &encoder)?;
        tracing::info!(
            model = info.name,
            kind = info.kind.name(),
            family = info.spec.family,
            pooling = info.spec.pooling,
            head = info.spec.head,
            label = info.label(),
            prompt = info.prompt.as_ref().map(|prompt| &*prompt.format),
            layers = info.spec.layers,
            hidden_size = info.spec.hidden_size,
            max_input_tokens = prepared.max_tokens,
            dtype = dtype.name(),
            dtype_why = prepared.dtype_why,
            activation = %usage.activation,
            score_kind = ScoreKind::of(info.kind, usage.activation).name(),
            load_ms = start.elapsed().as_millis() as u64,
            "model loaded and warmed up"
        );
        if let Some(note) = info.note {
            tracing::info!(model = info.name, "{note}");
        }
        Ok(Self {
            info,
            files: prepared.files,
            usage,
            device,
            dtype,
            model,
            tokens_per_second,
            encoder,
            queries,
            lists: prepared.lists,
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
        let lane = LaneOptions {
            name: self.info.name.as_str().into(),
            limits: settings.batch(),
            weight: settings.model.weight as f64,
            tokens_per_second: self.tokens_per_second,
        };
        let executor = compute.add(self.model, &lane);
        let options = settings.usage(&self.usage);
        let served = Served::new(self.info, options, self.encoder, executor);
        vectors::completed(served, settings, &self.usage, self.queries, self.lists)
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// What answers requests, without a model yet.
#[must_use]
pub fn reranker(settings: &Settings) -> Reranker {
    reranker_of(settings, Models::default())
}

fn reranker_of(settings: &Settings, models: Models) -> Reranker {
    let admission = Admission::new(settings.admission());
    let cache = ScoreCache::new(settings.cache_bytes());
    Reranker::new(settings.rerank(), admission, models, cache)
}

/// What sends spans.
fn trace_client(settings: &Settings) -> Result<reqwest::Client> {
    let client = settings.model_store().hub.certificates.client();
    Ok(client.map_err(faults::Wrong)?)
}

/// The listener, or the error that names the settings.
fn listening<T>(bound: io::Result<T>, host: &str, port: u16) -> Result<T> {
    bound.with_context(|| format!("can't listen on {host}, port {port} (server.host, server.port)"))
}

/// The same of the port for health and metrics.
fn listening_for_health<T>(bound: io::Result<T>, host: &str, port: u16) -> Result<T> {
    bound.with_context(|| {
        format!(
            "can't listen on {host}, port {port}, for health and metrics (server.health_host, server.health_port)"
        )
    })
}

/// Scores one real pair: what can't do that must not become ready. Then measures the engine on a longer one, twice or
/// as often as there is time for, since the first time may wait for memory and others may use the cores; returns the
/// most tokens it scored in a second, where a token is one that sees no others.
fn warm_up(model: &mut dyn Model, encoder: &EncodePool) -> Result<f64> {
    const MEASURED_TOKENS: usize = 128;
    const TRIES: usize = 8;
    const TIME: Duration = Duration::from_millis(60);
    let truncation = Truncation {
        strategy: Strategy::LongestFirst,
        direction: Direction::Right,
    };
    let batch = |query: &str, document: &str, max_tokens| {
        let mut fit = Fit::from(truncation);
        fit.max_tokens = max_tokens;
        let encoded = encoder.encode(query, document, &fit)?;
        Ok::<_, anyhow::Error>(Batch::pack(&encoded.sequences))
    };
    let first = batch("warm up", "a document", None)?;
    let logits = model.forward(&first)?;
    anyhow::ensure!(
        logits
            .iter()
            .flat_map(Output::values)
            .all(|logit| logit.is_finite()),
        "the model gives a logit that is not finite ({logits:?}); its weights must be broken"
    );
    // At least as much of a document as stands around it in a prompt.
    let measured = MEASURED_TOKENS.max(2 * first.tokens());
    let document = "a document ".repeat(measured);
    let (begin, mut fastest) = (Instant::now(), 0.0f64);
    for attempt in 0..TRIES {
        if attempt > 1 && begin.elapsed() > TIME {
            break;
        }
        // Each has its own query, since a model may keep what a prompt begins with.
        let batch = batch(&format!("measure {attempt}"), &document, Some(measured))?;
        let cost = model.batch_cost(&batch);
        let start = Instant::now();
        model.forward(&batch)?;
        fastest = fastest.max(cost / start.elapsed().as_secs_f64().max(1e-6));
    }
    Ok(fastest)
}

/// The server: bound to its port, not yet serving.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    listener: TcpListener,
    /// For health and metrics, if they have a port of their own.
    health: Option<TcpListener>,
    state: AppState,
    /// Where spans are sent, in words.
    traces: String,
    metrics: Metrics,
    loader: Arc<Loader>,
}

impl App {
    /// Binds the port, unless a folder that the start needs has no model.
    ///
    /// # Errors
    /// If the address can't be bound, or such a folder is missing or lacks a file.
    pub async fn bind(settings: Settings) -> Result<Self> {
        check::folders(&settings)?;
        let metrics = install_metrics()?;
        record_settings(&settings);
        let traces = settings.traces()?;
        warn(&traces.warnings);
        if let Some(options) = &traces.options {
            install_traces(options, trace_client(&settings)?)?;
        }
        let (host, port) = (settings.server.host.as_str(), settings.server.port);
        let listener = listening(TcpListener::bind((host, port)).await, host, port)?;
        let health = match settings.health_address() {
            None => None,
            Some((host, port)) => {
                let bound = TcpListener::bind((host, port)).await;
                Some(listening_for_health(bound, host, port)?)
            }
        };
        let loader = Arc::new(Loader::new(&settings)?);
        let models = loader.models(settings.memory_budget());
        let reranker = reranker_of(&settings, models);
        let state = AppState::new(settings.http(), metrics.clone(), reranker)?;
        Ok(Self {
            settings,
            listener,
            health,
            state,
            traces: traces.text,
            metrics,
            loader,
        })
    }

    /// Where the server listens.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves at once (with 503 until a model is loaded), loads the models, and ends after `signals` have asked
    /// for it.
    ///
    /// # Errors
    /// If a model can't be loaded that is required, or requests had to be cut off at the shutdown's deadline.
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
        let address = self.local_addr()?;
        let health = self.health.as_ref().map(TcpListener::local_addr);
        let health = health
            .transpose()?
            .map(|address| format!("http://{address}"));
        let scheme = self.settings.scheme();
        tracing::info!(
            %address,
            url = format!("{scheme}://{address}"),
            health,
            traces = self.traces,
            version = env!("CARGO_PKG_VERSION"),
            "listening"
        );
        let _upkeep = keep_up(self.metrics);
        let state = self.state;
        // Until the process ends, after everything else.
        let _health = self.health.map(|listener| {
            AbortOnDropHandle::new(tokio::spawn(http::serve_health(listener, state.clone())))
        });
        let server = http::serve(self.listener, state.clone());
        let mut server = AbortOnDropHandle::new(tokio::spawn(server));
        let _watch = state.has_files().then(|| watch_files(&state));

        warn(&self.settings.warnings());
        let models = state.reranker().models().clone();
        let is_one = self.settings.models.len() < 2;
        let load = async {
            if let Err(error) = models.start().await {
                return faults::not_loaded(error, is_one);
            }
            tracing::info!("ready");
            fit_bodies(&self.settings, &state).await;
            std::future::pending().await
        };
        let deadline = self.settings.shutdown().deadline;
        let expire = async {
            state.reached(Phase::Draining).await;
            tokio::time::sleep(deadline).await;
            state.enter(Phase::Expired);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = &mut server => ended.context("the server panicked")?,
            error = load => return Err(error),
            () = expire => {}
        }
        models.close();
        let spans = tokio::task::spawn_blocking(flush_traces);
        let loader = self.loader;
        let engines = tokio::task::spawn_blocking(move || loader.end_engines());
        if tokio::time::timeout(Duration::from_secs(5), engines)
            .await
            .is_err()
        {
            tracing::warn!("an engine did not end in time");
        }
        // It gives up in time by itself.
        let _ = spans.await;
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

fn exit_at_once(signal: &str) -> ! {
    tracing::warn!(signal, "second signal: exiting at once");
    flush_logs();
    std::process::exit(130)
}
