//! The layers, merged key by key. Each value is checked as it comes in, so that an error names the
//! place that it stands at; a key's type is that of its default.

use std::ffi::OsString;
use std::path::Path;
use std::sync::LazyLock;

use toml::de::DeTable;
use toml::{Table, Value};

use super::check::{check, nearest};
use super::models::Entries;
use super::{ConfigError, DEFAULTS, Override, Settings, models, names, ports};
use crate::text_file;

/// Where a value stands.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Line(&'a Path, usize),
    Variable(&'a str),
    Flag,
}

impl Place<'_> {
    /// The value's name there.
    pub(super) fn name(&self, key: &str) -> String {
        match self {
            Self::Line(file, line) => format!("{}, line {line}: {key}", file.display()),
            Self::Variable(name) => (*name).to_owned(),
            Self::Flag => names::flag(key).unwrap_or(key).to_owned(),
        }
    }
}

/// The layers so far.
pub(super) struct Layers {
    merged: Table,
    entries: Entries,
    /// Variables that look like ours but are none, in sentences.
    strange: Vec<String>,
}

/// The lowest layer.
fn defaults() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| DEFAULTS.parse().unwrap_or_default());
    &TABLE
}

/// A key's default.
pub(super) fn default(key: &str) -> Option<&'static Value> {
    let (section, name) = key.split_once('.')?;
    defaults().get(section)?.get(name)
}

/// All keys, as `section.key`.
pub(super) fn keys() -> &'static [String] {
    static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut all = Vec::new();
        for (section, keys) in defaults() {
            let keys = keys.as_table().into_iter().flat_map(Table::keys);
            all.extend(keys.map(|key| format!("{section}.{key}")));
        }
        all
    });
    &KEYS
}

