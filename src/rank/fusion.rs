//! Fusion of the reranker's scores with those of the stage before it. Pure.
//!
//! Sources: Cormack, Clarke and Büttcher, 2009 (reciprocal rank fusion, RRF); Bruch, Gai and Ingber, 2023
//! (a weighted sum of min-max normalised scores).

use std::cmp::Reverse;
use std::num::NonZeroUsize;

use serde::Deserialize;

use crate::types::RawScore;

/// RRF's default constant, as in the paper.
const RRF_K: f32 = 60.0;
/// Maximum of the constant. Above it, neighbouring ranks would contribute the same in 32 bits.
const MAX_RRF_K: f32 = 1_000_000.0;

/// The fusion method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FusionMethod {
    /// Reciprocal rank fusion: the sum over both stages of `share / (k + rank)`.
    Rrf,
    /// Weighted sum of both stages' scores, min-max normalised over the request's documents.
    Weighted,
}

/// Why a fusion is invalid.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum FusionError {
    /// The first stage's share is not from 0 to 1.
    #[error("weight, the first stage's share, must be from 0 to 1, but is {0}")]
    Weight(f32),
    /// RRF's constant is out of range.
    #[error("k must be more than 0 and at most {MAX_RRF_K}, but is {0}")]
    K(f32),
}

/// RRF's constant, in its valid range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RrfK(f32);

impl RrfK {
    /// Checks the constant.
    ///
    /// # Errors
    /// If it is not more than 0 and at most 1,000,000.
    pub fn new(k: f32) -> Result<Self, FusionError> {
        match k > 0.0 && k <= MAX_RRF_K {
            true => Ok(Self(k)),
            false => Err(FusionError::K(k)),
        }
    }

    /// The value.
    #[must_use]
    pub fn get(self) -> f32 {
        self.0
    }

    /// The contribution of a rank to the score.
    fn share(self, rank: usize) -> f64 {
        1.0 / (f64::from(self.0) + rank as f64)
    }
}

impl Default for RrfK {
    /// 60, as in the paper.
    fn default() -> Self {
        Self(RRF_K)
    }
}

/// How the reranker's scores and the first stage's are combined.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Fusion {
    method: FusionMethod,
    weight: f32,
    k: RrfK,
}

/// A fusion as JSON and TOML write it; null is the same as absent.
#[derive(Debug, Deserialize)]
struct Fields {
    method: FusionMethod,
    weight: Option<f32>,
    k: Option<f32>,
}

impl TryFrom<Fields> for Fusion {
    type Error = FusionError;

    fn try_from(fields: Fields) -> Result<Self, FusionError> {
        Self::new(fields.method, fields.weight, fields.k)
    }
}

impl Fusion {
    /// A fusion in which the first stage's share is `weight` and the reranker's is the rest. The default of
    /// `weight` is 0.2, with RRF 0.5 (equal shares). `k` is RRF's constant, by default 60.
    ///
    /// # Errors
    /// If `weight` is not from 0 to 1, or `k` not more than 0 and at most 1,000,000.
    pub fn new(
        method: FusionMethod,
        weight: Option<f32>,
        k: Option<f32>,
    ) -> Result<Self, FusionError> {
        let weight = weight.unwrap_or(match method {
            FusionMethod::Rrf => 0.5,
            FusionMethod::Weighted => 0.2,
        });
        if !(0.0..=1.0).contains(&weight) {
            return Err(FusionError::Weight(weight));
        }
        let k = k.map_or(Ok(RrfK::default()), RrfK::new)?;
        Ok(Self { method, weight, k })
    }

    /// The method.
    #[must_use]
    pub fn method(self) -> FusionMethod {
        self.method
    }

    /// The first stage's share, from 0 to 1.
    #[must_use]
    pub fn weight(self) -> f32 {
        self.weight
    }

    /// RRF's constant.
    #[must_use]
    pub fn k(self) -> RrfK {
        self.k
    }
}

/// The first stage's result for each document; `None` for a document that it did not return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstStage {
    /// Scores; higher is better.
    Scores(Vec<Option<RawScore>>),
    /// Ranks from 1, the best. They may be ranks within a larger list.
    Ranks(Vec<Option<NonZeroUsize>>),
}

impl FirstStage {
    /// The results for some of the documents, in this order.
    #[must_use]
    pub fn of(&self, documents: &[usize]) -> Self {
        fn select<T: Copy>(all: &[Option<T>], documents: &[usize]) -> Vec<Option<T>> {
            let select = |&i: &usize| all.get(i).copied().flatten();
            documents.iter().map(select).collect()
        }
        match self {
            Self::Scores(scores) => Self::Scores(select(scores, documents)),
            Self::Ranks(ranks) => Self::Ranks(select(ranks, documents)),
        }
    }

