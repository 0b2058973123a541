//! What is wrong with a body, in the words of whoever wrote it: serde's messages name Rust's types.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::Fault;
use crate::http::error::{ApiError, shortened, shortened_message};

/// The error for a text that could not be parsed.
pub(super) fn described(text: &[u8], fault: Fault) -> ApiError {
    let path = fault.path().to_string();
    let error = fault.into_inner();
    // Some faults of a value look like faults of the text.
    if error.is_data() || serde_json::from_slice::<IgnoredAny>(text).is_ok() {
        return of_field(path, &error);
    }
    ApiError::InvalidJson(if text.trim_ascii().is_empty() {
        "it is empty".into()
    } else {
        error.to_string()
    })
}

fn of_field(path: String, error: &serde_json::Error) -> ApiError {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    let within = |name: &str| match path.as_str() {
        "." => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    let quoted = |begin: &str| message.strip_prefix(begin)?.strip_suffix('`');
    let (field, detail) = if let Some(name) = quoted("missing field `") {
        (within(name), "it is missing".into())
    } else if let Some(name) = quoted("duplicate field `") {
        (within(name), "it is there twice".into())
    } else {
        (path, in_words(message))
    };
    ApiError::Invalid {
        field: if field == "." { "body".into() } else { field },
        detail,
    }
}

/// One of serde's messages as `expected a string, found null`; others are left as they are.
pub(in crate::http) fn in_words(message: &str) -> String {
    let (kind, rest) = message.split_once(": ").unwrap_or_default();
    if let ("invalid type" | "invalid value", Some((found, expected))) =
        (kind, rest.rsplit_once(", expected "))
    {
        return format!("expected {}, found {}", wanted(expected), value(found));
    }
    if let Some((found, expected)) = message
        .strip_prefix("unknown variant `")
        .and_then(|rest| rest.rsplit_once("`, expected "))
    {
        let names = expected.trim_start_matches("one of ").replace('`', "\"");
        return format!("expected {names}, found \"{}\"", shortened(found));
    }
    match message {
        // What serde_json says of a value that can't be the name of a variant.
        "expected value" => "expected a string".into(),
        "recursion limit exceeded" => "it is nested too deeply".into(),
        "invalid unicode code point" => "it is not valid UTF-8; send the body in UTF-8".into(),
        _ => shortened_message(message).into_owned(),
    }
}

/// A type that serde expects.
fn wanted(expected: &str) -> &str {
    let expected = expected.strip_prefix("expected ").unwrap_or(expected);
    match expected {
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        "usize" | "u64" | "u32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        _ if expected.starts_with("struct ") => "an object",
        _ => expected,
    }
}

/// A value that serde found.
fn value(found: &str) -> Cow<'_, str> {
    match found {
        "unit value" | "Option value" => "null".into(),
        "sequence" => "an array".into(),
        "map" => "an object".into(),
        _ => {
            let text = found.strip_prefix("string ");
            let number = || found.split_once('`')?.1.strip_suffix('`');
            shortened(text.or_else(number).unwrap_or(found))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde::de::DeserializeOwned;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only parsed")]
    struct Inner {
        text: String,
    }

    #[derive(Debug, Deserialize)]
    enum Side {
        Left,
        Right,
    }

    fn words<T: DeserializeOwned + std::fmt::Debug>(value: serde_json::Value) -> String {
        in_words(&serde_json::from_value::<T>(value).unwrap_err().to_string())
    }

    #[test]
    fn messages_are_in_a_users_words() {
        for (message, expected) in [
            (
                words::<String>(json!(null)),
                "expected a string, found null",
            ),
            (
                words::<String>(json!([1])),
                "expected a string, found an array",
            ),
            (
                words::<String>(json!(true)),
                "expected a string, found true",
            ),
            (
                words::<Vec<String>>(json!({})),
                "expected an array, found an object",
            ),
            (words::<Inner>(json!(1.5)), "expected an object, found 1.5"),
            (
                words::<usize>(json!(-1)),
                "expected a whole number, found -1",
            ),
            (
                words::<bool>(json!("x, expected y")),
                "expected true or false, found \"x, expected y\"",
            ),
            (
                words::<Side>(json!("Up")),
                "expected \"Left\" or \"Right\", found \"Up\"",
            ),
            (
                words::<Vec<u8>>(json!("a".repeat(1000))),
                &format!("expected an array, found \"{}...", "a".repeat(59)),
            ),
        ] {
            assert_eq!(message, expected);
        }
    }
}
