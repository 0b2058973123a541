//! `rerankd eval` on a small judged collection.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::assert_says;
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
pub(crate) fn collection(folder: &Path, with_candidates: bool) {
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
pub(crate) fn eval(data: &Path, out: &Path, more: &[&str]) -> (String, Value) {
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

pub(crate) fn mean(measures: &Value, row: &str, measure: &str) -> f64 {
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
    assert_eq!(measures["rows"][1]["model"]["dtype"], "f32");
    for key in [
        "id",
        "activation",
        "threads",
        "instructions",
        "truncation",
        "max_chunks_per_doc",
    ] {
        assert!(!measures["rows"][1]["model"][key].is_null(), "{key}");
    }
    assert_eq!(measures["rerankd"], env!("CARGO_PKG_VERSION"));
    assert_eq!(measures["collection"]["documents"], 6);
    assert_eq!(measures["collection"]["judgements"], 4);
    assert!(measures["date"].as_str().unwrap().starts_with("20"));
    let per_query = out
        .path()
        .join(data.path().file_name().unwrap())
        .join("per_query.tsv");
    let per_query = std::fs::read_to_string(per_query).unwrap();
    let lines: Vec<Vec<&str>> = per_query.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!(lines[0][..3], ["query", "system", "nDCG@10"]);
    let own = lines.iter().filter(|l| l[1] == "candidates");
    let own: Vec<f64> = own.map(|l| l[2].parse().unwrap()).collect();
    assert_eq!(
        own.iter().sum::<f64>() / 2.0,
        mean(&measures, "candidates", "nDCG@10")
    );
    assert_eq!(lines.len(), 1 + 2 * 3);
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
    let compared = [
        "--model",
        model,
        "--compare",
        run_file,
        "--queries",
        "1",
        "--force",
    ];
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
    assert!(printed.contains("from BM25"), "{printed}");
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
    let message = error(&["--force"]);
    assert!(message.contains("\"lost\""), "{message}");
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

/// Runs `rerankd eval` on the tiny model; gives the exit code, stdout and stderr.
fn attempt(data: &Path, out: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = rerankd()
        .args(["eval", "--model"])
        .arg(models::folder("tiny-bert"))
        .arg("--data")
        .arg(data)
        .arg("--out")
        .arg(out)
        .args(more)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn nothing_is_overwritten_and_nothing_computed_in_vain() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    collection(data.path(), true);
    let written = out.path().join(data.path().file_name().unwrap());
    assert_eq!(attempt(data.path(), out.path(), &[]).0, Some(0));
    let run_file = written.join("tiny-bert.trec");
    let before = std::fs::read_to_string(&run_file).unwrap();
    let (code, _, error) = attempt(data.path(), out.path(), &[]);
    assert_eq!(code, Some(1));
    assert_says(
        &error,
        &["measures.json is there already", "--force", "--out"],
    );
    // What is compared with is never overwritten.
    let compare = ["--force", "--compare", run_file.to_str().unwrap()];
    let (code, _, error) = attempt(data.path(), out.path(), &compare);
    assert_eq!(code, Some(1));
    assert_says(&error, &["tiny-bert.trec is read and would be overwritten"]);
    assert_eq!(std::fs::read_to_string(&run_file).unwrap(), before);
    assert_eq!(attempt(data.path(), out.path(), &["--force"]).0, Some(0));

    // A folder that is a file, and a second model that is none: found before the first is run.
    let file = tempfile::NamedTempFile::new().unwrap();
    let (code, printed, error) = attempt(data.path(), file.path(), &[]);
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert_says(&error, &["can't write into"]);
    let other = tempfile::tempdir().unwrap();
    let (code, _, error) = attempt(data.path(), other.path(), &["--compare", "no-such-model"]);
    assert_eq!(code, Some(1));
    assert_says(&error, &["no-such-model"]);
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn what_does_not_fit_together_is_an_error_or_a_warning() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |name: &str, text: &str| std::fs::write(data.path().join(name), text).unwrap();
    let attempt = |more: &[&str]| attempt(data.path(), out.path(), more);
    let run_file = data.path().join("x.trec");
    let run_file = ["--compare", run_file.to_str().unwrap()];
    let errors: [(&str, &str, &[&str], &[&str]); 6] = [
        (
            "qrels.tsv",
            "Q7 0 d1 1\n",
            &[],
            &["no query of queries.jsonl is judged", "\"Q7\"", "\"q0\""],
        ),
        (
            "qrels.tsv",
            "q0\tD4\t1\n",
            &[],
            &["no document that is judged relevant", "\"D4\"", "\"d0\""],
        ),
        (
            "qrels.tsv",
            "q0\td4\t0\n",
            &[],
            &["no document is judged relevant"],
        ),
        (
            "x.trec",
            "Q7 Q0 d4 1 1 t\n",
            &run_file,
            &["none of the judged queries is there", "\"Q7\""],
        ),
        (
            "x.trec",
            "q0 Q0 D4 1 1 t\n",
            &run_file,
            &["none of its documents is in corpus.jsonl", "\"D4\""],
        ),
        (
            "corpus.jsonl",
            &"{\"_id\": 1, \"text\": \"a\"}\n".repeat(2),
            &[],
            &["line 2: document \"1\" is there twice"],
        ),
    ];
    for (name, text, more, words) in errors {
        collection(data.path(), true);
        write(name, text);
        let (code, printed, error) = attempt(more);
        assert_eq!((code, printed.as_str()), (Some(1), ""), "{name}: {error}");
        assert_says(&error, words);
    }
    collection(data.path(), true);
    write(
        "qrels.tsv",
        "q0 0 d4 2\nq0 0 gone 1\nq1 0 d0 0\nq9 0 d0 1\n",
    );
    write("x.trec", "q0 Q0 d4 1 3 t\nq0 Q0 D5 1 2 t\nq9 Q0 d0 1 1 t\n");
    let (code, _, warnings) = attempt(&run_file);
    assert_eq!(code, Some(0), "{warnings}");
    let words = [
        "1 of the 3 queries judged",
        "\"q9\"",
        "1 of 2 relevant documents are not in corpus.jsonl (such as: \"gone\")",
        "1 of 2 queries have no relevant document (such as: \"q1\")",
        "x.trec: 1 of 2 judged queries are not there (such as: \"q1\"); they count as 0",
        "x.trec: 1 of 2 documents are not in corpus.jsonl (such as: \"D5\")",
    ];
    assert_says(&warnings, &words);
}

#[test]
fn packed_files_splits_and_a_runs_candidates_are_read() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    collection(data.path(), false);
    for name in ["corpus.jsonl", "queries.jsonl"] {
        let path = data.path().join(name);
        let packed = std::fs::File::create(data.path().join(format!("{name}.gz"))).unwrap();
        let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        packed.write_all(&std::fs::read(&path).unwrap()).unwrap();
        packed.finish().unwrap();
        std::fs::remove_file(path).unwrap();
    }
    std::fs::remove_file(data.path().join("qrels.tsv")).unwrap();
    std::fs::create_dir(data.path().join("qrels")).unwrap();
    std::fs::write(data.path().join("qrels/dev.tsv"), "q1 0 d0 1\n").unwrap();
    let (code, _, error) = attempt(data.path(), out.path(), &[]);
    assert_eq!(code, Some(1));
    assert_says(
        &error,
        &[
            "qrels/test.tsv is missing",
            "qrels holds dev.tsv",
            "--split",
        ],
    );

    // In trec_eval's order: d5, d0, d2, d1, the ranks notwithstanding.
    let run = "q1 Q0 d0 1 2 t\nq1\tQ0\td2\t1\t1.5\tt\nq1 Q0 d1 3 1 t\nq1 Q0 d5 4 2.0 t\n";
    let candidates = data.path().join("first.trec");
    std::fs::write(&candidates, run).unwrap();
    let flags = [
        "--split",
        "dev",
        "--depth",
        "3",
        "--candidates",
        candidates.to_str().unwrap(),
    ];
    let (code, printed, error) = attempt(data.path(), out.path(), &flags);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert_says(&printed, &["first.trec", "1 queries of", "qrels/dev.tsv"]);
    let written = out.path().join(data.path().file_name().unwrap());
    let ranked = std::fs::read_to_string(written.join("tiny-bert.trec")).unwrap();
    let mut ids: Vec<&str> = ranked
        .lines()
        .map(|l| l.split(' ').nth(2).unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["d0", "d2", "d5"]);
    let measures = std::fs::read_to_string(written.join("measures.json")).unwrap();
    let measures: Value = serde_json::from_str(&measures).unwrap();
    assert_eq!(mean(&measures, "candidates", "MRR@10"), 0.5);

    let qrels = data.path().join("elsewhere.qrels");
    std::fs::write(&qrels, "q1 0 d5 1\n").unwrap();
    let flags = ["--qrels", qrels.to_str().unwrap(), "--force"];
    let (code, printed, error) = attempt(data.path(), out.path(), &flags);
    assert_eq!(code, Some(0), "{error}");
    assert_says(&printed, &["elsewhere.qrels", "from BM25"]);
}

#[test]
fn rankings_are_joined_with_the_candidates_scores() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    collection(data.path(), true);
    let run_file = data.path().join("mine.trec");
    // Each query's first two places are the other way round than the candidates have them.
    let run_lines = "q0 Q0 d1 1 4 t\nq0 Q0 d3 2 3 t\nq0 Q0 d4 3 1 t\nq0 Q0 d2 4 0 t\n\
                     q1 Q0 d0 1 4 t\nq1 Q0 d5 2 3 t\nq1 Q0 d2 3 1 t\nq1 Q0 d3 4 0 t\n";
    std::fs::write(&run_file, run_lines).unwrap();
    let run_file = ["--run", run_file.to_str().unwrap()];
    let (printed, measures) = eval(
        data.path(),
        out.path(),
        &[&run_file[..], &["--fusion"]].concat(),
    );
    let rows = measures["rows"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    let expected = [
        "candidates",
        "mine",
        "mine + weighted:0.1",
        "mine + weighted:0.2",
        "mine + weighted:0.3",
        "mine + weighted:0.5",
        "mine + rrf:60:0.5",
        "best reachable",
    ];
    assert_eq!(names, expected);
    assert_eq!(rows[1]["fusion"], Value::Null);
    assert_eq!(
        rows[6]["fusion"],
        json!({"of": "mine", "how": "rrf:60:0.5"})
    );
    let compared = measures["comparisons"].as_array().unwrap();
    let compared: Vec<(&Value, &Value)> = compared.iter().map(|c| (&c["a"], &c["b"])).collect();
    assert_eq!(compared.len(), 6);
    for (name, (a, b)) in expected[2..7].iter().zip(&compared[1..]) {
        assert_eq!((*a, *b), (&json!(name), &json!("mine")));
        assert_says(&printed, &[&format!("{name} against mine: nDCG@10")]);
    }
    // The run's first place leads by a quarter of its range, the candidates' by a third of theirs.
    let first_is_right =
        |share: &str| mean(&measures, &format!("mine + weighted:{share}"), "MRR@10");
    assert_eq!(mean(&measures, "mine", "MRR@10"), 1.0);
    assert_eq!(
        [0.1, 0.2, 0.3].map(|share: f32| first_is_right(&share.to_string())),
        [1.0; 3]
    );
    assert_eq!(first_is_right("0.5"), 0.5);
    let name = data.path().file_name().unwrap();
    let per_query = std::fs::read_to_string(out.path().join(name).join("per_query.tsv")).unwrap();
    assert_eq!(per_query.lines().count(), 1 + 2 * expected.len());

    // Candidates without scores: their order counts.
    let ids = |ids: [&str; 4]| ids.map(|id| json!({"doc_id": id}));
    let lines = [
        json!({"query_id": "q0", "candidates": ids(["d3", "d1", "d4", "d2"])}),
        json!({"query_id": "q1", "candidates": ids(["d5", "d0", "d2", "d3"])}),
    ];
    write_lines(&data.path().join("candidates.jsonl"), &lines);
    for (share, expected) in [("0.4", 1.0), ("0.45", 0.5)] {
        let how = format!("weighted:{share}");
        let flags = [&run_file[..], &["--force", "--fusion", &how]].concat();
        let (_, measures) = eval(data.path(), out.path(), &flags);
        assert_eq!(measures["rows"].as_array().unwrap().len(), 4);
        assert_eq!(
            mean(&measures, &format!("mine + {how}"), "MRR@10"),
            expected
        );
    }
    for (how, words) in [
        ("mean", "rrf:20:0.4"),
        ("weighted:2", "must be from 0 to 1, but is 2"),
        ("rrf:0", "k must be more than 0"),
    ] {
        let (code, _, error) = attempt(data.path(), out.path(), &["--fusion", how]);
        assert_eq!(code, Some(2), "{error}");
        assert_says(&error, &[words, "--fusion"]);
    }
}
