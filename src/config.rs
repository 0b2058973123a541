//! Settings: the layers merged, unknown keys refused, values checked.
//!
//! Order: compiled-in `config/default.toml` < `--config FILE` < `RERANKD__SECTION__KEY` < flags.
//! With `main`, the only place that reads the environment. `layers` merges, `check` says what each value
//! must be, `memory` how much of it there is, `models` reads several, `names` how a key is called as a variable or a
//! flag, `ports` are the settings of TLS and of the second port, `scores` which settings scores follow from, `traces`
//! where spans go, `vectors` are the settings of models that make vectors, `warnings` what is asked for in vain.

mod check;
mod dtype;
mod hub;
mod layers;
mod memory;
mod models;
mod names;
mod ports;
mod scores;
mod traces;
mod vectors;
mod warnings;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use check::ConfigError;
pub use dtype::DtypeName;
pub use memory::memory_limit;
pub use models::ModelSettings;
pub use names::variable_of_flag;
pub use ports::certificates;
pub use vectors::{MaxSimName, VectorDtypeName};

use layers::Layers;

use crate::engine::Compression;
use crate::rank::fusion::Fusion;
use crate::scoring::{Fit, Strategy, Truncation, Windows};
use crate::tokenize::Direction;
use crate::types::{Activation, Dtype, WindowScore};
use crate::{
    admission, engine, http, model_store, models as served, rerank, schedule, shutdown, telemetry,
};

/// All settings with their defaults, each explained.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// All settings; each key is explained in `config/default.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Settings {
    pub server: Server,
    pub tls: Tls,
    pub model: Model,
    pub auth: Auth,
    pub cors: Cors,
    pub engine: Engine,
    pub tokenize: Tokenize,
    pub batch: Batch,
    pub limits: Limits,
    pub cache: Cache,
    pub shutdown: Shutdown,
    pub log: Log,
    pub metrics: Metrics,
    pub traces: Traces,
    /// Several models, the first of which `model` is too; empty if there is that one alone.
    #[serde(skip)]
    pub models: Vec<ModelSettings>,
    /// Variables that look like ours but are none, in sentences.
    #[serde(skip)]
    strange: Vec<String>,
}

macro_rules! sections {
    ($($name:ident { $($field:ident: $type:ty,)* })*) => {$(
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "config/default.toml documents every key")]
        pub struct $name { $(pub $field: $type,)* }
    )*};
}

sections! {
    Server {
        host: String,
        port: u16,
        health_host: String,
        health_port: u16,
        max_connections: usize,
        head_timeout_ms: u64,
        body_timeout_ms: u64,
        write_timeout_ms: u64,
        idle_timeout_ms: u64,
    }
    Tls { cert_file: PathBuf, key_file: PathBuf, client_ca_file: PathBuf, }
    Model {
        id: String,
        revision: String,
        served_name: String,
        aliases: Vec<String>,
        max_input_tokens: usize,
        truncation: TruncationName,
        max_chunks_per_doc: usize,
        overlap_tokens: usize,
        window_score: WindowScoreName,
        score_label: String,
        prompt: String,
        instruction: String,
        cutoff_layer: usize,
        compression: toml::Table,
        activation: ActivationName,
        maxsim: MaxSimName,
        dimensions: usize,
        vector_cache_mb: u64,
        vector_cache_dtype: VectorDtypeName,
        fusion: toml::Table,
        weight: usize,
        preload: bool,
        pinned: bool,
        required: bool,
    }
    Auth {
        keys_file: PathBuf,
        protect_metrics: bool,
        protect_info: bool,
        protect_docs: bool,
        open_admin: bool,
    }
    Cors { origins: Vec<String>, }
    Engine {
        device: String,
        dtype: DtypeName,
        threads: usize,
        instructions: String,
        pin: bool,
        memory_budget_mb: u64,
    }
    Tokenize { threads: usize, }
    Batch { max_tokens: usize, max_pairs: usize, window_tokens: usize, }
    Limits {
        max_documents: usize,
        max_explained: usize,
        body_limit_bytes: usize,
        max_body_bytes_in_flight: usize,
        max_queue_ms: u64,
        max_queue_tokens: usize,
        request_timeout_ms: u64,
    }
    Cache { scores_mb: u64, }
    Shutdown { pause_ms: u64, deadline_ms: u64, }
    Log { format: telemetry::LogFormat, level: String, }
    Metrics { aliases: Vec<String>, }
    Traces { endpoint: String, sample_percent: u64, }
}

