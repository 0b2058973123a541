//! What handlers share.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::watch;

use crate::rerank::Reranker;
use crate::telemetry::Metrics;
use crate::types::{Caller, Dtype, ModelSpec};

use super::Options;
use super::auth::{KeyName, Keys, KeysError};
use super::error::ApiError;
use super::extract::shortened;
use super::receive::BodyBudget;
use super::server::ConnectionNumber;

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

/// The model being served and what can be said of it.
#[derive(Debug)]
pub struct Served {
    /// Answers requests.
    pub reranker: Reranker,
    /// For /info and /v1/models.
    pub info: ModelInfo,
}

/// What /info and /v1/models say of the model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// The name in responses.
    pub name: String,
    /// Its other names, which requests may carry too.
    pub names: Vec<String>,
    /// The commit on the hub, if it came from there.
    pub revision: Option<String>,
    /// What whoever uses it should know, in one line.
    pub note: Option<&'static str>,
    /// From its files.
    pub spec: ModelSpec,
    /// `cpu`, `cuda`, ...
    pub device: String,
    /// What the weights are kept in.
    pub dtype: Dtype,
    /// Most tokens in a batch.
    pub max_batch_tokens: usize,
    /// Threads that tokenise.
    pub tokenize_threads: usize,
    /// When it was loaded, in seconds since 1970.
    pub loaded_at: u64,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    keys: Option<Keys>,
    metrics: Metrics,
    served: OnceLock<Served>,
    phase: watch::Sender<Phase>,
    body_budget: BodyBudget,
    /// Requests that were cut off at the shutdown's deadline.
    cut_off: AtomicUsize,
    /// Documents of which the model did not read all.
    truncated: AtomicU64,
}

/// Shared by all handlers; cheap to clone. Not ready until [`AppState::set_served`].
#[derive(Debug, Clone)]
pub struct AppState(Arc<Inner>);

impl AppState {
    /// A state without a model.
    ///
    /// # Errors
    /// If the file of API keys can't be read.
    pub fn new(options: Options, metrics: Metrics) -> Result<Self, KeysError> {
        let keys = options.keys_file.as_deref().map(Keys::read).transpose()?;
        Ok(Self(Arc::new(Inner {
            keys,
            body_budget: BodyBudget::new(options.max_body_bytes_in_flight),
            options,
            metrics,
            served: OnceLock::new(),
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
    }

    /// Reads all files again that may change while the server runs, and tells so in the log. Blocks.
    pub fn reload(&self) {
        match &self.0.keys {
            Some(keys) => keys.reload(false),
            None => tracing::info!("there are no API keys to read again"),
        }
    }

    /// The API keys, if any are asked for.
    pub(super) fn keys(&self) -> Option<&Keys> {
        self.0.keys.as_ref()
    }

    /// Makes the server ready. Only the first call counts.
    pub fn set_served(&self, served: Served) {
        let _ = self.0.served.set(served);
    }

    /// Ends the engine once it has scored what waits; requests that come later are refused.
    pub fn close(&self) {
        if let Some(served) = self.0.served.get() {
            served.reranker.close();
        }
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

    /// Counts documents of which the model did not read all.
    pub(super) fn count_truncated(&self, documents: usize) {
        let truncated = &self.0.truncated;
        truncated.fetch_add(documents as u64, Ordering::Relaxed);
    }

    /// How many there were since the start.
    pub(super) fn truncated(&self) -> u64 {
        self.0.truncated.load(Ordering::Relaxed)
    }

    /// The room for bodies.
    pub(super) fn body_budget(&self) -> &BodyBudget {
        &self.0.body_budget
    }

    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The model, or the error that a request gets before it is loaded.
    pub(super) fn served(&self) -> Result<&Served, ApiError> {
        self.0.served.get().ok_or(ApiError::Loading)
    }

    /// Whether new work should be sent here.
    pub(super) fn ready(&self) -> Result<(), ApiError> {
        if *self.0.phase.borrow() >= Phase::Pausing {
            return Err(ApiError::Draining);
        }
        self.served().map(drop)
    }

    /// Checks the model that a request names, if it names one; returns the model.
    pub(super) fn model(&self, asked: Option<&str>) -> Result<&Served, ApiError> {
        let served = self.served()?;
        let (info, aliases) = (&served.info, &self.0.options.aliases);
        let known = |name: &str| {
            name.is_empty()
                || name == info.name
                || info.names.iter().any(|own| own == name)
                || aliases.iter().any(|alias| matches(alias, name))
        };
        match asked {
            Some(name) if !known(name) => Err(ApiError::ModelNotFound {
                asked: shortened(name).into_owned(),
                served: served.info.name.clone(),
            }),
            _ => Ok(served),
        }
    }
}

/// One call of a client: the shared state, and who calls.
#[derive(Debug, Clone)]
pub(super) struct Call {
    state: AppState,
    /// Who calls.
    pub(super) caller: Caller,
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
            caller: caller(&parts.extensions),
        })
    }
}

/// Who sends a request: the API key's name, else the connection.
pub(super) fn caller(extensions: &axum::http::Extensions) -> Caller {
    let connection = || extensions.get().map(|&ConnectionNumber(n)| n);
    match extensions.get::<KeyName>() {
        Some(name) => Caller::Key(name.shared()),
        None => connection().map_or_else(Caller::local, Caller::Connection),
    }
}

/// Whether a name is an alias; a final `*` stands for any ending.
fn matches(alias: &str, name: &str) -> bool {
    match alias.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => alias == name,
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn an_alias_may_end_in_a_star() {
        assert!(matches("rerank-*", "rerank-v3.5") && matches("*", "anything"));
        assert!(matches("m", "m") && !matches("m", "mm") && !matches("rerank-*", "bge-rerank-x"));
    }
}
