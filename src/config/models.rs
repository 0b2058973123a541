//! Several models: the sections `[[models]]` of a file, or `--model` more than once. A section has the keys
//! of `[model]`, and those of `[engine]` that may differ between models; what it leaves out is as it is there.

use std::collections::HashSet;
use std::path::Path;

use toml::de::DeValue;
use toml::{Table, Value};

use super::layers::{Place, checked, default, keys};
use super::{ConfigError, DtypeName, Model, Settings};
use crate::model_store;

/// The sections' name.
pub(super) const SECTION: &str = "models";

/// The keys of `[engine]` that a section may have.
const OF_ENGINE: [&str; 2] = ["device", "dtype"];

/// What is said of one model, and would be said of all if it were taken over from `[model]`.
const OF_ONE: [&str; 4] = [
    "model.id",
    "model.revision",
    "model.served_name",
    "model.aliases",
];

/// One of several models.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct ModelSettings {
    pub model: Model,
    pub device: String,
    pub dtype: DtypeName,
}

/// The sections as they were read, by the keys that theirs stand for.
#[derive(Debug, Default)]
pub(super) struct Entries {
    entries: Vec<Vec<(String, Value)>>,
    /// The file that they stand in, or the flag.
    place: String,
    /// Keys of [`OF_ONE`] that are set, with their places.
    of_one: Vec<(String, String)>,
}

impl Entries {
    /// Takes a file's sections. `line` tells the line of a place in the text.
    pub(super) fn add_file(
        &mut self,
        path: &Path,
        places: &DeValue<'_>,
        values: Option<&Value>,
        line: impl Fn(usize) -> usize,
    ) -> Result<(), ConfigError> {
        let places = places.as_array().map(|places| places.iter());
        let values = values.and_then(Value::as_array).map(|values| values.iter());
        let (Some(places), Some(values)) = (places, values) else {
            return Err(ConfigError::Unknown {
                place: format!("{}: {SECTION}", path.display()),
                hint: format!("write a section [[{SECTION}]] for each model"),
            });
        };
        self.place = path.display().to_string();
        for (place, values) in places.zip(values) {
            let at = |span: std::ops::Range<usize>| Place::Line(path, line(span.start));
            let mut entry = Vec::new();
            for key in place
                .get_ref()
                .as_table()
                .into_iter()
                .flat_map(|t| t.keys())
            {
                let (at, key) = (at(key.span()), key.get_ref().as_ref());
                if let Some(value) = values.get(key) {
                    entry.push((self::key(key, at)?, value.clone(), at));
                }
            }
            self.add(entry, at(place.span()))?;
        }
        Ok(())
    }

