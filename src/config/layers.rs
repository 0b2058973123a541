//! The layers, merged key by key. Each value is checked as it comes in, so that an error names the
//! place that it stands at; a key's type is that of its default.

use std::ffi::OsString;
use std::path::Path;
use std::sync::LazyLock;

use toml::de::DeTable;
use toml::{Table, Value};

use super::check::{check, nearest};
use super::{ConfigError, DEFAULTS, Override, Settings, names};
use crate::text_file;

/// Where a value stands.
enum Place<'a> {
    Line(&'a Path, usize),
    Variable(&'a str),
    Flag,
}

impl Place<'_> {
    /// The value's name there.
    fn name(&self, key: &str) -> String {
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
        flags
            .into_iter()
            .try_for_each(|(key, value)| self.set(key, value, &Place::Flag))
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
        check(key, &value, default).map_err(|must| ConfigError::Value {
            place: at.name(key),
            value: match &value {
                Value::Table(_) => "a section".into(),
                Value::String(text) => format!("\"{text}\""),
                other => other.to_string(),
            },
            must,
        })?;
        if let Some((section, name)) = key.split_once('.')
            && let Some(section) = self.merged.get_mut(section).and_then(Value::as_table_mut)
        {
            section.insert(name.to_owned(), value);
        }
        Ok(())
    }

    pub(super) fn settings(self) -> Result<Settings, ConfigError> {
        let mut settings: Settings = Value::Table(self.merged).try_into()?;
        settings.strange = self.strange;
        Ok(settings)
    }
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
        Value::Array(_) if word.starts_with('[') => {
            let list = format!("list = {word}").parse::<toml::Table>().ok();
            list.and_then(|mut table| table.remove("list"))
        }
        Value::Array(_) => {
            let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
            Some(entries.map(Value::from).collect::<Vec<_>>().into())
        }
        _ => None,
    };
    value.unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &[u8]) -> Result<Settings, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let name = file.path().display().to_string();
        let settings = Settings::merge(Some(file.path()), [], vec![]);
        settings.map_err(|e| e.to_string().replace(&name, "FILE"))
    }

    fn with_variables(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let variables = variables.iter().map(|(n, v)| (n.into(), v.into()));
        Settings::merge(None, variables, vec![]).map_err(|e| e.to_string())
    }

    #[test]
    fn a_variable_is_read_as_the_type_of_its_key() {
        let settings = with_variables(&[
            ("RERANKD__MODEL__REVISION", "1.10"),
            ("RERANKD__MODEL__SERVED_NAME", "12e4567"),
            ("RERANKD__SERVER__HOST", "0"),
            ("RERANKD__MODEL__ID", "true"),
            ("RERANKD__SERVER__PORT", " 9000 "),
            ("RERANKD__AUTH__PROTECT_DOCS", "Yes"),
            ("RERANKD__MODEL__ALIASES", " a, b-* ,"),
            (
                "RERANKD__CORS__ORIGINS",
                r#"["https://a.example", "https://b.example"]"#,
            ),
        ])
        .unwrap();
        assert_eq!(settings.model.revision, "1.10");
        assert_eq!(settings.model.served_name, "12e4567");
        assert_eq!((&*settings.server.host, settings.server.port), ("0", 9000));
        assert_eq!(settings.model.id, "true");
        assert!(settings.auth.protect_docs);
        assert_eq!(settings.model.aliases, ["a", "b-*"]);
        assert_eq!(
            settings.cors.origins,
            ["https://a.example", "https://b.example"]
        );
    }

    #[test]
    fn an_empty_variable_leaves_the_lower_layer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "[server]\nport = 9000\n[cors]\norigins = [\"*\"]\n",
        )
        .unwrap();
        let empty = [
            "RERANKD__SERVER__PORT",
            "RERANKD__CORS__ORIGINS",
            "RERANKD__MODEL__ID",
        ];
        let empty = empty.map(|name| (name.into(), "".into()));
        let settings = Settings::merge(Some(file.path()), empty, vec![]).unwrap();
        assert_eq!(settings.server.port, 9000);
        assert_eq!(settings.cors.origins, ["*"]);
        assert_eq!(settings.model.id, "builtin");
    }

    #[test]
    fn a_wrong_value_is_told_with_its_place_and_what_it_must_be() {
        let number = "a whole number from";
        for (name, value, must) in [
            (
                "RERANKD__SERVER__PORT",
                "many",
                "a whole number from 0 to 65535",
            ),
            (
                "RERANKD__SERVER__PORT",
                "70000",
                "a whole number from 0 to 65535",
            ),
            ("RERANKD__SERVER__PORT", "80.0", number),
            (
                "RERANKD__LIMITS__MAX_DOCUMENTS",
                "18446744073709551616",
                number,
            ),
            (
                "RERANKD__BATCH__MAX_TOKENS",
                "0",
                "a whole number from 1 to 16777216",
            ),
            ("RERANKD__AUTH__PROTECT_DOCS", "maybe", "true or false"),
            ("RERANKD__ENGINE__DTYPE", "INT8", "did you mean \"int8\"?"),
            ("RERANKD__ENGINE__DEVICE", "gpu", "cpu, cuda or cuda:N"),
            (
                "RERANKD__MODEL__WINDOW_SCORE",
                "x",
                "one of best, mean_top_3",
            ),
            ("RERANKD__MODEL__ALIASES", "a*b", "a * may stand"),
            (
                "RERANKD__CORS__ORIGINS",
                "https://a.example/x",
                "without a path",
            ),
            ("RERANKD__SERVER__HOST", "localhost:80", "without"),
            ("RERANKD__LOG__LEVEL", "nonsense", "a level (error"),
        ] {
            let error = with_variables(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name} is ")), "{error}");
            assert!(error.contains(value) && error.contains(must), "{error}");
            assert_eq!(error.matches(must).count(), 1, "{error}");
        }
        for (text, told) in [
            (
                "[server]\nport = \"80\"\n",
                "FILE, line 2: server.port is \"80\", but it must be a whole",
            ),
            (
                "\n[model]\nrevision = 1.10\n",
                "FILE, line 3: model.revision is 1.1, but it must be a text",
            ),
            (
                "[model]\naliases = \"a\"\n",
                "line 2: model.aliases is \"a\", but it must be a list",
            ),
            (
                "server.port.x = 1",
                "line 1: server.port is a section, but it must be a whole",
            ),
        ] {
            let error = with_file(text.as_bytes()).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        for (flag, value, told) in [
            ("server.port", Value::from("x"), "--port is \"x\", but"),
            ("batch.max_tokens", 0.into(), "batch.max_tokens is 0, but"),
        ] {
            let error = Settings::merge(None, [], vec![(flag, value)]).unwrap_err();
            assert!(error.to_string().starts_with(told), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line_and_what_may_be_meant() {
        for (text, told) in [
            (
                "[server]\n\nprot = 9000\n",
                "line 3: server.prot is no setting; did you mean server.port?",
            ),
            (
                "port = 9000\n",
                "line 1: port is no setting; did you mean server.port?",
            ),
            (
                "[engine]\nmax_tokens = 1\n",
                "did you mean batch.max_tokens?",
            ),
            (
                "[serve]\nport = 9000\n",
                "line 1: serve is no setting; did you mean [server]?",
            ),
            (
                "server = 3\n",
                "line 1: server is no setting; it is a section: write [server]",
            ),
            (
                "[cors]\nx = 1\n",
                "line 2: cors.x is no setting; [cors] has origins",
            ),
            ("zzz = 1\n", "the sections are auth, batch"),
        ] {
            let error = with_file(text.as_bytes()).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_the_line() {
        for text in [
            "[server]\nport = = 1\n",
            "[server]\nport\n",
            "a = 1\na = 2\n",
        ] {
            let error = with_file(text.as_bytes()).unwrap_err();
            assert!(error.starts_with("FILE, line 2: "), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_may_begin_with_a_byte_order_mark_and_have_other_line_ends() {
        let settings = with_file(b"\xef\xbb\xbf[server]\r\nport = 9000\r\n").unwrap();
        assert_eq!(settings.server.port, 9000);
        let error = with_file(b"\xef\xbb\xbf[server]\r\nprot = 9000\r\n").unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_path_that_is_no_file_is_told_for_what_it_is() {
        for (path, told) in [
            ("/tmp", "--config /tmp: it is a folder"),
            ("/no/such", "no such file"),
        ] {
            let error = Settings::merge(Some(Path::new(path)), [], vec![]).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
