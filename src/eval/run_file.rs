//! Run files in TREC's format: `query Q0 document rank score tag`.

use std::fmt::Write as _;
use std::path::Path;

use super::collection::{file_error, lines};
use super::{EvalError, Run, ordered};

/// Reads a run file.
///
/// # Errors
/// If it can't be read or a line has not six fields with a number as the fifth.
pub fn read_run(path: &Path) -> Result<Run, EvalError> {
    let mut run = Run::new();
    for (line, text) in lines(path)?.enumerate() {
        let text = text.map_err(|error| file_error(path, error))?;
        let fields: Vec<&str> = text.split_whitespace().collect();
        let score = fields.get(4).and_then(|s| s.parse::<f32>().ok());
        match (&fields[..], score.filter(|s| s.is_finite())) {
            ([], _) => {}
            ([query, _, document, _, _, _], Some(score)) => {
                let scored = run.entry((*query).to_owned()).or_default();
                scored.push(((*document).to_owned(), score));
            }
            _ => {
                return Err(EvalError::Line {
                    path: path.display().to_string(),
                    line: line + 1,
                    reason: "expected \"query Q0 document rank score tag\"".into(),
                });
            }
        }
    }
    Ok(run)
}

/// Writes a run file.
///
/// # Errors
/// If it can't be written.
pub fn write_run(path: &Path, run: &Run, tag: &str) -> Result<(), EvalError> {
    // Fields are divided by spaces, so the tag may hold none.
    let tag = tag.replace(char::is_whitespace, "_");
    let mut text = String::new();
    for (query, scored) in run {
        for (place, (document, score)) in ordered(scored).enumerate() {
            // The shortest digits that read back as the same number: no two scores become equal.
            // Writing to a string can't fail.
            let _ = writeln!(text, "{query} Q0 {document} {} {score} {tag}", place + 1);
        }
    }
    std::fs::write(path, text).map_err(|error| file_error(path, error))
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
        std::fs::write(file.path(), "q1 Q0 d1 1 high tag\n").unwrap();
        let error = read_run(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
