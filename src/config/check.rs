//! Which values make sense. The maxima are generous: they keep out what can only be a mistake, and
//! what would overflow or never end.

use super::Settings;
use crate::telemetry;
use crate::types::MAX_WINDOWS;

/// Tokens of one batch, one window or one pair.
const MAX_TOKENS: u64 = 16_777_216;
/// Bytes of a body: 1 GiB.
const MAX_BODY: u64 = 1_073_741_824;
/// Bytes of all bodies: 1 TiB.
const MAX_BODIES: u64 = 1 << 40;
/// Milliseconds of a day.
const MAX_MS: u64 = 86_400_000;

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A layer can't be read, or holds an unknown key or a value of the wrong type.
    #[error("{0}")]
    Layer(#[from] config::ConfigError),
    /// A number is too small or too large.
    #[error("{key} is {value}, but it must be from {min} to {max}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
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

impl Settings {
    /// Refuses values that make no sense.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_sizes()?;
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

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let (server, model) = (&self.server, &self.model);
        let (batch, limits) = (&self.batch, &self.limits);
        let sizes = [
            (
                "server.max_connections",
                server.max_connections,
                1,
                1_000_000,
            ),
            (
                "model.max_input_tokens",
                model.max_input_tokens,
                0,
                MAX_TOKENS,
            ),
            (
                "model.max_chunks_per_doc",
                model.max_chunks_per_doc,
                0,
                MAX_WINDOWS as u64,
            ),
            ("model.overlap_tokens", model.overlap_tokens, 0, MAX_TOKENS),
            ("batch.max_tokens", batch.max_tokens, 1, MAX_TOKENS),
            ("batch.max_pairs", batch.max_pairs, 1, 1_000_000),
            ("batch.window_tokens", batch.window_tokens, 0, MAX_TOKENS),
            ("limits.max_documents", limits.max_documents, 1, 1_000_000),
            (
                "limits.body_limit_bytes",
                limits.body_limit_bytes,
                1,
                MAX_BODY,
            ),
            (
                "limits.max_body_bytes_in_flight",
                limits.max_body_bytes_in_flight,
                1,
                MAX_BODIES,
            ),
            (
                "limits.max_queue_tokens",
                limits.max_queue_tokens,
                1,
                1_000_000_000,
            ),
        ];
        let sizes = sizes.map(|(key, value, min, max)| (key, value as u64, min, max));
        let times = [
            ("server.head_timeout_ms", server.head_timeout_ms, 1, MAX_MS),
            ("server.body_timeout_ms", server.body_timeout_ms, 1, MAX_MS),
            (
                "server.write_timeout_ms",
                server.write_timeout_ms,
                1,
                MAX_MS,
            ),
            ("server.idle_timeout_ms", server.idle_timeout_ms, 1, MAX_MS),
            ("limits.max_queue_ms", limits.max_queue_ms, 1, MAX_MS),
            (
                "limits.request_timeout_ms",
                limits.request_timeout_ms,
                1,
                MAX_MS,
            ),
            ("shutdown.pause_ms", self.shutdown.pause_ms, 0, MAX_MS),
            ("shutdown.deadline_ms", self.shutdown.deadline_ms, 0, MAX_MS),
        ];
        for (key, value, min, max) in sizes.into_iter().chain(times) {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range {
                    key,
                    value,
                    min,
                    max,
                });
            }
        }
        Ok(())
    }
}
