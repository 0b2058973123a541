//! Requests whose end a proxy may see elsewhere than rerankd does: none of them is answered as two.

use std::io::{ErrorKind, Read, Write};

use crate::support::process::Server;

/// What an attacker wants to be read as a request of its own. Its answer lists the model.
const HIDDEN: &str = "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
/// What tells its answer.
const LISTED: &str = "\"owned_by\"";
/// The last request of a connection that is still in step.
const LAST: &str = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const BODY: &str = "{\"query\": \"rivers\", \"documents\": [\"sea\"]}";

/// A server that closes no connection for want of time, so that one that ends was closed on purpose.
fn server() -> Server {
    Server::start(&[
        ("server.head_timeout_ms", "600000"),
        ("server.body_timeout_ms", "600000"),
        ("server.idle_timeout_ms", "600000"),
    ])
}

/// A request with these lines in its head, and what follows the head.
fn post(lines: &str, rest: &str) -> String {
    format!(
        "POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{lines}\r\n\r\n{rest}"
    )
}

/// The body as one chunk, and the end of the chunks.
fn chunked() -> String {
    format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len())
}

/// All that the server sends until it closes the connection.
fn until_closed(server: &Server, what: &str, sent: &[u8]) -> String {
    let mut stream = server.connect();
    // It may close before it has read everything.
    let _ = stream.write_all(sent);
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{what}: the connection stays open: {error}"),
    }
    String::from_utf8(answers).unwrap()
}

/// The statuses of all answers.
fn statuses(answers: &str) -> Vec<&str> {
    let answers = answers.split("HTTP/1.").skip(1);
    answers.map(|answer| &answer[2..5]).collect()
}

/// The connection is closed after these answers, and the hidden request has none.
fn assert_closed(server: &Server, what: &str, sent: impl AsRef<[u8]>, wanted: &[&str]) {
    let answers = until_closed(server, what, sent.as_ref());
    assert_eq!(statuses(&answers), wanted, "{what}: {answers}");
    assert!(!answers.contains(LISTED), "{what}: {answers}");
}

#[test]
fn a_body_with_two_lengths_ends_the_connection() {
    let server = server();
    let (length, chunked) = (BODY.len(), chunked());
    // Chunks win, as RFC 9112 has it, and what follows them is not read.
    for lines in [
        format!("content-length: {length}\r\ntransfer-encoding: chunked"),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}"),
        "content-length: 4\r\nTransfer-Encoding: Chunked".to_owned(),
        "transfer-encoding: chunked\r\ncontent-length: nonsense".to_owned(),
        "content-length: 0\r\ntransfer-encoding: chunked".to_owned(),
    ] {
        let sent = post(&lines, &format!("{chunked}{HIDDEN}"));
        assert_closed(&server, &lines, sent, &["200"]);
    }
    // A proxy that goes by the length would pass the hidden request on as a part of the body.
    let inner = format!("0\r\n\r\n{HIDDEN}");
    let lines = format!(
        "content-length: {}\r\ntransfer-encoding: chunked",
        inner.len()
    );
    assert_closed(&server, &lines, post(&lines, &inner), &["400"]);
    // One that goes by the chunks takes it for a part of one of them.
    let inner = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let lines = "transfer-encoding: chunked\r\ncontent-length: 4";
    assert_closed(&server, lines, post(lines, &inner), &["400"]);
    for (one, other) in [(length, 0), (0, length), (length, length + HIDDEN.len())] {
        let lines = format!("content-length: {one}\r\ncontent-length: {other}");
        let sent = post(&lines, &format!("{BODY}{HIDDEN}"));
        assert_closed(&server, &lines, sent, &["400"]);
    }
}

#[test]
fn a_length_that_is_no_plain_number_ends_the_connection() {
    let server = server();
    let length = BODY.len();
    for value in [
        format!("+{length}"),
        format!("-{length}"),
        format!("0x{length:x}"),
        format!("{length} {length}"),
        format!("{length}, {length}"),
        format!("{length},0"),
        format!("{length};"),
        format!("{length}.0"),
        format!("{length}e0"),
        format!("1_{length}"),
        format!("\u{b}{length}"),
        String::new(),
        "18446744073709551616".to_owned(),
        "18446744073709551615".to_owned(),
        "99999999999999999999999999".to_owned(),
    ] {
        let lines = format!("content-length: {value}");
        let sent = post(&lines, &format!("{BODY}{HIDDEN}"));
        let answers = until_closed(&server, &lines, sent.as_bytes());
        // hyper calls a length that it can't count to too large a head.
        let status = statuses(&answers);
        let is_refused = status.len() == 1 && ["400", "413", "431"].contains(&status[0]);
        assert!(is_refused, "{lines}: {answers}");
        assert!(!answers.contains(LISTED), "{lines}: {answers}");
    }
}

