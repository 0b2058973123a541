//! The begin of a TLS connection: its handshake within the limits on a head, and an answer for those who speak plain
//! HTTP.

use std::sync::Arc;
use std::time::Instant;

use metrics::counter;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::{Connection, LAST_WORDS, Next};
use super::stream::Socket;
use crate::http::options::ConnectionLimits;
use crate::http::state::Phase;

/// For those who speak plain HTTP; also HTTP/2's clients tell it in their error.
const USE_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 57\r\nconnection: close\r\n\r\n\
    this port speaks TLS: write https:// in place of http://\n";

/// Shakes hands; returns nothing if there is nobody to go on with.
pub(super) async fn shake(
    connection: &Arc<Connection>,
    stream: &Arc<TcpStream>,
    config: Arc<ServerConfig>,
    phase: watch::Receiver<Phase>,
    limits: &ConnectionLimits,
) -> Option<TlsStream<Socket>> {
    let socket = Socket::new(Arc::clone(stream), Arc::clone(connection));
    let shaken = async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            // A probe of the port, or gone before a word.
            Ok(0) | Err(_) => return None,
            // Where TLS has a number, HTTP has a method.
            Ok(_) if first[0].is_ascii_uppercase() => {
                count("plain_http");
                answer_plainly(stream).await;
                return None;
            }
            Ok(_) => {}
        }
        match TlsAcceptor::from(config).accept(socket).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                count("failed");
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    };
    tokio::select! {
        stream = shaken => stream,
        // Also if the client reads nothing, for which others have more time.
        () = tokio::time::sleep(limits.head_timeout) => {
            count("late");
            None
        }
        () = has_to_go(connection, phase, limits) => {
            // Or it has made room for another.
            if connection.idle().is_some() {
                count("late");
            }
            None
        }
    }
}

fn count(reason: &'static str) {
    counter!("rerankd_tls_handshakes_failed_total", "reason" => reason).increment(1);
}

/// Waits until a connection that has no request yet has to go.
async fn has_to_go(
    connection: &Connection,
    mut phase: watch::Receiver<Phase>,
    limits: &ConnectionLimits,
) {
    let mut draining_since = None;
    loop {
        let now = Instant::now();
        if *phase.borrow_and_update() >= Phase::Draining {
            draining_since.get_or_insert(now);
        }
        let Next::Until(until) = connection.next(now, draining_since, limits) else {
            return;
        };
        tokio::select! {
            () = connection.changed() => {}
            changed = phase.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}

/// Tells a client to use TLS, and reads what it has on the way: closed before, the connection would be reset, and the
/// answer lost.
async fn answer_plainly(stream: &TcpStream) {
    let answered = async {
        let mut rest = USE_HTTPS;
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        rustix::net::shutdown(stream, rustix::net::Shutdown::Write)?;
        let mut thrown_away = [0; 4096];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut thrown_away) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    // A client that goes on sending, or has gone, gets no more.
    let _ = tokio::time::timeout(LAST_WORDS, answered).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_answer_has_its_length() {
        let text = str::from_utf8(USE_HTTPS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }
}
