//! API keys. `access` says what asks for one. Keys come from a file and are kept and compared as SHA-256 hashes, in
//! constant time, so that neither memory nor timing tells them. `line` reads a line of the file.

mod line;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::text_file::{self, TextFileError};

use super::accounts::{Account, Accounts, Limits};
use super::renewal::{Renewal, Seen};
use line::Line;
pub(super) use line::Right;

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

#[derive(Debug)]
struct Key {
    name: Arc<str>,
    hash: [u8; 32],
    right: Right,
    account: Arc<Account>,
}

/// The key that a request came with.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Its name, for the log.
    pub(super) name: KeyName,
    /// What it may do.
    pub(super) right: Right,
    /// Its owner.
    pub(super) account: Arc<Account>,
}

/// The API keys of a file.
#[derive(Debug)]
pub(super) struct Keys {
    path: PathBuf,
    keys: RwLock<Arc<[Key]>>,
    accounts: Mutex<Accounts>,
    renewal: Renewal,
}

impl Keys {
    /// Reads a file of keys.
    pub(super) fn read(path: &Path) -> Result<Self, KeysError> {
        let (seen, lines) = read(path);
        let mut accounts = Accounts::default();
        Ok(Self {
            path: path.to_owned(),
            keys: RwLock::new(owned(lines?, &mut accounts)),
            accounts: Mutex::new(accounts),
            renewal: Renewal::new(seen, "rerankd_keys_file_ok"),
        })
    }

    /// Reads the file again, and tells in the log if it has changed since (`only_changes`) or whatever it
    /// holds. What can't be used leaves the keys as they are.
    pub(super) fn reload(&self, only_changes: bool) {
        let put = |lines| {
            let accounts = self.accounts.lock();
            let mut accounts = accounts.unwrap_or_else(PoisonError::into_inner);
            let keys = owned(lines, &mut accounts);
            let count = keys.len();
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
            count
        };
        match self.renewal.renew(only_changes, || read(&self.path), put) {
            None => {}
            Some(Ok(count)) => tracing::info!(keys = count, "API keys read again"),
            Some(Err(error)) => tracing::error!(%error, "the API keys stay as they were"),
        }
    }

    /// Whether the file now holds the keys that are in force.
    pub(super) fn is_current(&self) -> bool {
        self.renewal.is_current()
    }

    /// What is known of a key, if it is one of ours. Takes the same time whichever it is.
    pub(super) fn find(&self, key: &[u8]) -> Option<Known> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let (mut found, mut place) = (Choice::from(0), 0u32);
        for (i, key) in keys.iter().enumerate() {
            let same = key.hash[..].ct_eq(&hash[..]);
            place.conditional_assign(&u32::try_from(i).unwrap_or(u32::MAX), same);
            found |= same;
        }
        let key = keys.get(usize::try_from(place).ok()?)?;
        let known = || Known {
            name: KeyName(Arc::clone(&key.name)),
            right: key.right,
            account: Arc::clone(&key.account),
        };
        bool::from(found).then(known)
    }
}

/// How many keys a file holds.
///
/// # Errors
/// If it can't be used.
pub fn count_keys(path: &Path) -> Result<usize, KeysError> {
    read(path).1.map(|lines| lines.len())
}

fn read(path: &Path) -> (Seen, Result<Vec<Line>, KeysError>) {
    let name = path.display().to_string();
    match text_file::read(path) {
        Ok(text) => (Ok(Sha256::digest(&text).into()), parse(&text, &name)),
        Err(reason) => (
            Err(reason.to_string()),
            Err(KeysError::File { path: name, reason }),
        ),
    }
}

/// A file's lines with keys, in its order.
fn parse(text: &str, path: &str) -> Result<Vec<Line>, KeysError> {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(i, line)| (i + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut places = HashMap::new();
    let mut limits = HashMap::new();
    let lines = lines.map(|(number, text)| {
        let wrong = |reason| KeysError::Line {
            path: path.to_owned(),
            line: number,
            reason,
        };
        let line = Line::parse(number, text).map_err(wrong)?;
        if let Some(first) = places.insert(line.hash, number) {
            // Whose requests these are would depend on the order.
            return Err(wrong(format!("this key is in line {first} already")));
        }
        let (first, known) = limits
            .entry(line.name.clone())
            .or_insert((number, Limits::default()));
        if let Err(option) = line::join(known, &line.limits) {
            let reason = format!(
                "{option} has another value than in a line of the same name before (the first is line {first}); a \
                 name's keys share its limits"
            );
            return Err(wrong(reason));
        }
        Ok(line)
    });
    let lines = lines.collect::<Result<Vec<Line>, _>>()?;
    if lines.is_empty() {
        return Err(KeysError::Empty(path.to_owned()));
    }
    Ok(lines)
}

/// The keys of lines, with their owners.
fn owned(lines: Vec<Line>, accounts: &mut Accounts) -> Arc<[Key]> {
    let mut limits: HashMap<Arc<str>, Limits> = HashMap::new();
    for line in &lines {
        let of_name = limits.entry(line.name.as_str().into()).or_default();
        // `parse` has refused lines that contradict one another.
        let _ = line::join(of_name, &line.limits);
    }
    accounts.renew(&limits);
    let keys = lines.into_iter().filter_map(|line| {
        Some(Key {
            account: accounts.get(&line.name)?,
            name: line.name.into(),
            hash: line.hash,
            right: line.right,
        })
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_once_but_a_name_may_have_several() {
        let two = parse("a one\r\na two\r\n", "f").unwrap();
        assert_eq!((two.len(), &*two[1].name), (2, "a"));
        let keys = owned(two, &mut Accounts::default());
        assert!(Arc::ptr_eq(&keys[0].account, &keys[1].account));
        let error = parse("a one weight=2\nb two weight=3\na three weight=3", "f");
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("line 3: weight has another value") && error.contains("line 1"),
            "{error}"
        );
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
