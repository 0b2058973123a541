//! One connection from its begin to its end: what it is used for, and when it has to go.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Version;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tower::ServiceExt;

use super::exchange::{Answering, Exchange, RequestBody};
use super::handshake::shake;
use super::head;
use super::stream::{Heard, Peer, Socket, peer};
use crate::http::extensions::{BadHead, ClientAddress, ConnectionNumber, OperationsOnly};
use crate::http::options::ConnectionLimits;
use crate::http::state::Phase;

/// How often the client is looked after while it waits for an answer.
const LOOK: Duration = Duration::from_millis(100);
/// While draining, a connection without a request has this long to send what is on its way.
const LAST_BYTES: Duration = Duration::from_millis(50);
/// The same where the client is still sending.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(500);
/// While draining, an answer of which the client takes nothing for this long is given up.
const LAST_READ: Duration = Duration::from_secs(3);
/// A connection that has had no request yet is spared this long before others.
const YOUNG: Duration = Duration::from_secs(1);

/// A connection, as its socket, its requests and the server see it.
#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    client: SocketAddr,
    operations_only: bool,
    activity: Mutex<Activity>,
    /// Something happened that may change when the connection has to go.
    changed: Notify,
}

#[derive(Debug)]
struct Activity {
    /// Requests without an answer.
    open: usize,
    /// Those of them that have come as a whole.
    whole: usize,
    /// Answers that are being sent, and when the client last took something of each; none if it waits for more.
    sending: HashMap<u64, Option<Instant>>,
    next_answer: u64,
    /// Bodies that are read and thrown away after an early answer.
    lingering: usize,
    /// Requests that had an answer.
    answered: usize,
    /// Since when there is no request.
    idle_since: Instant,
    /// Since when a request's head is coming.
    head_since: Option<Instant>,
    /// Since when the client takes nothing more.
    blocked_since: Option<Instant>,
    /// Of the last request; HTTP/2 also by its preface.
    version: Option<Version>,
    is_evicted: bool,
}

/// What a connection may do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on until then, if nothing changes.
    Until(Instant),
    /// As before, and the client waits for an answer: is it still there?
    Look,
    Close,
}

