//! `rerankd score`: files of any size, in every format, whole or in shards, stopped at any point.

#[cfg(feature = "columnar")]
mod columnar;
mod runs;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::assert_says;
use crate::support::models;
use crate::support::process::rerankd;

/// A folder with an input.
struct Files {
    folder: TempDir,
    input: PathBuf,
}

impl Files {
    fn new(name: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join(name);
        fs::write(&input, text).unwrap();
        Self { folder, input }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Scores the input with tiny-bert.
    fn score(&self, output: &Path, flags: &[&str]) -> Output {
        score(&self.input, output, flags)
    }
}

fn command(input: &Path, output: &Path, flags: &[&str]) -> Command {
    let mut command = rerankd();
    command
        .args(["score", "--model"])
        .arg(models::folder("tiny-bert"))
        .args([input, output])
        .args(flags);
    command
}

fn score(input: &Path, output: &Path, flags: &[&str]) -> Output {
    command(input, output, flags).output().unwrap()
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

/// The message of a run that ends with this exit code.
fn told(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    stderr(output)
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// So many pairs as JSON lines, each another one.
fn pairs(rows: usize) -> String {
    let line = |i| {
        let (query, document) = (format!("the query {}", i / 7), format!("a document {i}"));
        format!(
            "{}\n",
            json!({"id": i, "query": query, "document": document})
        )
    };
    (0..rows).map(line).collect()
}

#[test]
fn a_pair_gets_the_references_score_and_its_line_stays_as_it_is() {
    let golden = models::golden("tiny-bert").cases.remove(0);
    let line = |document: &String| {
        // What stands beside query and document is nobody's business, however it is written.
        let (query, document) = (json!(golden.query), json!(document));
        format!(
            "{{ \"n\": 1.50, \"query\":{query},\"x\":{{\"b\":[1 ,2]}}, \"document\":{document} }}"
        )
    };
    let given: Vec<String> = golden.documents.iter().map(line).collect();
    let files = Files::new("pairs.jsonl", &given.join("\n"));
    let output = files.path("scored.jsonl");
    done(&files.score(&output, &[]));
    let written = fs::read_to_string(&output).unwrap();
    assert_eq!(written.lines().count(), given.len());
    for ((written, given), expected) in written.lines().zip(&given).zip(&golden.scores) {
        let kept = given.trim_end_matches([' ', '}']).to_owned() + "}";
        let kept = kept.strip_suffix('}').unwrap();
        let score = written
            .strip_prefix(kept)
            .unwrap_or_else(|| panic!("{written} of {given}"));
        let score = score
            .strip_prefix(",\"score\":")
            .unwrap()
            .strip_suffix('}')
            .unwrap();
        assert!(
            (score.parse::<f32>().unwrap() - expected).abs() < 1e-4,
            "{written}"
        );
    }
}

#[test]
fn a_list_gets_scores_and_its_order() {
    let golden = models::golden("tiny-bert").cases.remove(0);
    let objects: Vec<Value> = golden
        .documents
        .iter()
        .map(|d| json!({"body": d, "id": 1}))
        .collect();
    let rows = [
        json!({"question": golden.query, "documents": golden.documents}),
        json!({"question": golden.query, "documents": objects}),
        json!({"question": golden.query, "documents": []}),
    ];
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let files = Files::new("lists.jsonl", &text);
    let output = files.path("scored.jsonl.gz");
    let flags = [
        "--query-column",
        "question",
        "--text-field",
        "body",
        "--rank",
        "--top-n",
        "3",
        "--score-column",
        "s",
        "--activation",
        "identity",
    ];
    done(&files.score(&output, &flags));
    let unpacked = files.path("unpacked.jsonl");
    let mut text = String::new();
    let packed = fs::File::open(&output).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(packed), &mut text)
        .unwrap();
    fs::write(&unpacked, text).unwrap();
    let rows = lines(&unpacked);
    let mut best: Vec<usize> = (0..golden.logits.len()).collect();
    best.sort_by(|&a, &b| golden.logits[b].total_cmp(&golden.logits[a]));
    best.truncate(3);
    for row in &rows[..2] {
        assert_eq!(row["order"], json!(best));
        for (score, logit) in row["s"].as_array().unwrap().iter().zip(&golden.logits) {
            assert!((score.as_f64().unwrap() as f32 - logit).abs() < 1e-4);
        }
        assert_eq!(row["s"].as_array().unwrap().len(), golden.logits.len());
    }
    assert_eq!((&rows[2]["s"], &rows[2]["order"]), (&json!([]), &json!([])));
}

#[test]
fn what_cannot_be_scored_is_named_or_gets_null() {
    let good = json!({"query": "q", "document": "d"});
    for (bad, words) in [
        (json!({"query": "q", "document": null}), &["null"][..]),
        (json!({"query": "q", "document": 7}), &["no text", "7"]),
        (json!({"query": "q"}), &["no \"document\""]),
        (
            json!({"query": ["q"], "document": "d"}),
            &["\"query\" is not a text"],
        ),
        (json!({"query": "", "document": "d"}), &["query is empty"]),
        (
            json!({"query": "q", "document": {"title": "t"}}),
            &["no \"text\"", "--text-field"],
        ),
    ] {
        let files = Files::new("in.jsonl", &format!("{good}\n\n{bad}\n{good}\n"));
        let output = files.path("out.jsonl");
        let failed = told(&files.score(&output, &[]), 1);
        assert_says(&failed, words);
        assert_says(&failed, &["in.jsonl, line 3: ", "--on-error null"]);
        assert!(!output.exists());

        let output = files.path("null.jsonl");
        let scored = files.score(&output, &["--on-error", "null"]);
        done(&scored);
        assert_says(
            &stderr(&scored),
            &["3 rows, 3 pairs, 1 of them without a score"],
        );
        let rows = lines(&output);
        assert_eq!(rows[1]["score"], Value::Null, "{bad}");
        assert!(rows[0]["score"].is_f64() && rows[0]["score"] == rows[2]["score"]);
    }
    // Whatever has no fields can't get one.
    let files = Files::new("in.jsonl", &format!("{good}\n[1]\n"));
    let failed = told(
        &files.score(&files.path("out.jsonl"), &["--on-error", "null"]),
        1,
    );
    assert_says(&failed, &["line 2: it is no JSON object"]);
}

#[test]
fn only_the_document_that_is_at_fault_has_no_score() {
    // With truncation off, one that is too long is an error of its own among many.
    let long = "word ".repeat(5000);
    let row = |documents: Value| json!({"query": "q", "documents": documents});
    let many: Vec<String> = (0..9).map(|i| format!("document {i}")).collect();
    let mut with_long: Vec<Value> = many.iter().map(|d| json!(d)).collect();
    with_long[4] = json!(long);
    with_long[7] = Value::Null;
    let text = format!("{}\n{}\n", row(json!(many)), row(json!(with_long)));
    let files = Files::new("in.jsonl", &text);
    let output = files.path("out.jsonl");
    let flags = ["--truncation", "off", "--on-error", "null", "--rank"];
    done(&files.score(&output, &flags));
    let rows = lines(&output);
    let mut expected = rows[0]["scores"].clone();
    (expected[4], expected[7]) = (Value::Null, Value::Null);
    assert_eq!(rows[1]["scores"], expected);
    let order = rows[1]["order"].as_array().unwrap();
    assert!(order.len() == 7 && !order.contains(&json!(4)) && !order.contains(&json!(7)));
    let row = row(with_long.drain(..5).collect());
    let files = Files::new("in.jsonl", &row.to_string());
    let failed = told(&files.score(&files.path("no.jsonl"), &flags[..2]), 1);
    assert_says(&failed, &["line 1: document 5 and the query are"]);
}

#[test]
fn columns_and_names_that_do_not_fit_are_told_before_anything_is_scored() {
    let files = Files::new(
        "in.jsonl",
        "{\"query\":\"q\",\"passage\":\"p\",\"score\":1}\n",
    );
    let output = files.path("out.jsonl");
    for (flags, code, words) in [
        (
            &[][..],
            1,
            &["\"document\"", "\"passage\"", "--document-column"][..],
        ),
        (
            &["--document-column", "passage"],
            1,
            &["\"score\" already", "--score-column"],
        ),
        (
            &[
                "--document-column",
                "passage",
                "--score-column",
                "s",
                "--rank",
            ],
            1,
            &["--rank needs a list"],
        ),
        (
            &["--document-column", "score"],
            1,
            &["texts, objects with a text, or lists of either", "1"],
        ),
        (&["--shard", "0/4"], 2, &["I/N"]),
        (&["--top-n", "4"], 2, &["--rank"]),
        (
            &["--rank", "--top-n", "-1"],
            2,
            &["'-1'", "a number from 1 to"],
        ),
    ] {
        assert_says(&told(&files.score(&output, flags), code), words);
    }
    let nameless = told(&files.score(&files.path("out.dat"), &[]), 2);
    assert_says(&nameless, &["out.dat", "--output-format"]);
    let astray = told(&files.score(&files.path("no/out.jsonl"), &[]), 2);
    assert_says(&astray, &["there is no folder", "mkdir -p"]);
    assert!(!output.exists() && !files.path("out.jsonl.parts").exists());
    for (text, words) in [
        ("[{\"query\":\"q\"},", "jq -c '.[]'"),
        ("{\n\"query\":\"q\"}", "jq -c ."),
    ] {
        let files = Files::new("in.json", text);
        assert_says(&told(&files.score(&output, &[]), 1), &["line 1", words]);
    }
    let piped = told(&score("-".as_ref(), &output, &["--shard", "1/2"]), 2);
    assert_says(&piped, &["--shard needs a file"]);
}

#[test]
fn a_file_without_rows_has_an_output_without_rows() {
    let files = Files::new("in.jsonl", "\n");
    done(&files.score(&files.path("out.jsonl"), &[]));
    assert_eq!(fs::read(files.path("out.jsonl")).unwrap(), b"");
    #[cfg(feature = "columnar")]
    done(&files.score(&files.path("out.parquet"), &["--rank"]));
}

#[test]
fn the_first_row_may_lack_a_document() {
    let files = Files::new("in.jsonl", &format!("{{\"query\":\"q\"}}\n{}", pairs(1)));
    let output = files.path("out.jsonl");
    let failed = told(&files.score(&output, &[]), 1);
    assert_says(&failed, &["line 1: there is no \"document\""]);
    assert!(!files.path("out.jsonl.parts").exists());
    done(&files.score(&output, &["--on-error", "null"]));
    assert_eq!(lines(&output)[0]["score"], Value::Null);
    assert!(lines(&output)[1]["score"].is_f64());
}

#[test]
fn pipes_are_read_and_written() {
    let mut child = command("-".as_ref(), "-".as_ref(), &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = pairs(300);
    let mut stdin = child.stdin.take().unwrap();
    let given = text.clone();
    let writing = std::thread::spawn(move || stdin.write_all(given.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    done(&output);
    let files = Files::new("in.jsonl", &text);
    done(&files.score(&files.path("out.jsonl"), &[]));
    assert_eq!(output.stdout, fs::read(files.path("out.jsonl")).unwrap());
}
