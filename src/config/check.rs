//! What each key's value must be. The maxima are generous: they keep out what can only be a mistake,
//! and what would overflow or never end.

use std::net::Ipv6Addr;

use clap::ValueEnum;
use toml::Value;

use super::{
    ActivationName, DtypeName, MaxSimName, TruncationName, VectorDtypeName, WindowScoreName,
};
use crate::engine::Compression;
use crate::rank::fusion::Fusion;
use crate::scoring::{CHAT_TEMPLATE, FORMATS};
use crate::text_file::TextFileError;
use crate::types::MAX_WINDOWS;
use crate::{engine, telemetry};

/// Tokens of one batch, one window or one pair.
const MAX_TOKENS: i64 = 16_777_216;
/// Milliseconds of a day.
const MAX_MS: i64 = 86_400_000;

/// The least and the most that each number may be.
const RANGES: &[(&str, i64, i64)] = &[
    ("server.port", 0, 65_535),
    ("server.health_port", 0, 65_535),
    ("server.max_connections", 1, 1_000_000),
    ("server.head_timeout_ms", 1, MAX_MS),
    ("server.body_timeout_ms", 1, MAX_MS),
    ("server.write_timeout_ms", 1, MAX_MS),
    ("server.idle_timeout_ms", 1, MAX_MS),
    ("model.max_input_tokens", 0, MAX_TOKENS),
    ("model.max_chunks_per_doc", 0, MAX_WINDOWS as i64),
    ("model.overlap_tokens", 0, MAX_TOKENS),
    ("model.dimensions", 0, 65_536),
    ("model.cutoff_layer", 0, 1000),
    ("model.vector_cache_mb", 0, 1_000_000),
    ("model.weight", 1, 1000),
    ("engine.threads", 0, 65_536),
    // A petabyte.
    ("engine.memory_budget_mb", 0, 1_000_000_000),
    ("tokenize.threads", 0, 65_536),
    ("batch.max_tokens", 1, MAX_TOKENS),
    ("batch.max_pairs", 1, 1_000_000),
    ("batch.window_tokens", 0, MAX_TOKENS),
    ("limits.max_documents", 1, 1_000_000),
    ("limits.max_explained", 0, 1000),
    // 1 GiB and 1 TiB.
    ("limits.body_limit_bytes", 1, 1 << 30),
    ("limits.max_body_bytes_in_flight", 0, 1 << 40),
    ("limits.max_queue_ms", 1, MAX_MS),
    ("limits.max_queue_tokens", 1, 1_000_000_000),
    ("cache.scores_mb", 0, 1_000_000),
    ("limits.request_timeout_ms", 1, MAX_MS),
    ("traces.sample_percent", 0, 100),
    ("shutdown.pause_ms", 0, MAX_MS),
    ("shutdown.deadline_ms", 0, MAX_MS),
];

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of settings can't be read.
    #[error("--config {file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// Why not.
        reason: TextFileError,
    },
    /// The file of settings is no TOML.
    #[error("{place}: {reason}")]
    Toml {
        /// The file, and the line where it is known.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// There is no such key.
    #[error("{place} is no setting; {hint}")]
    Unknown {
        /// Where it stands, and its name.
        place: String,
        /// What may be meant.
        hint: String,
    },
    /// A value makes no sense.
    #[error("{place} is {value}, but it must be {must}")]
    Value {
        /// Where it stands: a line of a file, a variable or a flag.
        place: String,
        /// The value.
        value: String,
        /// What it must be.
        must: String,
    },
    /// One of a certificate and its key is missing, or both.
    #[error(
        "{has} is set, but {lacks} is not: TLS takes a certificate and its key (tls.cert_file, tls.key_file); \
         leave all of [tls] empty for plain HTTP"
    )]
    HalfTls {
        /// What is set.
        has: &'static str,
        /// What it needs.
        lacks: &'static str,
    },
    /// Both ports are the same.
    #[error(
        "server.health_port is {0}, which server.port is already: choose another, or 0 for health and metrics at \
         server.port"
    )]
    SamePort(u16),
    /// A model is named in both forms.
    #[error(
        "{place} is for one model, but {several} names several; put it into the section of that model there, or \
         leave out one of the two"
    )]
    TwoForms {
        /// Where the short form stands.
        place: String,
        /// Where the long form stands.
        several: String,
    },
    /// A section of several models has no id.
    #[error("{place} has no id: a folder, a hub id ORG/NAME, or \"builtin\"")]
    NoId {
        /// Where it stands.
        place: String,
    },
    /// Requests could not tell two models apart.
    #[error(
        "two models are called \"{0}\"; give each a name of its own (name = ... in its [[models]] section, or \
         --model NAME=ID), and each alias to one"
    )]
    SameName(String),
    /// A variable holds something other than text.
    #[error("environment variable {0} is not UTF-8 text")]
    Variable(String),
    /// The values have not the types of the settings.
    #[error(transparent)]
    Types(#[from] toml::de::Error),
}

