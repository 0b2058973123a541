//! Settings: the layers merged, unknown keys refused, values checked.
//!
//! Order: compiled-in `config/default.toml` < `--config FILE` < `RERANKD__SECTION__KEY` < flags.
//! With `main`, the only place that reads the environment.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use config::{Config, Environment, File, FileFormat};
use serde::{Deserialize, Serialize};

use crate::model_store::HubOptions;
use crate::tokenize::{Direction, Fitting, Strategy, Truncation, Windows};
use crate::types::{Activation, Dtype, WindowScore};
use crate::{admission, batch, engine, http, model_store, rerank, shutdown, telemetry, tokenize};

const DEFAULTS: &str = include_str!("../config/default.toml");

/// All settings; each key is explained in `config/default.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Settings {
    pub server: Server,
    pub model: Model,
    pub auth: Auth,
    pub cors: Cors,
    pub engine: Engine,
    pub tokenize: Tokenize,
    pub batch: Batch,
    pub limits: Limits,
    pub shutdown: Shutdown,
    pub log: Log,
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
        max_connections: usize,
        head_timeout_ms: u64,
        body_timeout_ms: u64,
        write_timeout_ms: u64,
        idle_timeout_ms: u64,
    }
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
        activation: ActivationName,
    }
    Auth { keys_file: PathBuf, protect_operations: bool, }
    Cors { origins: Vec<String>, }
    Engine { device: String, dtype: Dtype, threads: usize, instructions: String, }
    Tokenize { threads: usize, }
    Batch { max_tokens: usize, max_pairs: usize, window_tokens: usize, }
    Limits {
        max_documents: usize,
        body_limit_bytes: usize,
        max_body_bytes_in_flight: usize,
        max_queue_ms: u64,
        max_queue_tokens: usize,
        request_timeout_ms: u64,
    }
    Shutdown { pause_ms: u64, deadline_ms: u64, }
    Log { format: telemetry::LogFormat, level: String, }
}

/// `model.truncation`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "config/default.toml documents every value")]
pub enum TruncationName {
    LongestFirst,
    Document,
    Off,
}

/// `model.window_score`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "config/default.toml documents every value")]
pub enum WindowScoreName {
    Best,
    // serde would write mean_top3.
    #[serde(rename = "mean_top_3")]
    MeanTop3,
}

/// `model.activation`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "config/default.toml documents every value")]
pub enum ActivationName {
    Auto,
    Sigmoid,
    Identity,
}

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A layer can't be read, or holds an unknown key or a value of the wrong type.
    #[error("{0}")]
    Layer(#[from] config::ConfigError),
    /// A value makes no sense.
    #[error("{key} is {value}, but {must}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        must: &'static str,
    },
}

