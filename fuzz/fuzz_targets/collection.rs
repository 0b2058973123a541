//! A file of a judged collection, or a run: the first byte chooses which.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use rerankd::eval::{Collection, Qrels, read_run};
use rerankd_fuzz::{assert_short, checked, choice, scratch, written};

/// The files with what they hold where they are not fuzzed.
const FILES: [(&str, &str); 6] = [
    (
        "queries.jsonl",
        "{\"_id\": \"q1\", \"text\": \"rivers\"}\n{\"_id\": 2, \"text\": \"sea\"}\n",
    ),
    (
        "corpus.jsonl",
        "{\"_id\": \"d1\", \"title\": \"a\", \"text\": \"rivers carve valleys\"}\n{\"_id\": \"d2\", \"text\": \"the sea\"}\n",
    ),
    (
        "qrels.tsv",
        "query-id\tcorpus-id\tscore\nq1\td1\t1\n2\td2\t2\n",
    ),
    (
        "candidates.jsonl",
        "{\"query_id\": \"q1\", \"candidates\": [{\"doc_id\": \"d1\"}, {\"doc_id\": \"d2\"}]}\n",
    ),
    ("run.txt", "q1 Q0 d1 1 0.5 a\n2 Q0 d2 1 0.25 a\n"),
    ("queries.jsonl.gz", ""),
];

fuzz_target!(|input: &[u8]| {
    let Some((place, bytes)) = choice(input, FILES.len()) else {
        return;
    };
    for (i, (name, text)) in FILES.iter().enumerate() {
        let bytes = if i == place { bytes } else { text.as_bytes() };
        if i == place || !bytes.is_empty() {
            let _ = written(name, bytes);
        }
    }
    // Each is looked for with .gz only where it is not there without.
    if FILES[place].0.ends_with(".gz") {
        let _ = fs::remove_file(scratch().join("queries.jsonl"));
    } else {
        let _ = fs::remove_file(scratch().join("queries.jsonl.gz"));
    }
    let run = checked(read_run(&scratch().join("run.txt")));
    let Some(mut collection) = checked(Collection::read(scratch(), Qrels::Default, Some(3))) else {
        return;
    };
    if let Some(run) = run {
        checked(collection.check_run(&scratch().join("run.txt"), &run));
    }
    if checked(collection.find_candidates(None, 10)).is_some() {
        for query in &collection.queries {
            assert_eq!(collection.texts(query).len(), query.candidates.len());
        }
    }
    collection
        .warnings
        .iter()
        .for_each(|warning| assert_short(warning));
});