/// `model.truncation`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[expect(missing_docs, reason = "config/default.toml documents every value")]
pub enum TruncationName {
    LongestFirst,
    Document,
    Off,
}

/// `model.window_score`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[expect(missing_docs, reason = "config/default.toml documents every value")]
pub enum WindowScoreName {
    Best,
    // serde would write mean_top3.
    #[serde(rename = "mean_top_3")]
    #[value(name = "mean_top_3")]
    MeanTop3,
}

/// `model.activation`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[expect(missing_docs, reason = "config/default.toml documents every value")]
pub enum ActivationName {
    Auto,
    Sigmoid,
    Identity,
}

/// A flag's value for a key, the highest layer; a text is read as the key's type.
pub type Override = (&'static str, toml::Value);

impl Settings {
    /// Merges the layers and checks the result.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(file: Option<&Path>, overrides: Vec<Override>) -> Result<Self, ConfigError> {
        Self::merge(file, std::env::vars_os(), overrides)
    }

    fn merge(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: Vec<Override>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::new();
        if let Some(path) = file {
            layers.add_file(path)?;
        }
        layers.add_variables(variables)?;
        layers.add_flags(overrides)?;
        layers.settings()
    }

    /// Options of the model store; reads the `HF_*` variables.
    #[must_use]
    pub fn model_store(&self) -> model_store::Options {
        model_store::Options {
            model: self.model.id.clone(),
            revision: self.model.revision.clone(),
            hub: hub::from_environment(|name| std::env::var(name).ok()),
        }
    }

    /// What a model's weights are to be kept in; none if that is what suits the model.
    #[must_use]
    pub fn dtype(&self) -> Option<Dtype> {
        self.engine.dtype.asked()
    }

    /// Options of the engine.
    #[must_use]
    pub fn engine(&self) -> engine::Options {
        engine::Options {
            device: self.engine.device.clone(),
            threads: threads(self.engine.threads),
            instructions: self.engine.instructions.clone(),
            pin: self.engine.pin,
        }
    }

    /// Threads that tokenise.
    #[must_use]
    pub fn tokenize_threads(&self) -> usize {
        threads(self.tokenize.threads)
    }

    /// Limits of a batch.
    #[must_use]
    pub fn batch(&self) -> schedule::BatchLimits {
        schedule::BatchLimits {
            max_tokens: self.batch.max_tokens,
            max_pairs: self.batch.max_pairs,
            window_tokens: self.batch.window_tokens,
        }
    }

    /// Limits of admission.
    #[must_use]
    pub fn admission(&self) -> admission::Options {
        admission::Options {
            max_queue_tokens: self.limits.max_queue_tokens,
            max_queue: millis(self.limits.max_queue_ms),
        }
    }

    /// Most bytes of scores that are kept; 0: none are.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.cache.scores_mb << 20
    }

    /// The activation that stands for what the model's files say, if one does.
    #[must_use]
    pub fn activation(&self) -> Option<Activation> {
        match self.model.activation {
            ActivationName::Auto => None,
            ActivationName::Sigmoid => Some(Activation::Sigmoid),
            ActivationName::Identity => Some(Activation::Identity),
        }
    }

    /// How the model's documents get shorter on their way through it, if they do.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        // Checked when it was read.
        self.model.compression.clone().try_into().ok()
    }

    /// How the model's scores are joined with the first stage's, unless a request says otherwise.
    #[must_use]
    pub fn fusion(&self) -> Option<Fusion> {
        // Checked when it was read.
        self.model.fusion.clone().try_into().ok()
    }

    /// Most bytes of weights in memory, if there is a limit.
    #[must_use]
    pub fn memory_budget(&self) -> Option<u64> {
        let budget = self.engine.memory_budget_mb;
        (budget > 0).then_some(budget << 20)
    }

    /// Limits of a request.
    #[must_use]
    pub fn rerank(&self) -> rerank::Limits {
        rerank::Limits {
            max_documents: self.limits.max_documents,
            max_explained: self.limits.max_explained,
            request_timeout: millis(self.limits.request_timeout_ms),
        }
    }

    /// How the model is used, where `usage` is what its files say.
    #[must_use]
    pub fn usage(&self, usage: &model_store::Usage) -> served::Options {
        served::Options {
            fit: Fit {
                truncation: Truncation {
                    strategy: match self.model.truncation {
                        TruncationName::LongestFirst => Strategy::LongestFirst,
                        TruncationName::Document => Strategy::Document,
                        TruncationName::Off => Strategy::Off,
                    },
                    direction: Direction::Right,
                },
                max_tokens: None,
                max_document_tokens: None,
                windows: Windows {
                    max: match self.model.max_chunks_per_doc {
                        0 => usage.max_chunks_per_doc,
                        n => n,
                    },
                    overlap: self.model.overlap_tokens,
                },
            },
            window_score: self.window_score(),
            activation: usage.activation,
            fusion: self.fusion(),
            query_prompt: usage.query_prompt.clone(),
        }
    }

    /// What the windows of a document that is too long make of it.
    #[must_use]
    pub fn window_score(&self) -> WindowScore {
        match self.model.window_score {
            WindowScoreName::Best => WindowScore::Best,
            WindowScoreName::MeanTop3 => WindowScore::MeanTop3,
        }
    }

    /// Options of the HTTP surface.
    #[must_use]
    pub fn http(&self) -> http::Options {
        http::Options {
            body_limit_bytes: self.limits.body_limit_bytes,
            max_body_bytes_in_flight: self.body_bytes(0),
            max_queue: millis(self.limits.max_queue_ms),
            body_timeout: millis(self.server.body_timeout_ms),
            connections: self.connections(),
            health_port: self.health_address().map(|(_, port)| port),
            tls: self.tls_files(),
            keys_file: Some(self.auth.keys_file.clone()).filter(|f| !f.as_os_str().is_empty()),
            protect_metrics: self.auth.protect_metrics,
            protect_info: self.auth.protect_info,
            protect_docs: self.auth.protect_docs,
            open_admin: self.auth.open_admin,
            metric_aliases: self.metric_aliases(),
            cors_origins: self.cors.origins.clone(),
        }
    }

    /// Options of the shutdown.
    #[must_use]
    pub fn shutdown(&self) -> shutdown::Options {
        shutdown::Options {
            pause: millis(self.shutdown.pause_ms),
            deadline: millis(self.shutdown.deadline_ms),
        }
    }
}

