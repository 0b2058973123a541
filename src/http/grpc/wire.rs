//! gRPC's framing: the messages of a request's body, and an answer's body, which ends with its status.
//!
//! Source: grpc/grpc, doc/PROTOCOL-HTTP2.md.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use prost::Message;

use super::elements::{Fields, memory};
use crate::http::budget::Share;
use crate::http::error::ApiError;
use crate::http::extract::work_on;
use crate::http::receive::{Coding, decode};
use crate::http::state::AppState;
use crate::rerank::{Cost, RerankError};

/// The header that tells how messages are compressed.
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// Before each message: whether it is compressed, then its length in 4 bytes.
const PREFIX: usize = 5;

/// The messages of a request, none of them compressed any more.
#[derive(Debug, Clone)]
pub(super) struct Messages(Arc<[Bytes]>);

impl Messages {
    /// Those of a body that has come whole: at most `most`, and together at most `limit` bytes.
    pub(super) async fn of(
        mut body: Bytes,
        headers: &HeaderMap,
        most: usize,
        limit: usize,
        share: &mut Share<'_>,
    ) -> Result<Self, ApiError> {
        // Counted first: each of no bytes would cost many.
        let count = lengths(&body).count();
        if count > most {
            let (documents, max) = (count, most);
            return Err(RerankError::TooManyDocuments { documents, max }.into());
        }
        let mut held = body.len();
        let mut left = limit;
        let mut messages = Vec::with_capacity(count);
        while !body.is_empty() {
            let length = lengths(&body).next().unwrap_or(usize::MAX);
            if body.len().saturating_sub(PREFIX) < length {
                return Err(ApiError::BodyBroken);
            }
            let is_compressed = body.split_to(PREFIX)[0] != 0;
            let mut message = body.split_to(length);
            if is_compressed {
                let coding = coding(headers)?;
                let decoded = decode(message, vec![coding], left, held, share).await;
                message = decoded.map_err(|error| match error {
                    ApiError::BodyTooLarge(_) => ApiError::BodyTooLarge(limit),
                    error => error,
                })?;
                held += message.len();
                left -= message.len().min(left);
            }
            messages.push(message);
        }
        Ok(Self(messages.into()))
    }

    /// Makes room for what they take once they are decoded, or refuses them.
    pub(super) async fn check(
        &self,
        fields: &'static Fields,
        limit: usize,
        share: &mut Share<'_>,
    ) -> Result<(), ApiError> {
        let messages = Arc::clone(&self.0);
        let bytes = messages.iter().map(Bytes::len).sum();
        let memory = work_on(bytes, move || {
            let messages = messages.iter();
            messages.map(|message| memory(message, fields)).sum()
        });
        share.hold_values(memory.await?, bytes, limit).await
    }
}

/// The lengths that stand before a body's messages, of which the last may be cut off.
fn lengths(mut body: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let prefix = body.get(1..PREFIX)?;
        let length = prefix.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
        body = body.get(PREFIX + length..).unwrap_or_default();
        Some(length)
    })
}

/// How a request's messages are compressed.
fn coding(headers: &HeaderMap) -> Result<Coding, ApiError> {
    let name = headers.get(GRPC_ENCODING).map(HeaderValue::to_str);
    let name = name.unwrap_or(Ok("")).unwrap_or("?");
    let coding = Coding::named(name)?;
    let none = || {
        let detail = "a message is compressed, but the header names no coding";
        ApiError::invalid(GRPC_ENCODING.as_str(), detail)
    };
    coding.ok_or_else(none)
}

/// The one message of a request.
#[derive(Debug)]
pub(super) struct One<T>(pub(super) T);

impl<T: Message + Default + 'static> FromRequestParts<AppState> for One<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Each(mut messages) = Each::<T>::from_request_parts(parts, state).await?;
        match (messages.pop(), messages.len()) {
            (Some(message), 0) => Ok(Self(message)),
            (last, others) => {
                let count = others + usize::from(last.is_some());
                let detail = format!("expected one message, found {count}");
                Err(ApiError::invalid("request", detail))
            }
        }
    }
}

/// The messages that a client has streamed.
#[derive(Debug)]
pub(super) struct Each<T>(pub(super) Vec<T>);

