//! Which settings may change a score.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Settings;

/// The keys of `[model]` and `[engine]` that change no score of a pair. All others count, so that none is forgotten.
const WITHOUT_EFFECT: [&str; 10] = [
    "model.served_name",
    "model.aliases",
    "model.fusion",
    "model.weight",
    "model.preload",
    "model.pinned",
    "model.required",
    "engine.threads",
    "engine.pin",
    "engine.memory_budget_mb",
];

impl Settings {
    /// The settings that may change a score, wherever they come from.
    #[must_use]
    pub fn of_scores(&self) -> Map<String, Value> {
        let sections = [("model", keys(&self.model)), ("engine", keys(&self.engine))];
        let all = sections.into_iter().flat_map(|(section, keys)| {
            keys.into_iter()
                .map(move |(key, value)| (format!("{section}.{key}"), value))
        });
        all.filter(|(key, _)| !WITHOUT_EFFECT.contains(&key.as_str()))
            .collect()
    }
}

fn keys(section: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(section) {
        Ok(Value::Object(keys)) => keys,
        // Settings came from TOML, so they are tables.
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers;
    use super::*;

    #[test]
    fn every_key_of_the_model_and_the_engine_counts_unless_it_is_named() {
        let counted = Settings::load(None, vec![]).unwrap().of_scores();
        let mut left_out = Vec::new();
        for key in layers::keys() {
            let is_of_scores = key.starts_with("model.") || key.starts_with("engine.");
            match counted.contains_key(key) {
                true => assert!(is_of_scores, "{key}"),
                false if is_of_scores => left_out.push(key),
                false => {}
            }
        }
        left_out.sort_unstable();
        let mut named = WITHOUT_EFFECT;
        named.sort_unstable();
        assert_eq!(left_out, named);
    }
}
