//! Judged collections in BEIR's format: corpus.jsonl, queries.jsonl, judgements, and candidates.jsonl,
//! without which BM25 finds the candidates. Each file may be gzip, with .gz after its name.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::judgements::{self, Qrels};
use super::{EvalError, Judgements, Run, candidates, order};
use crate::data_file::{DataError, lines};
use crate::lenient::from_json;

/// A judged query and its candidates.
#[derive(Debug)]
pub struct Query {
    /// Its id.
    pub id: String,
    /// Its text.
    pub text: String,
    /// Ids and scores of the candidates, best first.
    pub candidates: Vec<(String, f32)>,
}

/// A judged collection.
#[derive(Debug)]
pub struct Collection {
    /// The folder's name.
    pub name: String,
    /// The judged queries, in the order of queries.jsonl.
    pub queries: Vec<Query>,
    /// Title and text of the documents; after [`Self::find_candidates`] of those that are candidates.
    pub documents: HashMap<String, String>,
    /// What is relevant.
    pub judgements: Judgements,
    /// The file of the judgements.
    pub qrels: PathBuf,
    /// Documents in corpus.jsonl.
    pub corpus_size: usize,
    /// Where the candidates come from: a file, or BM25.
    pub candidates_from: String,
    /// What in the files seems wrong, in sentences.
    pub warnings: Vec<String>,
    folder: PathBuf,
    query_ids: HashSet<String>,
}

/// An id. Some write numbers.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "an id must be a string or a number")]
pub(super) enum Id {
    Text(String),
    Number(serde_json::Number),
}

impl Id {
    pub(super) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "_id")]
    id: Id,
    #[serde(default)]
    title: Option<String>,
    text: String,
}

impl Collection {
    /// Reads a collection without its candidates, and checks that its parts fit together: at most
    /// `limit` queries.
    ///
    /// # Errors
    /// If a file is missing or broken, or nothing is judged.
    pub fn read(folder: &Path, qrels: Qrels<'_>, limit: Option<usize>) -> Result<Self, EvalError> {
        let qrels = judgements::find(folder, qrels)?;
        let judgements = judgements::read(&qrels)?;
        let path = required(folder, "queries.jsonl")?;
        let (mut queries, mut query_ids) = (Vec::new(), HashSet::new());
        json_lines(&path, |number, line: Line| {
            let id = line.id.text();
            if !query_ids.insert(id.clone()) {
                let reason = format!("query \"{id}\" is there twice");
                return Err(DataError::line(&path, number, reason));
            }
            if judgements.contains_key(&id) && line.text.is_empty() {
                let reason = format!("query \"{id}\" has no text");
                return Err(DataError::line(&path, number, reason));
            }
            if judgements.contains_key(&id) && queries.len() < limit.unwrap_or(usize::MAX) {
                queries.push(Query {
                    id,
                    text: line.text,
                    candidates: Vec::new(),
                });
            }
            Ok(())
        })?;
        let path = required(folder, "corpus.jsonl")?;
        let mut documents = HashMap::new();
        json_lines(&path, |number, line: Line| {
            let text = match line.title.filter(|t| !t.is_empty()) {
                Some(title) => format!("{title} {}", line.text),
                None => line.text,
            };
            let id = line.id.text();
            match documents.insert(id.clone(), text) {
                Some(_) => {
                    let reason = format!("document \"{id}\" is there twice");
                    Err(DataError::line(&path, number, reason))
                }
                None => Ok(()),
            }
        })?;
        let name = folder.canonicalize().ok();
        let name = name.as_deref().and_then(Path::file_name);
        let mut collection = Self {
            name: name.map_or_else(|| "collection".into(), |n| n.to_string_lossy().into_owned()),
            queries,
            corpus_size: documents.len(),
            documents,
            judgements,
            qrels,
            candidates_from: String::new(),
            warnings: Vec::new(),
            folder: folder.to_owned(),
            query_ids,
        };
        collection.check()?;
        Ok(collection)
    }

