//! Options of the HTTP surface.

use std::path::PathBuf;
use std::time::Duration;

/// Options of the HTTP surface.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most bytes in a body.
    pub body_limit_bytes: usize,
    /// Most bytes of bodies in the server at a time.
    pub max_body_bytes_in_flight: usize,
    /// How long a body may wait for room in that before it is refused.
    pub max_queue: Duration,
    /// How long a client may take to send its body.
    pub body_timeout: Duration,
    /// Limits on connections.
    pub connections: ConnectionLimits,
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
    /// Origins whose pages may call the server; `*` stands for all.
    pub cors_origins: Vec<String>,
}

/// Limits on connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Most connections at a time; the limit on open files may allow fewer.
    pub max_connections: usize,
    /// How long a request's head may take, from its first byte or from the connection's begin.
    pub head_timeout: Duration,
    /// How long a client may leave an answer unread.
    pub write_timeout: Duration,
    /// How long a connection may stay without a request.
    pub idle_timeout: Duration,
}
