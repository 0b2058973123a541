//! What handlers share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use metrics::gauge;
use tokio::sync::watch;

use crate::models::{Models, Served};
use crate::rerank::{RerankError, Reranker};
use crate::telemetry::Metrics;
use crate::types::{Caller, Terms};

use super::accounts::Account;
use super::auth::{KeyName, Keys, KeysError};
use super::budget::BodyBudget;
use super::error::ApiError;
use super::extensions::ConnectionNumber;
use super::options::Options;
use super::terms::Asked;
use super::tls::{Tls, TlsError};

/// Where the server stands between start and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Loading, or at work.
    Serving,
    /// Asked to stop: not ready any more, but still answering, and telling clients to connect anew.
    Pausing,
    /// No new connections or requests; what is in is finished.
    Draining,
    /// What is still not answered gets an error.
    Expired,
}

/// Why a file can't be used that requests depend on.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file of API keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A file of TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

#[derive(Debug)]
struct Inner {
    options: Options,
    keys: Option<Keys>,
    tls: Option<Tls>,
    metrics: Metrics,
    reranker: Reranker,
    phase: watch::Sender<Phase>,
    body_budget: BodyBudget,
    /// Requests that were cut off at the shutdown's deadline.
    cut_off: AtomicUsize,
    /// Documents that the model did not read whole.
    truncated: AtomicU64,
}

/// Shared by all handlers; cheap to clone. Not ready until there is a model.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Inner>);

impl AppState {
    /// The state of a server that has just started.
    ///
    /// # Errors
    /// If the file of API keys or one of TLS can't be used.
    pub fn new(options: Options, metrics: Metrics, reranker: Reranker) -> Result<Self, FileError> {
        let keys = options.keys_file.as_deref().map(Keys::read).transpose()?;
        let tls = options.tls.as_ref().map(Tls::read).transpose()?;
        Ok(Self(Arc::new(Inner {
            keys,
            tls,
            body_budget: BodyBudget::new(options.max_body_bytes_in_flight),
            options,
            metrics,
            reranker,
            phase: watch::Sender::new(Phase::Serving),
            cut_off: AtomicUsize::new(0),
            truncated: AtomicU64::new(0),
        })))
    }

    /// Reads again the files that have changed. Blocks.
    pub fn reload_changed(&self) {
        if let Some(keys) = &self.0.keys {
            keys.reload(true);
        }
        if let Some(tls) = &self.0.tls {
            tls.reload(true);
        }
    }

    /// Reads all files again that may change while the server runs, and tells so in the log. Blocks.
    pub fn reload(&self) {
        match &self.0.keys {
            Some(keys) => keys.reload(false),
            None => tracing::info!("there are no API keys to read again"),
        }
        if let Some(tls) = &self.0.tls {
            tls.reload(false);
        }
    }

    /// Whether there are files that may change while the server runs.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.0.keys.is_some() || self.0.tls.is_some()
    }

    /// TLS, if it is spoken.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.0.tls.as_ref()
    }

    /// The API keys, if any are asked for.
    pub(super) fn keys(&self) -> Option<&Keys> {
        self.0.keys.as_ref()
    }

    /// Answers requests.
    #[must_use]
    pub fn reranker(&self) -> &Reranker {
        &self.0.reranker
    }

    /// Enters a later phase.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.send_if_modified(|current| {
            let is_later = phase > *current;
            *current = phase.max(*current);
            is_later
        });
    }

    /// The phase, and its changes.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Waits until a phase is reached.
    pub async fn reached(&self, phase: Phase) {
        // The sender is here, so the wait can't fail.
        let _ = self.phase().wait_for(|current| *current >= phase).await;
    }

    /// Counts a request that is cut off at the shutdown's deadline.
    pub(super) fn count_cut_off(&self) {
        self.0.cut_off.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were cut off at the shutdown's deadline.
    #[must_use]
    pub fn cut_off(&self) -> usize {
        self.0.cut_off.load(Ordering::Relaxed)
    }

    /// Counts documents that the model did not read whole.
    pub(super) fn count_truncated(&self, documents: usize) {
        let truncated = &self.0.truncated;
        truncated.fetch_add(documents as u64, Ordering::Relaxed);
    }

    /// How many there were since the start.
    pub(super) fn truncated(&self) -> u64 {
        self.0.truncated.load(Ordering::Relaxed)
    }

    /// Lowers the room for bodies to so many bytes, once so much is free.
    pub async fn lower_body_room(&self, bytes: usize) {
        self.0.body_budget.lower_to(bytes).await;
    }

    /// The room for bodies.
    pub(super) fn body_budget(&self) -> &BodyBudget {
        &self.0.body_budget
    }

    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    /// All metrics, as /metrics shows them.
    pub(super) fn metrics_text(&self) -> String {
        let is_ready = self.ready().is_ok();
        gauge!("rerankd_ready").set(f64::from(u8::from(is_ready)));
        self.0.metrics.render(&self.0.options.metric_aliases)
    }

    /// Whether new work should be sent here.
    pub(super) fn ready(&self) -> Result<(), ApiError> {
        self.serving().and_then(|()| self.loaded())
    }

    /// Whether the server has not been asked to stop.
    pub(super) fn serving(&self) -> Result<(), ApiError> {
        match *self.0.phase.borrow() < Phase::Pausing {
            true => Ok(()),
            false => Err(ApiError::Draining),
        }
    }

    /// Whether the models are loaded that the server can't do without.
    pub(super) fn loaded(&self) -> Result<(), ApiError> {
        Ok(self.models().ready().map_err(RerankError::from)?)
    }

    /// Whether there is any model that a request could be for.
    pub(super) fn any_model(&self) -> Result<(), ApiError> {
        Ok(self.models().any().map_err(RerankError::from)?)
    }

    /// All models.
    pub(super) fn models(&self) -> &Models {
        self.0.reranker.models()
    }

    /// The model that a request names; the first one if it names none.
    pub(super) fn model(&self, asked: Option<&str>) -> Result<Arc<Served>, ApiError> {
        Ok(self.models().get(asked).map_err(RerankError::from)?)
    }

    /// The same, to tell of it: it is not loaded for that.
    pub(super) fn described(&self, asked: Option<&str>) -> Result<Arc<Served>, ApiError> {
        Ok(self.models().peek(asked).map_err(RerankError::from)?)
    }
}

/// One call of a client: the shared state, and who calls.
#[derive(Debug, Clone)]
pub(super) struct Call {
    state: AppState,
    /// Who calls, and on what terms.
    pub(super) terms: Terms,
}

impl Deref for Call {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.state
    }
}

impl FromRequestParts<AppState> for Call {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self {
            state: state.clone(),
            terms: terms(&parts.extensions),
        })
    }
}

/// Who sends a request, and on what terms.
pub(super) fn terms(extensions: &axum::http::Extensions) -> Terms {
    let account = extensions.get::<Arc<Account>>();
    let asked = extensions.get::<Asked>().copied().unwrap_or_default();
    Terms {
        caller: caller(extensions),
        weight: account.map_or(1, |account| account.weight()),
        priority: asked.priority,
        usual_priority: account.map_or_else(Default::default, |account| account.priority()),
        deadline: asked.deadline,
        most_tokens: account.and_then(|account| account.most_tokens()),
    }
}

/// Who sends a request: the API key's name, else the connection.
fn caller(extensions: &axum::http::Extensions) -> Caller {
    let connection = || extensions.get().map(|&ConnectionNumber(n)| n);
    match extensions.get::<KeyName>() {
        Some(name) => Caller::Key(name.shared()),
        None => connection().map_or_else(Caller::local, Caller::Connection),
    }
}
