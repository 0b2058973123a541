//! Evaluation on judged collections: reading them, measures, statistics, run files, plots. Pure but
//! for files; knows no model. `cli::eval` puts it together with a reranker.

mod agreement;
mod candidates;
mod collection;
mod judgements;
mod measures;
mod plot;
mod run_file;
mod statistics;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::data_file::DataError;

pub use agreement::{Agreement, agreement};
pub use collection::{Collection, Query};
pub use judgements::Qrels;
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
    /// A file can't be read or written, or a line of it is wrong.
    #[error(transparent)]
    File(#[from] DataError),
    /// The collection's parts don't fit together.
    #[error("{0}")]
    Collection(String),
    /// The plot can't be drawn.
    #[error("the plot can't be drawn: {0}")]
    Plot(String),
}

/// Puts scored documents in trec_eval's order: by score, descending; equal scores by id, descending.
///
/// trec_eval keeps scores in 32 bits, so what differs only beyond them is equal.
pub fn order(scored: &mut [(String, f32)]) {
    scored.sort_by(compare);
}

fn compare(a: &(String, f32), b: &(String, f32)) -> Ordering {
    // -0.0 is equal to 0.0.
    let by_score = (b.1 + 0.0).total_cmp(&(a.1 + 0.0));
    by_score.then_with(|| b.0.cmp(&a.0))
}

/// A query's documents in the order of [`order`].
#[must_use]
pub fn ranking(scored: &[(String, f32)]) -> Vec<&str> {
    let mut order: Vec<&(String, f32)> = scored.iter().collect();
    order.sort_by(|a, b| compare(a, b));
    order.into_iter().map(|(id, _)| id.as_str()).collect()
}

/// A line's fields: divided by tabs if that gives one of these numbers of them, else by any space.
fn fields<'a>(line: &'a str, counts: &[usize]) -> Vec<&'a str> {
    let by_tabs: Vec<&str> = line.split('\t').map(str::trim).collect();
    match counts.contains(&by_tabs.len()) {
        true => by_tabs,
        false => line.split_whitespace().collect(),
    }
}
