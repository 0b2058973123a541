//! Options of the HTTP surface.

use std::path::PathBuf;
use std::time::Duration;

use crate::telemetry::Alias;

use super::tls::TlsFiles;

/// Options of the HTTP surface.
#[derive(Debug, Clone)]
pub struct Options {
    /// Maximum size of a body in bytes.
    pub body_limit_bytes: usize,
    /// Maximum size of all bodies in the server at a time, in bytes.
    pub max_body_bytes_in_flight: usize,
    /// Maximum time that a body waits for room in that.
    pub max_queue: Duration,
    /// Maximum time that a client takes to send its body.
    pub body_timeout: Duration,
    /// Limits on connections.
    pub connections: ConnectionLimits,
    /// The port that answers health and metrics only, if there is one.
    pub health_port: Option<u16>,
    /// The files of TLS, if it is spoken.
    pub tls: Option<TlsFiles>,
    /// The file of API keys, if any are asked for.
    pub keys_file: Option<PathBuf>,
    /// Whether the metrics ask for a key too.
    pub protect_metrics: bool,
    /// Whether what describes the model asks for a key too.
    pub protect_info: bool,
    /// Whether the API's documentation asks for a key too.
    pub protect_docs: bool,
    /// Whether models may be loaded and unloaded where no keys are asked for.
    pub open_admin: bool,
    /// Other servers whose names metrics are shown under too.
    pub metric_aliases: Vec<Alias>,
    /// Origins whose pages may call the server; `*` stands for all.
    pub cors_origins: Vec<String>,
}

/// Limits on connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Maximum number of connections at a time; the limit on open files may allow fewer.
    pub max_connections: usize,
    /// What a message says before that number.
    pub of: &'static str,
    /// Connections of another port, which need files too.
    pub beside: usize,
    /// Maximum time for a request's head, from its first byte or from the connection's begin.
    pub head_timeout: Duration,
    /// Maximum time that a client leaves an answer unread.
    pub write_timeout: Duration,
    /// Maximum time that a connection stays without a request.
    pub idle_timeout: Duration,
}