/// The values that a key may have, if it is a choice.
pub(super) fn choices(key: &str) -> Option<Vec<String>> {
    fn names<T: ValueEnum>() -> Vec<String> {
        let variants = T::value_variants().iter();
        let values = variants.filter_map(ValueEnum::to_possible_value);
        values.map(|value| value.get_name().to_owned()).collect()
    }
    Some(match key {
        "model.truncation" => names::<TruncationName>(),
        "model.window_score" => names::<WindowScoreName>(),
        "model.prompt" => {
            let named = FORMATS.iter().map(|format| format.name);
            let all = ["auto", CHAT_TEMPLATE].into_iter().chain(named);
            all.map(str::to_owned).collect()
        }
        "model.activation" => names::<ActivationName>(),
        "model.maxsim" => names::<MaxSimName>(),
        "model.vector_cache_dtype" => names::<VectorDtypeName>(),
        "engine.dtype" => names::<DtypeName>(),
        "engine.instructions" => engine::INSTRUCTIONS.map(str::to_owned).into(),
        "log.format" => names::<telemetry::LogFormat>(),
        _ => return None,
    })
}

/// Checks a key's value; the error says what it must be. `default` has the key's type.
pub(super) fn check(key: &str, value: &Value, default: &Value) -> Result<(), String> {
    if let Some(choices) = choices(key) {
        let text = value.as_str().unwrap_or_default();
        if choices.iter().any(|choice| choice == text) {
            return Ok(());
        }
        let near = nearest(text, choices.iter().map(String::as_str), 0.8);
        let near = near.map(|choice| format!("; did you mean \"{choice}\"?"));
        let near = near.unwrap_or_default();
        return Err(format!("one of {}{near}", choices.join(", ")));
    }
    match (default, value) {
        (Value::Integer(_), value) => {
            let range = RANGES.iter().find(|(name, ..)| *name == key);
            let &(_, min, max) = range.unwrap_or(&("", 0, i64::MAX));
            let number = value.as_integer().filter(|n| (min..=max).contains(n));
            number
                .map(drop)
                .ok_or(format!("a whole number from {min} to {max}"))
        }
        (Value::Boolean(_), Value::Boolean(_)) => Ok(()),
        (Value::Boolean(_), _) => Err("true or false".into()),
        (Value::Array(_), value) => {
            let texts = value.as_array().map(|list| list.iter().map(Value::as_str));
            let texts: Option<Vec<&str>> = texts.and_then(Iterator::collect);
            let texts = texts.ok_or("a list of texts, as [\"a\", \"b\"]")?;
            texts.iter().try_for_each(|text| check_entry(key, text))
        }
        (Value::Table(_), value) if key == "model.compression" => check_compression(value),
        (Value::Table(_), value) => check_fusion(value),
        (_, Value::String(text)) => check_text(key, text),
        _ => Err("a text, in quotes".into()),
    }
}

/// An entry of a list.
fn check_entry(key: &str, text: &str) -> Result<(), String> {
    let is_right = match key {
        "cors.origins" => {
            let host = text
                .strip_prefix("http://")
                .or(text.strip_prefix("https://"));
            text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains('/'))
        }
        "model.aliases" => {
            let name = text.strip_suffix('*').unwrap_or(text);
            !text.is_empty() && !name.contains('*')
        }
        "metrics.aliases" => telemetry::Alias::named(text).is_some(),
        _ => true,
    };
    let must = match key {
        "cors.origins" => {
            "\"*\" or origins: scheme, host and port without a path, as https://app.example.com"
        }
        "metrics.aliases" => "a list of \"tei\" and \"vllm\"",
        _ => "a list of names; a * may stand at a name's end only",
    };
    is_right.then_some(()).ok_or_else(|| must.to_owned())
}

/// `model.compression`.
fn check_compression(value: &Value) -> Result<(), String> {
    let form = "{}, or such as { ratio = 2, layers = [24, 40] }, with a ratio of 1, 2, 4 or 8 and layers from 1 to 1000";
    let table = value.as_table().ok_or(form)?;
    if table.is_empty() {
        return Ok(());
    }
    let compression: Result<Compression, _> = table.clone().try_into();
    let is_right = compression.is_ok_and(|compression| {
        let layers = compression.layers.iter();
        Compression::RATIOS.contains(&compression.ratio)
            && layers.clone().all(|layer| (1..=1000).contains(layer))
    });
    is_right.then_some(()).ok_or_else(|| form.to_owned())
}

