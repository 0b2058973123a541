//! Logits in, ranked documents out. Pure; called by `rerank`.

use crate::types::{Activation, Logit, Ranked, Score};

/// Ranks documents by score, descending; equal scores keep the documents' order.
///
/// `top_n` keeps only the best. Returns `Err` with the index of a document whose score is not finite.
pub fn rank(
    logits: &[Logit],
    activation: Activation,
    top_n: Option<usize>,
) -> Result<Vec<Ranked>, usize> {
    let mut ranked = logits
        .iter()
        .enumerate()
        .map(|(index, &logit)| {
            let score = Score::new(activation.apply(logit)).ok_or(index)?;
            Ok(Ranked { index, score })
        })
        .collect::<Result<Vec<_>, usize>>()?;
    // A stable sort is what keeps equal scores in document order.
    ranked.sort_by_key(|r| std::cmp::Reverse(r.score));
    if let Some(n) = top_n {
        ranked.truncate(n);
    }
    Ok(ranked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logits(values: &[f32]) -> Vec<Logit> {
        values.iter().copied().map(Logit).collect()
    }

    #[test]
    fn equal_scores_keep_document_order() {
        let ranked = rank(&logits(&[0.0, 1.0, -0.0, 1.0]), Activation::Identity, None);
        let order: Vec<usize> = ranked.unwrap().iter().map(|r| r.index).collect();
        assert_eq!(order, [1, 3, 0, 2]);
    }

    #[test]
    fn a_score_that_is_not_finite_names_its_document() {
        assert_eq!(
            rank(&logits(&[0.0, f32::NAN]), Activation::Sigmoid, None),
            Err(1)
        );
        assert_eq!(
            rank(&logits(&[f32::INFINITY]), Activation::Identity, None),
            Err(0)
        );
    }

    proptest! {
        #[test]
        fn ranking_is_a_sorted_permutation_cut_to_top_n(
            values in prop::collection::vec(-8.0f32..8.0, 0..200),
            top_n in prop::option::of(0usize..250),
        ) {
            let ranked = rank(&logits(&values), Activation::Sigmoid, top_n).unwrap();
            prop_assert_eq!(ranked.len(), values.len().min(top_n.unwrap_or(usize::MAX)));
            for pair in ranked.windows(2) {
                prop_assert!(pair[0].score > pair[1].score
                    || (pair[0].score == pair[1].score && pair[0].index < pair[1].index));
            }
            let mut seen: Vec<usize> = ranked.iter().map(|r| r.index).collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), ranked.len());
            // Nothing that was cut off beats what was kept.
            if let Some(last) = ranked.last() {
                let kept: std::collections::HashSet<usize> = ranked.iter().map(|r| r.index).collect();
                for (i, v) in values.iter().enumerate() {
                    if !kept.contains(&i) {
                        prop_assert!(Activation::Sigmoid.apply(Logit(*v)) <= last.score.get());
                    }
                }
            }
        }

        #[test]
        fn sigmoid_keeps_the_order_of_logits(a in -50.0f32..50.0, b in -50.0f32..50.0) {
            let (lo, hi) = if a <= b { (a, b) } else { (b, a) };
            prop_assert!(Activation::Sigmoid.apply(Logit(lo)) <= Activation::Sigmoid.apply(Logit(hi)));
        }
    }
}
