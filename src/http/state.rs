//! What handlers share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::rerank::Reranker;
use crate::telemetry::Metrics;
use crate::types::{Dtype, ModelSpec};

use super::Options;
use super::auth::{Keys, KeysError};
use super::error::ApiError;

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
    draining: AtomicBool,
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
            options,
            metrics,
            served: OnceLock::new(),
            draining: AtomicBool::new(false),
        })))
    }

    /// Reads the file of API keys again if it has changed. Blocks.
    pub fn reload_keys(&self) {
        if let Some(keys) = &self.0.keys {
            keys.reload();
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

    /// From now on /health/ready says 503; requests are still answered.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
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
        if self.0.draining.load(Ordering::Acquire) {
            return Err(ApiError::Draining);
        }
        self.served().map(drop)
    }

    /// Checks the model that a request names, if it names one; returns the model.
    pub(super) fn model(&self, asked: Option<&str>) -> Result<&Served, ApiError> {
        let served = self.served()?;
        let known = |name: &str| {
            name.is_empty()
                || name == served.info.name
                || self
                    .0
                    .options
                    .aliases
                    .iter()
                    .any(|alias| matches(alias, name))
        };
        match asked {
            Some(name) if !known(name) => Err(ApiError::ModelNotFound {
                asked: name.to_owned(),
                served: served.info.name.clone(),
            }),
            _ => Ok(served),
        }
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
