//! What scores depend on beside queries and keys: where the two stand.

use std::ops::Range;

use super::positions::Disentangled;
use crate::Rows;

/// How scores depend on where query and key stand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places<'a> {
    /// Where in the sequence the first of the queries stands; queries are consecutive tokens.
    pub first: usize,
    /// Queries see only keys at most this far away; `None` sees all.
    pub reach: Option<usize>,
    /// Queries see no key that stands after them.
    pub causal: bool,
    /// What is added to scores.
    pub bias: Bias<'a>,
    /// Products, with what is added, are limited to ± this, smoothly: `cap tanh(x / cap)`.
    pub cap: Option<f32>,
}

/// Keys and values of some tokens, both `[tokens, head size]`.
#[derive(Debug, Clone, Copy)]
pub struct KeyValues<'a> {
    /// What queries are multiplied with.
    pub keys: Rows<'a>,
    /// What the outputs are means of.
    pub values: Rows<'a>,
}

impl KeyValues<'_> {
    /// Those of some of the tokens.
    ///
    /// # Panics
    /// If they are not among these.
    #[must_use]
    pub fn rows(self, range: Range<usize>) -> Self {
        Self {
            keys: self.keys.rows(range.clone()),
            values: self.values.rows(range),
        }
    }
}

/// What is added to the product of a query and a key.
#[derive(Debug, Clone, Copy, Default)]
pub enum Bias<'a> {
    /// Nothing.
    #[default]
    None,
    /// `values[key - query + center]`, of where the two stand: linear biases (Press et al., 2022),
    /// buckets of distances (Raffel et al., 2020).
    ByDistance {
        /// For each distance from `-center` on.
        values: &'a [f32],
        /// The index of distance 0.
        center: usize,
    },
    /// Products with vectors of the distance.
    Disentangled(Disentangled<'a>),
}

impl Places<'_> {
    /// The keys, of `length`, that some queries see.
    pub(super) fn seen(&self, queries: Range<usize>, length: usize) -> Range<usize> {
        let reach = self.reach.unwrap_or(usize::MAX);
        let ahead = if self.causal { 0 } else { reach };
        let start = (self.first + queries.start).saturating_sub(reach);
        let end = (self.first + queries.end).saturating_add(ahead);
        start.min(length)..end.min(length)
    }

    /// # Panics
    /// If a bias lacks a distance or is for heads of another size.
    pub(crate) fn check(&self, queries: usize, length: usize, head_size: usize) {
        let last = self.first + queries - 1;
        match self.bias {
            Bias::None => {}
            Bias::ByDistance { values, center } => {
                let reach = self.reach.unwrap_or(usize::MAX);
                let (back, ahead) = (
                    last.min(reach),
                    match self.causal {
                        true => 0,
                        false => (length - 1).saturating_sub(self.first).min(reach),
                    },
                );
                assert!(
                    back <= center && center + ahead < values.len(),
                    "{} biases from distance -{center} on, for distances from -{back} to {ahead}",
                    values.len()
                );
            }
            Bias::Disentangled(positions) => {
                let of = positions.head_size();
                assert!(
                    of == head_size,
                    "positions of {of} for heads of {head_size}"
                );
            }
        }
    }
}
