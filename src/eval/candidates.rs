//! Candidates of each query: from a file, or BM25's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use bm25::{EmbedderBuilder, Language, Scorer};
use serde::Deserialize;

use super::collection::{Id, Query, json_lines};
use super::{EvalError, Run, order, read_run};
use crate::data_file::DataError;

#[derive(Debug, Deserialize)]
struct CandidatesLine {
    query_id: Id,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Deserialize)]
struct Candidate {
    doc_id: Id,
    #[serde(alias = "bm25")]
    score: Option<f32>,
}

/// Those in a file: lines of JSON, or else a run in TREC's format.
pub(super) fn given(path: &Path) -> Result<Run, EvalError> {
    let name = path.to_string_lossy().to_lowercase();
    match name.trim_end_matches(".gz").ends_with(".jsonl") {
        true => from_lines(path),
        false => read_run(path),
    }
}

/// Without scores the order of a line counts.
fn from_lines(path: &Path) -> Result<Run, EvalError> {
    let mut run = Run::new();
    json_lines(path, |number, line: CandidatesLine| {
        let wrong = |reason: String| DataError::line(path, number, reason);
        let scores: Vec<f32> = line.candidates.iter().filter_map(|c| c.score).collect();
        let with_scores = !scores.is_empty();
        if with_scores && scores.len() != line.candidates.len() {
            return Err(wrong(
                "some candidates have a score, and some have none".into(),
            ));
        }
        if !scores.iter().all(|score| score.is_finite()) {
            return Err(wrong("a score is too large".into()));
        }
        let mut seen = HashSet::new();
        let mut scored = Vec::with_capacity(line.candidates.len());
        for (i, candidate) in line.candidates.into_iter().enumerate() {
            let id = candidate.doc_id.text();
            if !seen.insert(id.clone()) {
                return Err(wrong(format!("document \"{id}\" is there twice")));
            }
            scored.push((id, candidate.score.unwrap_or(-(i as f32))));
        }
        let query = line.query_id.text();
        match run.insert(query.clone(), scored) {
            Some(_) => Err(wrong(format!("query \"{query}\" is there twice"))),
            None => Ok(()),
        }
    })?;
    Ok(run)
}

/// BM25's (k1 1.2, b 0.75, English stems without stop words).
pub(super) fn search(
    documents: &HashMap<String, String>,
    queries: &[Query],
    depth: usize,
) -> BTreeMap<String, Vec<(String, f32)>> {
    let mut ids: Vec<&String> = documents.keys().collect();
    ids.sort_unstable();
    let texts: Vec<&str> = ids.iter().map(|id| documents[*id].as_str()).collect();
    let embedder = EmbedderBuilder::<u32>::with_fit_to_corpus(Language::English, &texts).build();
    let mut scorer = Scorer::<usize>::new();
    for (i, text) in texts.iter().enumerate() {
        scorer.upsert(&i, embedder.embed(text));
    }
    let found = queries.iter().map(|query| {
        let found = scorer.matches(&embedder.embed(&query.text)).into_iter();
        // Equal scores fall the same way each time only if they are put in order here.
        let mut scored: Vec<_> = found.map(|f| (ids[f.id].clone(), f.score)).collect();
        order(&mut scored);
        scored.truncate(depth);
        (query.id.clone(), scored)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new()
            .suffix(".jsonl")
            .tempfile()
            .unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn lines_with_scores_count_by_score_and_others_by_place() {
        let read = given(
            file(concat!(
                r#"{"query_id": 1, "candidates": [{"doc_id": "a", "score": 1}, {"doc_id": 7, "bm25": 2}]}"#,
                "\n",
                r#"{"query_id": "2", "candidates": [{"doc_id": "a"}, {"doc_id": "b"}]}"#
            ))
            .path(),
        )
        .unwrap();
        assert_eq!(super::super::ranking(&read["1"]), ["7", "a"]);
        assert_eq!(super::super::ranking(&read["2"]), ["a", "b"]);
    }

    #[test]
    fn what_would_count_twice_is_an_error() {
        let a = r#"{"doc_id": "a"}"#;
        for (text, reason) in [
            (
                format!(r#"{{"query_id": "q", "candidates": [{a}, {a}]}}"#),
                "document \"a\" is there twice",
            ),
            (
                "{\"query_id\": \"q\", \"candidates\": []}\n".repeat(2),
                "line 2: query \"q\" is there twice",
            ),
            (
                format!(
                    r#"{{"query_id": "q", "candidates": [{a}, {{"doc_id": "b", "score": 1}}]}}"#
                ),
                "some have none",
            ),
            (
                r#"{"query_id": "q", "candidates": [{"doc_id": "a", "score": 1e99}]}"#.into(),
                "line 1: a score is too large",
            ),
        ] {
            let told = given(file(&text).path()).unwrap_err().to_string();
            assert!(told.contains(reason), "{told}");
        }
    }

    #[test]
    fn equal_scores_fall_as_trec_eval_has_them() {
        let documents = (0..50).map(|i| (format!("d{i:02}"), "the same words".into()));
        let query = Query {
            id: "q".into(),
            text: "words".into(),
            candidates: vec![],
        };
        let found = search(&documents.collect(), &[query], 3);
        let ids: Vec<&str> = found["q"].iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["d49", "d48", "d47"]);
    }
}