    /// Whether judgements, queries and documents belong together.
    fn check(&mut self) -> Result<(), EvalError> {
        let qrels = self.qrels.display().to_string();
        let judged = self.judgements.keys();
        let unknown = judged.filter(|id| !self.query_ids.contains(*id));
        let unknown: Vec<&String> = unknown.collect();
        if self.queries.is_empty() {
            let known = self.query_ids.iter().min();
            return Err(EvalError::Collection(format!(
                "{}: no query of queries.jsonl is judged in {qrels} ({}; {})",
                self.folder.display(),
                example("judged", &unknown),
                example("queries.jsonl", &known.into_iter().collect::<Vec<_>>()),
            )));
        }
        let mut warnings = Vec::new();
        if !unknown.is_empty() {
            warnings.push(format!(
                "{} of the {} queries judged in {qrels} are not in queries.jsonl ({}); they are left out",
                unknown.len(),
                self.judgements.len(),
                example("such as", &unknown),
            ));
        }
        let (mut relevant, mut lost, mut hopeless) = (0, Vec::new(), Vec::new());
        for query in &self.queries {
            let judged = self.judgements[&query.id].iter().filter(|&(_, &r)| r > 0);
            let before = relevant;
            for (id, _) in judged {
                relevant += 1;
                if !self.documents.contains_key(id) {
                    lost.push(id);
                }
            }
            if relevant == before {
                hopeless.push(&query.id);
            }
        }
        if lost.len() == relevant {
            let known = self.documents.keys().min();
            let reason = match relevant {
                0 => "no document is judged relevant".to_owned(),
                _ => format!(
                    "no document that is judged relevant is in corpus.jsonl ({}; {})",
                    example("judged", &lost),
                    example("corpus.jsonl", &known.into_iter().collect::<Vec<_>>()),
                ),
            };
            return Err(EvalError::Collection(format!("{qrels}: {reason}")));
        }
        if !lost.is_empty() {
            warnings.push(format!(
                "{} of {relevant} relevant documents are not in corpus.jsonl ({}); no ranking can hold them",
                lost.len(),
                example("such as", &lost),
            ));
        }
        if !hopeless.is_empty() {
            warnings.push(format!(
                "{} of {} queries have no relevant document ({}); they count as 0",
                hopeless.len(),
                self.queries.len(),
                example("such as", &hopeless),
            ));
        }
        self.warnings = warnings;
        Ok(())
    }

    /// Whether a run belongs to this collection; call it before [`Self::find_candidates`].
    ///
    /// # Errors
    /// If it knows none of the queries or none of the documents.
    pub fn check_run(&mut self, path: &Path, run: &Run) -> Result<(), EvalError> {
        let name = path.display();
        let missing = self.queries.iter().filter(|q| !run.contains_key(&q.id));
        let missing: Vec<&String> = missing.map(|q| &q.id).collect();
        let strange = run.keys().filter(|id| !self.query_ids.contains(*id));
        let strange: Vec<&String> = strange.collect();
        if missing.len() == self.queries.len() {
            return Err(EvalError::Collection(format!(
                "{name}: none of the judged queries is there ({}; {})",
                example("judged", &missing),
                example("there", &run.keys().collect::<Vec<_>>()),
            )));
        }
        let ranked = self.queries.iter().filter_map(|q| run.get(&q.id)).flatten();
        let (mut count, mut unknown) = (0, Vec::new());
        for (id, _) in ranked {
            count += 1;
            if !self.documents.contains_key(id) {
                unknown.push(id);
            }
        }
        if unknown.len() == count {
            return Err(EvalError::Collection(format!(
                "{name}: none of its documents is in corpus.jsonl ({}; {})",
                example("such as", &unknown),
                example(
                    "corpus.jsonl",
                    &self.documents.keys().min().into_iter().collect::<Vec<_>>()
                ),
            )));
        }
        let mut warn = |ids: &[&String], of: usize, what: &str, so: &str| {
            if !ids.is_empty() {
                let (n, such) = (ids.len(), example("such as", ids));
                self.warnings
                    .push(format!("{name}: {n} of {of} {what} ({such}); {so}"));
            }
        };
        warn(
            &missing,
            self.queries.len(),
            "judged queries are not there",
            "they count as 0",
        );
        warn(
            &strange,
            run.len(),
            "queries are not in queries.jsonl",
            "they are left out",
        );
        warn(
            &unknown,
            count,
            "documents are not in corpus.jsonl",
            "they count as not relevant",
        );
        Ok(())
    }

