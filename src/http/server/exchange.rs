//! One request and its answer on a connection: how far both are.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, Response, Version, header};
use http_body::{Frame, SizeHint};
use tokio::task::coop;

use super::connection::Connection;

/// A request that is not yet answered.
#[derive(Debug)]
pub(super) struct Exchange {
    connection: Arc<Connection>,
    version: Version,
    /// Whether all of the request has come.
    is_whole: AtomicBool,
    is_answered: AtomicBool,
}

impl Exchange {
    /// Begins with a request's head.
    pub(super) fn begin<B: HttpBody>(
        connection: &Arc<Connection>,
        request: &Request<B>,
    ) -> Arc<Self> {
        connection.begin(request.version());
        let exchange = Arc::new(Self {
            connection: Arc::clone(connection),
            version: request.version(),
            is_whole: AtomicBool::new(false),
            is_answered: AtomicBool::new(false),
        });
        if request.body().is_end_stream() {
            exchange.whole();
        }
        exchange
    }

    fn whole(&self) {
        if !self.is_whole.swap(true, Ordering::AcqRel) && !self.is_answered.load(Ordering::Acquire)
        {
            self.connection.whole();
        }
    }

    fn end(&self) {
        if !self.is_answered.swap(true, Ordering::AcqRel) {
            self.connection.end(self.is_whole.load(Ordering::Acquire));
        }
    }
}

/// Ends an exchange, answered or not: a client that goes drops the future that would answer.
#[derive(Debug)]
pub(super) struct Answering(pub(super) Arc<Exchange>);

impl Answering {
    /// Hands the answer over. With `close` the client learns that the connection will take no more.
    pub(super) fn answered(self, response: Response<Body>, close: bool) -> Response<Body> {
        let connection = Arc::clone(&self.0.connection);
        let number = connection.sending();
        let mut response = response.map(|body| {
            Body::new(ResponseBody {
                body,
                rest: Bytes::new(),
                number,
                connection,
            })
        });
        if close && self.0.version <= Version::HTTP_11 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A request's body. Dropped before its end, as an early refusal does, the rest is read and thrown away
/// up to a bound: a client that is still sending could otherwise not read the answer.
#[derive(Debug)]
pub(super) struct RequestBody<B: HttpBody + Send + Unpin + 'static>
where
    B::Data: Send,
{
    body: Option<B>,
    exchange: Arc<Exchange>,
}

/// Bytes that are read and thrown away after an early answer; the time limit on a head bounds it too.
const LINGER_BYTES: usize = 64 << 20;

impl<B: HttpBody + Send + Unpin + 'static> RequestBody<B>
where
    B::Data: Send,
{
    pub(super) fn new(body: B, exchange: Arc<Exchange>) -> Self {
        Self {
            body: Some(body),
            exchange,
        }
    }
}

impl<B: HttpBody<Data = Bytes> + Send + Unpin + 'static> HttpBody for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(&mut *body).poll_frame(context));
        if frame.is_none() || body.is_end_stream() {
            this.exchange.whole();
            this.body = None;
        } else if matches!(frame, Some(Err(_))) {
            this.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.as_ref().map(HttpBody::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl<B: HttpBody + Send + Unpin + 'static> Drop for RequestBody<B>
where
    B::Data: Send,
{
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        // Without a runtime there is no connection left to read from.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let connection = Arc::clone(&self.exchange.connection);
            runtime.spawn(async move {
                connection.lingers(true);
                read_out(body).await;
                connection.lingers(false);
            });
        }
    }
}

async fn read_out<B: HttpBody + Unpin>(mut body: B) {
    let mut bytes = 0;
    // Where the answer was sent before, hyper tells of the body's end only once the next request comes.
    while bytes < LINGER_BYTES && !body.is_end_stream() {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else {
            return;
        };
        let data = frame.data_ref();
        bytes += data.map_or(0, bytes::Buf::remaining);
    }
}

/// An answer's body, in chunks: what the client takes of it can be followed, and hyper buffers little.
#[derive(Debug)]
struct ResponseBody {
    body: Body,
    /// What is left of the body's last frame.
    rest: Bytes,
    number: u64,
    connection: Arc<Connection>,
}

/// Bytes of a chunk.
const CHUNK: usize = 64 * 1024;

impl ResponseBody {
    fn chunk(&mut self) -> Frame<Bytes> {
        let end = self.rest.len().min(CHUNK);
        Frame::data(self.rest.split_to(end))
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.connection.sent_some(this.number);
        // A large answer is compressed as it is sent; others have their turn meanwhile.
        let turn = std::task::ready!(coop::poll_proceed(context));
        turn.made_progress();
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(this.chunk())));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            this.connection.sent_all_yet(this.number);
            return Poll::Pending;
        };
        let data = match frame {
            Some(Ok(frame)) => frame.into_data(),
            other => return Poll::Ready(other),
        };
        Poll::Ready(Some(Ok(match data {
            Ok(data) => {
                this.rest = data;
                this.chunk()
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.connection.sent(self.number);
    }
}
