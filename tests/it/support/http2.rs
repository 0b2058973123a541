//! As much of HTTP/2 (RFC 9113) as it takes to send a GET and to follow the frames.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::process::Server;

/// A connection.
#[derive(Debug)]
pub(crate) struct Http2(TcpStream);

impl Http2 {
    /// The type of a frame that begins an answer.
    pub(crate) const HEADERS: u8 = 1;
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
        // GET and http from HPACK's static table, then :path and :authority as literals.
        let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        block.extend(path.as_bytes());
        block.extend([0x01, 1, b'x']);
        // END_STREAM and END_HEADERS, on stream 1.
        let mut frame = vec![0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1];
        frame.extend(block);
        self.0.write_all(&frame).unwrap();
    }

    /// Reads frames until one of this type.
    pub(crate) fn until_frame(&mut self, kind: u8) {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            self.0.read_exact(&mut vec![0; length as usize]).unwrap();
            if head[3] == kind {
                return;
            }
        }
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
