//! Run files in TREC's format: `query Q0 document rank score tag`.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use super::{EvalError, Run, fields, order};
use crate::data_file::{DataError, lines};

/// Reads a run file.
///
/// # Errors
/// If it can't be read or is empty, if a line has not six fields with a number as the fifth, or if a
/// document is there twice for a query.
pub fn read_run(path: &Path) -> Result<Run, EvalError> {
    let mut run = Run::new();
    let mut seen = HashSet::new();
    for line in lines(path)? {
        let (number, text) = line?;
        let wrong = |reason: String| DataError::line(path, number, reason);
        let fields = fields(&text, &[6]);
        let [query, _, document, _, score, _] = fields[..] else {
            return Err(wrong(format!(
                "there are {} fields, but a run has 6: query Q0 document rank score tag",
                fields.len()
            ))
            .into());
        };
        let parsed = score.parse::<f64>().ok().map(|score| score as f32);
        let Some(parsed) = parsed.filter(|score| score.is_finite()) else {
            return Err(wrong(format!("score \"{score}\" is no number")).into());
        };
        if !seen.insert((query.to_owned(), document.to_owned())) {
            let reason = format!("query \"{query}\": document \"{document}\" is there twice");
            return Err(wrong(reason).into());
        }
        let scored = run.entry(query.to_owned()).or_default();
        scored.push((document.to_owned(), parsed));
    }
    if run.is_empty() {
        let reason = format!("{}: the run is empty", path.display());
        return Err(EvalError::Collection(reason));
    }
    Ok(run)
}

/// Writes a run file. Whatever reads it, and however it breaks ties, sees this order: each score is
/// less than the one before it, if only by the least step where the model gave the same.
///
/// # Errors
/// If it can't be written.
pub fn write_run(path: &Path, run: &Run, tag: &str) -> Result<(), EvalError> {
    // Fields are divided by spaces, so the tag may hold none.
    let tag = tag.replace(char::is_whitespace, "_");
    let has_space = |id: &String| id.contains(char::is_whitespace);
    let ids = run.values().flatten().map(|(id, _)| id);
    // trec_eval can't read such ids, but what divides at tabs can.
    let space = match run.keys().chain(ids).any(has_space) {
        true => '\t',
        false => ' ',
    };
    let mut text = String::new();
    for (query, scored) in run {
        let mut scored = scored.clone();
        order(&mut scored);
        let mut above = f32::INFINITY;
        for (place, (document, score)) in scored.into_iter().enumerate() {
            let score = score.min(above.next_down());
            above = score;
            let fields = [
                query,
                "Q0",
                &document,
                &(place + 1).to_string(),
                &score.to_string(),
                &tag,
            ];
            // Writing to a string can't fail.
            let _ = writeln!(text, "{}", fields.join(&space.to_string()));
        }
    }
    std::fs::write(path, text).map_err(|error| DataError::file(path, error).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reads_back_as_it_was_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let scored = vec![("d2".to_owned(), -1.5), ("d1".to_owned(), 0.1)];
        let run = Run::from([("q1".to_owned(), scored)]);
        write_run(file.path(), &run, "my model").unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "q1 Q0 d1 1 0.1 my_model\nq1 Q0 d2 2 -1.5 my_model\n");
        let read = read_run(file.path()).unwrap();
        assert_eq!(
            read["q1"],
            [("d1".to_owned(), 0.1), ("d2".to_owned(), -1.5)]
        );
        let spaces = Run::from([("a query".to_owned(), vec![("a document".to_owned(), 1.0)])]);
        write_run(file.path(), &spaces, "t").unwrap();
        assert_eq!(read_run(file.path()).unwrap(), spaces);
    }

    #[test]
    fn equal_scores_are_written_apart_in_trec_evals_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let scores = [
            ("a", 2.0),
            ("b", 2.0),
            ("c", -0.0),
            ("d", 0.0),
            ("e", 2.0f32.next_down()),
        ];
        let scored = scores.map(|(id, score)| (id.to_owned(), score)).to_vec();
        let run = Run::from([("q".to_owned(), scored)]);
        write_run(file.path(), &run, "t").unwrap();
        let read = read_run(file.path()).unwrap();
        let written: Vec<&str> = read["q"].iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(written, ["b", "a", "e", "d", "c"]);
        assert!(
            read["q"].windows(2).all(|pair| pair[0].1 > pair[1].1),
            "{read:?}"
        );
        assert_eq!(super::super::ranking(&run["q"]), written);
    }

    #[test]
    fn what_is_no_run_is_an_error_that_names_the_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, reason) in [
            (
                "q1 Q0 d1 1 high tag\n",
                "line 1: score \"high\" is no number",
            ),
            ("q1 Q0 d1 1 nan tag\n", "line 1: score"),
            ("q1 Q0 d1 1 1e99 tag\n", "line 1: score"),
            (
                "q1 Q0 d1 1 2 t\n\nq1 Q0 d1 2 1 t\n",
                "line 3: query \"q1\": document \"d1\" is there twice",
            ),
            ("q1\td1\t1\n", "line 1: there are 3 fields"),
            ("", "the run is empty"),
        ] {
            std::fs::write(file.path(), text).unwrap();
            let error = read_run(file.path()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
