//! A key's names elsewhere: its flag and its environment variable; and variables that only look like ours.

use std::ffi::OsStr;

use super::check::nearest;
use super::layers::keys;

const PREFIX: &str = "RERANKD";

/// The flags that set a key.
const FLAGS: &[(&str, &str)] = &[
    ("model.id", "--model"),
    ("model.revision", "--revision"),
    ("model.max_input_tokens", "--max-input-tokens"),
    ("model.truncation", "--truncation"),
    ("model.max_chunks_per_doc", "--max-chunks-per-doc"),
    ("model.window_score", "--window-score"),
    ("model.score_label", "--score-label"),
    ("model.prompt", "--prompt"),
    ("model.instruction", "--instruction"),
    ("model.activation", "--activation"),
    ("engine.device", "--device"),
    ("engine.dtype", "--dtype"),
    ("engine.threads", "--threads"),
    ("engine.instructions", "--instructions"),
    ("server.host", "--host"),
    ("server.port", "--port"),
    ("auth.keys_file", "--keys-file"),
    ("log.format", "--log-format"),
    ("log.level", "--log-level"),
];

/// The flag of a key, if it has one.
pub(super) fn flag(key: &str) -> Option<&'static str> {
    let found = FLAGS.iter().find(|(name, _)| *name == key);
    found.map(|(_, flag)| *flag)
}

/// The variable of the key that a flag sets, if it sets one.
#[must_use]
pub fn variable_of_flag(flag: &str) -> Option<String> {
    let found = FLAGS.iter().find(|(_, name)| *name == flag);
    found.map(|(key, _)| variable(key))
}

/// The variable of a key.
fn variable(key: &str) -> String {
    // The double underscore keeps Kubernetes' own RERANKD_SERVICE_HOST out.
    format!("{PREFIX}__{}", key.replace('.', "__").to_uppercase())
}

/// The key of a variable.
pub(super) fn key(name: &str) -> Option<&'static str> {
    let key = keys().iter().find(|key| variable(key) == name);
    key.map(String::as_str)
}

/// What to tell of a variable that is no key, if it looks as if it were meant as one.
pub(super) fn warning(name: &str, value: &OsStr) -> Option<String> {
    let upper = name.to_uppercase();
    let rest = upper.strip_prefix(PREFIX)?.strip_prefix('_')?;
    if is_from_kubernetes(rest, value) {
        return None;
    }
    let hint = match meant(rest) {
        Some(meant) => format!("did you mean {meant}?"),
        // RERANKD_ alone may be anybody's.
        None if !rest.starts_with('_') => return None,
        None => "`rerankd --print-config` shows all settings".into(),
    };
    Some(format!(
        "environment variable {name} is no setting and is ignored; {hint}"
    ))
}

/// The variable or flag that is meant by the part after the prefix.
fn meant(rest: &str) -> Option<String> {
    let words = |text: &str| {
        let words = text.split(['_', '.', '-']).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("_").to_uppercase()
    };
    let rest = words(rest);
    if rest == "MODELS" {
        return Some("[[models]] in a file (--config FILE), or --model more than once".into());
    }
    if rest == "CONFIG" || rest == "CONFIG_FILE" {
        return Some("--config FILE".into());
    }
    let keys = keys();
    let full = |key: &str| words(key);
    let by_flag = |key: &str| flag(key).map_or_else(String::new, words);
    let last = |key: &str| words(key.rsplit('.').next().unwrap_or_default());
    let by = |name: &dyn Fn(&str) -> String| keys.iter().find(|key| name(key) == rest);
    let exact = by(&full).or_else(|| by(&by_flag)).or_else(|| by(&last));
    if let Some(key) = exact {
        return Some(variable(key));
    }
    let names: Vec<String> = keys.iter().map(|key| full(key)).collect();
    let near = nearest(&rest, names.iter().map(String::as_str), 0.9)?;
    let place = names.iter().position(|name| name == near)?;
    Some(variable(&keys[place]))
}

/// Whether Kubernetes set it, for a service whose name begins like ours: `..._SERVICE_HOST`,
/// `..._PORT=tcp://10.0.0.1:80`, `..._PORT_80_TCP_ADDR`.
fn is_from_kubernetes(rest: &str, value: &OsStr) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.to_string_lossy().starts_with(scheme));
    let mut after_port = rest.split("PORT_").skip(1);
    is_address
        || rest.contains("SERVICE_HOST")
        || rest.contains("SERVICE_PORT")
        || after_port.any(|after| after.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_almost_ours_is_told_with_the_right_spelling() {
        let port = Some("RERANKD__SERVER__PORT");
        for (name, right) in [
            ("RERANKD_SERVER_PORT", port),
            ("RERANKD__SERVER__PROT", port),
            ("RERANKD__SERVER_PORT", port),
            ("RERANKD_PORT", port),
            ("Rerankd__Server__Port", port),
            ("RERANKD_MODEL", Some("RERANKD__MODEL__ID")),
            ("RERANKD_LOG_LEVEL", Some("RERANKD__LOG__LEVEL")),
            ("RERANKD_THREADS", Some("RERANKD__ENGINE__THREADS")),
            (
                "RERANKD_MAX_DOCUMENTS",
                Some("RERANKD__LIMITS__MAX_DOCUMENTS"),
            ),
            ("RERANKD_CONFIG", Some("--config FILE")),
            ("RERANKD__MODELS", Some("[[models]] in a file")),
            ("RERANKD__CAT__DOG", Some("--print-config")),
            ("RERANKD_CAT", None),
            ("RERANKDX", None),
            ("PORT", None),
        ] {
            let warning = warning(name, OsStr::new("9000"));
            assert_eq!(warning.is_some(), right.is_some(), "{name}: {warning:?}");
            if let (Some(warning), Some(right)) = (warning, right) {
                assert!(
                    warning.contains(name) && warning.contains(right),
                    "{warning}"
                );
            }
        }
    }

    #[test]
    fn every_flag_sets_a_key() {
        for (key, flag) in FLAGS {
            assert!(keys().iter().any(|k| k == key), "{flag}");
        }
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_is_not_ours() {
        for (name, value) in [
            ("RERANKD_SERVICE_HOST", "10.0.0.1"),
            ("RERANKD_SERVICE_PORT", "80"),
            ("RERANKD_SERVICE_PORT_HTTP", "80"),
            ("RERANKD_PORT", "tcp://10.0.0.1:80"),
            ("RERANKD_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("RERANKD_PORT_80_TCP_PROTO", "tcp"),
            ("RERANKD_SERVER_PORT_80_TCP_PORT", "80"),
            ("RERANKD_SERVER_PORT", "tcp://10.0.0.1:80"),
        ] {
            assert_eq!(warning(name, OsStr::new(value)), None, "{name}");
        }
    }
}
