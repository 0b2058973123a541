//! Accepts connections and drives each to its end: limits on their number and on every wait, and the
//! drain at shutdown.
//!
//! axum's own server has none of these limits, so hyper is used below it. `connection` decides about one
//! connection, `handshake` is its begin with TLS, `head` what HTTP/1.1 has refused of its heads, `stream`
//! watches its socket, `exchange` its requests.

mod connection;
mod exchange;
mod handshake;
mod head;
mod stream;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::options::ConnectionLimits;
use super::state::Phase;
use super::tls::Tls;
use connection::{Connection, Port};

/// Connections beyond the limit that are still let in, for health and metrics only.
const RESERVED: usize = 16;
/// Files that the process opens for other things than connections.
const OTHER_FILES: usize = 32;
/// After the deadline those who still wait are answered with 503; this long for that to be sent.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// A refused `accept` is tried again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// What goes on is said this often, not for each connection.
const WARN_AGAIN: Duration = Duration::from_secs(60);
/// A peer on HTTP/2 that answers no ping for this long is gone.
const PING: Duration = Duration::from_secs(20);

/// Bytes of a request's head of HTTP/1.1. As many of a body are read at a time.
const HTTP1_HEAD_BYTES: usize = 64 * 1024;
/// Requests of one HTTP/2 connection that are answered at a time.
const HTTP2_STREAMS: u32 = 128;
/// Bytes of requests' heads and of single frames; both are HTTP/2's and hyper's defaults.
const HTTP2_HEAD_BYTES: u32 = 16 * 1024;
const HTTP2_FRAME_BYTES: u32 = 16 * 1024;
/// Bytes of a body, and of all bodies of a connection, that a client may send before the server reads them.
const HTTP2_BODY_BYTES: u32 = 256 * 1024;
const HTTP2_BODIES_BYTES: u32 = 512 * 1024;
/// Bytes of an answer that are buffered for a client that does not read.
const HTTP2_ANSWER_BYTES: usize = 64 * 1024;
/// Requests that a client has withdrawn before they were begun: with more at a time it is told to go (GOAWAY), since it
/// only makes work.
const HTTP2_WITHDRAWN: usize = 20;

