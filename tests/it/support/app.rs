//! The real server on a loopback port, and a client for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use rerankd::app::{self, App, Loaded};
use rerankd::config::Settings;
use rerankd::engine::Model;
use rerankd::http::{self, AppState, Phase};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::gate::{Gate, gate};
use super::{PATIENCE, models};

/// An answer with a JSON body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// Metrics are the process's, so a test that waits for a metric must run without other servers.
static METRICS: RwLock<()> = RwLock::const_new(());

/// Held for a server's life.
#[expect(dead_code, reason = "held, not read")]
#[derive(Debug)]
enum Guard {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A running server.
#[derive(Debug)]
pub(crate) struct TestApp {
    pub(crate) base: String,
    client: reqwest::Client,
    stop: CancellationToken,
    server: JoinHandle<anyhow::Result<()>>,
    _guard: Guard,
}

/// The default settings with a tiny model and a free port.
pub(crate) fn settings(model: &Path) -> Settings {
    let overrides = vec![
        ("model.id", model.to_str().unwrap().into()),
        ("server.port", 0.into()),
    ];
    Settings::load(None, overrides).unwrap()
}

impl TestApp {
    /// Starts a server on a tiny model and waits until it is ready.
    pub(crate) async fn start(model: &str) -> Self {
        Self::with_settings(settings(&models::folder(model))).await
    }

    /// Starts a server with changed settings on tiny-bert.
    pub(crate) async fn changed(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(&models::folder("tiny-bert"));
        change(&mut settings);
        Self::with_settings(settings).await
    }

    /// Starts a server and waits until it is ready.
    pub(crate) async fn with_settings(settings: Settings) -> Self {
        let guard = Guard::Shared(METRICS.read().await);
        let stop = CancellationToken::new();
        let app = App::bind(settings).await.unwrap();
        let base = format!("http://{}", app.local_addr().unwrap());
        let server = tokio::spawn(app.run_until(stop.clone()));
        let app = Self {
            base,
            client: client(),
            stop,
            server,
            _guard: guard,
        };
        let deadline = Instant::now() + PATIENCE;
        while app.get("/health").await.status != StatusCode::OK {
            let is_late = Instant::now() > deadline;
            assert!(!is_late && !app.server.is_finished(), "it did not start");
        }
        app
    }

    /// Starts a server on tiny-bert, its model wrapped by the test, while no other server runs.
    pub(crate) async fn wrapped(
        change: impl FnOnce(&mut Settings),
        wrap: impl FnOnce(Box<dyn Model>) -> Box<dyn Model>,
    ) -> Self {
        let guard = Guard::Alone(METRICS.write().await);
        let mut settings = settings(&models::folder("tiny-bert"));
        change(&mut settings);
        // Before the engine, whose metrics would else go nowhere.
        let metrics = rerankd::telemetry::install_metrics().unwrap();
        let mut loaded = Loaded::load(&settings).unwrap();
        loaded.model = wrap(loaded.model);
        let (served, engine) = loaded.start(&settings).unwrap();
        let reranker = app::reranker(&settings);
        reranker.models().add(Arc::new(served));
        let state = AppState::new(settings.http(), metrics, reranker).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            let closing = state.clone();
            let drain = tokio::spawn(async move {
                stopped.await;
                closing.enter(Phase::Draining);
            });
            http::serve(listener, state.clone()).await;
            drain.abort();
            state.reranker().models().close();
            engine.close();
            tokio::task::block_in_place(|| engine.join());
            Ok(())
        });
        Self {
            base,
            client: client(),
            stop,
            server,
            _guard: guard,
        }
    }

    /// Starts a server on tiny-bert whose engine runs a batch only when the test lets it, while no
    /// other server runs.
    pub(crate) async fn gated(change: impl FnOnce(&mut Settings)) -> (Self, Gate) {
        let mut handle = None;
        let wrap = |model| {
            let (model, gate) = gate(model);
            handle = Some(gate);
            model
        };
        let app = Self::wrapped(change, wrap).await;
        (app, handle.unwrap())
    }

    /// A request to a path.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// POSTs a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }

    /// GETs a path.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    /// The metrics' text.
    pub(crate) async fn metrics(&self) -> String {
        let answer = self.request(Method::GET, "/metrics").send().await.unwrap();
        assert_eq!(
            answer.headers()["content-type"],
            "text/plain; version=0.0.4; charset=utf-8"
        );
        answer.text().await.unwrap()
    }

    /// Waits until a metric is as it should be.
    pub(crate) async fn until_metric(&self, name: &str, is_enough: impl Fn(f64) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = metric(&self.metrics().await, name);
            if is_enough(value) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} stays {value}");
        }
    }

    /// Shuts down in order, with nothing in flight.
    pub(crate) async fn stop(self) {
        drop(self.client);
        self.stop.cancel();
        self.server.await.unwrap().unwrap();
    }
}

/// Sends a request; a body that is not JSON is returned as a string.
pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = answer.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer {
        status,
        headers,
        body,
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The value of a metric, summed over its labels.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let samples = text.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    samples
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}