#[test]
fn a_transfer_encoding_that_does_not_end_in_chunked_ends_the_connection() {
    let server = server();
    for value in [
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "chunked;",
        "chunked; q=1",
        "\"chunked\"",
        "chunke",
        "identity",
        "gzip",
        "",
        "chunked\r\ntransfer-encoding: identity",
        "\u{b}chunked",
    ] {
        let lines = format!("transfer-encoding: {value}");
        let sent = post(&lines, &format!("{}{HIDDEN}", chunked()));
        assert_closed(&server, &lines, sent, &["400"]);
        // Nor does a length make up for it.
        let lines = format!("content-length: {}\r\n{lines}", BODY.len());
        let sent = post(&lines, &format!("{BODY}{HIDDEN}"));
        assert_closed(&server, &lines, sent, &["400"]);
    }
    let old = post("transfer-encoding: chunked\r\nconnection: keep-alive", "");
    let old = old.replace("HTTP/1.1", "HTTP/1.0");
    let sent = format!("{old}{}{HIDDEN}", chunked());
    assert_closed(&server, "chunks in HTTP/1.0", sent, &["400"]);
}

#[test]
fn a_head_that_is_not_as_the_rfc_has_it_ends_the_connection() {
    let server = server();
    let length = BODY.len();
    for lines in [
        // Folded, which some join and others cut.
        format!("content-length:\r\n {length}"),
        format!("x-a: 1\r\n content-length: {length}"),
        format!("x-a: 1\r\n\tcontent-length: {length}"),
        format!(" content-length: {length}"),
        // A name that is not one.
        format!("content-length : {length}"),
        format!("content-length\t: {length}"),
        format!("content length: {length}"),
        format!(": {length}\r\ncontent-length: {length}"),
        format!("content-length {length}"),
        format!("content-l\u{e9}ngth: {length}"),
        // Bytes that end a line, or a text, for others.
        format!("x-a: 1\0\r\ncontent-length: {length}"),
        format!("x-\0a: 1\r\ncontent-length: {length}"),
        format!("x-a: 1\rcontent-length: 0\r\ncontent-length: {length}"),
        format!("x-a: 1\r\r\ncontent-length: {length}"),
        format!("content-length: {length}\0"),
    ] {
        let sent = post(&lines, &format!("{BODY}{HIDDEN}"));
        assert_closed(&server, &format!("{lines:?}"), sent, &["400"]);
    }
    for first in [
        "POST /v1/rerank HTTP/1.1 HTTP/1.1",
        "POST  /v1/rerank HTTP/1.1",
        "POST\t/v1/rerank HTTP/1.1",
        "POST /v1/rerank\0 HTTP/1.1",
        "POST /v1/rerank HTTP/1.2",
        "POST /v1/rerank HTTP/11",
        "POST /v1/rerank",
        " POST /v1/rerank HTTP/1.1",
    ] {
        let sent = format!("{first}\r\nhost: x\r\ncontent-length: 0\r\n\r\n{HIDDEN}");
        assert_closed(&server, &format!("{first:?}"), sent, &["400"]);
    }
}