/// A flag's value for a key, the highest layer.
pub type Override = (&'static str, config::Value);

impl Settings {
    /// Merges the layers and checks the result.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(file: Option<&Path>, overrides: Vec<Override>) -> Result<Self, ConfigError> {
        let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = file {
            builder = builder.add_source(File::from(path).format(FileFormat::Toml));
        }
        builder = builder.add_source(
            // The double underscore keeps Kubernetes' own RERANKD_SERVICE_HOST out.
            Environment::with_prefix("RERANKD")
                .prefix_separator("__")
                .separator("__")
                .list_separator(",")
                .with_list_parse_key("model.aliases")
                .with_list_parse_key("cors.origins")
                .try_parsing(true),
        );
        for (key, value) in overrides {
            builder = builder.set_override(key, value)?;
        }
        let settings: Self = builder.build()?.try_deserialize()?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("batch.max_tokens", self.batch.max_tokens),
            ("batch.max_pairs", self.batch.max_pairs),
            ("limits.max_documents", self.limits.max_documents),
            ("limits.body_limit_bytes", self.limits.body_limit_bytes),
            ("limits.max_queue_tokens", self.limits.max_queue_tokens),
            (
                "limits.request_timeout_ms",
                self.limits.request_timeout_ms as usize,
            ),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(ConfigError::Value {
                    key,
                    value: "0".into(),
                    must: "it must be at least 1",
                });
            }
        }
        if self.model.id.is_empty() {
            return Err(ConfigError::Value {
                key: "model.id",
                value: "empty".into(),
                must: "it must be a folder, a hub id ORG/NAME, or \"builtin\"",
            });
        }
        let origins = &self.cors.origins;
        let is_origin =
            |o: &&String| *o == "*" || o.starts_with("http://") || o.starts_with("https://");
        if let Some(wrong) = origins.iter().find(|o| !is_origin(o) || o.ends_with('/')) {
            return Err(ConfigError::Value {
                key: "cors.origins",
                value: format!("\"{wrong}\""),
                must: "each must be \"*\" or scheme, host and port without a path, as https://app.example.com",
            });
        }
        telemetry::check_filter(&self.log.level).map_err(|_| ConfigError::Value {
            key: "log.level",
            value: format!("\"{}\"", self.log.level),
            must: "it must be a level (error, warn, info, debug, trace) or a tracing filter",
        })
    }

    /// The merged settings as TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // Settings came from TOML, so they can be written as TOML.
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// Options of the model store; reads the `HF_*` variables.
    #[must_use]
    pub fn model_store(&self) -> model_store::Options {
        model_store::Options {
            model: self.model.id.clone(),
            revision: self.model.revision.clone(),
            hub: hub_from_environment(|name| std::env::var(name).ok()),
        }
    }

    /// Options of the engine.
    #[must_use]
    pub fn engine(&self) -> engine::Options {
        engine::Options {
            device: self.engine.device.clone(),
            dtype: self.engine.dtype,
            threads: or_cores(self.engine.threads),
            instructions: self.engine.instructions.clone(),
        }
    }

    /// Options of the tokeniser's pool.
    #[must_use]
    pub fn tokenize(&self) -> tokenize::PoolOptions {
        tokenize::PoolOptions {
            threads: or_cores(self.tokenize.threads),
        }
    }

    /// Limits of a batch.
    #[must_use]
    pub fn batch(&self) -> batch::BatchLimits {
        batch::BatchLimits {
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

    /// Options of the use case. `max_chunks_per_doc` is the model's own.
    #[must_use]
    pub fn rerank(&self, max_chunks_per_doc: usize) -> rerank::Options {
        rerank::Options {
            max_documents: self.limits.max_documents,
            request_timeout: millis(self.limits.request_timeout_ms),
            fitting: Fitting {
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
                        0 => max_chunks_per_doc,
                        n => n,
                    },
                    overlap: self.model.overlap_tokens,
                },
            },
            window_score: match self.model.window_score {
                WindowScoreName::Best => WindowScore::Best,
                WindowScoreName::MeanTop3 => WindowScore::MeanTop3,
            },
            activation: match self.model.activation {
                ActivationName::Auto => None,
                ActivationName::Sigmoid => Some(Activation::Sigmoid),
                ActivationName::Identity => Some(Activation::Identity),
            },
        }
    }

    /// Options of the HTTP surface.
    #[must_use]
    pub fn http(&self) -> http::Options {
        http::Options {
            body_limit_bytes: self.limits.body_limit_bytes,
            max_body_bytes_in_flight: self.limits.max_body_bytes_in_flight,
            max_queue: millis(self.limits.max_queue_ms),
            body_timeout: millis(self.server.body_timeout_ms),
            connections: http::ConnectionLimits {
                max_connections: self.server.max_connections,
                head_timeout: millis(self.server.head_timeout_ms),
                write_timeout: millis(self.server.write_timeout_ms),
                idle_timeout: millis(self.server.idle_timeout_ms),
            },
            aliases: self.model.aliases.clone(),
            keys_file: Some(self.auth.keys_file.clone()).filter(|f| !f.as_os_str().is_empty()),
            protect_operations: self.auth.protect_operations,
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

/// `value`, or as many as the cores that this process may use (cgroup quota and affinity count).
fn or_cores(value: usize) -> usize {
    match value {
        0 => available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// As huggingface_hub reads its environment
/// (<https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>).
fn hub_from_environment(var: impl Fn(&str) -> Option<String>) -> HubOptions {
    let var = |name| var(name).filter(|v: &String| !v.is_empty());
    let home = var("HF_HOME").map_or_else(
        || {
            let cache = var("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.unwrap_or_else(|| {
                PathBuf::from(var("HOME").unwrap_or_else(|| ".".into())).join(".cache")
            });
            cache.join("huggingface")
        },
        PathBuf::from,
    );
    let cache = var("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from);
    let token = var("HF_TOKEN").or_else(|| {
        let text = std::fs::read_to_string(home.join("token")).ok()?;
        Some(text.trim().to_owned()).filter(|t| !t.is_empty())
    });
    let on = |v: String| matches!(v.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
    HubOptions {
        // hf-hub links snapshots to blobs and wants one kind of path for both.
        cache: std::path::absolute(&cache).unwrap_or(cache),
        token,
        endpoint: var("HF_ENDPOINT"),
        offline: var("HF_HUB_OFFLINE").is_some_and(on),
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
        let flags = vec![("server.port", config::Value::from(9001))];
        let settings = Settings::load(Some(file.path()), flags).unwrap();
        assert_eq!(
            (settings.server.port, settings.server.host.as_str()),
            (9001, "::1")
        );
        assert_eq!(settings.batch.max_pairs, 256);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[server]\nprot = 9000\n").unwrap();
        let error = Settings::load(Some(file.path()), vec![])
            .unwrap_err()
            .to_string();
        assert!(error.contains("prot"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_is_an_error_that_says_what_it_must_be() {
        let flags = vec![("batch.max_tokens", config::Value::from(0))];
        let error = Settings::load(None, flags).unwrap_err().to_string();
        assert_eq!(error, "batch.max_tokens is 0, but it must be at least 1");
        let flags = vec![("log.level", config::Value::from("loud=="))];
        assert!(Settings::load(None, flags).is_err());
    }

    #[test]
    fn the_example_overlay_is_valid() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/production.toml");
        assert_eq!(
            Settings::load(Some(&path), vec![])
                .unwrap()
                .shutdown
                .pause_ms,
            10_000
        );
    }

    #[test]
    fn printed_settings_read_back_the_same() {
        let settings = Settings::load(None, vec![]).unwrap();
        let again: Settings = toml::from_str(&settings.to_toml()).unwrap();
        assert_eq!(again.to_toml(), settings.to_toml());
    }

    #[test]
    fn the_hub_is_found_as_python_finds_it() {
        let env = |pairs: &'static [(&str, &str)]| {
            hub_from_environment(move |name| {
                let found = pairs.iter().find(|(n, _)| *n == name);
                found.map(|(_, v)| (*v).to_owned())
            })
        };
        assert_eq!(
            env(&[("HOME", "/h")]).cache,
            Path::new("/h/.cache/huggingface/hub")
        );
        assert_eq!(env(&[("HF_HOME", "/x")]).cache, Path::new("/x/hub"));
        let both = env(&[
            ("HF_HOME", "/x"),
            ("HF_HUB_CACHE", "/y"),
            ("HF_HUB_OFFLINE", "true"),
        ]);
        assert_eq!(both.cache, Path::new("/y"));
        assert!(both.offline && !env(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(env(&[("HF_TOKEN", "t")]).token.as_deref(), Some("t"));
    }
}
