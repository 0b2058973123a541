//! What is wrong with a request's head that hyper lets pass, and what is told of those that it does not.
//!
//! Source: RFC 9112, sections 3.2 and 6.1.

use std::error::Error;
use std::net::SocketAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use metrics::counter;

/// Why a head is to be refused, if it is. HTTP/2 has neither of these headers, or not to say this.
pub(super) fn fault(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    if version > Version::HTTP_11 {
        return None;
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Some("transfer-encoding may say nothing but \"chunked\", once");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Some("there are two headers \"host\""),
        (Some(host), None) if !is_host(host) => Some("the header \"host\" names no host"),
        (None, None) if version == Version::HTTP_11 => Some("the header \"host\" is missing"),
        _ => None,
    }
}

/// Whether a value is a host, with or without a port. It may be empty.
fn is_host(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    let is_port = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = || {
        let authority: Authority = host.parse().ok()?;
        // A comma may stand in a name, but is where a proxy has joined two headers.
        let is_name = |name: &&str| !name.is_empty() && !name.contains(',');
        let name = Some(authority.host()).filter(is_name)?;
        let rest = host.strip_prefix(name)?;
        Some(rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
    };
    host.is_empty() || parsed().unwrap_or(false)
}

/// Tells why a connection ended, if it is that what came can't be read as HTTP. hyper's words hold nothing of it.
pub(super) fn tell_unread(client: SocketAddr, error: &(dyn Error + Send + Sync + 'static)) {
    let Some(error) = error.downcast_ref::<hyper::Error>() else {
        return;
    };
    let reason = if error.is_parse_too_large() {
        "head_too_large"
    } else if error.is_parse() {
        "bad_head"
    } else {
        return;
    };
    counter!("rerankd_bad_heads_total", "reason" => reason).increment(1);
    tracing::info!(%client, error = reason, detail = %error, "a request's head was refused");
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn fault_of(version: Version, head: &[(&'static str, &'static str)]) -> Option<&'static str> {
        let headers = head.iter().map(|&(name, value)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            (HeaderName::from_static(name), value)
        });
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, value);
        }
        fault(version, &all)
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for host in [
            "x",
            "",
            "a_b:8080",
            "rerankd.example.com",
            "127.0.0.1:80",
            "[::1]:8080",
            "[::1]",
            "x:",
        ] {
            assert_eq!(
                fault_of(Version::HTTP_11, &[("host", host)]),
                None,
                "{host}"
            );
        }
        for host in [
            "a b/@", "a b", "a/b", "u@x", "x:y", "x:80:90", ":80", "x,y", "http://x", "x?",
            "\u{e9}", "[::1", "x#",
        ] {
            let fault = fault_of(Version::HTTP_11, &[("host", host)]);
            assert!(fault.is_some(), "{host}");
        }
    }

    #[test]
    fn one_host_and_one_coding() {
        let host = ("host", "x");
        let coding = |value| ("transfer-encoding", value);
        for (version, head, is_right) in [
            (Version::HTTP_11, &[][..], false),
            (Version::HTTP_10, &[], true),
            (Version::HTTP_2, &[], true),
            (Version::HTTP_11, &[host, host], false),
            (Version::HTTP_10, &[host, host], false),
            (Version::HTTP_11, &[host, coding("Chunked")], true),
            (Version::HTTP_11, &[host, coding("gzip, chunked")], false),
            (Version::HTTP_11, &[host, coding("chunked, chunked")], false),
            (
                Version::HTTP_11,
                &[host, coding("chunked"), coding("chunked")],
                false,
            ),
            (Version::HTTP_11, &[host, coding("identity")], false),
        ] {
            assert_eq!(fault_of(version, head).is_none(), is_right, "{head:?}");
        }
    }
}
