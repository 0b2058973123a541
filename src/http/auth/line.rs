//! A line of the file of keys: `KEY`, or `NAME KEY` and what the key may do.

use sha2::{Digest, Sha256};

use crate::http::accounts::Limits;
use crate::types::Priority;

/// What a key may do; the later may do what the earlier may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::http) enum Right {
    /// Read the metrics and what describes the models.
    Metrics,
    /// Rank and score.
    Rerank,
    /// Load and unload models.
    Admin,
}

const RIGHTS: [(&str, Right); 3] = [
    ("metrics", Right::Metrics),
    ("rerank", Right::Rerank),
    ("admin", Right::Admin),
];

/// The options with a number, and the most that it may be.
const NUMBERS: [(&str, u64); 4] = [
    ("requests_per_minute", 1_000_000_000),
    ("tokens_per_minute", 1_000_000_000_000),
    ("concurrent", 1_000_000),
    ("weight", 1000),
];
const PRIORITY: &str = "priority";

/// What a line says.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) hash: [u8; 32],
    pub(super) right: Right,
    pub(super) limits: Limits,
}

impl Line {
    /// Reads a line. What is wrong is said without its words, since any may be a key.
    pub(super) fn parse(number: usize, text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (Some(first), second) = (words.next(), words.next()) else {
            return Err("expected KEY, or NAME KEY and options".into());
        };
        let (name, key) = match second {
            None => (format!("line-{number}"), first),
            // What was meant as the key would be its name, which the log tells.
            Some(option) if is_option(option) => {
                return Err(format!(
                    "the option {} can't stand for the key; write NAME KEY {0}",
                    name_of(option)
                ));
            }
            Some(key) => (first.to_owned(), key),
        };
        let (mut right, mut limits) = (None, Limits::default());
        for word in words {
            if let Some((_, named)) = RIGHTS.iter().find(|(known, _)| *known == word) {
                right = right.max(Some(*named));
            } else {
                set(&mut limits, word)?;
            }
        }
        let hash = match key.strip_prefix("sha256:") {
            Some(hex) => {
                from_hex(hex).ok_or("\"sha256:\" must be followed by 64 hexadecimal digits")?
            }
            None => Sha256::digest(key).into(),
        };
        Ok(Self {
            name,
            hash,
            right: right.unwrap_or(Right::Rerank),
            limits,
        })
    }
}

fn name_of(word: &str) -> &str {
    word.split_once('=').map_or(word, |(name, _)| name)
}

/// Whether a word is a right or begins as an option.
fn is_option(word: &str) -> bool {
    let is_right = RIGHTS.iter().any(|(name, _)| *name == word);
    let has_name = |name: &str| word.contains('=') && name_of(word) == name;
    is_right || has_name(PRIORITY) || NUMBERS.iter().any(|(name, _)| has_name(name))
}

/// Sets the limit that a word is for.
fn set(limits: &mut Limits, word: &str) -> Result<(), String> {
    let Some((name, value)) = word.split_once('=').filter(|_| is_option(word)) else {
        let rights = RIGHTS.iter().map(|(name, _)| (*name).to_owned());
        let numbers = NUMBERS.iter().map(|(name, _)| format!("{name}=N"));
        let options: Vec<String> = rights.chain(numbers).collect();
        return Err(format!(
            "after NAME KEY there may be options only: {}, priority=batch; one of the words is none",
            options.join(", ")
        ));
    };
    if name == PRIORITY {
        let class = Priority::ALL
            .into_iter()
            .find(|class| class.name() == value);
        let class = class.ok_or("priority must be interactive or batch")?;
        return once(&mut limits.priority, class, name);
    }
    let most = NUMBERS.iter().find(|(known, _)| *known == name);
    let most = most.map_or(u64::MAX, |(_, most)| *most);
    let number = value.parse().ok();
    let number = number.filter(|number| (1..=most).contains(number));
    let number = number.ok_or_else(|| format!("{name} must be a whole number from 1 to {most}"))?;
    let limit = match name {
        "requests_per_minute" => &mut limits.requests_per_minute,
        "tokens_per_minute" => &mut limits.tokens_per_minute,
        "concurrent" => &mut limits.concurrent,
        _ => &mut limits.weight,
    };
    once(limit, number, name)
}

fn once<T>(option: &mut Option<T>, value: T, name: &str) -> Result<(), String> {
    match option.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is there twice")),
    }
}

