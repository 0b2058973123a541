//! How alike two scorings of the same documents are, above all in the order that they make.

use std::cmp::Ordering;

/// How scores of one query's documents agree with exact ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Kendall's tau-b of the two orders: 1 if they are the same, -1 if one is the other backwards (Kendall, 1945).
    pub tau: f64,
    /// Mean difference of a score, without its sign.
    pub mean_difference: f64,
    /// The greatest one.
    pub greatest_difference: f64,
    /// Whether the first document is the same.
    pub same_first: bool,
    /// The share of the exact scores' first ten that are among the first ten.
    pub first_ten: f64,
}

/// Compares scores of some documents with exact ones, document by document. Takes time in the square of their number.
///
/// # Panics
/// If there are not as many of both, or none.
#[must_use]
pub fn agreement(exact: &[f32], scores: &[f32]) -> Agreement {
    assert!(
        exact.len() == scores.len() && !exact.is_empty(),
        "{} scores of {} documents",
        scores.len(),
        exact.len()
    );
    let differences = exact.iter().zip(scores);
    let differences = differences.map(|(e, s)| (f64::from(*e) - f64::from(*s)).abs());
    let (first, best) = (order(exact), order(scores));
    let ten = exact.len().min(10);
    let kept = first[..ten].iter().filter(|i| best[..ten].contains(i));
    Agreement {
        tau: tau(exact, scores),
        mean_difference: differences.clone().sum::<f64>() / exact.len() as f64,
        greatest_difference: differences.fold(0.0, f64::max),
        same_first: first[0] == best[0],
        first_ten: kept.count() as f64 / ten as f64,
    }
}

/// The documents, best first; of equal ones the earlier.
fn order(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

fn tau(exact: &[f32], scores: &[f32]) -> f64 {
    let (mut sum, mut ordered, mut also_ordered) = (0.0, 0.0, 0.0);
    let sign = |a: f32, b: f32| match (a + 0.0).total_cmp(&(b + 0.0)) {
        Ordering::Less => -1.0,
        Ordering::Equal => 0.0,
        Ordering::Greater => 1.0,
    };
    for i in 0..exact.len() {
        for j in 0..i {
            let (a, b): (f64, f64) = (sign(exact[i], exact[j]), sign(scores[i], scores[j]));
            sum += a * b;
            ordered += a.abs();
            also_ordered += b.abs();
        }
    }
    match (ordered, also_ordered) {
        // Neither says which is better.
        (0.0, 0.0) => 1.0,
        (0.0, _) | (_, 0.0) => 0.0,
        _ => sum / f64::sqrt(ordered * also_ordered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tau_counts_the_pairs_in_another_order() {
        let exact = [4.0, 3.0, 2.0, 1.0];
        assert_eq!(agreement(&exact, &exact).tau, 1.0);
        assert_eq!(agreement(&exact, &[1.0, 2.0, 3.0, 4.0]).tau, -1.0);
        // One of six.
        let swapped = agreement(&exact, &[4.0, 2.0, 3.0, 1.0]);
        assert!((swapped.tau - 4.0 / 6.0).abs() < 1e-12);
        // scipy.stats.kendalltau([4, 3, 2, 1], [4, 3, 3, 1])
        let tied = agreement(&exact, &[4.0, 3.0, 3.0, 1.0]);
        assert!((tied.tau - 0.912_870_929_175_276_8).abs() < 1e-12);
        assert_eq!(agreement(&[1.0, 1.0], &[2.0, 2.0]).tau, 1.0);
        assert_eq!(agreement(&[1.0, 1.0], &[2.0, 3.0]).tau, 0.0);
        assert_eq!(agreement(&[0.0, -0.0], &[-0.0, 0.0]).tau, 1.0);
    }

    #[test]
    fn the_first_documents_and_the_differences_are_compared() {
        let exact: Vec<f32> = (0..20u8).map(|i| 20.0 - f32::from(i)).collect();
        let mut scores = exact.clone();
        scores[0] = 18.5;
        scores[19] = 30.0;
        let found = agreement(&exact, &scores);
        assert!(!found.same_first);
        assert_eq!(found.first_ten, 0.9);
        assert_eq!(found.greatest_difference, 29.0);
        assert!((found.mean_difference - (1.5 + 29.0) / 20.0).abs() < 1e-9);
        let few = agreement(&[1.0, 2.0], &[1.5, 2.0]);
        assert!(few.same_first && few.first_ten == 1.0);
    }
}
