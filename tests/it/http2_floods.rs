//! Clients that make HTTP/2 work for nothing are told to go, and cost the others nothing.

use std::time::Duration;

use crate::support::app::metric;
use crate::support::http2::{Http2, frame, get};
use crate::support::process::Server;

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Error codes of RFC 9113, section 7.
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[payload.len() - 4..].try_into().unwrap())
}

/// The error code with which the server says goodbye.
fn goodbye(http2: &mut Http2) -> u32 {
    loop {
        let (kind, _, payload) = http2.next().expect("a GOAWAY");
        if kind == Http2::GOAWAY {
            return u32::from_be_bytes(payload[4..8].try_into().unwrap());
        }
    }
}

fn megabytes(server: &Server) -> f64 {
    metric(&server.get("/metrics").1, "process_resident_memory_bytes") / 1e6
}

#[test]
fn requests_that_are_withdrawn_at_once_end_the_connection() {
    let server = Server::start(&[]);
    let mut http2 = Http2::connect(&server, 65_535);
    let cancel = 8u32.to_be_bytes();
    let mut flood = Vec::new();
    for stream in (1..20_000).step_by(2) {
        flood.extend(frame(
            Http2::HEADERS,
            END_STREAM | END_HEADERS,
            stream,
            &get("/health"),
        ));
        flood.extend(frame(Http2::RST_STREAM, 0, stream, &cancel));
    }
    // It may be cut off before its end.
    let _ = http2.send(&flood);
    assert_eq!(goodbye(&mut http2), ENHANCE_YOUR_CALM);
    assert_eq!(server.get("/health").0, 200);
    let (_, metrics) = server.get("/metrics");
    assert_eq!(metric(&metrics, "rerankd_requests_in_flight"), 1.0);
}

#[test]
fn more_requests_at_a_time_than_the_limit_are_refused_one_by_one() {
    const LIMIT: usize = 128;
    let server = Server::start(&[]);
    let mut http2 = Http2::connect(&server, 65_535);
    // POSTs of which the bodies do not come: POST, http, :path, :authority, content-type.
    let mut post = vec![0x83, 0x86, 0x04, 10];
    post.extend(b"/v1/rerank");
    post.extend([0x01, 1, b'x', 0x0f, 0x10, 16]);
    post.extend(b"application/json");
    let streams: Vec<u32> = (0..LIMIT as u32 + 10).map(|i| 2 * i + 1).collect();
    for &stream in &streams {
        http2
            .frame(Http2::HEADERS, END_HEADERS, stream, &post)
            .unwrap();
    }
    let mut refused = Vec::new();
    while refused.len() < 10 {
        let (kind, stream, payload) = http2.next().unwrap();
        if kind == Http2::RST_STREAM {
            assert_eq!(code(&payload), REFUSED_STREAM);
            refused.push(stream);
        }
    }
    assert_eq!(refused, streams[LIMIT..]);
    server.until_metric("rerankd_requests_in_flight", |n| n == LIMIT as f64 + 1.0);
    drop(http2);
    server.until_metric("rerankd_requests_in_flight", |n| n == 1.0);
}

#[test]
fn a_head_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let server = Server::start(&[]);
    let mut http2 = Http2::connect(&server, 65_535);
    // A literal field, never indexed, of 12,000 bytes, twice.
    let mut field = vec![0x10, 1, b'a', 0x7f, 0xe1, 0x5c];
    field.extend([b'b'; 12_000]);
    http2
        .frame(Http2::HEADERS, END_STREAM, 1, &get("/health"))
        .unwrap();
    http2.frame(CONTINUATION, 0, 1, &field).unwrap();
    http2.frame(CONTINUATION, END_HEADERS, 1, &field).unwrap();
    let block = loop {
        let (kind, stream, payload) = http2.next().unwrap();
        if kind == Http2::HEADERS {
            assert_eq!(stream, 1);
            break payload;
        }
    };
    // :status, a literal, of which the text is plain or in Huffman's code.
    let (plain, coded) = (&b"431"[..], &[0x69, 0x90, 0xff][..]);
    let is_431 = |text: &[u8]| block.windows(text.len()).any(|part| part == text);
    assert!(is_431(plain) || is_431(coded), "{block:x?}");
    http2
        .frame(Http2::HEADERS, END_STREAM | END_HEADERS, 3, &get("/health"))
        .unwrap();
    http2.until_frame(Http2::HEADERS);
}

#[test]
fn headers_without_end_end_the_connection() {
    let server = Server::start(&[]);
    let before = megabytes(&server);
    let mut http2 = Http2::connect(&server, 65_535);
    http2
        .frame(Http2::HEADERS, END_STREAM, 1, &get("/health"))
        .unwrap();
    // A literal field, never indexed, that is long enough to fill a frame.
    let mut field = vec![0x10, 1, b'a', 0x7f, 0x81, 0x7d];
    field.extend([b'b'; 16_000 + 128]);
    let mut sent = 0;
    while sent < 10_000 && http2.frame(CONTINUATION, 0, 1, &field[..16_000]).is_ok() {
        sent += 1;
    }
    assert!(sent < 10_000, "160 MB of headers were taken");
    assert_eq!(server.get("/health").0, 200);
    let grown = megabytes(&server) - before;
    assert!(grown < 30.0, "{grown} MB");
}

#[test]
fn pings_and_settings_of_a_client_that_reads_no_answer_are_not_piled_up() {
    let server = Server::start(&[("server.write_timeout_ms", "1000")]);
    let before = megabytes(&server);
    let floods = [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])];
    let clients: Vec<_> = floods
        .map(|one| {
            let mut http2 = Http2::connect(&server, 65_535);
            let many = one.repeat(100_000);
            std::thread::spawn(move || {
                // Until the server reads no more, and then closes.
                let mut sent = 0;
                while http2.send(&many).is_ok() {
                    sent += many.len();
                    assert!(sent < 2 << 30, "it reads without end");
                }
            })
        })
        .into();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.get("/health").0, 200);
    for client in clients {
        client.join().unwrap();
    }
    let grown = megabytes(&server) - before;
    assert!(grown < 30.0, "{grown} MB");
}

#[test]
fn the_server_says_how_much_it_takes_at_a_time() {
    let server = Server::start(&[]);
    let mut http2 = Http2::connect(&server, 65_535);
    let (mut settings, mut unread) = (Vec::new(), 65_535);
    while settings.is_empty() || unread == 65_535 {
        match http2.next().unwrap() {
            (SETTINGS, _, payload) if !payload.is_empty() => {
                let pair = |pair: &[u8]| (u16::from_be_bytes([pair[0], pair[1]]), code(pair));
                settings = payload.chunks(6).map(pair).collect();
            }
            (WINDOW_UPDATE, 0, payload) => unread += code(&payload),
            _ => {}
        }
    }
    // MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE.
    for expected in [(3, 128), (4, 256 << 10), (5, 16 << 10), (6, 16 << 10)] {
        assert!(settings.contains(&expected), "{expected:?}: {settings:?}");
    }
    assert_eq!(unread, 512 << 10, "of all bodies of the connection");
}
