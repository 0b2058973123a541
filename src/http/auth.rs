//! API keys. `access` says what asks for one. Keys come from a file and are kept and compared as SHA-256 hashes, in
//! constant time, so that neither memory nor timing tells them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use metrics::gauge;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::text_file::{self, TextFileError};

/// Why the file of API keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It can't be read.
    #[error("auth.keys_file {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        reason: TextFileError,
    },
    /// It holds no key, and so would lock everybody out.
    #[error("auth.keys_file {0}: it holds no key; leave the setting empty to ask for none")]
    Empty(String),
    /// A line is wrong. Its text is not told, since it may be a key.
    #[error("auth.keys_file {path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// The name of the key that a request came with, for the log.
#[derive(Debug, Clone)]
pub(super) struct KeyName(Arc<str>);

impl KeyName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

/// What the key may do that a request came with.
#[derive(Debug, Clone, Copy)]
pub(super) struct IsAdmin(pub(super) bool);

#[derive(Debug)]
struct Key {
    name: Arc<str>,
    hash: [u8; 32],
    is_admin: bool,
}

/// The API keys of a file.
#[derive(Debug)]
pub(super) struct Keys {
    path: PathBuf,
    keys: RwLock<Arc<[Key]>>,
    /// What the file held when it was last read, as a hash, or why it could not be read. Times and lengths
    /// don't tell that a link leads elsewhere now, as it does when Kubernetes renews a secret.
    seen: Mutex<Seen>,
    /// Whether the file now holds the keys that are in force.
    is_current: AtomicBool,
}

type Seen = Result<[u8; 32], String>;

impl Keys {
    /// Reads a file of keys.
    pub(super) fn read(path: &Path) -> Result<Self, KeysError> {
        let (seen, keys) = read(path);
        let keys = Self {
            path: path.to_owned(),
            keys: RwLock::new(keys?),
            seen: Mutex::new(seen),
            is_current: AtomicBool::new(true),
        };
        keys.set_current(true);
        Ok(keys)
    }

    /// Reads the file again, and tells in the log if it has changed since (`only_changes`) or whatever it
    /// holds. What can't be used leaves the keys as they are.
    pub(super) fn reload(&self, only_changes: bool) {
        let mut last = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, keys) = read(&self.path);
        if only_changes && seen == *last {
            return;
        }
        *last = seen;
        let is_current = keys.is_ok();
        match keys {
            Ok(keys) => {
                let count = keys.len();
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
                self.set_current(is_current);
                tracing::info!(keys = count, "API keys read again");
            }
            Err(error) => {
                self.set_current(is_current);
                tracing::error!(%error, "the API keys stay as they were");
            }
        }
    }

    fn set_current(&self, is_current: bool) {
        self.is_current.store(is_current, Ordering::Relaxed);
        gauge!("rerankd_keys_file_ok").set(f64::from(u8::from(is_current)));
    }

    /// Whether the file now holds the keys that are in force.
    pub(super) fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Relaxed)
    }

    /// The name and the right of a key, if it is one of ours. Takes the same time whichever it is.
    pub(super) fn find(&self, key: &[u8]) -> Option<(KeyName, IsAdmin)> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let (mut found, mut place) = (Choice::from(0), 0u32);
        for (i, key) in keys.iter().enumerate() {
            let same = key.hash[..].ct_eq(&hash[..]);
            place.conditional_assign(&u32::try_from(i).unwrap_or(u32::MAX), same);
            found |= same;
        }
        let key = keys.get(usize::try_from(place).ok()?)?;
        let name = || (KeyName(Arc::clone(&key.name)), IsAdmin(key.is_admin));
        bool::from(found).then(name)
    }
}

/// How many keys a file holds.
///
/// # Errors
/// If it can't be used.
pub fn count_keys(path: &Path) -> Result<usize, KeysError> {
    read(path).1.map(|keys| keys.len())
}

fn read(path: &Path) -> (Seen, Result<Arc<[Key]>, KeysError>) {
    let name = path.display().to_string();
    match text_file::read(path) {
        Ok(text) => (Ok(Sha256::digest(&text).into()), parse(&text, &name)),
        Err(reason) => (
            Err(reason.to_string()),
            Err(KeysError::File { path: name, reason }),
        ),
    }
}

/// A file's keys, in its order.
fn parse(text: &str, path: &str) -> Result<Arc<[Key]>, KeysError> {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(i, line)| (i + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut places = HashMap::new();
    let keys = lines.map(|(line, text)| {
        let wrong = |reason| KeysError::Line {
            path: path.to_owned(),
            line,
            reason,
        };
        let key = parse_line(line, text).map_err(|reason| wrong(reason.into()))?;
        match places.insert(key.hash, line) {
            // Whose requests these are would depend on the order.
            Some(first) => Err(wrong(format!("this key is in line {first} already"))),
            None => Ok(key),
        }
    });
    let keys = keys.collect::<Result<Arc<[Key]>, _>>()?;
    if keys.is_empty() {
        return Err(KeysError::Empty(path.to_owned()));
    }
    Ok(keys)
}

/// The word after a key that may load and unload models.
const ADMIN: &str = "admin";

/// A line: `KEY`, `NAME KEY` or `NAME KEY admin`.
fn parse_line(line: usize, text: &str) -> Result<Key, &'static str> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (name, key) = match words[..] {
        [key] => (format!("line-{line}"), key),
        // What was meant as the key would be its name, which the log tells.
        [_, ADMIN] => return Err("the word admin can't be a key; write NAME KEY admin"),
        [name, key] | [name, key, ADMIN] => (name.to_owned(), key),
        _ => return Err("expected KEY, NAME KEY or NAME KEY admin"),
    };
    let hash = match key.strip_prefix("sha256:") {
        Some(hex) => {
            from_hex(hex).ok_or("\"sha256:\" must be followed by 64 hexadecimal digits")?
        }
        None => Sha256::digest(key).into(),
    };
    Ok(Key {
        name: name.into(),
        hash,
        is_admin: words.len() == 3,
    })
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
            let key = parse_line(3, &text).unwrap();
            assert_eq!((&*key.name, key.hash), (name, secret));
        }
        for (text, is_admin) in [
            ("secret", false),
            ("a secret", false),
            ("a secret admin", true),
        ] {
            assert_eq!(parse_line(1, text).unwrap().is_admin, is_admin, "{text}");
        }
        for wrong in [
            "a b c",
            "secret admin",
            "a b admin c",
            "sha256:12",
            &format!("sha256:{}", "z".repeat(64)),
        ] {
            assert!(parse_line(1, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_stands_once_but_a_name_may_have_several() {
        let two = parse("a one\r\na two\r\n", "f").unwrap();
        assert_eq!((two.len(), &*two[1].name), (2, "a"));
        let hex = "1a06df824ed741b53c785079a6347f00eec5af82f9850775409ca69dff4068a6";
        for twice in ["a k\n#\nb k", "hashed\n\nsha256:HEX"] {
            let text = twice.replace("HEX", hex);
            let error = parse(&text, "f").unwrap_err().to_string();
            assert_eq!(
                error,
                "auth.keys_file f, line 3: this key is in line 1 already"
            );
        }
    }
}
