//! As much of HTTP/2 (RFC 9113) as it takes to send frames, right or wrong, and to follow the answers.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::process::Server;

/// The block of headers of a GET.
pub(crate) fn get(path: &str) -> Vec<u8> {
    // GET and http from HPACK's static table, then :path and :authority as literals.
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'x']);
    block
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Http2(TcpStream);

impl Http2 {
    /// The type of a frame that begins an answer.
    pub(crate) const HEADERS: u8 = 1;
    /// The type of a frame that ends a stream before its time.
    pub(crate) const RST_STREAM: u8 = 3;
    /// The type of a frame that says goodbye.
    pub(crate) const GOAWAY: u8 = 7;

    /// Connects as a client that takes so many bytes of an answer before it asks for more.
    pub(crate) fn connect(server: &Server, window: u32) -> Self {
        let mut stream = server.connect();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        // A SETTINGS frame with INITIAL_WINDOW_SIZE.
        let mut frame = vec![0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4];
        frame.extend(window.to_be_bytes());
        stream.write_all(&frame).unwrap();
        Self(stream)
    }

    /// Sends a GET as the connection's first request.
    pub(crate) fn get(&mut self, path: &str) {
        self.frame(Self::HEADERS, 5, 1, &get(path)).unwrap();
    }

    /// Sends a frame.
    pub(crate) fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        self.0.write_all(&frame(kind, flags, stream, payload))
    }

    /// Sends what was made of [`frame`].
    pub(crate) fn send(&mut self, frames: &[u8]) -> std::io::Result<()> {
        self.0.write_all(frames)
    }

    /// The next frame's type, stream and payload; nothing at the connection's end.
    pub(crate) fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, &b| n << 8 | u32::from(b));
        let mut payload = vec![0; number(&head[..3]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], number(&head[5..]), payload))
    }
    /// Reads frames until one of this type.
    pub(crate) fn until_frame(&mut self, kind: u8) {
        while self.next().expect("a frame of this type").0 != kind {}
    }

    /// Waits until the server closes the connection.
    pub(crate) fn until_closed(mut self) {
        let end = self.0.read_to_end(&mut Vec::new());
        // A reset is an end too; a time-out is none.
        let kind = end.err().map(|error| error.kind());
        assert!(
            kind.is_none_or(|kind| kind == std::io::ErrorKind::ConnectionReset),
            "{kind:?}"
        );
    }
}
