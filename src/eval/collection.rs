//! Judged collections in BEIR's format: corpus.jsonl, queries.jsonl, qrels.tsv (or qrels/test.tsv),
//! and candidates.jsonl, without which BM25 finds the candidates.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use bm25::{Language, SearchEngineBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{EvalError, Judgements};

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
    /// Title and text of the documents that are candidates.
    pub documents: HashMap<String, String>,
    /// What is relevant.
    pub judgements: Judgements,
    /// Whether the candidates are this program's own BM25's.
    pub own_candidates: bool,
}

#[derive(Debug, Deserialize)]
struct DocumentLine {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    title: Option<String>,
    text: String,
}

#[derive(Debug, Deserialize)]
struct QueryLine {
    #[serde(rename = "_id")]
    id: String,
    text: String,
}

#[derive(Debug, Deserialize)]
struct CandidatesLine {
    query_id: String,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Deserialize)]
struct Candidate {
    doc_id: String,
    #[serde(alias = "bm25")]
    score: Option<f32>,
}

impl Collection {
    /// Reads a collection: at most `depth` candidates a query, at most `limit` queries.
    ///
    /// # Errors
    /// If a file is missing or broken, or nothing is judged.
    pub fn read(folder: &Path, depth: usize, limit: Option<usize>) -> Result<Self, EvalError> {
        let judgements = read_judgements(folder)?;
        let lines: Vec<QueryLine> = read_lines(&folder.join("queries.jsonl"))?;
        let judged = lines.into_iter().filter(|q| judgements.contains_key(&q.id));
        let judged: Vec<QueryLine> = judged.take(limit.unwrap_or(usize::MAX)).collect();
        let nothing = || EvalError::Collection(format!("{}: no query is judged", folder.display()));
        judged.first().ok_or_else(nothing)?;

        let corpus: Vec<DocumentLine> = read_lines(&folder.join("corpus.jsonl"))?;
        let mut documents: HashMap<String, String> = HashMap::with_capacity(corpus.len());
        for line in corpus {
            let text = match line.title.filter(|t| !t.is_empty()) {
                Some(title) => format!("{title} {}", line.text),
                None => line.text,
            };
            documents.insert(line.id, text);
        }
        let path = folder.join("candidates.jsonl");
        let own_candidates = !path.exists();
        let mut candidates = if own_candidates {
            search(&documents, &judged, depth)
        } else {
            given(&path, depth)?
        };
        let queries: Vec<Query> = judged
            .into_iter()
            .map(|q| Query {
                candidates: candidates.remove(&q.id).unwrap_or_default(),
                id: q.id,
                text: q.text,
            })
            .collect();
        let wanted = queries.iter().flat_map(|q| &q.candidates);
        let wanted: HashSet<&str> = wanted.map(|(id, _)| id.as_str()).collect();
        if let Some(missing) = wanted.iter().find(|id| !documents.contains_key(**id)) {
            return Err(EvalError::Collection(format!(
                "candidate \"{missing}\" is not in corpus.jsonl"
            )));
        }
        documents.retain(|id, _| wanted.contains(id.as_str()));
        let name = folder.canonicalize().ok();
        let name = name.as_deref().and_then(Path::file_name);
        Ok(Self {
            name: name.map_or_else(|| "collection".into(), |n| n.to_string_lossy().into_owned()),
            queries,
            documents,
            judgements,
            own_candidates,
        })
    }

    /// A query's candidates' texts, in their order.
    #[must_use]
    pub fn texts(&self, query: &Query) -> Vec<String> {
        let texts = query.candidates.iter();
        let texts = texts.map(|(id, _)| self.documents.get(id).cloned().unwrap_or_default());
        texts.collect()
    }
}

/// Candidates as they stand in a file; without scores their order counts.
fn given(path: &Path, depth: usize) -> Result<BTreeMap<String, Vec<(String, f32)>>, EvalError> {
    let lines: Vec<CandidatesLine> = read_lines(path)?;
    let lines = lines.into_iter().map(|line| {
        let candidates = line.candidates.into_iter().take(depth).enumerate();
        let scored = candidates.map(|(i, c)| (c.doc_id, c.score.unwrap_or(-(i as f32))));
        (line.query_id, scored.collect())
    });
    Ok(lines.collect())
}

/// BM25's candidates (k1 1.2, b 0.75, English stems without stop words).
fn search(
    documents: &HashMap<String, String>,
    queries: &[QueryLine],
    depth: usize,
) -> BTreeMap<String, Vec<(String, f32)>> {
    // In a fixed order, so that equal scores fall the same way each time.
    let mut ids: Vec<&String> = documents.keys().collect();
    ids.sort_unstable();
    let texts: Vec<&str> = ids.iter().map(|id| documents[*id].as_str()).collect();
    let engine = SearchEngineBuilder::<u32>::with_corpus(Language::English, texts).build();
    let found = queries.iter().map(|query| {
        let results = engine.search(&query.text, depth).into_iter();
        let scored = results.filter_map(|r| {
            let id = ids.get(r.document.id as usize)?;
            Some(((*id).clone(), r.score))
        });
        (query.id.clone(), scored.collect())
    });
    found.collect()
}

fn read_judgements(folder: &Path) -> Result<Judgements, EvalError> {
    let beir = folder.join("qrels").join("test.tsv");
    let path = if beir.exists() {
        beir
    } else {
        folder.join("qrels.tsv")
    };
    let mut judgements = Judgements::new();
    for (line, text) in lines(&path)?.enumerate() {
        let text = text.map_err(|error| file_error(&path, error))?;
        let mut fields = text.split('\t');
        let (query, document, relevance) = (fields.next(), fields.next(), fields.next());
        let relevance = relevance.and_then(|r| r.trim().parse::<i64>().ok());
        let (Some(query), Some(document)) = (query, document) else {
            continue;
        };
        match relevance {
            Some(relevance) => {
                let judged = judgements.entry(query.to_owned()).or_default();
                judged.insert(document.to_owned(), relevance);
            }
            // The first line is the names of the columns.
            None if line == 0 => {}
            None => {
                return Err(EvalError::Line {
                    path: path.display().to_string(),
                    line: line + 1,
                    reason: "expected query, document and relevance, divided by tabs".into(),
                });
            }
        }
    }
    Ok(judgements)
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, EvalError> {
    let lines = lines(path)?.enumerate().map(|(line, text)| {
        let text = text.map_err(|error| file_error(path, error))?;
        serde_json::from_str(&text).map_err(|error| EvalError::Line {
            path: path.display().to_string(),
            line: line + 1,
            reason: error.to_string(),
        })
    });
    lines.collect()
}

pub(super) fn lines(path: &Path) -> Result<std::io::Lines<BufReader<File>>, EvalError> {
    let file = File::open(path).map_err(|error| file_error(path, error))?;
    Ok(BufReader::new(file).lines())
}

pub(super) fn file_error(path: &Path, error: std::io::Error) -> EvalError {
    EvalError::File {
        path: path.display().to_string(),
        error,
    }
}
