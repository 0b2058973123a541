//! What was found of each type: the table, and the choice.

use serde_json::{Value, json};

use crate::eval::Agreement;
use crate::types::Dtype;

/// What the choice asks of the order, in the mean over queries,
const LEAST_TAU: f64 = 0.985;
/// and of nDCG@10, in difference to f32's.
const NDCG_WITHIN: f64 = 0.002;
/// Speeds within this share of each other count as equal.
const AS_FAST: f64 = 0.05;

/// Words of the choice's rule; the help has them too.
pub(in crate::cli::bench) const RULE: &str = "the fastest whose tau is at least 0.985 in the mean over queries and whose nDCG@10, if \
    measured, is within 0.002 of f32's; of those within 5 % of its speed, the smallest";

/// What was found of one type.
pub(super) struct Row {
    pub(super) dtype: Dtype,
    pub(super) pairs_per_second: f64,
    /// Against f32's.
    pub(super) speed: f64,
    pub(super) weight_bytes: usize,
    pub(super) ready_seconds: f64,
    /// Of each query, with f32's scores.
    pub(super) agreements: Vec<Agreement>,
    pub(super) ndcg: Option<f64>,
}

/// See [`RULE`]; f32 is the first row and always keeps it.
pub(super) fn choose(rows: &[Row]) -> Dtype {
    let kept = rows.iter().filter(|row| row.keeps_the_order(&rows[0]));
    let fastest = kept.clone().map(|row| row.speed).fold(0.0, f64::max);
    let as_fast = kept.filter(|row| row.speed >= fastest * (1.0 - AS_FAST));
    let smallest = as_fast.min_by_key(|row| row.weight_bytes);
    smallest.map_or(Dtype::F32, |row| row.dtype)
}

impl Row {
    fn mean(&self, of: impl Fn(&Agreement) -> f64) -> f64 {
        self.agreements.iter().map(of).sum::<f64>() / self.agreements.len() as f64
    }

    fn greatest(&self, of: impl Fn(&Agreement) -> f64) -> f64 {
        self.agreements.iter().map(of).fold(f64::MIN, f64::max)
    }

    fn tau(&self) -> [f64; 2] {
        [self.mean(|a| a.tau), -self.greatest(|a| -a.tau)]
    }

    fn ndcg_difference(&self, exact: &Self) -> Option<f64> {
        Some(self.ndcg? - exact.ndcg?)
    }

    fn keeps_the_order(&self, exact: &Self) -> bool {
        let difference = self.ndcg_difference(exact).unwrap_or(0.0);
        self.tau()[0] >= LEAST_TAU && difference.abs() <= NDCG_WITHIN
    }

    pub(super) fn json(&self, exact: &Self) -> Value {
        let [mean, least] = self.tau();
        json!({
            "dtype": self.dtype.name(),
            "pairs_per_second": self.pairs_per_second,
            "speed": self.speed,
            "weight_bytes": self.weight_bytes,
            "ready_seconds": self.ready_seconds,
            "tau": {"mean": mean, "least": least},
            "raw_score_difference": {
                "mean": self.mean(|a| a.mean_difference),
                "greatest": self.greatest(|a| a.greatest_difference),
            },
            "same_first": self.mean(|a| f64::from(u8::from(a.same_first))),
            "first_ten": self.mean(|a| a.first_ten),
            "ndcg_10": self.ndcg,
            "ndcg_10_difference": self.ndcg_difference(exact),
        })
    }

    fn cells(&self, exact: &Self) -> Vec<String> {
        let [mean, least] = self.tau();
        let mut cells = vec![
            self.dtype.name().to_owned(),
            format!("{:.1}", self.pairs_per_second),
            format!("{:.2}", self.speed),
            format!("{:.1} MB", self.weight_bytes as f64 / 1e6),
            format!("{:.2} s", self.ready_seconds),
            format!("{mean:.4}"),
            format!("{least:.3}"),
            format!("{:.1e}", self.mean(|a| a.mean_difference)),
            format!("{:.1e}", self.greatest(|a| a.greatest_difference)),
            format!("{:.2}", self.mean(|a| f64::from(u8::from(a.same_first)))),
            format!("{:.3}", self.mean(|a| a.first_ten)),
        ];
        if let (Some(ndcg), Some(difference)) = (self.ndcg, self.ndcg_difference(exact)) {
            cells.push(format!("{ndcg:.4}"));
            cells.push(format!("{difference:+.4}"));
        }
        cells
    }
}

const COLUMNS: [&str; 13] = [
    "dtype",
    "pairs/s",
    "x f32",
    "weights",
    "ready",
    "tau",
    "least",
    "scores off",
    "most",
    "first",
    "ten",
    "nDCG@10",
    "moves",
];

pub(super) fn table(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.cells(&rows[0])).collect();
    let mut text = String::new();
    let width = |column: usize| {
        let cells = cells.iter().map(|cells| cells[column].len());
        cells.fold(COLUMNS[column].len(), usize::max)
    };
    let columns = cells.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut line = |cells: &[&str]| {
        let cells = cells.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:>width$}"))
            .collect();
        text += &format!("{}\n", cells.join("  "));
    };
    line(&COLUMNS[..columns]);
    for cells in &cells {
        line(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::agreement;

    fn row(dtype: Dtype, speed: f64, weight_bytes: usize, tau: f64, ndcg: Option<f64>) -> Row {
        let agreement = Agreement {
            tau,
            ..agreement(&[1.0], &[1.0])
        };
        Row {
            dtype,
            pairs_per_second: speed,
            speed,
            weight_bytes,
            ready_seconds: 0.0,
            agreements: vec![agreement],
            ndcg,
        }
    }

    #[test]
    fn the_fastest_that_keeps_the_order_is_chosen() {
        let chosen = |int8_tau, int8_ndcg| {
            choose(&[
                row(Dtype::F32, 1.0, 40, 1.0, Some(0.5)),
                row(Dtype::Bf16, 0.97, 20, 0.99, Some(0.501)),
                row(Dtype::F16, 0.8, 20, 1.0, Some(0.5)),
                row(Dtype::Int8, 2.0, 10, int8_tau, Some(int8_ndcg)),
            ])
        };
        assert_eq!(chosen(0.99, 0.499), Dtype::Int8);
        assert_eq!(
            chosen(0.98, 0.5),
            Dtype::Bf16,
            "as fast as f32, and smaller"
        );
        assert_eq!(chosen(0.99, 0.497), Dtype::Bf16);
        assert_eq!(chosen(0.99, 0.503), Dtype::Bf16);
        let without = [
            row(Dtype::F32, 1.0, 40, 1.0, None),
            row(Dtype::Bf16, 0.9, 20, 1.0, None),
            row(Dtype::Int8, 2.0, 10, 0.9, None),
        ];
        assert_eq!(choose(&without), Dtype::F32);
    }

    #[test]
    fn the_rule_says_what_is_asked() {
        for number in [LEAST_TAU, NDCG_WITHIN] {
            assert!(RULE.contains(&number.to_string()), "{number}");
        }
        assert!(RULE.contains(&format!("{} %", AS_FAST * 100.0)));
    }
}