impl<T: Message + Default + 'static> FromRequestParts<AppState> for Each<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let messages = parts.extensions.remove::<Messages>();
        let messages = messages.map_or_else(Arc::default, |Messages(messages)| messages);
        let bytes = messages.iter().map(Bytes::len).sum();
        let decoded = work_on(bytes, move || {
            let messages = messages.iter().cloned();
            messages.map(T::decode).collect::<Result<Vec<T>, _>>()
        });
        let decoded = decoded.await?;
        let decoded = decoded.map_err(|error| ApiError::InvalidMessage(error.to_string()));
        Ok(Self(decoded?))
    }
}

/// An answer of one message.
#[derive(Debug)]
pub(super) struct Reply<T> {
    message: T,
    cost: Option<Cost>,
}

impl<T> Reply<T> {
    /// Of what costs nothing.
    pub(super) fn free(message: T) -> Self {
        let cost = None;
        Self { message, cost }
    }

    /// Of what cost so much.
    pub(super) fn new(message: T, cost: Cost) -> Self {
        let cost = Some(cost);
        Self { message, cost }
    }
}

impl<T: Message> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        let message = self.message.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let mut prefix = vec![0];
        prefix.extend(length.to_be_bytes());
        let ok = HeaderMap::from_iter([(
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]);
        let frames = [
            Frame::data(prefix.into()),
            Frame::data(message.into()),
            Frame::trailers(ok),
        ];
        let mut response = Response::new(Body::new(Frames(frames.into_iter())));
        let content_type = HeaderValue::from_static("application/grpc");
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
        if let Some(cost) = self.cost {
            response.extensions_mut().insert(cost);
        }
        response
    }
}

/// The frames of an answer's body.
struct Frames(std::array::IntoIter<Frame<Bytes>, 3>);

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().0.next().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_slice().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    use crate::http::budget::BodyBudget;

    fn framed(is_compressed: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        let mut framed = vec![is_compressed];
        framed.extend(length.to_be_bytes());
        framed.extend(message);
        framed
    }

    async fn messages(body: Vec<u8>, encoding: &str, limit: usize) -> Result<Vec<Bytes>, ApiError> {
        let headers = [(GRPC_ENCODING, encoding.parse().unwrap())];
        let headers = headers.into_iter().collect();
        let budget = BodyBudget::new(1 << 20);
        let mut share = Share::new(&budget, Instant::now());
        let messages = Messages::of(body.into(), &headers, 3, limit, &mut share).await;
        messages.map(|Messages(messages)| messages.to_vec())
    }

    #[tokio::test]
    async fn a_body_is_cut_into_its_messages() {
        let body = [framed(0, b"one"), framed(0, b""), framed(0, b"three")].concat();
        let found = messages(body.clone(), "gzip", 100).await.unwrap();
        assert_eq!(found, ["one", "", "three"]);
        assert_eq!(messages(vec![], "identity", 100).await.unwrap().len(), 0);
        for end in [1, 4, 6, 9, body.len() - 1] {
            let cut = messages(body[..end].to_vec(), "identity", 100).await;
            assert!(matches!(cut, Err(ApiError::BodyBroken)), "{end}: {cut:?}");
        }
        let four = framed(0, b"").repeat(4);
        let four = messages(four, "identity", 100).await.unwrap_err();
        assert!(four.to_string().contains("at most 3"), "{four}");
    }

    #[tokio::test]
    async fn what_messages_become_together_is_limited() {
        use std::io::Write;
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(bytes).unwrap();
            framed(1, &encoder.finish().unwrap())
        };
        let body = [gzip(&[7; 600]), framed(0, b"plain"), gzip(&[7; 600])].concat();
        let found = messages(body.clone(), "gzip", 1200).await.unwrap();
        let lengths: Vec<usize> = found.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [600, 5, 600]);
        let error = messages(body.clone(), "gzip", 1199).await.unwrap_err();
        assert!(matches!(error, ApiError::BodyTooLarge(1199)), "{error}");
        let error = messages(body.clone(), "identity", 1200).await.unwrap_err();
        assert!(error.to_string().contains("grpc-encoding"), "{error}");
        let error = messages(body, "snappy", 1200).await.unwrap_err();
        assert!(matches!(error, ApiError::UnknownCoding), "{error}");
    }
}