fn millis(ms: u64) -> std::time::Duration {
    std::time::Duration::from_millis(ms)
}

/// The cores that this process may use (cgroup quota and affinity count).
fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// As many threads as asked for, but at most one for each core: more only wait for one another. 0:
/// one for each.
fn threads(asked: usize) -> usize {
    match asked {
        0 => cores(),
        n => n.min(cores()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let settings = Settings::load(None, vec![]).unwrap();
        assert_eq!(settings.server.port, 8080);
        assert_eq!(settings.limits.max_documents, 1000);
    }

    #[test]
    fn a_file_overlays_the_defaults_and_flags_overlay_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[server]\nport = 9000\nhost = \"::1\"\n").unwrap();
        let flags = vec![("server.port", 9001.into())];
        let settings = Settings::load(Some(file.path()), flags).unwrap();
        assert_eq!(
            (settings.server.port, settings.server.host.as_str()),
            (9001, "::1")
        );
        assert_eq!(settings.batch.max_pairs, 256);
    }

    #[test]
    fn the_production_overlay_suits_kubernetes_as_it_stands() {
        const GRACE_MS: u64 = 30_000;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/production.toml");
        let settings = Settings::load(Some(&path), vec![]).unwrap();
        let shutdown = &settings.shutdown;
        assert!(shutdown.pause_ms + shutdown.deadline_ms < GRACE_MS);
        assert!(settings.limits.request_timeout_ms <= shutdown.deadline_ms);
    }

    #[test]
    fn printed_settings_read_back_the_same() {
        let settings = Settings::load(None, vec![]).unwrap();
        let again: Settings = toml::from_str(&settings.to_toml()).unwrap();
        assert_eq!(again.to_toml(), settings.to_toml());
    }
}
