//! What the settings ask for in vain: values that are cut or have no effect.

use super::{Settings, cores, layers};
use crate::model_store;

impl Settings {
    /// What the settings ask for and don't get, in sentences for the log. What depends on the model is
    /// told when that is known.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.strange.clone();
        warnings.extend(self.unused());
        let asked = [
            ("engine.threads", self.engine.threads),
            ("tokenize.threads", self.tokenize.threads),
        ];
        let cores = cores();
        let too_many = asked.into_iter().filter(|&(_, threads)| threads > cores);
        warnings.extend(too_many.map(|(key, threads)| {
            format!(
                "{key} is {threads}, but this process may use only {cores} cores: {cores} threads are started"
            )
        }));
        let (body, bodies) = (
            self.limits.body_limit_bytes,
            self.limits.max_body_bytes_in_flight,
        );
        // A quarter is kept for small bodies.
        let large = bodies - bodies / 4;
        if body > large {
            warnings.push(format!(
                "limits.body_limit_bytes is {body}, but limits.max_body_bytes_in_flight, {bodies}, has room for \
                 {large}: a larger body is let in alone and takes more memory than that"
            ));
        }
        warnings
    }

    /// Values other than the defaults that have no effect.
    fn unused(&self) -> Vec<String> {
        let mut unused = Vec::new();
        let mut add = |is_unused: bool, what: String| {
            if is_unused {
                unused.push(what);
            }
        };
        let (engine, batch) = (&self.engine, &self.batch);
        let each = self.of_each_model();
        for model in each.iter().map(|settings| &settings.model) {
            add(
                model.revision != "main" && !model_store::is_from_hub(&model.id),
                format!(
                    "model.revision is \"{}\", but model.id is \"{}\", which is not on the hub: the revision has no effect",
                    model.revision, model.id
                ),
            );
        }
        if each.iter().all(|settings| settings.engine.device != "cpu") {
            let device = &engine.device;
            let no_effect =
                |key: &str| format!("{key} has no effect, since engine.device is \"{device}\"");
            add(engine.threads != 0, no_effect("engine.threads"));
            add(
                engine.instructions != "auto",
                no_effect("engine.instructions"),
            );
            add(engine.pin, no_effect("engine.pin"));
        }
        add(
            is_changed("batch.window_tokens", batch.window_tokens)
                && batch.window_tokens < batch.max_tokens,
            format!(
                "batch.window_tokens is {}, less than batch.max_tokens, {}, which is used in its place",
                batch.window_tokens, batch.max_tokens
            ),
        );
        if self.auth.keys_file.as_os_str().is_empty() {
            for (name, on) in [
                ("protect_metrics", self.auth.protect_metrics),
                ("protect_docs", self.auth.protect_docs),
            ] {
                add(
                    on,
                    format!(
                        "auth.{name} has no effect without auth.keys_file: nothing asks for a key"
                    ),
                );
            }
        } else {
            add(
                self.auth.open_admin,
                "auth.open_admin has no effect with auth.keys_file: it takes a key with the admin right".into(),
            );
        }
        unused
    }
}

/// Whether a number is another one than its key's default.
fn is_changed(key: &str, number: usize) -> bool {
    let default = layers::default(key).and_then(toml::Value::as_integer);
    default != i64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(flags: Vec<super::super::Override>) -> (Settings, Vec<String>) {
        let settings = Settings::merge(None, [], flags).unwrap();
        let warnings = settings.warnings();
        (settings, warnings)
    }

    #[test]
    fn the_defaults_ask_for_nothing_in_vain() {
        assert_eq!(warnings(vec![]).1, [""; 0]);
    }

    #[test]
    fn threads_are_at_most_the_cores_and_a_warning_says_so() {
        let (settings, told) = warnings(vec![("engine.threads", 9999.into())]);
        assert_eq!(settings.engine().threads, cores());
        let [warning] = &told[..] else {
            panic!("{told:?}");
        };
        for word in ["engine.threads", "9999", &cores().to_string()] {
            assert!(warning.contains(word), "{warning}");
        }
        let (settings, told) = warnings(vec![("tokenize.threads", 9999.into())]);
        assert_eq!((settings.tokenize_threads(), told.len()), (cores(), 1));
        let (settings, told) = warnings(vec![("engine.threads", 1.into())]);
        assert_eq!((settings.engine().threads, told.len()), (1, 0));
    }

    #[test]
    fn what_has_no_effect_or_less_than_asked_is_told() {
        for (key, value) in [
            ("model.revision", "v2".into()),
            ("batch.window_tokens", 100.into()),
            ("auth.protect_metrics", true.into()),
            ("auth.protect_docs", true.into()),
            ("limits.max_body_bytes_in_flight", 1_000_000.into()),
        ] {
            let (_, told) = warnings(vec![(key, value)]);
            assert!(told.len() == 1 && told[0].contains(key), "{key}: {told:?}");
        }
        let cuda = ("engine.device", "cuda".into());
        for (key, value) in [
            ("engine.threads", 1.into()),
            ("engine.instructions", "avx2".into()),
            ("engine.pin", true.into()),
        ] {
            let (_, told) = warnings(vec![cuda.clone(), (key, value)]);
            assert!(told.len() == 1 && told[0].contains(key), "{key}: {told:?}");
        }
        let hub = vec![("model.id", "a/b".into()), ("model.revision", "v2".into())];
        assert_eq!(warnings(hub).1, [""; 0]);
    }
}