    /// Takes those that flags name in place of all that were named before, in either form.
    pub(super) fn replace(&mut self, entries: &[Value]) -> Result<(), ConfigError> {
        self.entries.clear();
        self.of_one.retain(|(key, _)| key != "model.id");
        "--model".clone_into(&mut self.place);
        for entry in entries {
            let entry = entry.as_table().into_iter().flatten();
            let entry = entry.map(|(name, value)| {
                let key = key(name, Place::Flag)?;
                Ok((key, value.clone(), Place::Flag))
            });
            let entry = entry.collect::<Result<Vec<_>, ConfigError>>()?;
            self.add(entry, Place::Flag)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        entry: Vec<(String, Value, Place<'_>)>,
        at: Place<'_>,
    ) -> Result<(), ConfigError> {
        for (key, value, at) in &entry {
            let name = format!("{SECTION}.{}", name(key));
            checked(key, value, || match at {
                Place::Flag => "--model".to_owned(),
                _ => at.name(&name),
            })?;
        }
        if !entry.iter().any(|(key, ..)| key == "model.id") {
            let place = at.name(&format!("[[{SECTION}]]"));
            return Err(ConfigError::NoId { place });
        }
        let entry = entry.into_iter().map(|(key, value, _)| (key, value));
        self.entries.push(entry.collect());
        Ok(())
    }

    /// Notes that a key is set to something other than its default.
    pub(super) fn note(&mut self, key: &str, at: &Place<'_>) {
        if OF_ONE.contains(&key) {
            self.of_one.push((key.to_owned(), at.name(key)));
        }
    }

    /// The models, each section laid over the sections `[model]` and `[engine]` of `merged`.
    pub(super) fn models(&self, merged: &Table) -> Result<Vec<ModelSettings>, ConfigError> {
        if let (Some(_), Some((_, place))) = (self.entries.first(), self.of_one.first()) {
            return Err(ConfigError::TwoForms {
                place: place.clone(),
                several: self.place.clone(),
            });
        }
        let models = self.entries.iter().enumerate().map(|(i, entry)| {
            let mut merged = merged.clone();
            // What stands for all models can't be an alias of each.
            let no_aliases = ("model.aliases".to_owned(), Value::Array(Vec::new()));
            let no_aliases = Some(&no_aliases).filter(|_| i > 0);
            for (key, value) in no_aliases.into_iter().chain(entry) {
                if let Some((section, key)) = key.split_once('.')
                    && let Some(Value::Table(section)) = merged.get_mut(section)
                {
                    section.insert(key.to_owned(), value.clone());
                }
            }
            let settings: Settings = Value::Table(merged).try_into()?;
            Ok(ModelSettings {
                model: settings.model,
                device: settings.engine.device,
                dtype: settings.engine.dtype,
            })
        });
        models.collect()
    }
}

/// The key that a section's key stands for.
fn key(name: &str, at: Place<'_>) -> Result<String, ConfigError> {
    let key = match name {
        "name" => "model.served_name".to_owned(),
        // One name for one thing.
        "served_name" => String::new(),
        name if OF_ENGINE.contains(&name) => format!("engine.{name}"),
        name => format!("model.{name}"),
    };
    if default(&key).is_some() {
        return Ok(key);
    }
    Err(ConfigError::Unknown {
        place: at.name(&format!("{SECTION}.{name}")),
        hint: match name {
            "served_name" => "did you mean name?".into(),
            _ => format!("[[{SECTION}]] has {}", all_keys().join(", ")),
        },
    })
}

/// The name in a section of what stands for a key.
fn name(key: &str) -> &str {
    match key.split_once('.') {
        Some((_, "served_name")) => "name",
        Some((_, name)) => name,
        None => key,
    }
}

fn all_keys() -> Vec<&'static str> {
    let of_model = keys().iter().filter(|key| key.starts_with("model."));
    of_model.map(|key| name(key)).chain(OF_ENGINE).collect()
}

/// Refuses models that requests could not tell apart.
pub(super) fn check_names(settings: &Settings) -> Result<(), ConfigError> {
    let mut seen = HashSet::new();
    for settings in settings.of_each_model() {
        // A model may have its own name as an alias.
        let aliases = settings.model.aliases.iter().cloned();
        let names: HashSet<String> = aliases.chain([settings.name()]).collect();
        for name in names {
            if !seen.insert(name.clone()) {
                return Err(ConfigError::SameName(name));
            }
        }
    }
    Ok(())
}

impl Settings {
    /// The name that the model is served under.
    #[must_use]
    pub fn name(&self) -> String {
        match self.model.served_name.as_str() {
            "" => model_store::name(&self.model.id),
            name => name.to_owned(),
        }
    }

    /// These settings as they would be if a model were the only one.
    pub(super) fn with_model(&self, model: &ModelSettings) -> Self {
        let mut settings = self.clone();
        settings.model = model.model.clone();
        settings.engine.device.clone_from(&model.device);
        settings.engine.dtype = model.dtype;
        settings
    }

