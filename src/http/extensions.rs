//! What the server and the layers note on a request on its way to its handler.

use std::net::SocketAddr;

use axum::extract::Request;
use axum::http::HeaderName;

/// The header that carries a request's id, both ways.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The number of the connection that a request came by.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionNumber(pub(super) u64);

/// The other end of the connection that a request came by: the client, or a proxy before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) SocketAddr);

/// The request's head is one that HTTP/1.1 has refused, for this reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct BadHead(pub(super) &'static str);

/// The request came by a connection that is kept for health and metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct OperationsOnly;

/// The request came by the port for health and metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnHealthPort;

/// The request's id: the client's `x-request-id`, or a fresh one.
#[derive(Debug, Clone)]
pub(super) struct RequestId(String);

impl RequestId {
    /// The client's id, or a fresh one if it sent none that can be used.
    pub(super) fn new(request: &Request) -> Self {
        let fresh = || Self(uuid::Uuid::new_v4().to_string());
        Self::from_client(request).unwrap_or_else(fresh)
    }

    /// An id for an example.
    pub(super) fn example() -> Self {
        Self("6207dcad-9bda-4db6-a217-cde887dc9cc1".into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// A client's id if it is short and printable, so that it can't spoil a log.
    fn from_client(request: &Request) -> Option<Self> {
        let value = request.headers().get(X_REQUEST_ID)?.to_str().ok()?;
        let sane = (1..=128).contains(&value.len()) && value.chars().all(|c| c.is_ascii_graphic());
        sane.then(|| Self(value.to_owned()))
    }
}