impl Layers {
    pub(super) fn new() -> Self {
        Self {
            merged: defaults().clone(),
            entries: Entries::default(),
            strange: Vec::new(),
        }
    }

    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = text_file::read(path).map_err(|reason| ConfigError::File {
            file: path.display().to_string(),
            reason,
        })?;
        let line = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
        let no_toml = |error: toml::de::Error| {
            let file = path.display();
            ConfigError::Toml {
                place: match error.span() {
                    Some(span) => format!("{file}, line {}", line(span.start)),
                    None => file.to_string(),
                },
                reason: error.message().trim_end().replace('\n', "; "),
            }
        };
        let places = DeTable::parse(&text).map_err(no_toml)?;
        let values: Table = text.parse().map_err(no_toml)?;
        for (section, place) in places.get_ref() {
            let at = Place::Line(path, line(section.span().start));
            let section = section.get_ref().as_ref();
            if section == models::SECTION {
                let places = place.get_ref();
                self.entries
                    .add_file(path, places, values.get(section), line)?;
                continue;
            }
            let known = defaults().get(section).and_then(Value::as_table);
            let (Some(_), Some(keys)) = (known, place.get_ref().as_table()) else {
                return Err(unknown(&at, section));
            };
            for key in keys.keys() {
                let at = Place::Line(path, line(key.span().start));
                let key = key.get_ref().as_ref();
                let value = values.get(section).and_then(|values| values.get(key));
                if let Some(value) = value {
                    self.set(&format!("{section}.{key}"), value.clone(), &at)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the variables that name a key; an empty one counts as not set.
    pub(super) fn add_variables(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|_| !value.is_empty()) else {
                continue;
            };
            match names::key(name) {
                Some(key) => {
                    let text = value.to_str();
                    let text = text.ok_or_else(|| ConfigError::Variable(name.to_owned()))?;
                    self.set(key, Value::String(text.into()), &Place::Variable(name))?;
                }
                None => self.strange.extend(names::warning(name, &value)),
            }
        }
        // The environment has no order.
        self.strange.sort();
        Ok(())
    }

    pub(super) fn add_flags(&mut self, flags: Vec<Override>) -> Result<(), ConfigError> {
        for (key, value) in flags {
            match value {
                Value::Array(several) if key == models::SECTION => {
                    self.entries.replace(&several)?;
                }
                value => {
                    if key == "model.id" {
                        self.entries.replace(&[])?;
                    }
                    self.set(key, value, &Place::Flag)?;
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: Value, at: &Place<'_>) -> Result<(), ConfigError> {
        let Some(default) = default(key) else {
            return Err(unknown(at, key));
        };
        let value = match (&value, at) {
            // What is not in a file is text, whatever it stands for.
            (Value::String(text), Place::Variable(_) | Place::Flag) => typed(text, default),
            _ => value,
        };
        checked(key, &value, || at.name(key))?;
        if value != *default {
            self.entries.note(key, at);
        }
        if let Some((section, name)) = key.split_once('.')
            && let Some(section) = self.merged.get_mut(section).and_then(Value::as_table_mut)
        {
            section.insert(name.to_owned(), value);
        }
        Ok(())
    }

    pub(super) fn settings(self) -> Result<Settings, ConfigError> {
        let mut settings: Settings = Value::Table(self.merged.clone()).try_into()?;
        settings.models = self.entries.models(&self.merged)?;
        if let Some(first) = settings.models.first().cloned() {
            settings = settings.with_model(&first);
        }
        models::check_names(&settings)?;
        ports::check(&settings)?;
        settings.strange = self.strange;
        Ok(settings)
    }
}

/// Checks a key's value; `place` names where it stands.
pub(super) fn checked(
    key: &str,
    value: &Value,
    place: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    let default = default(key);
    let must = default.map_or(Ok(()), |default| check(key, value, default));
    must.map_err(|must| ConfigError::Value {
        place: place(),
        value: match (value, default) {
            (Value::Table(_), Some(default)) if !default.is_table() => "a section".into(),
            (Value::String(text), _) => format!("\"{text}\""),
            (other, _) => other.to_string(),
        },
        must,
    })
}

/// The error of a section or a key that there is not.
fn unknown(at: &Place<'_>, key: &str) -> ConfigError {
    let all = keys();
    let sections = || defaults().keys().map(String::as_str);
    let last = key.rsplit('.').next().unwrap_or(key);
    // A key may stand in the wrong section, or in none.
    let elsewhere = all.iter().find(|k| k.rsplit('.').next() == Some(last));
    let keys = || all.iter().map(String::as_str);
    let section = key.split_once('.').map(|(section, _)| section);
    let in_section = |k: &&str| section.is_none_or(|s| k.split_once('.').map(|k| k.0) == Some(s));
    let sections_too = sections().filter(|_| section.is_none());
    let candidates = keys().filter(in_section).chain(sections_too);
    let hint = if sections().any(|s| s == key) {
        format!("it is a section: write [{key}]")
    } else if let Some(key) = elsewhere {
        format!("did you mean {key}?")
    } else if let Some(near) = nearest(key, candidates, 0.8) {
        match near.contains('.') {
            true => format!("did you mean {near}?"),
            false => format!("did you mean [{near}]?"),
        }
    } else if let Some(section) = section {
        let names = keys().filter(in_section);
        let names: Vec<&str> = names.filter_map(|k| k.rsplit('.').next()).collect();
        format!("[{section}] has {}", names.join(", "))
    } else {
        format!(
            "the sections are {}",
            sections().collect::<Vec<_>>().join(", ")
        )
    };
    ConfigError::Unknown {
        place: at.name(key),
        hint,
    }
}

/// A text as the type of a key's default; as it is if it doesn't read so.
fn typed(text: &str, default: &Value) -> Value {
    let word = text.trim();
    let value = match default {
        Value::Integer(_) => word.parse().ok().map(Value::Integer),
        Value::Boolean(_) => match word.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true.into()),
            "false" | "0" | "no" | "off" => Some(false.into()),
            _ => None,
        },
        // As JSON and TOML write them; else commas alone.
        Value::Array(_) if word.starts_with('[') => parsed(word),
        Value::Table(_) if word.starts_with('{') => parsed(word),
        Value::Array(_) => {
            let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
            Some(entries.map(Value::from).collect::<Vec<_>>().into())
        }
        _ => None,
    };
    value.unwrap_or_else(|| text.into())
}

/// A text as TOML.
fn parsed(text: &str) -> Option<Value> {
    let table = format!("value = {text}").parse::<Table>();
    table.ok()?.remove("value")
}

#[cfg(test)]
mod tests;
