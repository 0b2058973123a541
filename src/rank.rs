//! Raw scores in, ranked documents out. Pure; called by `rerank`.

pub mod fusion;

use crate::types::{Activation, Ranked, RawScore};

/// Ranks documents by raw score, descending; equal ones keep the documents' order.
///
/// `top_n` limits how many are returned. The activation changes only the scores that are shown, not the
/// order.
#[must_use]
pub fn rank(scores: &[RawScore], activation: Activation, top_n: Option<usize>) -> Vec<Ranked> {
    let ranked = scores.iter().enumerate();
    let mut ranked: Vec<Ranked> = ranked
        .map(|(index, &raw)| Ranked {
            index,
            raw,
            score: activation.apply(raw),
            stage: 0,
        })
        .collect();
    // The sort is stable, so equal scores stay in document order.
    ranked.sort_by_key(|r| std::cmp::Reverse(r.raw));
    if let Some(n) = top_n {
        ranked.truncate(n);
    }
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(values: &[f32]) -> Vec<RawScore> {
        let raw = values.iter().map(|&v| RawScore::new(v).unwrap());
        raw.collect()
    }

    fn order(values: &[f32], activation: Activation, top_n: Option<usize>) -> Vec<usize> {
        let ranked = rank(&raw(values), activation, top_n);
        ranked.iter().map(|r| r.index).collect()
    }

    #[test]
    fn equal_scores_keep_document_order() {
        let values = [0.0, 1.0, -0.0, 1.0];
        assert_eq!(order(&values, Activation::Identity, None), [1, 3, 0, 2]);
    }

    #[test]
    fn scores_that_round_to_the_same_keep_the_order_of_what_they_come_from() {
        let values = [39.6, 46.6, 51.4, 50.6, -120.0, -110.0];
        let ranked = rank(&raw(&values), Activation::Sigmoid, None);
        assert!(ranked[..4].iter().all(|r| r.score.get() == 1.0));
        let expected = [2, 3, 1, 0, 5, 4];
        assert_eq!(order(&values, Activation::Sigmoid, None), expected);
        assert_eq!(order(&values, Activation::Sigmoid, Some(2)), expected[..2]);
    }

    proptest! {
        #[test]
        fn ranking_is_a_sorted_permutation_cut_to_top_n(
            values in prop::collection::vec(-60.0f32..60.0, 0..200),
            top_n in prop::option::of(0usize..250),
        ) {
            let ranked = rank(&raw(&values), Activation::Sigmoid, top_n);
            prop_assert_eq!(ranked.len(), values.len().min(top_n.unwrap_or(usize::MAX)));
            for pair in ranked.windows(2) {
                prop_assert!(pair[0].raw > pair[1].raw
                    || (pair[0].raw == pair[1].raw && pair[0].index < pair[1].index));
                prop_assert!(pair[0].score.get() >= pair[1].score.get());
            }
            let mut seen: Vec<usize> = ranked.iter().map(|r| r.index).collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), ranked.len());
            // Nothing that was cut off beats what was kept.
            if let Some(last) = ranked.last() {
                for (i, &value) in values.iter().enumerate() {
                    prop_assert!(seen.contains(&i) || value <= last.raw.get());
                }
            }
        }
    }
}