/// Adds what another line says of the same name's limits; the error is the option that it says otherwise.
pub(super) fn join(limits: &mut Limits, more: &Limits) -> Result<(), &'static str> {
    fn one<T: PartialEq + Copy>(
        limit: &mut Option<T>,
        more: Option<T>,
        name: &'static str,
    ) -> Result<(), &'static str> {
        match (*limit, more) {
            (Some(one), Some(other)) if one != other => Err(name),
            (before, more) => {
                *limit = before.or(more);
                Ok(())
            }
        }
    }
    let [requests, tokens, concurrent, weight] = NUMBERS.map(|(name, _)| name);
    one(
        &mut limits.requests_per_minute,
        more.requests_per_minute,
        requests,
    )?;
    one(
        &mut limits.tokens_per_minute,
        more.tokens_per_minute,
        tokens,
    )?;
    one(&mut limits.concurrent, more.concurrent, concurrent)?;
    one(&mut limits.weight, more.weight, weight)?;
    one(&mut limits.priority, more.priority, PRIORITY)
}

fn from_hex(hex: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = hex.chars().map(|c| Some(c.to_digit(16)? as u8)).collect();
    let bytes: Vec<u8> = digits?
        .chunks(2)
        .map(|d| d.iter().fold(0, |a, b| a << 4 | b))
        .collect();
    (hex.len() == 64).then(|| bytes.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_key_or_a_name_and_a_key_plain_or_hashed() {
        let secret: [u8; 32] = Sha256::digest("secret").into();
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        for (text, name) in [
            ("secret".to_owned(), "line-3"),
            ("team-a secret".to_owned(), "team-a"),
            (format!("team-b sha256:{hex}"), "team-b"),
            (format!("sha256:{}", hex.to_uppercase()), "line-3"),
        ] {
            let line = Line::parse(3, &text).unwrap();
            assert_eq!((&*line.name, line.hash), (name, secret));
        }
        // Keys in base 64 may end so.
        let line = Line::parse(1, "a c2VjcmV0cw== weight=2").unwrap();
        assert_eq!(line.hash, <[u8; 32]>::from(Sha256::digest("c2VjcmV0cw==")));
        for wrong in [
            "a b c",
            "secret admin",
            "secret weight=2",
            "a b admin c",
            "a b Admin",
            "sha256:12",
            &format!("sha256:{}", "z".repeat(64)),
        ] {
            let error = Line::parse(1, wrong).unwrap_err();
            assert!(!error.contains("secret"), "{wrong}: {error}");
        }
    }

    #[test]
    fn rights_and_limits_follow_the_key() {
        for (text, right) in [
            ("secret", Right::Rerank),
            ("a secret", Right::Rerank),
            ("a secret weight=2", Right::Rerank),
            ("a secret admin", Right::Admin),
            ("a secret metrics", Right::Metrics),
            ("a secret metrics rerank", Right::Rerank),
            ("a secret admin metrics", Right::Admin),
        ] {
            assert_eq!(Line::parse(1, text).unwrap().right, right, "{text}");
        }
        let text = "a k rerank requests_per_minute=600 tokens_per_minute=2000000 concurrent=8 weight=2 priority=batch";
        let limits = Limits {
            requests_per_minute: Some(600),
            tokens_per_minute: Some(2_000_000),
            concurrent: Some(8),
            weight: Some(2),
            priority: Some(Priority::Batch),
        };
        assert_eq!(Line::parse(1, text).unwrap().limits, limits);
        for (wrong, says) in [
            (
                "requests_per_minute=0",
                "requests_per_minute must be a whole number from 1",
            ),
            ("weight=1001", "to 1000"),
            ("concurrent=", "concurrent must be"),
            ("concurrent=-1", "concurrent must be"),
            ("priority=low", "interactive or batch"),
            ("weight=1 weight=2", "weight is there twice"),
            ("requests_per_minut=1", "requests_per_minute=N"),
        ] {
            let error = Line::parse(1, &format!("a k {wrong}")).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn lines_of_one_name_add_up_and_must_not_contradict() {
        let limits = |text| Line::parse(1, &format!("a k {text}")).unwrap().limits;
        let mut joined = limits("weight=2");
        join(&mut joined, &limits("concurrent=8 weight=2")).unwrap();
        join(&mut joined, &limits("")).unwrap();
        assert_eq!(joined, limits("weight=2 concurrent=8"));
        assert_eq!(join(&mut joined, &limits("weight=3")), Err("weight"));
    }
}
