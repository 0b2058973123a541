//! The command line, as a user calls it, and the log that the server writes.

use std::io::{BufRead, BufReader, Seek, Write};
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::support::models::{self, root};
use crate::support::process::{Server, rerankd, run};
use crate::support::{assert_says, last_error};

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn tiny_bert() -> String {
    models::folder("tiny-bert").to_str().unwrap().to_owned()
}

#[test]
fn version_and_help_are_there() {
    assert_eq!(
        stdout(&run(&["--version"])),
        format!("rerankd {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = stdout(&run(&["--help"]));
    for word in [
        "serve", "rerank", "bench", "health", "--model", "HF_TOKEN", "Examples",
    ] {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn rerank_ranks_documents_without_a_server() {
    let golden = models::golden("tiny-bert").cases.remove(0);
    // Documents with line breaks go as JSON.
    let lines: Vec<String> = golden
        .documents
        .iter()
        .enumerate()
        .map(|(i, text)| json!({"_id": format!("d{i}"), "text": text}).to_string())
        .collect();
    let mut child = rerankd()
        .args([
            "rerank",
            "--model",
            &tiny_bert(),
            "--query",
            &golden.query,
            "--format",
            "json",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.join("\n").as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let ranking: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let results = ranking["results"].as_array().unwrap();
    assert_eq!(results.len(), golden.documents.len());
    for result in results {
        let index = result["index"].as_u64().unwrap() as usize;
        assert_eq!(result["id"], format!("d{index}"));
        let score = result["relevance_score"].as_f64().unwrap() as f32;
        assert!((score - golden.scores[index]).abs() < 1e-4);
    }
}

#[test]
fn rerank_prints_a_table_of_the_best() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "rivers carve valleys\n\nbread is made of flour\n\"a cat\""
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let output = run(&[
        "rerank",
        "--model",
        &tiny_bert(),
        "-q",
        "rivers",
        "-f",
        path,
        "-n",
        "2",
    ]);
    let table = stdout(&output);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].contains("rank") && lines[0].contains("score"));
    assert!(lines[1].trim_start().starts_with('1'));
}

#[test]
fn rerank_says_what_is_wrong() {
    let missing = run(&[
        "rerank",
        "--model",
        &tiny_bert(),
        "-q",
        "x",
        "-f",
        "/no/such/file",
    ]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/no/such/file"));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "\"fine\"\n{{\"body\": 1}}").unwrap();
    let path = file.path().to_str().unwrap();
    let bad = run(&["rerank", "--model", &tiny_bert(), "-q", "x", "-f", path]);
    assert_eq!(bad.status.code(), Some(1));
    assert_says(&stderr(&bad), &[path, "line 2", "--text-field"]);
    for flags in [&["-f", path][..], &["-q", "", "-f", path]] {
        std::fs::write(path, "a\n").unwrap();
        let usage = run(&[&["rerank", "--model", &tiny_bert()], flags].concat());
        assert_eq!(usage.status.code(), Some(2));
        assert_says(&stderr(&usage), &["--query is"]);
    }
}

#[test]
fn rerank_calls_standard_input_by_its_name() {
    for (text, told) in [
        ("\n", "rerankd: standard input holds no documents"),
        ("{\"body\": 1}", "standard input, line 1: "),
    ] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        let mut command = rerankd();
        let command = command.args(["rerank", "-q", "x", "--model", &tiny_bert()]);
        let output = command.stdin(file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_says(&stderr(&output), &[told]);
    }
}

#[test]
fn rerank_reads_several_files_and_a_requests_query_and_says_what_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let request = path(
        "request.json",
        r#"{"query": "rivers", "documents": ["rivers carve valleys", "bread\ud83d"]}"#,
    );
    let long = "the sea and the land ".repeat(200);
    let table = path("table.csv", &format!("id,body\n7,\"{long}\"\n"));
    let lines = path("lines.txt", "a cat\r\n");
    let model = tiny_bert();
    let base = ["rerank", "--model", &model, "--format", "json", "-f"];
    let output = run(&[&base[..], &[&request, &lines]].concat());
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(answer["query"], "rivers");
    let mut texts: Vec<&str> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["text"].as_str().unwrap())
        .collect();
    texts.sort_unstable();
    assert_eq!(texts, ["a cat", "bread\u{fffd}", "rivers carve valleys"]);
    assert_eq!(stderr(&output), "");

    let fields = ["--text-field", "body", "-q", "land", "--raw-scores"];
    let output = run(&[&base[..], &[&table], &fields].concat());
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&answer["query"], &answer["results"][0]["id"]),
        (&"land".into(), &"7".into())
    );
    assert_says(
        &stderr(&output),
        &["1 of 1 documents", "--max-chunks-per-doc"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rerank_gives_a_requests_body_the_servers_answer() {
    let server = Server::start(&[]);
    let documents = json!([
        {"title": "Rivers", "text": "rivers carve valleys", "id": 7}, "bread", {"text": "a cat", "title": "Cats"},
    ]);
    let long = "the sea and the land ".repeat(200);
    let bodies = [
        json!({"query": "rivers", "documents": documents}),
        json!({"query": "rivers", "documents": documents, "rank_fields": ["title", "text"], "top_n": 2}),
        json!({"query": "rivers", "documents": documents, "raw_scores": true, "return_documents": true}),
        json!({"query": "land", "documents": [long, "a cat"], "max_chunks_per_doc": 3}),
        json!({"query": "rivers", "documents": documents, "first_stage_scores": [1, 2, 3],
            "fusion": {"method": "rrf", "weight": 0.9}}),
        json!({"queries": ["rivers", "cats"], "combine": "mean", "documents": documents, "min_score": 0.4}),
    ];
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("request.json");
    let model = tiny_bert();
    let base = [
        "rerank",
        "--model",
        &model,
        "--format",
        "json",
        "-f",
        path.to_str().unwrap(),
    ];
    for body in bodies {
        std::fs::write(&path, body.to_string()).unwrap();
        let output = run(&base);
        let ranking: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let url = format!("{}/v1/rerank", server.base);
        let answer = client.post(url).json(&body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let of = |answer: &Value| {
            let results = answer["results"].as_array().unwrap().iter();
            let scores = results.map(|r| (r["index"].clone(), r["relevance_score"].clone()));
            scores.collect::<Vec<_>>()
        };
        assert_eq!(of(&ranking), of(&answer), "{body}");
    }
    let body = json!({"query": "rivers", "documents": ["a"], "model": "other", "wrong": 1});
    std::fs::write(&path, body.to_string()).unwrap();
    assert_says(
        &stderr(&run(&base)),
        &[
            "\"model\" (\"other\") is not read here",
            "no such field is known: wrong",
        ],
    );
}

#[test]
fn the_help_of_each_command_teaches_by_examples() {
    for command in ["serve", "rerank", "eval", "bench", "health", "openapi"] {
        let help = stdout(&run(&[command, "--help"]));
        let (_, examples) = help.split_once("Example").unwrap();
        assert!(examples.contains(&format!("rerankd {command}")), "{help}");
    }
    let rerank = stdout(&run(&["rerank", "--help"]));
    assert_says(
        &rerank,
        &[
            ".jsonl",
            ".csv",
            "begins with {",
            "--input-format",
            "FORMAT",
        ],
    );
    assert_says(
        &stdout(&run(&["health", "--help"])),
        &["Exit codes", "0  healthy"],
    );
}

#[test]
fn bench_says_what_it_measured() {
    let model = tiny_bert();
    let flags = [
        "bench",
        "--model",
        &model,
        "--dtype",
        "f16",
        "--threads",
        "1",
    ];
    let few = [
        "--clients",
        "1",
        "--documents",
        "2",
        "--requests",
        "1",
        "--rounds",
        "1",
        "--lone",
        "1",
    ];
    let printed = stdout(&run(&[&flags[..], &few].concat()));
    assert_says(
        printed.lines().next().unwrap(),
        &["tiny-bert", "f16", "1 threads ("],
    );
}

#[cfg(not(feature = "builtin-model"))]
#[test]
fn without_a_model_the_error_names_both_ways() {
    for args in [&[][..], &["serve"], &["--model", "builtin"]] {
        let output = rerankd()
            .args(args)
            .env("RERANKD__SERVER__PORT", "0")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = stderr(&output);
        assert!(
            error.contains("--model FOLDER") && error.contains("--model ORG/NAME"),
            "{error}"
        );
    }
}

#[test]
fn settings_are_printed_and_checked_in_their_layers() {
    let overlay = root().join("config/production.toml");
    let output = rerankd()
        .args([
            "--print-config",
            "--config",
            overlay.to_str().unwrap(),
            "--port",
            "9003",
        ])
        .env("RERANKD__SERVER__PORT", "9002")
        .env("RERANKD__LIMITS__MAX_DOCUMENTS", "77")
        .env("RERANKD_SERVICE_HOST", "10.0.0.1")
        .output()
        .unwrap();
    let printed: toml::Table = stdout(&output).parse().unwrap();
    assert_eq!(
        printed["server"]["port"].as_integer(),
        Some(9003),
        "the flag wins"
    );
    assert_eq!(
        printed["limits"]["max_documents"].as_integer(),
        Some(77),
        "the variable"
    );
    assert_eq!(
        printed["server"]["host"].as_str(),
        Some("0.0.0.0"),
        "the file"
    );
    assert_eq!(
        printed["batch"]["max_pairs"].as_integer(),
        Some(256),
        "the default"
    );

    for (variable, value, word) in [
        ("RERANKD__BATCH__MAX_TOKENS", "0", "from 1 to"),
        (
            "RERANKD__LIMITS__REQUEST_TIMEOUT_MS",
            "18446744073709551615",
            "from 1 to 86400000",
        ),
        ("RERANKD__SERVER__PORT", "many", "whole number"),
        ("RERANKD__MODEL__TRUNCATION", "middle", "longest_first"),
    ] {
        let output = rerankd()
            .arg("--check-config")
            .env(variable, value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{variable}");
        let error = stderr(&output);
        let told = format!("rerankd: {variable} is \"{value}\", but it must be ");
        let told = if value == "0" {
            told.replace('"', "")
        } else {
            told
        };
        assert!(error.starts_with(&told) && error.contains(word), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn check_config_finds_what_the_start_would_find_but_for_the_weights() {
    let model = tiny_bert();
    let check = |more: &[&str]| run(&[&["--check-config", "--model", &model], more].concat());
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "a one\nb two\n").unwrap();
    let keys = keys.to_str().unwrap();

    let output = stdout(&check(&["--keys-file", keys, "--port", "9007"]));
    for word in [
        "valid",
        "tiny-bert (bert, ",
        "96 tokens",
        "f32",
        "127.0.0.1, port 9007",
        "keys     2 in ",
    ] {
        assert!(output.contains(word), "{word}: {output}");
    }

    // Each of the problems, in one run.
    let broken = folder.path().join("model");
    std::fs::create_dir(&broken).unwrap();
    let path = folder.path().to_str().unwrap();
    let broken = broken.to_str().unwrap();
    let all = ["--keys-file", path, "--host", "203.0.113.7"];
    let output = run(&[&["--check-config", "--model", broken][..], &all].concat());
    assert_eq!(output.status.code(), Some(2));
    let error = stderr(&output);
    let lines: Vec<&str> = error
        .lines()
        .filter(|l| l.starts_with("rerankd: "))
        .collect();
    assert_eq!(lines.len(), 3, "{error}");
    for (line, word) in lines
        .iter()
        .zip(["config.json is missing", "server.host", "is a folder"])
    {
        assert!(line.contains(word), "{error}");
    }

    for (more, word) in [
        (&["--model", "/no/such/model"][..], "no such folder"),
        #[cfg(not(feature = "cuda"))]
        (&["--device", "cuda"], "without CUDA"),
        (&["--instructions", "sse9"], "avx512"),
        (&["--log-level", "nonsense"], "--log-level is \"nonsense\""),
    ] {
        let more = [&["--check-config"], more].concat();
        let output = run(&more);
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}

#[test]
fn what_the_check_refuses_a_start_refuses_too_and_both_say_that_the_settings_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "a:one\n").unwrap();
    let model = tiny_bert();
    for (variable, value, told) in [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "foo",
            "must be a collector's URL",
        ),
        // The built-in model's weights.
        ("RERANKD__ENGINE__MEMORY_BUDGET_MB", "1", "takes 2"),
        ("RERANKD__ENGINE__MEMORY_BUDGET_MB", "10", "takes 2"),
        (
            "RERANKD__AUTH__KEYS_FILE",
            keys.to_str().unwrap(),
            "line 1: ",
        ),
        ("RERANKD__TLS__CERT_FILE", "/no/such", "tls.key_file"),
        ("RERANKD__MODEL__ID", "/no/such", "no such folder"),
        ("RERANKD__MODEL__SCORE_LABEL", "nonsense", "nonsense"),
    ] {
        let run = |flag: &str| {
            let mut command = rerankd();
            command
                .args(["serve", "--port", "0", flag])
                .env(variable, value);
            if variable == "RERANKD__MODEL__SCORE_LABEL" {
                command.args(["--model", &model]);
            }
            let output = command.output().unwrap();
            let error = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{variable} {flag}: {error}");
            assert!(error.contains(told), "{variable} {flag}: {error}");
            assert!(!error.contains("loaded and warmed up"), "{error}");
            last_error(&output.stderr)
        };
        assert_eq!(
            run("--check-config"),
            run("--log-format=json"),
            "{variable}"
        );
    }
    // Another server's port may be free at the next try.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&["--model", &model, "--port", &port]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[test]
fn where_traces_go_is_told() {
    let check = |variables: &[(&str, &str)]| {
        let mut command = rerankd();
        command.args(["--check-config", "--model", &tiny_bert()]);
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        (stdout(&output), stderr(&output))
    };
    let (told, _) = check(&[]);
    assert!(
        told.contains("traces   none: no collector is named"),
        "{told}"
    );
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
    let (told, warned) = check(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert!(
        told.contains("traces   http://c:4317/v1/traces, 100 %"),
        "{told}"
    );
    assert!(warned.contains("http/protobuf only"), "{warned}");
}

#[test]
fn what_is_cut_or_ignored_is_told_at_start_and_by_check_config() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "a river").unwrap();
    let path = file.path().to_str().unwrap();
    let model = tiny_bert();
    for args in [&["rerank", "-q", "x", "-f", path][..], &["--check-config"]] {
        let flags = [
            "--model",
            &model,
            "--max-input-tokens",
            "5000",
            "--threads",
            "9999",
        ];
        let output = rerankd()
            .args([args, &flags].concat())
            .env("RERANKD_SERVER_PORT", "9000")
            .env("RERANKD__SERVER__PROT", "9000")
            .env("RERANKD__MODEL__OVERLAP_TOKENS", "60")
            .env("RERANKD_SERVICE_HOST", "10.0.0.1")
            .output()
            .unwrap();
        assert!(!stdout(&output).is_empty());
        let told = stderr(&output);
        for word in [
            "RERANKD_SERVER_PORT is no setting and is ignored; did you mean RERANKD__SERVER__PORT?",
            "RERANKD__SERVER__PROT is no setting",
            "model.max_input_tokens is 5000, but tiny-bert reads at most 96 tokens",
            "model.overlap_tokens is 60",
            "engine.threads is 9999",
        ] {
            assert!(told.contains(word), "{args:?}, {word}: {told}");
        }
        assert!(!told.contains("SERVICE"), "{told}");
    }
}

#[test]
fn help_groups_the_flags_and_names_values_and_variables() {
    let text = stdout(&run(&["--help"]));
    // However its lines are broken.
    let help = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in [
        "Server:",
        "Model:",
        "Engine:",
        "Log:",
        "Settings:",
        "[env: RERANKD__SERVER__PORT]",
        "[env: RERANKD__MODEL__ID]",
        "[env: RERANKD__LOG__LEVEL]",
        "longest_first, document, off",
        "best, mean_top_3",
        "auto, sigmoid, identity",
        "auto, amx, avx512, avx2, neon, portable",
        "SIGHUP",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let flags = text.matches("\n      --").count();
    // Those that set nothing: config, check-config and print-config.
    assert_eq!(help.matches("[env: RERANKD__").count(), flags - 3, "{help}");
    assert!(stdout(&run(&["eval", "--help"])).contains("RERANKD__MODEL__ID]"));
}

#[test]
fn models_lists_all_families_as_text_and_as_json() {
    let text = stdout(&run(&["models"]));
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&run(&["models", "--json"]))).unwrap();
    let families = json["families"].as_array().unwrap();
    assert_eq!(families.len(), rerankd::engine::families().count());
    for (family, known) in families.iter().zip(rerankd::engine::families()) {
        assert_eq!(family["name"], known.name);
        assert_eq!(family["verified"], known.verified);
        // A decoder's architecture may have no reranker of its own on the hub.
        assert!(
            !family["model_types"].as_array().unwrap().is_empty(),
            "{family}"
        );
        assert_eq!(
            family["examples"].as_array().unwrap().len(),
            known.examples.len()
        );
        let examples = known.examples.iter();
        let told = examples.chain(known.model_types).chain([&known.name]);
        for word in told {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    let tokenizers = json["tokenizers"].as_array().unwrap();
    assert!(text.contains(tokenizers[0].as_str().unwrap()), "{text}");
    assert!(stdout(&run(&["models", "--help"])).contains("--check-config"));
}

/// The commands that `rerankd --help` lists.
fn commands() -> Vec<String> {
    let help = stdout(&run(&["--help"]));
    let list = help.split("Commands:").nth(1).unwrap();
    let list = list.split("Options:").next().unwrap();
    let rows = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = rows.filter_map(|row| row.split_whitespace().next());
    names
        .filter(|&name| name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_shell_gets_completions_of_all_commands_and_bash_completes_with_them() {
    let commands = commands();
    assert!(commands.contains(&"completions".to_owned()), "{commands:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = stdout(&run(&["completions", shell]));
        for word in commands.iter().map(String::as_str).chain(["port", "top-n"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let script = stdout(&run(&["completions", "bash"]));
    // What the shell offers for the last word, after it has read the script.
    let complete = |line: &str| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()\n\
             _rerankd rerankd \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"\n\
             echo \"${{COMPREPLY[@]}}\""
        );
        let mut bash = std::process::Command::new("bash");
        stdout(
            &bash
                .args(["--noprofile", "--norc", "-c", &ask])
                .output()
                .unwrap(),
        )
    };
    assert_eq!(complete("rerankd comp"), "completions\n");
    assert_eq!(complete("rerankd rerank --top"), "--top-n\n");
    assert_eq!(
        complete("rerankd serve --instructions avx"),
        "avx512 avx2\n"
    );

    let output = run(&["completions", "tcsh"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("powershell"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn man_has_a_page_for_each_command_with_what_its_help_says() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    run(&["man", "--folder", pages.to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    let commands = commands();
    let count = std::fs::read_dir(&pages).unwrap().count();
    assert_eq!(count, commands.len() + 1);

    let main = stdout(&run(&["man"]));
    assert_eq!(main, page("rerankd.1"));
    let has = |page: &str, heading: &str| {
        let heading = format!(".SH {heading}");
        page.lines()
            .any(|line| line.replace('"', "").starts_with(&heading))
    };
    for section in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "SERVER",
        "MODEL",
        "COMMANDS",
        "NOTES",
        "EXAMPLES",
    ] {
        assert!(has(&main, section), "{section}: {main}");
    }
    for command in &commands {
        assert!(
            main.contains(&format!("rerankd\\-{command}(1)")),
            "{command}: {main}"
        );
        let page = page(&format!("rerankd-{command}.1"));
        assert!(page.contains(&format!(".TH rerankd-{command} 1")), "{page}");
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXAMPLE",
            "SEE ALSO",
        ] {
            assert!(has(&page, section), "{command}: {section}: {page}");
        }
    }
    assert!(has(&page("rerankd-health.1"), "EXIT CODES"));
    assert!(page("rerankd-serve.1").contains("RERANKD__SERVER__PORT"));

    let file = tempfile::NamedTempFile::new().unwrap();
    let output = run(&["man", "--folder", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("can't make the folder"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_production_overlay_serves_as_it_stands() {
    let overlay = root().join("config/production.toml");
    let mut command = rerankd();
    command.arg("--config").arg(overlay);
    // A free port and a small model; all else is the overlay's.
    command.args(["--port", "0", "--model", &tiny_bert()]);
    let server = Server::of(command);
    let base = server.base.replace("0.0.0.0", "127.0.0.1");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"query": "rivers", "documents": ["sea"]});
    let answer = client.post(format!("{base}/v1/rerank")).json(&body).send();
    assert_eq!(answer.await.unwrap().status(), 200);
    let health = client.get(format!("{base}/health/ready")).send();
    assert_eq!(health.await.unwrap().status(), 200);
}

#[test]
fn numbers_that_would_never_end_are_refused() {
    for args in [
        &["bench", "--clients", "18446744073709551615"][..],
        &["bench", "--rounds", "0"],
        &["bench", "--lone", "99999999999"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains("from 1 to"), "{}", stderr(&output));
    }
    let many = ["bench", "--clients", "1000", "--documents", "100000"];
    let output = run(&many);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("at most"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_the_server_and_the_log_tells_all_but_the_texts() {
    let mut server = Server::start(&[]);
    let health = stdout(&run(&["health", "--url", &server.base]));
    let port = server.address().rsplit(':').next().unwrap();
    assert_eq!(stdout(&run(&["health", "--port", port])), health);
    assert_says(
        &health,
        &["healthy", "has a model loaded", "ready for requests"],
    );
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |body: Value| {
        let request = client
            .post(format!("{}/v1/rerank", server.base))
            .json(&body);
        request
            .header("x-request-id", "my-id")
            .send()
            .await
            .unwrap()
    };
    post(json!({"query": "secretquery", "documents": ["secretdocument", "b"]})).await;
    let line = server.log("request");
    assert_eq!(line["request_id"], "my-id");
    assert_eq!(line["route"], "/v1/rerank");
    assert_eq!(
        (&line["status"], &line["documents"]),
        (&200.into(), &2.into())
    );
    assert!(line["tokens"].as_u64() > Some(4));
    for stage in ["tokenize_ms", "queue_ms", "inference_ms", "total_ms"] {
        assert!(line[stage].is_f64(), "{stage}: {line}");
    }
    post(json!({"query": "secretquery", "documents": [{"secret": "secretdocument"}]})).await;
    post(json!({"query": "secretquery", "documents": ["secretdocument ".repeat(300)], "truncate": false})).await;
    assert_eq!(server.log("request")["status"], 422);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let log = format!("{line} {:?}", server.rest_of_log());
    assert!(!log.contains("secret"), "{log}");

    let output = run(&["health", "--url", &server.base]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no answer"));
}

/// A server that gives these answers, one for each connection.
fn answering(answers: &'static [(u16, &'static str)]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
            while head.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close");
            write!(stream, "{head}\r\n\r\n{body}").unwrap();
        }
    });
    base
}

#[test]
fn health_says_in_words_what_the_server_says() {
    let loading = answering(&[(503, r#"{"detail": "the model is being loaded"}"#)]);
    let output = run(&["health", "--url", &loading]);
    assert_eq!(output.status.code(), Some(1));
    assert_says(
        &stderr(&output),
        &["not healthy", "503", "the model is being loaded"],
    );

    let ending = answering(&[
        (
            200,
            r#"{"status": "ok", "detail": "old keys are in force", "truncated_documents": 3}"#,
        ),
        (503, r#"{"detail": "the server is shutting down"}"#),
    ]);
    let words = [
        "healthy",
        "old keys",
        "3 documents",
        "not ready",
        "shutting down",
    ];
    assert_says(&stdout(&run(&["health", "--url", &ending])), &words);
}
