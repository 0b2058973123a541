//! Measures of a ranking, as trec_eval computes them.
//!
//! Sources: Järvelin and Kekäläinen, 2002 (nDCG, with the gain itself, not 2^gain, as trec_eval has
//! it); trec_eval 9's recip_rank, map and recall. MRR@10 counts only the first ten.

use std::collections::BTreeMap;

/// The measures' names, in the order of [`Measures`].
pub const MEASURES: [&str; 5] = ["nDCG@10", "MRR@10", "MAP", "Recall@10", "Recall@50"];

/// One query's measures, or their means: see [`MEASURES`].
pub type Measures = [f64; MEASURES.len()];

const CUT: usize = 10;

/// The measures of a ranking of documents.
#[must_use]
pub fn measure(ranking: &[&str], judged: &BTreeMap<String, i64>) -> Measures {
    let relevant = judged.values().filter(|&&r| r > 0).count();
    let hit = |id: &&str| judged.get(*id).is_some_and(|&r| r > 0);
    let mut found = 0;
    let (mut precisions, mut first) = (0.0, None);
    for (place, id) in ranking.iter().enumerate() {
        if hit(id) {
            found += 1;
            precisions += f64::from(found) / (place + 1) as f64;
            first = first.or(Some(place));
        }
    }
    let first = first.filter(|&place| place < CUT);
    let reciprocal = first.map_or(0.0, |place| 1.0 / (place + 1) as f64);
    let share = |part: f64| {
        if relevant == 0 {
            0.0
        } else {
            part / relevant as f64
        }
    };
    let recall = |n: usize| share(ranking.iter().take(n).filter(|id| hit(id)).count() as f64);
    [
        ndcg(ranking, judged),
        reciprocal,
        share(precisions),
        recall(10),
        recall(50),
    ]
}

/// nDCG of the first ten.
#[must_use]
pub fn ndcg(ranking: &[&str], judged: &BTreeMap<String, i64>) -> f64 {
    let gains = ranking
        .iter()
        .map(|id| judged.get(*id).copied().unwrap_or(0));
    let mut ideal: Vec<i64> = judged.values().copied().collect();
    ideal.sort_unstable_by(|a, b| b.cmp(a));
    let best = discounted(ideal.into_iter());
    if best > 0.0 {
        discounted(gains) / best
    } else {
        0.0
    }
}

fn discounted(gains: impl Iterator<Item = i64>) -> f64 {
    let gains = gains.take(CUT).enumerate();
    let gains = gains.map(|(place, gain)| gain.max(0) as f64 / ((place + 2) as f64).log2());
    gains.sum()
}

/// The measures of the best order of these candidates: what no reranking can exceed.
#[must_use]
pub fn best_reachable(candidates: &[&str], judged: &BTreeMap<String, i64>) -> Measures {
    let mut best = candidates.to_vec();
    best.sort_by_key(|id| std::cmp::Reverse(judged.get(*id).copied().unwrap_or(0)));
    measure(&best, judged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Judgements, Run, ranking};

    #[derive(serde::Deserialize)]
    struct Golden {
        qrels: Judgements,
        run: Run,
        measures: BTreeMap<String, BTreeMap<String, f64>>,
    }

    #[test]
    fn measures_are_pytrec_evals() {
        let golden = include_str!("../../tests/golden/eval.json");
        let golden: Golden = serde_json::from_str(golden).unwrap();
        assert!(golden.run.len() >= 30);
        for (query, scored) in &golden.run {
            let expected = &golden.measures[query];
            let expected = ["ndcg_cut_10", "mrr_10", "map", "recall_10", "recall_50"]
                .map(|name| expected[name]);
            let measures = measure(&ranking(scored), &golden.qrels[query]);
            for (i, (ours, theirs)) in measures.iter().zip(expected).enumerate() {
                assert!(
                    (ours - theirs).abs() < 1e-6,
                    "{query} {}: {ours} {theirs}",
                    MEASURES[i]
                );
            }
        }
    }

    #[test]
    fn no_order_is_better_than_the_best_reachable() {
        let judged = BTreeMap::from([("a".into(), 2), ("b".into(), 1), ("elsewhere".into(), 3)]);
        let best = best_reachable(&["x", "b", "y", "a"], &judged);
        assert_eq!(best, measure(&["a", "b", "x", "y"], &judged));
        assert!(best[0] < 1.0, "a relevant document is no candidate");
    }
}
