//! Relevance judgements (qrels): TREC's `query 0 document relevance`, or BEIR's `query document
//! relevance`, divided by tabs or spaces, with or without a line of names.

use std::path::{Path, PathBuf};

use super::collection::existing;
use super::{EvalError, Judgements, fields};
use crate::data_file::{DataError, lines};

/// Where the judgements are.
#[derive(Debug, Clone, Copy)]
pub enum Qrels<'a> {
    /// Within the collection's folder: `qrels/test.tsv`, else `qrels.tsv`.
    Default,
    /// Within the collection's folder: `qrels/NAME.tsv`.
    Split(&'a str),
    /// In this file.
    File(&'a Path),
}

const ENDINGS: [&str; 5] = [".tsv", ".txt", ".qrels", ".trec", ""];

/// The file of judgements.
pub(super) fn find(folder: &Path, qrels: Qrels<'_>) -> Result<PathBuf, EvalError> {
    let named = |name: &str| {
        let files = ENDINGS.iter().map(|e| folder.join(format!("{name}{e}")));
        files.into_iter().find_map(|file| existing(&file))
    };
    let (found, wanted) = match qrels {
        Qrels::File(file) => return Ok(file.to_owned()),
        Qrels::Default => (
            named("qrels/test").or_else(|| named("qrels")),
            "qrels.tsv or qrels/test.tsv".to_owned(),
        ),
        Qrels::Split(name) => (named(&format!("qrels/{name}")), format!("qrels/{name}.tsv")),
    };
    found.ok_or_else(|| {
        let entries = std::fs::read_dir(folder.join("qrels"))
            .into_iter()
            .flatten();
        let names = entries
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        let others = match &names[..] {
            [] => String::new(),
            names => format!(" (qrels holds {}; --split names one)", names.join(", ")),
        };
        let folder = folder.display();
        EvalError::Collection(format!("{folder}: {wanted} is missing{others}"))
    })
}

/// Reads a file of judgements.
pub(super) fn read(path: &Path) -> Result<Judgements, EvalError> {
    let mut judgements = Judgements::new();
    for (i, line) in lines(path)?.enumerate() {
        let (number, text) = line?;
        let wrong = |reason: String| DataError::line(path, number, reason);
        let fields = fields(&text, &[3, 4]);
        let ([query, document, relevance] | [query, _, document, relevance]) = fields[..] else {
            return Err(wrong(format!(
                "there are {} fields, but judgements have 3 (query, document, relevance) or 4 \
                 (query, 0, document, relevance), divided by tabs or spaces",
                fields.len()
            ))
            .into());
        };
        let number = relevance.parse::<f64>().ok();
        let Some(relevance) = number.filter(|n| n.fract() == 0.0 && n.abs() < 1e9) else {
            // The first line may be the names of the columns.
            if i == 0 && relevance.parse::<f64>().is_err() {
                continue;
            }
            return Err(wrong(format!("relevance \"{relevance}\" is no whole number")).into());
        };
        let judged = judgements.entry(query.to_owned()).or_default();
        let before = judged.insert(document.to_owned(), relevance as i64);
        if before.is_some_and(|before| before != relevance as i64) {
            let reason =
                format!("query \"{query}\", document \"{document}\": judged twice, and not alike");
            return Err(wrong(reason).into());
        }
    }
    Ok(judgements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Judgements, EvalError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn trecs_and_beirs_judgements_are_read() {
        for text in [
            "q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 -1\n",
            "q1\t0\td1\t2\r\nq1\t0\td2\t0\r\nq2\t0\td1\t-1",
            "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n\nq2\td1\t-1\n",
            "query_id iteration doc_id relevance\nq1 Q0 d1 2.0\nq1 Q0 d2 0\nq2   Q0 d1 -1\nq2 Q0 d1 -1",
            "q1 d1 2\nq1 d2 0\nq2 d1 -1\n",
        ] {
            let read = read_text(text).unwrap();
            assert_eq!(read.len(), 2, "{text}");
            assert_eq!(
                (read["q1"]["d1"], read["q1"]["d2"], read["q2"]["d1"]),
                (2, 0, -1)
            );
        }
        let spaces = read_text("a query\ta document\t1\n").unwrap();
        assert_eq!(spaces["a query"]["a document"], 1);
    }

    #[test]
    fn what_is_no_judgement_is_an_error_that_names_the_line() {
        for (text, reason) in [
            ("q1 d1\n", "line 1: there are 2 fields"),
            ("q1 0 d1 1\nq1 0 d2 high\n", "line 2: relevance \"high\""),
            ("q1 d1 1\nq1 d2 0.5\n", "line 2: relevance \"0.5\""),
            ("q1 d1 0.5\n", "line 1"),
            (
                "q1 d1 1\nq1 d1 0\n",
                "line 2: query \"q1\", document \"d1\"",
            ),
        ] {
            let told = read_text(text).unwrap_err().to_string();
            assert!(told.contains(reason), "{told}");
        }
    }
}