/// `model.fusion`.
fn check_fusion(value: &Value) -> Result<(), String> {
    let form =
        "{}, or such as { method = \"weighted\", weight = 0.2 } or { method = \"rrf\", k = 60 }";
    let table = value.as_table().ok_or(form)?;
    if let Some(key) = table
        .keys()
        .find(|key| !["method", "weight", "k"].contains(&key.as_str()))
    {
        return Err(format!("{form}; it has no \"{key}\""));
    }
    if table.is_empty() {
        return Ok(());
    }
    let fusion: Result<Fusion, _> = table.clone().try_into();
    fusion
        .map(drop)
        .map_err(|error| format!("{form}: {}", error.message().trim()))
}

fn check_text(key: &str, text: &str) -> Result<(), String> {
    let must = match key {
        "model.id" if text.is_empty() => "a folder, a hub id ORG/NAME, or \"builtin\"",
        "model.revision" if text.is_empty() => "a branch, tag or commit on the hub",
        "server.health_host" if text.is_empty() => return Ok(()),
        "server.host" | "server.health_host" if !is_host(text) => {
            "an address or a name, without scheme, port or brackets, such as 127.0.0.1 or ::1"
        }
        "traces.endpoint" if !is_url(text) => {
            "a collector's URL, such as http://collector:4318, or empty"
        }
        "engine.device" if !engine::is_device(text) => "cpu, cuda or cuda:N",
        "log.level" => return check_level(text),
        _ => return Ok(()),
    };
    Err(must.into())
}

/// Whether a text is empty or the URL of an HTTP server.
pub(super) fn is_url(text: &str) -> bool {
    let parsed = url::Url::parse(text);
    let is_http =
        parsed.is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    text.is_empty() || is_http
}

/// Whether a text may be a host: what has a colon must be an IPv6 address.
fn is_host(text: &str) -> bool {
    let address = text.split('%').next().unwrap_or(text);
    let is_v6 = address.parse::<Ipv6Addr>().is_ok();
    let strange = |c: char| c.is_whitespace() || "[]/:".contains(c);
    is_v6 || !(text.is_empty() || text.contains(strange))
}

fn check_level(text: &str) -> Result<(), String> {
    let Err(wrong) = telemetry::check_filter(text) else {
        return Ok(());
    };
    let near = nearest(&wrong, telemetry::LEVELS, 0.8);
    let near = near.map(|level| format!("; did you mean {level}?"));
    let (levels, near) = (telemetry::LEVELS.join(", "), near.unwrap_or_default());
    Err(format!(
        "a level ({levels}) or a tracing filter, such as info,hyper=warn{near}"
    ))
}

/// The candidate that is most like a word, if it is enough so (1: the same).
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    enough: f64,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |candidate: &str| strsim::jaro(&word, &candidate.to_lowercase());
    let candidates = candidates.into_iter().map(|c| (likeness(c), c));
    let best = candidates.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= enough).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::{default, keys};

    #[test]
    fn every_number_has_a_range() {
        for key in keys() {
            if default(key).unwrap().is_integer() {
                let there = RANGES.iter().any(|(name, ..)| *name == key);
                assert!(there, "{key}");
            }
        }
        for (key, ..) in RANGES {
            assert!(default(key).unwrap().is_integer(), "{key}");
        }
    }

    #[test]
    fn a_choice_is_one_of_the_names_that_the_settings_know() {
        for key in keys() {
            for choice in choices(key).into_iter().flatten() {
                let flags = vec![(key.as_str(), choice.as_str().into())];
                let settings = crate::config::Settings::load(None, flags).unwrap();
                assert!(
                    settings.to_toml().contains(&format!("\"{choice}\"")),
                    "{key}"
                );
            }
        }
    }

    #[test]
    fn a_filter_is_levels_by_target_and_a_bare_word_is_a_level() {
        let check = |text: &str| check("log.level", &text.into(), &"info".into());
        for right in [
            "info",
            "WARN",
            "off",
            "rerankd=debug,hyper=warn",
            "info,[request]=trace",
        ] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for (wrong, near) in [
            ("nonsense", ""),
            ("", ""),
            ("info,rerankd", ""),
            ("warning", "did you mean warn?"),
            ("rerankd=inof", "did you mean info?"),
            ("loud==", ""),
        ] {
            let must = check(wrong).unwrap_err();
            assert!(
                must.contains(near) && must.contains("trace"),
                "{wrong}: {must}"
            );
            assert!(!near.is_empty() || !must.contains("did you"), "{must}");
        }
    }
}