    /// Finds the candidates: in a file (a run in TREC's format, or lines of JSON), else in
    /// candidates.jsonl, else with BM25; the best `depth` of each query.
    ///
    /// # Errors
    /// If the file is broken, or names documents that are not there.
    pub fn find_candidates(&mut self, file: Option<&Path>, depth: usize) -> Result<(), EvalError> {
        let own = existing(&self.folder.join("candidates.jsonl"));
        let mut found = match file.or(own.as_deref()) {
            Some(path) => {
                let run = candidates::given(path)?;
                self.check_run(path, &run)?;
                self.candidates_from = path.display().to_string();
                run
            }
            None => {
                self.candidates_from = "BM25".into();
                candidates::search(&self.documents, &self.queries, depth)
            }
        };
        let (mut wanted, mut any_relevant) = (HashSet::new(), false);
        for query in &mut self.queries {
            let mut scored = found.remove(&query.id).unwrap_or_default();
            order(&mut scored);
            scored.truncate(depth);
            for (id, _) in &scored {
                if !self.documents.contains_key(id) {
                    return Err(EvalError::Collection(format!(
                        "{}: candidate \"{id}\" of query \"{}\" is not in corpus.jsonl",
                        self.candidates_from, query.id
                    )));
                }
                let judged = self.judgements[&query.id].get(id);
                any_relevant |= judged.is_some_and(|&r| r > 0);
                wanted.insert(id.clone());
            }
            query.candidates = scored;
        }
        if !any_relevant {
            let warning = "no candidate of any query is judged relevant: all measures are 0";
            self.warnings.push(warning.into());
        }
        self.documents.retain(|id, _| wanted.contains(id));
        Ok(())
    }

    /// A query's candidates' texts, in their order.
    #[must_use]
    pub fn texts(&self, query: &Query) -> Vec<String> {
        let texts = query.candidates.iter();
        let texts = texts.map(|(id, _)| self.documents.get(id).cloned().unwrap_or_default());
        texts.collect()
    }
}

/// The first of some ids, in words.
fn example(what: &str, ids: &[&String]) -> String {
    match ids.first() {
        Some(id) => format!("{what}: \"{id}\""),
        None => format!("{what}: none"),
    }
}

/// A file, or the same with .gz after its name.
pub(super) fn existing(path: &Path) -> Option<PathBuf> {
    let mut packed = path.as_os_str().to_owned();
    packed.push(".gz");
    [path.to_owned(), packed.into()]
        .into_iter()
        .find(|path| path.is_file())
}

fn required(folder: &Path, name: &str) -> Result<PathBuf, EvalError> {
    let missing = || EvalError::Collection(format!("{}: {name} is missing", folder.display()));
    existing(&folder.join(name)).ok_or_else(missing)
}

/// Hands on each line of JSON with its number.
pub(super) fn json_lines<T: DeserializeOwned>(
    path: &Path,
    mut take: impl FnMut(usize, T) -> Result<(), DataError>,
) -> Result<(), EvalError> {
    for line in lines(path)? {
        let (number, text) = line?;
        let value = from_json(text.as_bytes()).map_err(|error| {
            let told = error.to_string().replace(" at line 1 column ", ", column ");
            DataError::line(path, number, told)
        })?;
        take(number, value)?;
    }
    Ok(())
}
