//! What scores depend on beside queries and keys: where the two stand.

use super::positions::Disentangled;

/// How scores depend on where query and key stand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places<'a> {
    /// Where in the sequence the first of the queries stands; queries are consecutive tokens.
    pub first: usize,
    /// Queries see only keys at most this far away; `None` sees all.
    pub reach: Option<usize>,
    /// What is added to scores.
    pub bias: Bias<'a>,
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
    /// # Panics
    /// If the queries are not among the sequence's `length` tokens, or a bias lacks a distance or is
    /// for heads of another size.
    pub(crate) fn check(&self, queries: usize, length: usize, head_size: usize) {
        let last = self.first + queries - 1;
        assert!(
            last < length,
            "queries {} to {last} of {length} tokens",
            self.first
        );
        match self.bias {
            Bias::None => {}
            Bias::ByDistance { values, center } => {
                let reach = self.reach.unwrap_or(length);
                let (back, ahead) = (last.min(reach), (length - 1 - self.first).min(reach));
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
