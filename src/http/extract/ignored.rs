//! The fields of a request that its dialect doesn't know: ignored, as clients expect, but told.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;
use serde_ignored::Path;

/// More names are not told.
const MOST_NAMES: usize = 10;
/// Nor what is longer of a name.
const MOST_CHARACTERS: usize = 40;
/// What clients send that changes nothing they get: fields of the APIs that mean nothing here.
const WITHOUT_EFFECT: [&str; 3] = ["outputs", "priority", "user"];

/// Names of fields that were ignored; shared by what parses the body and what tells of them.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct IgnoredFields(Arc<Mutex<Vec<String>>>);

impl IgnoredFields {
    /// Notes an ignored field.
    pub(super) fn note(&self, path: &Path<'_>) {
        let mut name = String::new();
        write(path, &mut name);
        self.note_name(name);
    }

    /// Notes an ignored field by its name.
    pub(in crate::http) fn note_name(&self, name: String) {
        // Nothing panics under the lock.
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() > MOST_NAMES {
            return;
        }
        if !names.contains(&name) && !WITHOUT_EFFECT.contains(&&*name) {
            names.push(name);
        }
    }

    /// The names, if there are any.
    pub(in crate::http) fn names(&self) -> Option<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = &names[..names.len().min(MOST_NAMES)];
        let mut told = told.join(", ");
        if names.len() > MOST_NAMES {
            told.push_str(", ...");
        }
        Some(told).filter(|told| !told.is_empty())
    }

    /// The names as a header's value, if there are any.
    pub(in crate::http) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.names()?).ok()
    }
}

/// Appends a name such as `passages[].title`: which item of an array it is would only make a list of all.
fn write(path: &Path<'_>, name: &mut String) {
    match path {
        Path::Root => {}
        Path::Seq { parent, .. } => {
            write(parent, name);
            name.push_str("[]");
        }
        Path::Map { parent, key } => {
            write(parent, name);
            if !name.is_empty() {
                name.push('.');
            }
            let safe = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let key = key.chars().take(MOST_CHARACTERS);
            name.extend(key.map(|c| if safe(c) { c } else { '?' }));
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => write(parent, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_once_and_as_safe_characters() {
        let ignored = IgnoredFields::default();
        assert_eq!(ignored.header(), None);
        let array = Path::Map {
            parent: &Path::Root,
            key: "passages".into(),
        };
        for (index, key) in [(0, "title"), (1, "title"), (1, "a\r\nb: ü")] {
            let parent = &Path::Seq {
                parent: &array,
                index,
            };
            ignored.note(&Path::Map {
                parent,
                key: key.into(),
            });
        }
        ignored.note(&Path::Map {
            parent: &Path::Root,
            key: "priority".into(),
        });
        assert_eq!(
            ignored.header().unwrap(),
            "passages[].title, passages[].a??b???"
        );
        for i in 0..1000 {
            let key = format!("{i}{}", "x".repeat(1000));
            ignored.note(&Path::Map {
                parent: &Path::Root,
                key,
            });
        }
        let told = ignored.header().unwrap();
        let told = told.to_str().unwrap();
        assert!(told.len() < 450 && told.ends_with("x, ..."), "{told}");
        assert_eq!(told.split(", ").count(), MOST_NAMES + 1);
    }
}
