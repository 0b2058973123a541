//! The import rule, and metrics that are all described.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::support::models::root;

/// What each module may use of the others; `config`, `app` and `cli` may use all that stand before
/// them. `main` only starts `cli`.
const ALLOWED: &[(&str, &[&str])] = &[
    // A crate of its own.
    ("engine", &[]),
    ("types", &["engine"]),
    ("shutdown", &[]),
    ("telemetry", &["types"]),
    ("lenient", &[]),
    ("text_file", &["lenient"]),
    ("data_file", &[]),
    ("tables", &["lenient", "data_file"]),
    ("eval", &["lenient", "data_file"]),
    ("rank", &["types"]),
    ("admission", &["types"]),
    ("tokenize", &["types"]),
    ("model_store", &["types", "tokenize", "engine"]),
    ("scoring", &["types", "tokenize"]),
    ("schedule", &["types", "engine"]),
    (
        "models",
        &["types", "rank", "tokenize", "scoring", "schedule"],
    ),
    (
        "rerank",
        &[
            "tokenize",
            "types",
            "rank",
            "admission",
            "scoring",
            "schedule",
            "models",
        ],
    ),
    (
        "http",
        &[
            "types",
            "rank",
            "rerank",
            "models",
            "schedule",
            "scoring",
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

/// The parts of `http`: each may use those that stand before it. `http.rs` itself puts them together.
const HTTP: &[&str] = &[
    "accept",
    "renewal",
    "tls",
    "options",
    "extensions",
    "accounts",
    "text_fields",
    "error",
    "terms",
    "shapes",
    "extract",
    "model_path",
    "paths",
    "asked",
    "dialects",
    "body_file",
    "auth",
    "budget",
    "state",
    "access",
    "page",
    "receive",
    "entry",
    "handle",
    "routes",
    "grpc",
    "openapi",
    "layers",
    "server",
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
    sources_in("src")
}

/// Those of all crates.
fn all_sources() -> Vec<(PathBuf, String)> {
    let crates = ["crates/engine/src", "crates/kernels/src"].map(sources_in);
    sources()
        .into_iter()
        .chain(crates.into_iter().flatten())
        .collect()
}

/// The files below a folder.
fn sources_in(folder: &str) -> Vec<(PathBuf, String)> {
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
    walk(&root().join(folder), &mut found);
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

/// The tokens of a file: no comments, and what is in a string is not code.
fn tokens(text: &str) -> Vec<TokenTree> {
    let stream: TokenStream = text.parse().unwrap();
    stream.into_iter().collect()
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

/// Whether an attribute begins here that leaves what follows to the tests.
fn is_for_tests(tokens: &[TokenTree]) -> bool {
    let Some(TokenTree::Group(attribute)) = tokens.get(1) else {
        return false;
    };
    is_punct(tokens.first(), '#') && attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// How many tokens an item or a field takes, its attributes included.
fn item(tokens: &[TokenTree]) -> usize {
    let mut at = 0;
    while is_punct(tokens.get(at), '#') {
        at += 2;
    }
    let is_use = ident(tokens.get(at)).as_deref() == Some("use");
    let ends = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => [';', ','].contains(&punct.as_char()),
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && !is_use,
        _ => false,
    };
    let length = tokens[at.min(tokens.len())..].iter().position(ends);
    length.map_or(tokens.len(), |length| at + length + 1)
}

/// Calls `see` with each run of tokens that is not the tests', and the module it stands in.
fn visit(tokens: &[TokenTree], module: &[String], see: &mut dyn FnMut(&[TokenTree], &[String])) {
    let mut at = 0;
    while at < tokens.len() {
        if is_for_tests(&tokens[at..]) {
            at += item(&tokens[at..]);
            continue;
        }
        see(&tokens[at..], module);
        if let TokenTree::Group(group) = &tokens[at] {
            let mut inner = module.to_vec();
            let before = |n: usize| ident(at.checked_sub(n).map(|i| &tokens[i]));
            if before(2).as_deref() == Some("mod") {
                inner.extend(before(1));
            }
            let group: Vec<TokenTree> = group.stream().into_iter().collect();
            visit(&group, &inner, see);
        }
        // What stands after `::` goes on with a path and begins none.
        let goes_on = is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':');
        let leads = matches!(
            at.checked_sub(1).map(|i| &tokens[i]),
            Some(TokenTree::Ident(_))
        );
        let is_relative =
            ["self", "super"].map(|word| ident(tokens.get(at + 2)) == Some(word.into()));
        at += if goes_on && leads && is_relative.contains(&true) {
            3
        } else {
            1
        };
    }
}

/// The modules of the crate that the path which begins here leads to, each with the part of it that is named;
/// `module` is where it stands.
fn follow(tokens: &[TokenTree], module: &[String], found: &mut BTreeSet<String>) {
    let (first, mut rest) = (ident(tokens.first()), tokens.get(1..).unwrap_or_default());
    let is_path = is_punct(rest.first(), ':') && is_punct(rest.get(1), ':');
    let mut path = match first.as_deref().filter(|_| is_path) {
        Some("crate") => Vec::new(),
        Some("self") => module.to_vec(),
        Some("super") => module[..module.len().saturating_sub(1)].to_vec(),
        _ => return,
    };
    while is_punct(rest.first(), ':') && is_punct(rest.get(1), ':') {
        match rest.get(2) {
            Some(TokenTree::Ident(name)) if *name == "super" => {
                path.pop();
            }
            Some(TokenTree::Ident(name)) => path.push(name.to_string()),
            Some(TokenTree::Group(group)) if path.is_empty() => {
                let group: Vec<TokenTree> = group.stream().into_iter().collect();
                let items = group.split(|token| is_punct(Some(token), ','));
                for item in items {
                    match ident(item.first()).as_deref() {
                        None | Some("self") => {}
                        Some("super") => panic!("super:: after crate:: means nothing"),
                        Some(name) => {
                            found.insert(name.to_owned());
                        }
                    }
                }
                return;
            }
            Some(TokenTree::Group(group)) => {
                // Within a module, only super:: leads out of it.
                let group: Vec<TokenTree> = group.stream().into_iter().collect();
                for item in group.split(|token| is_punct(Some(token), ',')) {
                    match ident(item.first()) {
                        Some(word) if word == "super" => follow(item, &path, found),
                        Some(name) if path.len() == 1 => {
                            found.insert(format!("{}::{name}", path[0]));
                        }
                        _ => {}
                    }
                }
                break;
            }
            // `use crate::*` would name everything.
            _ if path.is_empty() => {
                found.insert("*".to_owned());
                return;
            }
            _ => break,
        }
        rest = rest.get(3..).unwrap_or_default();
    }
    let named: Vec<String> = path.into_iter().take(2).collect();
    if !named.is_empty() {
        found.insert(named.join("::"));
    }
}

/// The path of a file's module.
fn module_path(path: &Path) -> Vec<String> {
    let inside = path.with_extension("");
    let parts = inside.components();
    let parts = parts.map(|part| part.as_os_str().to_str().unwrap().to_owned());
    let parts: Vec<String> = parts.filter(|part| part != "lib").collect();
    let src = parts.iter().rposition(|part| part == "src").unwrap();
    parts[src + 1..].to_vec()
}

/// The modules and their parts that paths in a file name, wherever they stand.
fn used_parts(text: &str, module: &[String]) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    visit(&tokens(text), module, &mut |run, module| {
        follow(run, module, &mut used);
    });
    used
}

/// The modules that paths in a file name.
fn used(text: &str, module: &[String]) -> BTreeSet<String> {
    let parts = used_parts(text, module);
    let modules = parts.iter().filter_map(|part| part.split("::").next());
    modules.map(str::to_owned).collect()
}

#[test]
fn modules_use_only_what_comes_after_them() {
    let mut seen = 0;
    for (path, text) in sources() {
        let module = module(&path);
        if module == "main" || module == "lib" {
            continue;
        }
        for name in used(&text, &module_path(&path)) {
            seen += 1;
            assert!(
                allowed(&module, &name),
                "{} uses crate::{name}, which {module} may not",
                path.display()
            );
        }
    }
    assert!(seen > 100, "{seen}");
}

/// The engine's modules; each may use those before it.
const ENGINE: [&str; 14] = [
    "types",
    "files",
    "error",
    "arch",
    "pin",
    "device",
    "families",
    "tensors",
    "checkpoint",
    "encoder",
    "rate",
    "packed",
    "padded",
    "load",
];

#[test]
fn within_the_engine_data_flows_one_way() {
    let place = |name: &str| ENGINE.iter().position(|module| *module == name);
    let mut seen = 0;
    for (path, text) in sources_in("crates/engine/src") {
        let module = &module_path(&path)[..];
        let [first, ..] = module else { continue };
        let own = place(first).unwrap_or_else(|| panic!("module {first} is not in ENGINE"));
        for name in used(&text, module) {
            if let Some(other) = place(&name) {
                seen += 1;
                assert!(other <= own, "{} uses {name}", path.display());
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn within_http_data_flows_one_way() {
    let place = |name: &str| HTTP.iter().position(|part| *part == name);
    let mut seen = 0;
    for (path, text) in sources() {
        let module = module_path(&path);
        let [top, part, ..] = &module[..] else {
            continue;
        };
        if top != "http" {
            continue;
        }
        let own = place(part).unwrap_or_else(|| panic!("{part} is not in HTTP"));
        for used in used_parts(&text, &module) {
            let Some(used) = used.strip_prefix("http::") else {
                continue;
            };
            seen += 1;
            let used_place = place(used);
            assert!(
                used_place.is_some_and(|used| used <= own),
                "{} uses {used}, which {part} may not",
                path.display()
            );
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn no_way_to_write_an_import_evades_the_rule() {
    let module = ["http", "state"].map(str::to_owned);
    for (code, expected) in [
        ("use crate::app;", &["app"][..]),
        ("use crate::{app::{self, App}, cli};", &["app", "cli"]),
        (
            "use crate::{\n    app::{App, Loaded},\n    cli::run,\n};",
            &["app", "cli"],
        ),
        ("pub(crate) use crate::app::App as Other;", &["app"]),
        ("fn f() { let x = crate::app::App::new(); }", &["app"]),
        ("fn f() { g!(1, [crate::app::X]) }", &["app"]),
        ("macro_rules! m { () => { $crate::app::X }; }", &["app"]),
        ("use super::super::app::App;", &["app"]),
        ("use super::super::{app, cli};", &["app", "cli"]),
        ("mod inner { use super::super::super::app::App; }", &["app"]),
        ("mod inner { use super::super::auth; }", &["http"]),
        ("use super::{auth, super::app};", &["app", "http"]),
        ("use self::super::super::app;", &["app"]),
        ("use super::auth;", &["http"]),
        ("use crate::*;", &["*"]),
        ("#[cfg(test)]\nuse crate::app;\nuse crate::cli;", &["cli"]),
        (
            "#[cfg(test)]\nuse crate::{app, x};\nuse crate::cli;",
            &["cli"],
        ),
        (
            "struct S { #[cfg(test)] a: crate::app::A, b: crate::cli::B }",
            &["cli"],
        ),
        (
            "#[cfg(test)]\nmod tests { use crate::app; }\nuse crate::cli;",
            &["cli"],
        ),
        (
            "#[cfg(test)]\n#[path = \"x\"]\nmod tests;\nuse crate::cli;",
            &["cli"],
        ),
        (
            "#[cfg(test)]\nfn f() -> crate::app::A { crate::app::a() }\nuse crate::cli;",
            &["cli"],
        ),
        ("#[cfg(not(test))]\nuse crate::cli;", &["cli"]),
        (
            "// crate::app\n/* crate::app */ const X: &str = \"crate::app\";",
            &[],
        ),
        ("/// crate::app\nfn f() {}", &[]),
    ] {
        let found: Vec<String> = used(code, &module).into_iter().collect();
        assert_eq!(found, expected, "{code}");
    }
}

#[test]
fn only_http_names_axum_and_only_the_engines_crate_candle() {
    for (path, text) in sources() {
        let module = module(&path);
        let mut named = BTreeSet::new();
        visit(&tokens(&text), &[], &mut |run, _| {
            named.extend(ident(run.first()));
            let reads = ident(run.first()).as_deref() == Some("env") && is_punct(run.get(1), ':');
            let read = run.get(3).map(ToString::to_string).unwrap_or_default();
            if reads && read.contains("var") {
                named.insert("env::var".to_owned());
            }
        });
        for (word, homes) in [
            ("axum", &["http"][..]),
            ("candle", &[]),
            ("env::var", &["config", "main"]),
        ] {
            let names = named.iter().any(|name| name.starts_with(word));
            assert!(
                !names || homes.contains(&module.as_str()),
                "{}: {word}",
                path.display()
            );
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for (path, text) in all_sources() {
        assert!(text.lines().count() <= 450, "{}", path.display());
    }
}

#[test]
fn only_what_is_shown_goes_by_the_clock_on_the_wall() {
    // It may be set while the server runs: waits, deadlines and rates go by the one that is not.
    let mut users: Vec<String> = all_sources()
        .into_iter()
        .filter(|(_, text)| text.contains("SystemTime::now"))
        .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    users.sort();
    // The date in answers, when a model was loaded, a certificate's end, and a span's begin.
    assert_eq!(users, ["handle.rs", "prepared.rs", "tls.rs", "traces.rs"]);
}

#[test]
fn every_metric_is_described_and_every_description_is_of_a_metric() {
    let (mut recorded, mut described) = (BTreeSet::new(), BTreeSet::new());
    for (path, text) in all_sources() {
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
