//! A line of the file of keys: `KEY`, or `NAME KEY` and what the key may do. What can be read in two ways is refused: a
//! name that was taken for a key would be an open door.

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
        let mut words = text.split_whitespace().peekable();
        let Some(first) = words.next() else {
            return Err("expected KEY, or NAME KEY and options".into());
        };
        // It may be meant as the key, in whose place the name would stand.
        if words
            .peek()
            .is_some_and(|word| word.len() > 1 && word.starts_with('#'))
        {
            return Err(
                "what begins with # may be a key or a comment here: put a space behind the # of a comment, and write a \
                 key that begins so as \"sha256:\" and its hash"
                    .into(),
            );
        }
        let mut words = words.take_while(|word| !word.starts_with('#'));
        let (name, key) = match words.next() {
            None => {
                check_alone(first)?;
                (format!("line-{number}"), first)
            }
            // What was meant as the key would be its name, which the log tells.
            Some(option) if is_option(option) => {
                return Err(format!(
                    "the option {} can't stand for the key; write NAME KEY {0}",
                    name_of(option)
                ));
            }
            Some(key) => {
                check_name(first)?;
                check_key(key)?;
                (first.to_owned(), key)
            }
        };
        let (mut right, mut limits) = (None, Limits::default());
        for word in words {
            if let Some((_, named)) = RIGHTS.iter().find(|(known, _)| *known == word) {
                right = right.max(Some(*named));
            } else {
                set(&mut limits, word)?;
            }
        }
        let hash = match hash_of(key) {
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

/// The form that every refusal of a word shows.
const FORM: &str =
    "write NAME KEY, with a space between the two and before each option, as team-a k1 weight=2";

/// The hash that a key is written as, if it is.
fn hash_of(key: &str) -> Option<&str> {
    let (prefix, hex) = key.split_at_checked("sha256:".len())?;
    prefix.eq_ignore_ascii_case("sha256:").then_some(hex)
}

/// Refuses a line's only word if it may be a name and a key.
fn check_alone(key: &str) -> Result<(), String> {
    // Base64 ends in the sign, but has none within.
    let inner = key.trim_end_matches('=');
    match hash_of(key).is_none() && inner.contains([':', '=', ',', ';']) {
        true => Err(format!(
            "the line is one word with a : = , or ; in it, which may be a name and its key: {FORM}; before a key that \
             has such a sign there must be a name"
        )),
        false => check_key(key),
    }
}

/// Refuses what is no name.
fn check_name(name: &str) -> Result<(), String> {
    let is_hash = name.to_ascii_lowercase().starts_with("sha256");
    match is_hash || name.contains('=') || name.ends_with([':', ',', ';']) {
        true => Err(format!(
            "the first word is no name, which has no = in it, no : , or ; at its end, and does not begin with sha256: \
             {FORM}"
        )),
        false => Ok(()),
    }
}

/// Refuses a key that has something else in it.
fn check_key(key: &str) -> Result<(), String> {
    let lower = key.to_ascii_lowercase();
    if hash_of(key).is_none() && (lower.starts_with("sha256") || lower.starts_with("sha-256")) {
        return Err("a hash is written as \"sha256:\" and 64 hexadecimal digits".into());
    }
    let is_named = ["key:", "key="].iter().any(|word| lower.starts_with(word));
    let is_quoted = ['"', '\'', '`']
        .iter()
        .any(|&quote| key.starts_with(quote) && key.ends_with(quote));
    if is_named || is_quoted {
        return Err(format!(
            "the key stands without \"key\" before it and without quotes: {FORM}"
        ));
    }
    match key.ends_with([',', ';']) || key.split([',', ';']).skip(1).any(is_option) {
        true => Err(format!(
            "the key has a , or ; at its end, or an option in it: {FORM}"
        )),
        false => Ok(()),
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
            "after NAME KEY there may be options only: {}, priority=batch; one of the words is none (a comment begins \
             with #)",
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
            (format!("team-c SHA256:{hex}"), "team-c"),
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
    fn a_comment_may_end_a_line() {
        let of = |text: &str| Line::parse(1, text).map(|line| (line.name, line.hash));
        let hash = |key: &str| <[u8; 32]>::from(Sha256::digest(key));
        for text in ["a k#1 # admin", "a k#1 weight=2 #since May", "a k#1 #"] {
            assert_eq!(of(text).unwrap(), ("a".to_owned(), hash("k#1")), "{text}");
        }
        assert_eq!(
            of("k # a comment").unwrap(),
            ("line-1".to_owned(), hash("k"))
        );
        // The key would be another than the one that was meant.
        let error = of("a #k").unwrap_err();
        assert!(error.contains("a space behind the #"), "{error}");
    }

    #[test]
    fn what_may_be_two_things_is_refused() {
        let hex = "0".repeat(64);
        for (text, says) in [
            ("weight=2 k1".to_owned(), "NAME KEY"),
            ("a=k1".to_owned(), "one word"),
            ("a:k1".to_owned(), "one word"),
            ("a,k1".to_owned(), "one word"),
            ("a=k1 concurrent=2".to_owned(), "can't stand for the key"),
            ("a: k1".to_owned(), "no name"),
            ("a = k1".to_owned(), "options only"),
            ("name=a key=k1".to_owned(), "no name"),
            ("a key=k1".to_owned(), "without \"key\""),
            ("a \"k1\"".to_owned(), "quotes"),
            ("a k1,weight=2".to_owned(), "an option in it"),
            ("a k1;admin".to_owned(), "an option in it"),
            ("a k1, weight=2".to_owned(), "at its end"),
            (format!("sha256: {hex}"), "no name"),
            (format!("a sha256={hex}"), "64 hexadecimal"),
            (format!("a SHA-256:{hex}"), "64 hexadecimal"),
        ] {
            let error = Line::parse(1, &text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.replace("team-a k1", "").contains("k1"), "{error}");
        }
        // With a name before it there is one way to read it.
        for right in ["a b:k", "team:a k", "a k,l", "a k=l=="] {
            assert_eq!(
                Line::parse(1, right).unwrap().name.len(),
                right.find(' ').unwrap()
            );
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
