//! The import rule, and metrics that are all described.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::models::root;

/// What each module may use of the others; `config`, `app` and `cli` may use all that stand before
/// them. `main` only starts `cli`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("shutdown", &[]),
    ("telemetry", &[]),
    ("lenient", &[]),
    ("text_file", &["lenient"]),
    ("data_file", &[]),
    ("eval", &["lenient", "data_file"]),
    ("rank", &["types"]),
    ("admission", &["types"]),
    ("tokenize", &["types"]),
    ("engine", &["types"]),
    ("model_store", &["types", "engine"]),
    ("batch", &["types", "engine"]),
    (
        "rerank",
        &["types", "rank", "admission", "tokenize", "batch"],
    ),
    (
        "http",
        &[
            "types",
            "rerank",
            "batch",
            "tokenize",
            "telemetry",
            "text_file",
            "lenient",
        ],
    ),
    ("config", &[]),
    ("app", &[]),
    ("cli", &[]),
];

/// Whether a module may use another.
fn allowed(module: &str, used: &str) -> bool {
    let place = |name: &str| {
        let place = ALLOWED.iter().position(|(m, _)| *m == name);
        place.unwrap_or_else(|| panic!("module {name} is not in ALLOWED"))
    };
    match module {
        "config" | "app" | "cli" => place(used) <= place(module),
        _ => module == used || ALLOWED[place(module)].1.contains(&used),
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push((path.clone(), std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    found
}

/// The top-level module that a file belongs to.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Code without comments and test modules.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    let lines = text.lines().filter(|l| !l.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that `crate::` paths in a file name, grouped imports included.
fn used(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for after in code(text).split("crate::").skip(1) {
        let group = match after.strip_prefix('{') {
            Some(group) => group.split_once("};").unwrap().0,
            None => after
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .next()
                .unwrap(),
        };
        for name in group.split(',') {
            let name = name.trim().split("::").next().unwrap();
            if !name.is_empty() {
                used.insert(name.to_owned());
            }
        }
    }
    used
}

#[test]
fn modules_use_only_what_comes_after_them() {
    for (path, text) in sources() {
        let module = module(&path);
        if module == "main" || module == "lib" {
            continue;
        }
        for name in used(&text) {
            assert!(
                allowed(&module, &name),
                "{} uses crate::{name}, which {module} may not",
                path.display()
            );
        }
    }
}

#[test]
fn only_http_names_axum_and_only_engine_names_candle() {
    for (path, text) in sources() {
        let (module, code) = (module(&path), code(&text));
        assert!(
            module == "http" || !code.contains("axum"),
            "{}",
            path.display()
        );
        assert!(
            module == "engine" || !code.contains("candle"),
            "{}",
            path.display()
        );
        let reads = code.contains("env::var");
        assert!(
            !reads || ["config", "main"].contains(&module.as_str()),
            "{}",
            path.display()
        );
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for (path, text) in sources() {
        assert!(text.lines().count() <= 450, "{}", path.display());
    }
}

#[test]
fn every_metric_is_described_and_every_description_is_of_a_metric() {
    let (mut recorded, mut described) = (BTreeSet::new(), BTreeSet::new());
    for (path, text) in sources() {
        let found = if path.ends_with("telemetry/metrics.rs") {
            &mut described
        } else {
            &mut recorded
        };
        let quoted = text.split('"').filter(|s| s.starts_with("rerankd_"));
        found.extend(quoted.map(str::to_owned));
    }
    assert!(recorded.len() > 10);
    assert_eq!(recorded, described);
}
