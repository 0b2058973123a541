//! What a request's headers say of how it is to be treated: how long its client waits, and its class.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;

use crate::types::{Deadline, Priority};

use super::error::ApiError;

const TIMEOUT: &str = "x-request-timeout-ms";
const GRPC_TIMEOUT: &str = "grpc-timeout";
const PRIORITY: &str = "x-request-priority";

/// What the headers say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// How long the client waits.
    pub(super) deadline: Option<Deadline>,
    /// The class.
    pub(super) priority: Option<Priority>,
}

impl Asked {
    /// Of a request that has just arrived.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let timeouts = [timeout(headers)?, grpc_timeout(headers)?];
        let timeout = timeouts.into_iter().flatten().min();
        let deadline = timeout.and_then(|timeout| {
            // Who waits for centuries has no deadline.
            let at = Instant::now().checked_add(timeout)?;
            Some(Deadline { timeout, at })
        });
        Ok(Self {
            deadline,
            priority: priority(headers)?,
        })
    }
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    let text = value.to_str().map(str::trim).unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // What is longer than the number is a time without end too.
    let number = is_number.then(|| text.parse().unwrap_or(u64::MAX));
    let number = number.filter(|&ms| ms > 0);
    let detail = "expected a whole number of milliseconds, 1 or more";
    let time = number.map(Duration::from_millis);
    time.map(Some)
        .ok_or_else(|| ApiError::invalid(TIMEOUT, detail))
}

fn priority(headers: &HeaderMap) -> Result<Option<Priority>, ApiError> {
    let Some(value) = headers.get(PRIORITY) else {
        return Ok(None);
    };
    let class = value.to_str().ok();
    let class = class.and_then(|text| Priority::named(text.trim()));
    let detail = "expected \"interactive\", \"batch\" or a whole number";
    class
        .map(Some)
        .ok_or_else(|| ApiError::invalid(PRIORITY, detail))
}

/// The time that a client of gRPC waits, from now on.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else {
        return Ok(None);
    };
    let parse = || {
        let (number, unit) = value
            .to_str()
            .ok()?
            .split_at_checked(value.len().checked_sub(1)?)?;
        let is_number =
            (1..=8).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        let number: u32 = is_number.then(|| number.parse().ok())??;
        let unit = match unit {
            "H" => Duration::from_secs(3600),
            "M" => Duration::from_secs(60),
            "S" => Duration::from_secs(1),
            "m" => Duration::from_millis(1),
            "u" => Duration::from_micros(1),
            "n" => Duration::from_nanos(1),
            _ => return None,
        };
        Some(unit * number)
    };
    let detail = "expected at most 8 digits and one of the letters H, M, S, m, u, n";
    parse()
        .map(Some)
        .ok_or_else(|| ApiError::invalid(GRPC_TIMEOUT, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn the_clients_time_is_a_number_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("30S", Some(30_000)),
            ("250m", Some(250)),
            ("5000u", Some(5)),
            ("99999999n", Some(99)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("+1S", None),
            ("123456789S", None),
        ] {
            let found = grpc_timeout(&headers(GRPC_TIMEOUT, text));
            let found = found.ok().flatten().map(|time| time.as_millis());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn the_clients_time_over_http_is_whole_milliseconds() {
        for (text, expected) in [
            ("250", Some(250)),
            (" 1 ", Some(1)),
            ("86400000", Some(86_400_000)),
            ("0", None),
            ("", None),
            ("-5", None),
            ("+5", None),
            ("1.5", None),
            ("1s", None),
        ] {
            let found = Asked::of(&headers(TIMEOUT, text)).ok();
            let found = found.and_then(|asked| Some(asked.deadline?.timeout.as_millis()));
            assert_eq!(found, expected, "{text}");
        }
        let both = headers(TIMEOUT, "2000").into_iter();
        let both = both.chain(headers(GRPC_TIMEOUT, "1S"));
        let both = both.filter_map(|(name, value)| Some((name?, value)));
        let asked = Asked::of(&both.collect()).unwrap();
        let timeout = asked.deadline.map(|deadline| deadline.timeout);
        assert_eq!(timeout, Some(Duration::from_secs(1)));
        for centuries in [
            "18446744073709551615",
            "18446744073709551616",
            "99999999999999999999",
        ] {
            assert!(
                Asked::of(&headers(TIMEOUT, centuries)).is_ok(),
                "{centuries}"
            );
        }
    }

    #[test]
    fn a_class_is_a_word_or_a_number() {
        for (text, expected) in [
            ("interactive", Some(Priority::Interactive)),
            ("Batch", Some(Priority::Batch)),
            ("0", Some(Priority::Interactive)),
            ("-3", Some(Priority::Interactive)),
            ("999", Some(Priority::Batch)),
            ("low", None),
            ("1.5", None),
            ("", None),
        ] {
            let asked = Asked::of(&headers(PRIORITY, text)).ok();
            assert_eq!(asked.and_then(|asked| asked.priority), expected, "{text}");
        }
    }
}
