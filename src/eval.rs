//! Evaluation on judged collections: reading them, measures, statistics, run files, plots. Pure but
//! for files; knows no model. `cli::eval` puts it together with a reranker.

mod collection;
mod measures;
mod plot;
mod run_file;
mod statistics;

use std::collections::BTreeMap;

pub use collection::{Collection, Query};
pub use measures::{MEASURES, Measures, best_reachable, measure, ndcg};
pub use plot::{Curve, depth_plot};
pub use run_file::{read_run, write_run};
pub use statistics::{interval, randomisation_test};

/// Relevance of the judged documents of each query; what is not in it is not relevant.
pub type Judgements = BTreeMap<String, BTreeMap<String, i64>>;

/// Scored documents of each query, in no particular order.
pub type Run = BTreeMap<String, Vec<(String, f32)>>;

/// Why an evaluation can't be done.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file can't be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// A line of a file is wrong.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The collection's parts don't fit together.
    #[error("{0}")]
    Collection(String),
    /// The plot can't be drawn.
    #[error("the plot can't be drawn: {0}")]
    Plot(String),
}

/// A query's documents in trec_eval's order: by score (f32, as there), descending; equal scores by id,
/// descending.
#[must_use]
pub fn ranking(scored: &[(String, f32)]) -> Vec<&str> {
    ordered(scored).map(|(id, _)| id.as_str()).collect()
}

fn ordered(scored: &[(String, f32)]) -> impl Iterator<Item = &(String, f32)> {
    let mut order: Vec<&(String, f32)> = scored.iter().collect();
    // + 0.0, so that -0 and 0 are equal.
    order.sort_by(|a, b| (b.1 + 0.0).total_cmp(&(a.1 + 0.0)).then_with(|| b.0.cmp(&a.0)));
    order.into_iter()
}