    /// The settings of each model, as they would be if it were the only one; the default model's first.
    #[must_use]
    pub fn of_each_model(&self) -> Vec<Self> {
        if self.models.is_empty() {
            return vec![self.clone()];
        }
        let each = self.models.iter().map(|model| Self {
            models: Vec::new(),
            ..self.with_model(model)
        });
        each.collect()
    }

    /// The merged settings as TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // Settings came from TOML, so they can be written as TOML.
        let mut table = Table::try_from(self).unwrap_or_default();
        if !self.models.is_empty() {
            table.remove("model");
            let models = self.models.iter().map(ModelSettings::to_table);
            let models = models.map(Value::Table).collect();
            table.insert(SECTION.to_owned(), Value::Array(models));
        }
        toml::to_string_pretty(&table).unwrap_or_default()
    }
}

impl ModelSettings {
    /// As a section writes it.
    fn to_table(&self) -> Table {
        let mut table = Table::try_from(&self.model).unwrap_or_default();
        if let Some(name) = table.remove("served_name") {
            table.insert("name".to_owned(), name);
        }
        table.insert("device".to_owned(), self.device.as_str().into());
        let dtype = Value::try_from(self.dtype);
        table.extend(dtype.map(|dtype| ("dtype".to_owned(), dtype)));
        table
    }
}

#[cfg(test)]
mod tests {
    use super::super::Override;
    use super::*;
    use crate::rank::fusion::FusionMethod;
    use crate::types::Dtype;

