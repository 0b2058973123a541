//! `rerankd eval` on a small judged collection.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::models;
use crate::support::process::{rerankd, run};

const DOCUMENTS: [(&str, &str); 6] = [
    ("d0", "A cat sleeps in the sun."),
    ("d1", "Rivers carve valleys and carry sediment to the sea."),
    ("d2", "Bread is made of flour, water and salt."),
    ("d3", "The moon draws the tides."),
    (
        "d4",
        "Glaciers and rivers shape the land over thousands of years.",
    ),
    ("d5", "A sleeping cat dreams of mice."),
];

fn write_lines(path: &Path, lines: &[Value]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(path, text).unwrap();
}

/// A collection with two judged queries and one that is not.
fn collection(folder: &Path, with_candidates: bool) {
    let corpus: Vec<Value> = DOCUMENTS
        .iter()
        .map(|(id, text)| json!({"_id": id, "title": "", "text": text}))
        .collect();
    write_lines(&folder.join("corpus.jsonl"), &corpus);
    let query = |id: &str, text: &str| json!({"_id": id, "text": text});
    let queries = [
        query("q0", "how do rivers shape the land?"),
        query("q1", "where does the cat sleep?"),
        query("unjudged", "?"),
    ];
    write_lines(&folder.join("queries.jsonl"), &queries);
    let qrels = "query-id\tcorpus-id\tscore\nq0\td4\t2\nq0\td1\t1\nq1\td0\t1\nq1\td5\t0\n";
    std::fs::write(folder.join("qrels.tsv"), qrels).unwrap();
    if with_candidates {
        let candidates = |query: &str, ids: [&str; 4]| {
            let scored = ids.iter().enumerate();
            let scored = scored.map(|(i, id)| json!({"doc_id": id, "bm25": 9.0 - i as f64}));
            json!({"query_id": query, "candidates": scored.collect::<Vec<_>>()})
        };
        let lines = [
            candidates("q0", ["d3", "d1", "d4", "d2"]),
            candidates("q1", ["d5", "d0", "d2", "d3"]),
        ];
        write_lines(&folder.join("candidates.jsonl"), &lines);
    }
}

/// Runs `rerankd eval`; gives its output and the measures that it wrote.
fn eval(data: &Path, out: &Path, more: &[&str]) -> (String, Value) {
    let mut args = vec![
        "eval",
        "--data",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    args.extend(more);
    let output = run(&args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let written = out.join(data.file_name().unwrap());
    assert!(
        std::fs::read_to_string(written.join("depth.svg"))
            .unwrap()
            .contains("<svg")
    );
    let measures = std::fs::read_to_string(written.join("measures.json")).unwrap();
    (
        String::from_utf8(output.stdout).unwrap(),
        serde_json::from_str(&measures).unwrap(),
    )
}

fn mean(measures: &Value, row: &str, measure: &str) -> f64 {
    let rows = measures["rows"].as_array().unwrap();
    let row = rows.iter().find(|r| r["name"] == row).unwrap();
    row["measures"][measure]["mean"].as_f64().unwrap()
}

#[test]
fn a_model_is_measured_and_its_run_file_gives_the_same() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    collection(data.path(), true);
    let model = models::folder("tiny-bert");
    let model = model.to_str().unwrap();
    let (printed, measures) = eval(data.path(), out.path(), &["--model", model]);
    for word in [
        "2 queries",
        "candidates",
        "best reachable",
        "nDCG@10",
        "seconds per query",
        "p =",
    ] {
        assert!(printed.contains(word), "{word}: {printed}");
    }
    // q0: gains 0, 1, 2 against 2, 1; q1: the answer second.
    let log = |x: f64| x.log2();
    let q0 = (1.0 / log(3.0) + 2.0 / log(4.0)) / (2.0 + 1.0 / log(3.0));
    let expected = (q0 + 1.0 / log(3.0)) / 2.0;
    assert!((mean(&measures, "candidates", "nDCG@10") - expected).abs() < 1e-9);
    assert_eq!(mean(&measures, "candidates", "MRR@10"), 0.5);
    assert_eq!(mean(&measures, "best reachable", "nDCG@10"), 1.0);
    let curve = measures["depth_curves"][0]["points"].as_array().unwrap();
    assert_eq!(
        curve[0][1].as_f64().unwrap(),
        mean(&measures, "candidates", "nDCG@10")
    );
    assert_eq!(
        curve.last().unwrap()[1].as_f64().unwrap(),
        mean(&measures, "tiny-bert", "nDCG@10")
    );

    let run_file = out
        .path()
        .join(data.path().file_name().unwrap())
        .join("tiny-bert.trec");
    let again = tempfile::tempdir().unwrap();
    let run_file = run_file.to_str().unwrap();
    let (_, from_file) = eval(data.path(), again.path(), &["--run", run_file]);
    assert_eq!(
        from_file["rows"][1]["measures"], measures["rows"][1]["measures"],
        "a run file says the same as the model that wrote it"
    );
    let compared = ["--model", model, "--compare", run_file, "--queries", "1"];
    let (printed, measures) = eval(data.path(), again.path(), &compared);
    assert!(
        printed.contains("tiny-bert (2) against tiny-bert: nDCG@10 +0.0000, p = 1.0000"),
        "{printed}"
    );
    assert_eq!(measures["queries"], 1);
}

#[test]
fn without_candidates_bm25_finds_them() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    collection(data.path(), false);
    let model = models::folder("tiny-bert");
    let more = ["--model", model.to_str().unwrap(), "--depth", "3"];
    let (printed, measures) = eval(data.path(), out.path(), &more);
    assert!(printed.contains("BM25's"), "{printed}");
    assert!(mean(&measures, "candidates", "nDCG@10") > 0.8);
    let best = mean(&measures, "best reachable", "MRR@10");
    assert_eq!(best, 1.0);
}

#[test]
fn what_is_missing_or_broken_is_named() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_str().unwrap();
    let error = |more: &[&str]| {
        let output = run(&[&["eval", "--data", path], more].concat());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(error(&[]).contains("qrels.tsv"));
    collection(data.path(), true);
    std::fs::write(data.path().join("queries.jsonl"), "{\"_id\": 3}\n").unwrap();
    let message = error(&[]);
    assert!(message.contains("queries.jsonl, line 1"), "{message}");
    collection(data.path(), true);
    let lost = json!({"query_id": "q0", "candidates": [{"doc_id": "lost"}]});
    write_lines(&data.path().join("candidates.jsonl"), &[lost]);
    assert!(error(&[]).contains("\"lost\" is not in corpus.jsonl"));
    for depth in ["0", "18446744073709551615"] {
        let output = run(&["eval", "--data", path, "--depth", depth]);
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("from 1 to 100000"), "{message}");
    }
}

#[test]
fn the_files_are_written_even_if_nobody_reads_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    std::fs::create_dir(&data).unwrap();
    collection(&data, true);
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let output = rerankd()
        .args(["eval", "--model"])
        .arg(models::folder("tiny-bert"))
        .arg("--data")
        .arg(&data)
        .arg("--out")
        .arg(&out)
        .stdout(closed)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{error}");
    assert!(out.join("data/measures.json").is_file());
}