impl Connection {
    pub(super) fn new(number: u64, client: SocketAddr, operations_only: bool) -> Self {
        Self {
            number,
            client,
            operations_only,
            activity: Mutex::new(Activity {
                open: 0,
                whole: 0,
                sending: HashMap::new(),
                next_answer: 0,
                lingering: 0,
                answered: 0,
                idle_since: Instant::now(),
                head_since: None,
                blocked_since: None,
                version: None,
                is_evicted: false,
            }),
            changed: Notify::new(),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    fn lock(&self) -> MutexGuard<'_, Activity> {
        // Nothing panics under the lock; were it to, the numbers would still be whole.
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came.
    pub(super) fn received(&self, bytes: &[u8]) {
        let mut activity = self.lock();
        if activity.version.is_none() && bytes.starts_with(b"PRI ") {
            activity.version = Some(Version::HTTP_2);
        }
        // HTTP/2 has frames that belong to no request.
        let is_head = activity.open == 0 && activity.version != Some(Version::HTTP_2);
        if is_head && !bytes.is_empty() && activity.head_since.is_none() {
            activity.head_since = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    /// The client takes no more bytes at the moment.
    pub(super) fn write_blocked(&self) {
        let mut activity = self.lock();
        if activity.blocked_since.is_none() {
            activity.blocked_since = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    /// It took some.
    pub(super) fn written(&self) {
        self.lock().blocked_since = None;
    }

    /// A request's head has come.
    pub(super) fn begin(&self, version: Version) {
        let mut activity = self.lock();
        activity.open += 1;
        activity.head_since = None;
        activity.version = Some(version);
        self.changed.notify_one();
    }

    /// All of a request has come.
    pub(super) fn whole(&self) {
        self.lock().whole += 1;
        self.changed.notify_one();
    }

    /// A request has its answer, or its client has gone.
    pub(super) fn end(&self, was_whole: bool) {
        let mut activity = self.lock();
        activity.open -= 1;
        activity.whole -= usize::from(was_whole);
        activity.answered += 1;
        activity.idle_since = Instant::now();
        self.changed.notify_one();
    }

    /// An answer is handed over to be sent; returns its number.
    pub(super) fn sending(&self) -> u64 {
        let mut activity = self.lock();
        let number = activity.next_answer;
        activity.next_answer += 1;
        activity.sending.insert(number, Some(Instant::now()));
        self.changed.notify_one();
        number
    }

    /// The client takes more of an answer.
    pub(super) fn sent_some(&self, number: u64) {
        self.lock().sending.insert(number, Some(Instant::now()));
    }

    /// The client has taken what there is of an answer: more of it is still to come about.
    pub(super) fn sent_all_yet(&self, number: u64) {
        self.lock().sending.insert(number, None);
    }

    /// All of an answer is on its way.
    pub(super) fn sent(&self, number: u64) {
        let mut activity = self.lock();
        activity.sending.remove(&number);
        activity.idle_since = Instant::now();
        self.changed.notify_one();
    }

    /// A body is read and thrown away after an early answer, or that has ended.
    pub(super) fn lingers(&self, begins: bool) {
        let mut activity = self.lock();
        if begins {
            activity.lingering += 1;
        } else {
            activity.lingering -= 1;
            // What came since the answer was this body, and not the head of another request.
            activity.head_since = None;
            self.changed.notify_one();
        }
    }

    /// Of a connection without a request, how little it can be spared: first those that never had one,
    /// unless they are young, then those that are idle longest.
    pub(super) fn idle(&self) -> Option<(u8, Instant)> {
        let activity = self.lock();
        let is_sending = activity.sending.values().any(Option::is_some);
        let is_idle = activity.open == 0 && !is_sending && !activity.is_evicted;
        let rank = match activity.answered {
            0 if activity.idle_since.elapsed() < YOUNG => 2,
            0 => 0,
            _ => 1,
        };
        is_idle.then_some((rank, activity.idle_since))
    }

    /// Whether it counts as one that may ask for anything.
    pub(super) fn is_full(&self) -> bool {
        !self.operations_only && !self.lock().is_evicted
    }

    /// Closes the connection if it still has no request.
    pub(super) fn evict(&self) {
        self.lock().is_evicted = true;
        self.changed.notify_one();
    }

    /// Waits until something happens that may change what comes next.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn is_http2(&self) -> bool {
        self.lock().version == Some(Version::HTTP_2)
    }

    /// Whether the client would understand an interim answer, and none of the real one has been sent.
    fn takes_interim_answer(&self) -> bool {
        let activity = self.lock();
        activity.version == Some(Version::HTTP_11)
            && activity.sending.is_empty()
            && activity.blocked_since.is_none()
    }

    /// What the connection may do next. `draining_since` is set once the server drains.
    pub(super) fn next(
        &self,
        now: Instant,
        draining_since: Option<Instant>,
        limits: &ConnectionLimits,
    ) -> Next {
        let activity = self.lock();
        let due = activity.due(draining_since, limits, self.operations_only);
        if due.is_some_and(|due| due <= now) {
            return Next::Close;
        }
        if activity.whole > 0 && activity.version != Some(Version::HTTP_2) {
            return Next::Look;
        }
        Next::Until(due.unwrap_or(now + limits.idle_timeout))
    }
}

impl Activity {
    /// When the connection has to go, if nothing changes.
    fn due(
        &self,
        draining_since: Option<Instant>,
        limits: &ConnectionLimits,
        operations_only: bool,
    ) -> Option<Instant> {
        let patience = match draining_since {
            Some(_) => LAST_READ.min(limits.write_timeout),
            None => limits.write_timeout,
        };
        // What is still to come about ends with the server.
        let sending = self.sending.values();
        let stalled = sending.filter_map(|since| since.or(draining_since));
        let stalled = stalled.chain(self.blocked_since);
        let stalled = stalled.min().map(|since| {
            let since = since.max(draining_since.unwrap_or(since));
            since + patience
        });
        if stalled.is_some() || self.open > 0 {
            return stalled; // A request that is not answered has its own time limits.
        }
        if self.is_evicted {
            return Some(self.idle_since);
        }
        if !self.sending.is_empty() {
            return None;
        }
        let over = draining_since.map(|since| since.max(self.idle_since));
        let over = over.or((operations_only && self.answered > 0).then_some(self.idle_since));
        if let Some(over) = over {
            let patience = if self.lingering > 0 {
                LAST_WORDS
            } else {
                LAST_BYTES
            };
            return Some(over + patience);
        }
        let is_fresh = self.answered == 0;
        Some(match self.head_since {
            Some(since) => since + limits.head_timeout,
            None if is_fresh => self.idle_since + limits.head_timeout,
            None => self.idle_since + limits.idle_timeout,
        })
    }
}

/// What the connections of a port have in common.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) router: Router,
    pub(super) builder: Builder<TokioExecutor>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) limits: ConnectionLimits,
}

/// Serves a connection until it ends or has to go; with TLS if there is a configuration for it.
pub(super) async fn drive(
    connection: Arc<Connection>,
    stream: TcpStream,
    port: Arc<Port>,
    tls: Option<Arc<ServerConfig>>,
) {
    let (mut phase, limits) = (port.phase.clone(), port.limits);
    let stream = Arc::new(stream);
    let is_tls = tls.is_some();
    let heard = match tls {
        None => Heard::new(
            Socket::new(Arc::clone(&stream), Arc::clone(&connection)),
            Arc::clone(&connection),
        ),
        Some(tls) => {
            let shaken = shake(&connection, &stream, tls, phase.clone(), &limits).await;
            let Some(shaken) = shaken else { return };
            Heard::new(shaken, Arc::clone(&connection))
        }
    };
    let service = service_fn(|request| answer(Arc::clone(&connection), Arc::clone(&port), request));
    let mut serving = pin!(port.builder.serve_connection(TokioIo::new(heard), service));
    let mut draining_since = None;
    let mut says_goodbye = false;
    let mut interim_sent = false;
    loop {
        let now = Instant::now();
        let current = *phase.borrow_and_update();
        if current >= Phase::Draining {
            draining_since.get_or_insert(now);
        }
        // In the pause HTTP/1 says it in the next answer's header; HTTP/2 has a frame for it.
        let goodbye =
            current >= Phase::Draining || (current >= Phase::Pausing && connection.is_http2());
        if goodbye && !says_goodbye {
            says_goodbye = true;
            serving.as_mut().graceful_shutdown();
        }
        let until = match connection.next(now, draining_since, &limits) {
            Next::Close => return,
            Next::Until(until) => until,
            Next::Look => match peer(&stream) {
                Peer::Gone => return,
                // Nothing can be sent between what TLS sends; its clients close both sides at once.
                Peer::Silent if is_tls => return,
                Peer::Silent if !interim_sent && connection.takes_interim_answer() => {
                    // Has it closed the connection or only its own side of it? If it is closed, this is
                    // answered by a reset, which the next look sees. Clients skip interim answers.
                    interim_sent = true;
                    let _ = stream.try_write(b"HTTP/1.1 100 Continue\r\n\r\n");
                    now + LOOK / 4
                }
                Peer::Silent | Peer::There => now + LOOK,
            },
        };
        tokio::select! {
            served = serving.as_mut() => {
                if let Err(error) = served {
                    head::tell_unread(connection.client, &*error);
                }
                return;
            }
            () = connection.changed() => {}
            changed = phase.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}

async fn answer(
    connection: Arc<Connection>,
    port: Arc<Port>,
    request: Request<Incoming>,
) -> Result<axum::response::Response, Infallible> {
    let exchange = Exchange::begin(&connection, &request);
    let answering = Answering(Arc::clone(&exchange));
    let fault = head::fault(request.version(), request.headers());
    let mut request = request.map(|body| Body::new(RequestBody::new(body, exchange)));
    let extensions = request.extensions_mut();
    extensions.insert(ConnectionNumber(connection.number));
    extensions.insert(ClientAddress(connection.client));
    if let Some(fault) = fault {
        extensions.insert(BadHead(fault));
    }
    if connection.operations_only {
        extensions.insert(OperationsOnly);
    }
    let Ok(response) = port.router.clone().oneshot(request).await;
    let close = connection.operations_only || *port.phase.borrow() >= Phase::Pausing;
    Ok(answering.answered(response, close))
}