/// Serves until the phase is [`Phase::Draining`], then until each request that is in has its answer, or until
/// [`Phase::Expired`]. With `tls`, a new connection begins with a handshake.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    phase: watch::Receiver<Phase>,
    limits: ConnectionLimits,
    tls: Option<&Tls>,
) {
    let (limits, warning) = limits.within_open_files();
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    let mut server = Server {
        port: Arc::new(Port {
            router,
            builder: builder(),
            phase: phase.clone(),
            limits,
        }),
        connections: Arc::default(),
        tasks: JoinSet::new(),
        next: 1,
        crowded: Warned::default(),
    };
    let mut refused = Warned::default();
    loop {
        let is_full = server.is_full();
        tokio::select! {
            () = reached(&phase, Phase::Draining) => break,
            Some(_) = server.tasks.join_next() => {}
            // Those that are to make room are still on their way out.
            () = tokio::time::sleep(ACCEPT_AGAIN), if is_full => {
                server.connections.evict(|_| true);
            }
            accepted = listener.accept(), if !is_full => match accepted {
                Ok((stream, client)) => {
                    server.accepted(stream, client, tls.map(Tls::config));
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    if refused.is_due() {
                        tracing::error!(%error, "can't accept connections; idle ones are closed to make room");
                    }
                    server.connections.evict(|_| true);
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while server.tasks.join_next().await.is_some() {} };
    let expired = async {
        reached(&phase, Phase::Expired).await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        () = drained => {}
        () = expired => {}
    }
}

/// Waits until a phase is reached.
async fn reached(phase: &watch::Receiver<Phase>, wanted: Phase) {
    // An error says that the sender has gone, and the server with it.
    let _ = phase.clone().wait_for(|current| *current >= wanted).await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // A client that has sent all it has to say may still read; `connection` tells it from one that
    // has gone.
    builder
        .http1()
        .half_close(true)
        .max_buf_size(HTTP1_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEAD_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .initial_stream_window_size(HTTP2_BODY_BYTES)
        .initial_connection_window_size(HTTP2_BODIES_BYTES)
        .max_send_buf_size(HTTP2_ANSWER_BYTES)
        .max_pending_accept_reset_streams(HTTP2_WITHDRAWN);
    builder
}

/// Whether a failed `accept` concerns the connection that was to be accepted only.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

impl ConnectionLimits {
    /// Raises the process's limit on open files as far as it may, and lowers the number of connections
    /// to what that leaves; if it is less, says so.
    #[must_use]
    pub fn within_open_files(mut self) -> (Self, Option<String>) {
        let mut files = getrlimit(Resource::Nofile);
        if files.current < files.maximum {
            let raised = rustix::process::Rlimit {
                current: files.maximum,
                ..files
            };
            if setrlimit(Resource::Nofile, raised).is_ok() {
                files = raised;
            }
        }
        let Some(files) = files.current else {
            return (self, None);
        };
        let room = usize::try_from(files).unwrap_or(usize::MAX);
        let room = room
            .saturating_sub(OTHER_FILES + RESERVED + self.beside)
            .max(1);
        if room >= self.max_connections {
            return (self, None);
        }
        let asked = std::mem::replace(&mut self.max_connections, room);
        let warning = format!(
            "{} {asked}, but the limit on open files (ulimit -n) is {files}: {room} connections are let in",
            self.of
        );
        (self, Some(warning))
    }
}

/// When something was last said in the log.
#[derive(Debug, Default)]
struct Warned(Option<Instant>);

impl Warned {
    /// Whether it is time to say it again; then it is taken for said.
    fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|said| said.elapsed() >= WARN_AGAIN);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

struct Server {
    port: Arc<Port>,
    connections: Arc<Connections>,
    tasks: JoinSet<()>,
    next: u64,
    crowded: Warned,
}

impl Server {
    /// Whether even the connections that are kept for health and metrics are taken.
    fn is_full(&self) -> bool {
        self.connections.lock().len() >= self.port.limits.max_connections + RESERVED
    }

    fn accepted(&mut self, stream: TcpStream, client: SocketAddr, tls: Option<Arc<ServerConfig>>) {
        let is_crowded = self.connections.full() >= self.port.limits.max_connections;
        // Where one can be spared, the new connection takes its place.
        let is_extra = is_crowded && !self.connections.evict(Connection::is_full);
        if is_crowded && self.crowded.is_due() {
            tracing::warn!(
                max_connections = self.port.limits.max_connections,
                "all connections are taken; idle ones are closed to make room"
            );
        }
        // Answers are written whole; waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let connection = Arc::new(Connection::new(self.next, client, is_extra));
        self.next += 1;
        self.connections
            .lock()
            .insert(connection.number(), Arc::clone(&connection));
        let (connections, port) = (Arc::clone(&self.connections), Arc::clone(&self.port));
        self.tasks.spawn(async move {
            let number = connection.number();
            connection::drive(connection, stream, port, tls).await;
            connections.lock().remove(&number);
        });
    }
}

/// The open connections.
#[derive(Debug, Default)]
struct Connections(Mutex<HashMap<u64, Arc<Connection>>>);

impl Connections {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        // A panic under the lock is a bug, but the map is whole between statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that may ask for anything.
    fn full(&self) -> usize {
        let open = self.lock();
        open.values().filter(|c| c.is_full()).count()
    }

    /// Closes the connection without a request that can best be spared of `those`; returns whether
    /// there is one.
    fn evict(&self, those: impl Fn(&Connection) -> bool) -> bool {
        let open = self.lock();
        let idle = open.values().filter(|c| those(c));
        let idle = idle.filter_map(|connection| Some((connection.idle()?, connection)));
        let spared = idle.min_by_key(|(order, _)| *order);
        if let Some((_, connection)) = &spared {
            connection.evict();
        }
        spared.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_open_files_are_told_of_the_port_that_lacks_them() {
        for of in [
            "server.max_connections is",
            "server.health_port takes at most",
        ] {
            let limits = ConnectionLimits {
                max_connections: usize::MAX,
                of,
                beside: 0,
                head_timeout: Duration::ZERO,
                write_timeout: Duration::ZERO,
                idle_timeout: Duration::ZERO,
            };
            let (limits, warning) = limits.within_open_files();
            let warning = warning.unwrap();
            let room = format!("{} connections are let in", limits.max_connections);
            assert!(
                warning.starts_with(of) && warning.contains(&room),
                "{warning}"
            );
        }
    }
}
