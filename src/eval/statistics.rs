//! How sure a mean is, and whether two differ. Seeded: the same values give the same answer.

use fastrand::Rng;

const SEED: u64 = 7;
const RESAMPLES: usize = 2000;
const SIGN_FLIPS: usize = 10_000;

/// The 95 % interval of the mean by the percentile bootstrap (Efron, 1979) over queries.
#[must_use]
pub fn interval(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mut rng = Rng::with_seed(SEED);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 = (0..values.len())
                .map(|_| values[rng.usize(..values.len())])
                .sum();
            sum / values.len() as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| means[((RESAMPLES - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

/// The two-sided p-value of the mean of paired differences, by Fisher's randomisation test: how
/// often randomly flipped signs give a mean as far from zero (Smucker, Allan and Carterette, 2007).
#[must_use]
pub fn randomisation_test(differences: &[f64]) -> f64 {
    // Equal pairs are equal whichever the sign.
    let differences: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let observed = differences.iter().sum::<f64>().abs();
    let mut rng = Rng::with_seed(SEED);
    let as_far = (0..SIGN_FLIPS)
        .filter(|_| {
            let flipped = differences.iter().map(|d| if rng.bool() { *d } else { -d });
            flipped.sum::<f64>().abs() >= observed - 1e-12
        })
        .count();
    // The observed signs are one of the possible ones.
    (as_far + 1) as f64 / (SIGN_FLIPS + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_mean_and_narrows_with_more_values() {
        let values = |n: usize| -> Vec<f64> { (0..n).map(|i| (i % 10) as f64 / 9.0).collect() };
        let (few, many) = (interval(&values(20)), interval(&values(2000)));
        for (low, high) in [few, many] {
            assert!(low < 0.5 && 0.5 < high);
        }
        // The standard error of 2000 values with a standard deviation of 0.32 is 0.0071.
        assert!(
            (many.1 - many.0 - 2.0 * 1.96 * 0.0071).abs() < 0.003,
            "{many:?}"
        );
        assert!(few.1 - few.0 > 5.0 * (many.1 - many.0));
        assert_eq!(interval(&[]), (0.0, 0.0));
    }

    #[test]
    fn a_difference_in_one_direction_is_significant_and_none_is_not() {
        assert_eq!(randomisation_test(&[0.0; 40]), 1.0);
        let noise: Vec<f64> = (0..40)
            .map(|i| if i % 2 == 0 { 0.1 } else { -0.1 })
            .collect();
        assert!(randomisation_test(&noise) > 0.9);
        assert!(randomisation_test(&[0.1; 40]) < 0.001);
        // Of 2^3 signs two give a sum as great: p = 1/4.
        assert!((randomisation_test(&[0.1, 0.2, 0.3]) - 0.25).abs() < 0.02);
    }
}
