//! Logits in, ranked documents out. Pure; called by `rerank`.

use crate::types::{Activation, Logit, Ranked, Score, WindowScore};

/// Each document's logit, from those of its windows.
///
/// `windows` holds how many of `logits`, from the first on, are each document's.
#[must_use]
pub fn join_windows(logits: &[Logit], windows: &[usize], score: WindowScore) -> Vec<Logit> {
    let mut rest = logits;
    let mut joined = Vec::with_capacity(windows.len());
    for &n in windows {
        let (own, others) = rest.split_at(n.min(rest.len()));
        rest = others;
        let mut own: Vec<f32> = own.iter().map(|logit| logit.0).collect();
        own.sort_unstable_by(|a, b| b.total_cmp(a));
        own.truncate(match score {
            WindowScore::Best => 1,
            WindowScore::MeanTop3 => 3,
        });
        joined.push(Logit(own.iter().sum::<f32>() / own.len() as f32));
    }
    joined
}

/// Logits to scores. Returns `Err` with the index of a document whose score is not finite.
pub fn scores(logits: &[Logit], activation: Activation) -> Result<Vec<Score>, usize> {
    let scores = logits.iter().enumerate();
    let scores = scores.map(|(index, &logit)| Score::new(activation.apply(logit)).ok_or(index));
    scores.collect()
}

/// Ranks documents by score, descending; equal scores keep the documents' order.
///
/// `top_n` keeps only the best.
#[must_use]
pub fn rank(scores: &[Score], top_n: Option<usize>) -> Vec<Ranked> {
    let ranked = scores.iter().enumerate();
    let mut ranked: Vec<Ranked> = ranked
        .map(|(index, &score)| Ranked { index, score })
        .collect();
    // A stable sort is what keeps equal scores in document order.
    ranked.sort_by_key(|r| std::cmp::Reverse(r.score));
    if let Some(n) = top_n {
        ranked.truncate(n);
    }
    ranked
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
        let scores = scores(&logits(&[0.0, 1.0, -0.0, 1.0]), Activation::Identity).unwrap();
        let order: Vec<usize> = rank(&scores, None).iter().map(|r| r.index).collect();
        assert_eq!(order, [1, 3, 0, 2]);
    }

    #[test]
    fn a_score_that_is_not_finite_names_its_document() {
        assert_eq!(
            scores(&logits(&[0.0, f32::NAN]), Activation::Sigmoid),
            Err(1)
        );
        assert_eq!(
            scores(&logits(&[f32::INFINITY]), Activation::Identity),
            Err(0)
        );
    }

    #[test]
    fn a_document_is_as_good_as_its_best_windows() {
        let all = logits(&[0.0, 3.0, 1.0, -4.0, -2.0, -1.0]);
        let best = join_windows(&all, &[4, 1, 1], WindowScore::Best);
        assert_eq!(best, logits(&[3.0, -2.0, -1.0]));
        let mean = join_windows(&all, &[4, 2], WindowScore::MeanTop3);
        assert_eq!(mean, logits(&[4.0 / 3.0, -1.5]));
    }

    proptest! {
        #[test]
        fn ranking_is_a_sorted_permutation_cut_to_top_n(
            values in prop::collection::vec(-8.0f32..8.0, 0..200),
            top_n in prop::option::of(0usize..250),
        ) {
            let ranked = rank(&scores(&logits(&values), Activation::Sigmoid).unwrap(), top_n);
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