#[test]
fn chunks_that_are_not_as_the_rfc_has_them_end_the_connection() {
    let server = server();
    let (size, length) = (format!("{:x}", BODY.len()), BODY.len());
    for (what, chunks) in [
        ("a sign", format!("+{size}\r\n{BODY}\r\n0\r\n\r\n")),
        ("a minus", format!("-{size}\r\n{BODY}\r\n0\r\n\r\n")),
        ("a prefix", format!("0x{size}\r\n{BODY}\r\n0\r\n\r\n")),
        ("an underscore", format!("0_{size}\r\n{BODY}\r\n0\r\n\r\n")),
        ("a space first", format!(" {size}\r\n{BODY}\r\n0\r\n\r\n")),
        ("no size", format!("\r\n{BODY}\r\n0\r\n\r\n")),
        ("no digit", format!("g{size}\r\n{BODY}\r\n0\r\n\r\n")),
        ("two sizes", format!("{size} {size}\r\n{BODY}\r\n0\r\n\r\n")),
        (
            "too much for 64 bits",
            format!("1{size:0>16}\r\n{BODY}\r\n0\r\n\r\n"),
        ),
        ("a bare line feed", format!("{size}\n{BODY}\r\n0\r\n\r\n")),
        ("a bare return", format!("{size}\r{BODY}\r\n0\r\n\r\n")),
        (
            "an extension with a line feed",
            format!("{size};a\nb\r\n{BODY}\r\n0\r\n\r\n"),
        ),
        (
            "a long extension",
            format!("{size};{}\r\n{BODY}\r\n0\r\n\r\n", "a".repeat(1 << 15)),
        ),
        (
            "a chunk that is longer than its size",
            format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", length - 1),
        ),
        (
            "a chunk that ends in a line feed",
            format!("{size}\r\n{BODY}\n0\r\n\r\n"),
        ),
        (
            "chunks that end in a line feed",
            format!("{size}\r\n{BODY}\r\n0\n\n"),
        ),
    ] {
        let sent = post("transfer-encoding: chunked", &format!("{chunks}{HIDDEN}"));
        let answers = until_closed(&server, what, sent.as_bytes());
        assert_eq!(statuses(&answers), ["400"], "{what}: {answers}");
        assert!(!answers.contains(LISTED), "{what}: {answers}");
    }
}

#[test]
fn what_follows_a_request_is_the_next_one_and_what_is_in_its_body_is_not() {
    let server = server();
    let (size, length) = (format!("{:x}", BODY.len()), BODY.len());
    let chunks = chunked();
    for (what, lines, rest) in [
        (
            "a length",
            format!("content-length: {length}"),
            BODY.to_owned(),
        ),
        (
            "spaces around it",
            format!("content-length: \t {length} \t"),
            BODY.to_owned(),
        ),
        (
            "zeros before it",
            format!("content-length: 000{length}"),
            BODY.to_owned(),
        ),
        (
            "the same length twice",
            format!("content-length: {length}\r\nContent-Length: {length}"),
            BODY.to_owned(),
        ),
        (
            "chunks",
            "transfer-encoding: chunked".to_owned(),
            chunks.clone(),
        ),
        (
            "another case",
            "TRANSFER-ENCODING: \tcHUNKED ".to_owned(),
            chunks.clone(),
        ),
        (
            "a tab before",
            "transfer-encoding:\tchunked".to_owned(),
            chunks.clone(),
        ),
        (
            "an extension, a size with zeros, and a trailer",
            "transfer-encoding: chunked".to_owned(),
            format!(
                "00{};a=\"b\"\r\n{BODY}\r\n0\r\ncontent-length: 5\r\n\r\n",
                size.to_uppercase()
            ),
        ),
        (
            "lines that end in a line feed alone, which the RFC allows to take",
            format!("x-a: 1\ncontent-length: {length}"),
            BODY.to_owned(),
        ),
    ] {
        let sent = format!("{}{HIDDEN}{LAST}", post(&lines, &rest));
        let answers = until_closed(&server, what, sent.as_bytes());
        assert_eq!(
            statuses(&answers),
            ["200", "200", "200"],
            "{what}: {answers}"
        );
        assert_eq!(answers.matches(LISTED).count(), 1, "{what}: {answers}");
        // The same request within the body is no request.
        let length = HIDDEN.len();
        let sent = match lines.contains("length") {
            true => post(&format!("content-length: {length}"), HIDDEN),
            false => post(&lines, &format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n")),
        };
        assert_closed(&server, what, format!("{sent}{LAST}"), &["400", "200"]);
    }
    let sent = format!(
        "{}junk\r\n\r\n{HIDDEN}",
        post("transfer-encoding: chunked", &chunks)
    );
    assert_closed(&server, "junk after the chunks", sent, &["200", "400"]);
    let sent = format!(
        "{}junk {HIDDEN}",
        post(&format!("content-length: {length}"), BODY)
    );
    assert_closed(&server, "junk after the body", sent, &["200", "400"]);
}