    /// Normalised scores, from 0 to 1. Ranks become evenly spaced scores. The alternative, 1/rank, gives no
    /// better rankings at the default share and worse ones at higher shares, since it puts nearly all weight
    /// on the first few documents.
    fn normalised(&self) -> Vec<Option<f64>> {
        let values: Vec<Option<f64>> = match self {
            Self::Scores(scores) => scores.iter().map(|score| score.map(value)).collect(),
            Self::Ranks(ranks) => {
                let ranks = ranks.iter();
                ranks
                    .map(|rank| rank.map(|rank| -(rank.get() as f64)))
                    .collect()
            }
        };
        min_max(&values)
    }

    fn ranks(&self) -> Vec<Option<usize>> {
        match self {
            Self::Scores(scores) => {
                // None sorts last, so the given documents are ranked among themselves.
                let ranks = ranks(scores).into_iter().zip(scores);
                ranks.map(|(rank, score)| score.map(|_| rank)).collect()
            }
            Self::Ranks(ranks) => ranks
                .iter()
                .map(|rank| rank.map(NonZeroUsize::get))
                .collect(),
        }
    }
}

/// The documents' fused scores; higher is better. A document that `first_stage` lacks gets a contribution
/// of 0 from it.
///
/// The reranker's raw scores are normalised, not the activated ones: a sigmoid maps all good documents close
/// to 1, and the first stage would then decide among them. docs/fusion.md has the measurements.
#[must_use]
pub fn fuse(model: &[RawScore], first_stage: &FirstStage, fusion: Fusion) -> Vec<RawScore> {
    let (own, first): (Vec<Option<f64>>, Vec<Option<f64>>) = match fusion.method {
        FusionMethod::Weighted => {
            let own: Vec<Option<f64>> = model.iter().map(|&raw| Some(value(raw))).collect();
            (min_max(&own), first_stage.normalised())
        }
        FusionMethod::Rrf => {
            let share = |rank: usize| fusion.k.share(rank);
            let own = ranks(model).into_iter().map(|rank| Some(share(rank)));
            let first = first_stage.ranks().into_iter().map(|rank| rank.map(share));
            (own.collect(), first.collect())
        }
    };
    let weight = f64::from(fusion.weight);
    let first = first.into_iter().chain(std::iter::repeat(None));
    let both = model.iter().zip(own.into_iter().zip(first));
    let fused = both.map(|(&raw, (own, first))| {
        let sum = (1.0 - weight) * own.unwrap_or(0.0) + weight * first.unwrap_or(0.0);
        finite(sum, raw)
    });
    fused.collect()
}

/// Reciprocal rank fusion, with equal weights, of several lists of scores for the same documents in the same
/// order; higher is better. The first list determines the number of documents.
#[must_use]
pub fn combine_ranks(lists: &[Vec<RawScore>], k: RrfK) -> Vec<RawScore> {
    let Some(first) = lists.first() else {
        return Vec::new();
    };
    let mut sums = vec![0.0; first.len()];
    for list in lists {
        for (sum, rank) in sums.iter_mut().zip(ranks(list)) {
            *sum += k.share(rank);
        }
    }
    let sums = sums.into_iter().zip(first);
    sums.map(|(sum, &raw)| finite(sum, raw)).collect()
}

fn value(raw: RawScore) -> f64 {
    f64::from(raw.get())
}

/// A sum as a raw score. Shares and normalised scores are finite, so the sum is too; `otherwise` only
/// avoids a panic.
fn finite(sum: f64, otherwise: RawScore) -> RawScore {
    RawScore::new(sum as f32).unwrap_or(otherwise)
}

/// Min-max normalisation: 0 for the minimum, 1 for the maximum. Equal values all become 0.5, so that the
/// other stage decides the order and missing documents, which count as 0, stay below them.
fn min_max(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let given = values.iter().flatten();
    let (low, high) = given.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| {
        (v.min(low), v.max(high))
    });
    let normalised = |value: f64| match high > low {
        true => (value - low) / (high - low),
        false => 0.5,
    };
    values.iter().map(|value| value.map(normalised)).collect()
}

/// Each value's rank, from 1. Equal values share the best of their ranks, so that the documents' order makes
/// no difference.
fn ranks<T: Ord>(values: &[T]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by_key(|&i| Reverse(&values[i]));
    let mut ranks = vec![1; values.len()];
    for (above, pair) in order.windows(2).enumerate() {
        ranks[pair[1]] = match values[pair[0]] == values[pair[1]] {
            true => ranks[pair[0]],
            false => above + 2,
        };
    }
    ranks
}

#[cfg(test)]
mod tests;
