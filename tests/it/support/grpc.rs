//! A client of gRPC: HTTP/2, messages with their prefix, and the status in headers or trailers.

use std::pin::Pin;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, Request};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection.
#[derive(Debug)]
pub(crate) struct Grpc(SendRequest<Body>);

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The answer's messages.
    pub(crate) messages: Vec<Bytes>,
    /// The number of the status.
    pub(crate) status: u32,
    /// What it says.
    pub(crate) message: String,
    /// The headers and trailers.
    pub(crate) metadata: HeaderMap,
}

/// A message with its prefix.
pub(crate) fn framed(message: &impl Message) -> Vec<u8> {
    prefixed(0, &message.encode_to_vec())
}

/// Bytes with a message's prefix, and with 1 in it if they are compressed.
pub(crate) fn prefixed(compressed: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    let mut framed = vec![compressed];
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    framed
}

impl Grpc {
    /// Connects to a server at `http://HOST:PORT`.
    pub(crate) async fn connect(base: &str) -> Self {
        let address = base.strip_prefix("http://").unwrap();
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// The same over a stream that is there.
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let stream = TokioIo::new(stream);
        let (sender, connection) = handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Calls a method with a body of messages.
    pub(crate) async fn send(
        &self,
        method: &str,
        metadata: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Ended {
        let mut request = Request::post(format!("http://server/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = self.0.clone().send_request(request).await.unwrap();
        assert_eq!(response.status(), 200, "gRPC has its own statuses");
        let mut metadata = response.headers().clone();
        assert_eq!(metadata["content-type"], "application/grpc");
        let (mut bytes, mut body) = (Vec::new(), response.into_body());
        while let Some(frame) = std::future::poll_fn(|c| Pin::new(&mut body).poll_frame(c)).await {
            match frame.unwrap().into_data() {
                Ok(data) => bytes.extend(data),
                Err(trailers) => metadata.extend(trailers.into_trailers().unwrap()),
            }
        }
        let text = |name| metadata.get(name).map(|v| v.to_str().unwrap().to_owned());
        Ended {
            messages: messages(bytes.into()),
            status: text("grpc-status").unwrap().parse().unwrap(),
            message: percent_decoded(&text("grpc-message").unwrap_or_default()),
            metadata,
        }
    }

    /// Calls a method with one message.
    pub(crate) async fn call(&self, method: &str, message: &impl Message) -> Ended {
        self.send(method, &[], framed(message)).await
    }
}

impl Ended {
    /// The one message of an answer.
    pub(crate) fn one<T: Message + Default>(self) -> T {
        assert_eq!(self.status, 0, "{}", self.message);
        assert_eq!(self.messages.len(), 1);
        T::decode(self.messages[0].clone()).unwrap()
    }
}

/// A message as gRPC's clients show it.
fn percent_decoded(message: &str) -> String {
    let mut parts = message.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(code, 16).unwrap());
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).unwrap()
}

fn messages(mut body: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let prefix = body.split_to(5);
        assert_eq!(prefix[0], 0, "plain");
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap());
        messages.push(body.split_to(length as usize));
    }
    messages
}