    fn load(text: &str, flags: Vec<Override>) -> Result<Settings, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let name = file.path().display().to_string();
        let settings = Settings::merge(Some(file.path()), [], flags);
        settings.map_err(|e| e.to_string().replace(&name, "FILE"))
    }

    fn names(settings: &Settings) -> Vec<String> {
        let each = settings.of_each_model();
        each.iter().map(Settings::name).collect()
    }

    const TWO: &str = "[model]\ntruncation = \"off\"\n[engine]\ndtype = \"f16\"\n\
        [[models]]\nid = \"org/a\"\n\
        [[models]]\nname = \"b\"\nid = \"org/b\"\nrevision = \"v2\"\ndtype = \"bf16\"\nweight = 3\n\
        pinned = true\nmax_input_tokens = 99\nfusion = { method = \"rrf\", k = 10 }\n";

    #[test]
    fn a_section_has_its_own_values_and_else_those_of_the_sections_for_all() {
        let settings = load(TWO, vec![]).unwrap();
        assert_eq!(names(&settings), ["org/a", "b"]);
        let each = settings.of_each_model();
        let of = |i: usize| (&each[i].model, each[i].dtype());
        let (first, second) = (of(0), of(1));
        assert_eq!((first.1, second.1), (Some(Dtype::F16), Some(Dtype::Bf16)));
        assert!(matches!(
            second.0.truncation,
            super::super::TruncationName::Off
        ));
        assert_eq!((first.0.weight, second.0.weight), (1, 3));
        assert_eq!((&*first.0.revision, &*second.0.revision), ("main", "v2"));
        assert_eq!((first.0.pinned, second.0.pinned), (false, true));
        assert_eq!(second.0.max_input_tokens, 99);
        assert_eq!(first.0.aliases, ["rerank-*", "jina-reranker-*"]);
        assert_eq!(second.0.aliases, [""; 0], "they are the first one's");
        assert_eq!(each[0].fusion(), None);
        let fusion = each[1].fusion().unwrap();
        assert_eq!(
            (fusion.method(), fusion.k().get()),
            (FusionMethod::Rrf, 10.0)
        );
        assert_eq!(
            settings.name(),
            "org/a",
            "a command with one model has the first"
        );
    }

    #[test]
    fn printed_models_read_back_the_same() {
        let printed = load(TWO, vec![]).unwrap().to_toml();
        let again = load(&printed, vec![]).unwrap();
        assert_eq!(again.to_toml(), printed);
        assert_eq!(names(&again), ["org/a", "b"]);
    }

    #[test]
    fn what_is_wrong_in_a_section_is_told_with_its_line() {
        for (text, told) in [
            (
                "[[models]]\nname = \"a\"\n",
                "FILE, line 1: [[models]] has no id",
            ),
            (
                "[[models]]\nid = \"a/b\"\nweight = 0\n",
                "FILE, line 3: models.weight is 0, but it must be a whole number from 1",
            ),
            (
                "[[models]]\nid = \"a/b\"\ndtype = \"int4\"\n",
                "FILE, line 3: models.dtype is \"int4\", but it must be one of",
            ),
            (
                "[[models]]\nid = \"a/b\"\nserved_name = \"x\"\n",
                "line 3: models.served_name is no setting; did you mean name?",
            ),
            (
                "[[models]]\nid = \"a/b\"\nthreads = 1\n",
                "models.threads is no setting; [[models]] has activation, ",
            ),
            (
                "[[models]]\nid = \"a/b\"\nfusion = { method = \"rrf\", x = 1 }\n",
                "it has no \"x\"",
            ),
            (
                "[[models]]\nid = \"a/b\"\nfusion = { method = \"rrf\", k = 0 }\n",
                "k must be more than 0",
            ),
            (
                "[models]\nid = \"a/b\"\n",
                "FILE: models is no setting; write a section [[models]]",
            ),
            (
                "[[models]]\nid = \"a/b\"\n[[models]]\nid = \"a/b\"\n",
                "two models are called \"a/b\"",
            ),
            (
                "[[models]]\nid = \"a/b\"\n[[models]]\nid = \"c/d\"\naliases = [\"a/b\"]\n",
                "two models are called \"a/b\"",
            ),
            (
                "[model]\nid = \"x/y\"\n[[models]]\nid = \"a/b\"\n",
                "FILE, line 2: model.id is for one model, but FILE names several",
            ),
        ] {
            let error = load(text, vec![]).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let flag = vec![("model.revision", "v2".into())];
        let error = load(TWO, flag).unwrap_err();
        assert!(
            error.starts_with("--revision is for one model, but FILE"),
            "{error}"
        );
    }

    #[test]
    fn flags_name_models_in_place_of_the_files() {
        let one = vec![("model.id", "x/y".into())];
        assert_eq!(names(&load(TWO, one).unwrap()), ["x/y"]);
        let model = |id: &str| Value::Table(Table::from_iter([("id".to_owned(), id.into())]));
        let several = || vec![(SECTION, Value::Array(vec![model("x/y"), model("z/w")]))];
        assert_eq!(names(&load(TWO, several()).unwrap()), ["x/y", "z/w"]);
        let short = "[model]\nid = \"a/b\"\nrevision = \"v2\"\n";
        let error = load(short, several()).unwrap_err();
        assert!(
            error.contains("model.revision is for one model, but --model"),
            "{error}"
        );
        let without = load("[model]\nid = \"a/b\"\n", several()).unwrap();
        assert_eq!(names(&without), ["x/y", "z/w"]);
    }

    #[test]
    fn what_an_image_sets_to_the_defaults_is_no_second_form() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TWO).unwrap();
        let set = |id: &str| {
            let variables = [
                ("RERANKD__MODEL__ID", id),
                ("RERANKD__MODEL__REVISION", "main"),
            ];
            let variables = variables.map(|(name, value)| (name.into(), value.into()));
            Settings::merge(Some(file.path()), variables, vec![])
        };
        assert_eq!(names(&set("builtin").unwrap()).len(), 2);
        let error = set("x/y").unwrap_err().to_string();
        assert!(
            error.starts_with("RERANKD__MODEL__ID is for one model"),
            "{error}"
        );
    }

    #[test]
    fn the_example_is_valid() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/several-models.toml");
        let settings = Settings::load(Some(&path), vec![]).unwrap();
        assert!(settings.of_each_model().len() > 1);
        assert_eq!(settings.warnings(), [""; 0]);
    }
}
