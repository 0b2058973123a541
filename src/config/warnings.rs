//! What the settings ask for in vain: values that are cut or have no effect.

use super::{
    MaxSimName, Settings, TruncationName, VectorDtypeName, WindowScoreName, cores, layers,
};
use crate::model_store;
use crate::scoring::PromptInfo;
use crate::types::ModelKind;

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
        let (body, bodies) = (self.limits.body_limit_bytes, self.body_bytes(0));
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

    /// Settings of a model, other than the defaults, that have no effect on one of this kind, with this prompt if any.
    #[must_use]
    pub fn unused_by(
        &self,
        name: &str,
        kind: ModelKind,
        prompt: Option<&PromptInfo>,
    ) -> Vec<String> {
        let model = &self.model;
        let is_late = kind == ModelKind::LateInteraction;
        let makes_vectors = is_late || kind == ModelKind::BiEncoder;
        let is_changed = |key: &str, number: usize| is_changed(&format!("model.{key}"), number);
        let megabytes = usize::try_from(model.vector_cache_mb).unwrap_or(usize::MAX);
        let is_cache_changed = is_changed("vector_cache_mb", megabytes);
        let is_dtype_changed = !matches!(model.vector_cache_dtype, VectorDtypeName::F16);
        let windows = match kind {
            ModelKind::CrossEncoder => None,
            ModelKind::Listwise => Some("reads lists, not windows of documents"),
            ModelKind::LateInteraction | ModelKind::BiEncoder => {
                Some("makes vectors of whole texts, not of windows")
            }
        };
        let when = |is: bool, why: &'static str| is.then_some(why);
        let has_instruction = prompt.is_some_and(|prompt| prompt.instruction.is_some());
        let no_labels = when(kind != ModelKind::CrossEncoder, "has no labels");
        let no_vectors = when(!makes_vectors, "makes no vectors");
        let truncation = matches!(model.truncation, TruncationName::Document);
        let no_choice = when(
            kind != ModelKind::CrossEncoder,
            "does not cut query and document to fit together",
        );
        let no_cache = when(
            makes_vectors && megabytes == 0,
            "keeps no vectors (vector_cache_mb is 0)",
        );
        [
            ("truncation", truncation, no_choice),
            (
                "max_chunks_per_doc",
                is_changed("max_chunks_per_doc", model.max_chunks_per_doc),
                windows,
            ),
            (
                "overlap_tokens",
                is_changed("overlap_tokens", model.overlap_tokens),
                windows,
            ),
            (
                "window_score",
                !matches!(model.window_score, WindowScoreName::Best),
                windows,
            ),
            ("score_label", !model.score_label.is_empty(), no_labels),
            (
                "prompt",
                model.prompt != "auto",
                // That of lists is the only one.
                when(
                    prompt.is_none() || kind == ModelKind::Listwise,
                    "has no prompt that could be another",
                ),
            ),
            (
                "instruction",
                !model.instruction.is_empty(),
                when(!has_instruction, "takes no instruction"),
            ),
            (
                "maxsim",
                !matches!(model.maxsim, MaxSimName::Auto),
                when(!is_late, "does not make a vector of each token"),
            ),
            (
                "dimensions",
                model.dimensions != 0,
                when(
                    kind != ModelKind::BiEncoder,
                    "does not make one vector of a text",
                ),
            ),
            ("vector_cache_mb", is_cache_changed, no_vectors),
            (
                "vector_cache_dtype",
                is_dtype_changed,
                no_vectors.or(no_cache),
            ),
        ]
        .into_iter()
        .filter(|(_, is_set, _)| *is_set)
        .filter_map(|(key, _, why)| Some(format!("model.{key} has no effect: {name} {}", why?)))
        .collect()
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
        let (server, limits) = (&self.server, &self.limits);
        add(
            !server.health_host.is_empty() && server.health_port == 0,
            format!(
                "server.health_host is \"{}\", but has no effect without server.health_port",
                server.health_host
            ),
        );
        let origins = &self.cors.origins;
        add(
            origins.len() > 1 && origins.iter().any(|origin| origin == "*"),
            "cors.origins has \"*\", which allows any: the other origins there have no effect"
                .into(),
        );
        add(
            limits.max_queue_ms > limits.request_timeout_ms,
            format!(
                "limits.max_queue_ms is {}, but limits.request_timeout_ms is {}: what waits so long is not answered",
                limits.max_queue_ms, limits.request_timeout_ms
            ),
        );
        add(
            is_changed("limits.max_explained", limits.max_explained)
                && limits.max_explained > limits.max_documents,
            format!(
                "limits.max_explained is {}, but a request has at most {} documents (limits.max_documents)",
                limits.max_explained, limits.max_documents
            ),
        );
        for settings in &each {
            let (name, model) = (settings.name(), &settings.model);
            add(
                model.pinned && engine.memory_budget_mb == 0,
                format!(
                    "model.pinned has no effect on {name} without engine.memory_budget_mb: nothing is unloaded"
                ),
            );
            add(
                each.len() == 1 && is_changed("model.weight", model.weight),
                format!("model.weight has no effect on {name}, the only model"),
            );
        }
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
    fn settings_that_a_kind_of_model_does_not_use_are_told() {
        let prompt = |instruction: Option<&str>| PromptInfo {
            format: "zerank".into(),
            instruction: instruction.map(Into::into),
        };
        let (plain, taking) = (prompt(None), prompt(Some("")));
        let kinds = [
            (ModelKind::CrossEncoder, None),
            (ModelKind::CrossEncoder, Some(&plain)),
            (ModelKind::CrossEncoder, Some(&taking)),
            (ModelKind::Listwise, Some(&taking)),
            (ModelKind::LateInteraction, None),
            (ModelKind::BiEncoder, None),
        ];
        // For each kind whether the setting is used.
        let rows: [(&str, toml::Value, &str); 11] = [
            ("truncation", "document".into(), "yyynnn"),
            ("max_chunks_per_doc", 3.into(), "yyynnn"),
            ("overlap_tokens", 8.into(), "yyynnn"),
            ("window_score", "mean_top_3".into(), "yyynnn"),
            ("score_label", "1".into(), "yyynnn"),
            ("prompt", "zerank".into(), "nyynnn"),
            ("instruction", "x".into(), "nnyynn"),
            ("maxsim", "mean".into(), "nnnnyn"),
            ("dimensions", 8.into(), "nnnnny"),
            ("vector_cache_mb", 0.into(), "nnnnyy"),
            ("vector_cache_dtype", "int8".into(), "nnnnyy"),
        ];
        for (key, value, used) in rows {
            let key: &'static str = format!("model.{key}").leak();
            let (settings, _) = warnings(vec![(key, value)]);
            for ((kind, prompt), used) in kinds.iter().zip(used.chars()) {
                let told = settings.unused_by("it", *kind, *prompt);
                let is_told = told.iter().any(|text| text.starts_with(&format!("{key} ")));
                assert_eq!(
                    (is_told, told.len()),
                    (used == 'n', usize::from(used == 'n'))
                );
            }
        }
        let none = vec![
            ("model.vector_cache_mb", 0.into()),
            ("model.vector_cache_dtype", "f32".into()),
        ];
        let (settings, _) = warnings(none);
        let told = settings.unused_by("it", ModelKind::BiEncoder, None);
        assert!(
            told.len() == 1 && told[0].contains("keeps no vectors"),
            "{told:?}"
        );
        let (settings, _) = warnings(vec![]);
        for (kind, prompt) in kinds {
            assert_eq!(settings.unused_by("it", kind, prompt), [""; 0]);
        }
    }

    #[test]
    fn what_has_no_effect_or_less_than_asked_is_told() {
        for (key, value) in [
            ("model.revision", "v2".into()),
            ("batch.window_tokens", 100.into()),
            ("auth.protect_metrics", true.into()),
            ("auth.protect_docs", true.into()),
            ("limits.max_body_bytes_in_flight", 1_000_000.into()),
            ("server.health_host", "::1".into()),
            ("limits.max_queue_ms", 30_001.into()),
            ("limits.request_timeout_ms", 1999.into()),
            ("model.pinned", true.into()),
            ("model.weight", 2.into()),
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
        let origins = |origins: &[&'static str]| vec![("cors.origins", origins.to_vec().into())];
        let (_, told) = warnings(origins(&["*", "https://a.b"]));
        assert!(
            told.len() == 1 && told[0].contains("cors.origins"),
            "{told:?}"
        );
        assert_eq!(warnings(origins(&["*"])).1, [""; 0]);
        for (documents, expected) in [(100, 0), (99, 1)] {
            let explained = ("limits.max_explained", 100.into());
            let documents = ("limits.max_documents", documents.into());
            let (_, told) = warnings(vec![explained, documents]);
            assert_eq!(told.len(), expected, "{told:?}");
        }
        let hub = vec![("model.id", "a/b".into()), ("model.revision", "v2".into())];
        assert_eq!(warnings(hub).1, [""; 0]);
    }
}
