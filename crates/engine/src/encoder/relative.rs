//! What depends on where two tokens stand: rotations, and what is added to scores by distance. Tables of it
//! grow with the longest sequence seen.

use rerankd_kernels::{Bias, Rotary};

/// How a model's scores depend on distances.
#[derive(Debug)]
pub(crate) enum Distances {
    None,
    /// Of layers that see all, and of those that see their neighbours.
    Rotary {
        global: Rotary,
        local: Option<Rotary>,
    },
    /// `[heads]`: what a score loses with each step.
    Slopes(Vec<f32>),
    /// `[rows, heads]`; each range of distances has a row.
    Buckets {
        table: Vec<f32>,
        rows: usize,
        farthest: usize,
    },
}

impl Distances {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::None | Self::Rotary { .. } => 0,
            Self::Slopes(slopes) => size_of_val(&slopes[..]),
            Self::Buckets { table, .. } => size_of_val(&table[..]),
        }
    }

    fn heads(&self) -> usize {
        match self {
            Self::None | Self::Rotary { .. } => 0,
            Self::Slopes(slopes) => slopes.len(),
            Self::Buckets { table, rows, .. } => table.len() / rows,
        }
    }

    /// What is added to a head's score of a key that is `distance` after the query.
    fn of(&self, head: usize, distance: isize) -> f32 {
        match self {
            Self::None | Self::Rotary { .. } => 0.0,
            Self::Slopes(slopes) => -slopes[head] * distance.unsigned_abs() as f32,
            Self::Buckets {
                table,
                rows,
                farthest,
            } => table[bucket(distance, *rows, *farthest) * self.heads() + head],
        }
    }
}

/// The row of a distance: half of the rows are for keys after the query; of each half the first half has a row for
/// each distance, the rest ranges that grow (Raffel et al., 2019, as transformers' MPNet and T5 compute it).
fn bucket(distance: isize, rows: usize, farthest: usize) -> usize {
    let half = rows / 2;
    let start = if distance > 0 { half } else { 0 };
    let (exact, distance) = (half / 2, distance.unsigned_abs());
    if distance < exact {
        return start + distance;
    }
    let share = (distance as f32 / exact as f32).ln() / (farthest as f32 / exact as f32).ln();
    let ranges = (half - exact) as f32;
    start + (exact + (share * ranges) as usize).min(half - 1)
}

/// The tables, for sequences up to a length.
#[derive(Debug, Default)]
pub(super) struct RelativeTables {
    longest: usize,
    /// `[heads, 2 longest - 1]`: what is added, from the key farthest before the query on.
    added: Vec<f32>,
    global: Option<Rotary>,
    local: Option<Rotary>,
}

impl RelativeTables {
    /// Makes them reach to sequences of `longest` tokens.
    pub(super) fn reach(&mut self, distances: &Distances, longest: usize) {
        if longest <= self.longest {
            return;
        }
        // So that each somewhat longer one does not make them anew.
        self.longest = longest.next_multiple_of(64);
        if let Distances::Rotary { global, local } = distances {
            let rotary = self.global.get_or_insert_with(|| global.clone());
            rotary.reach(self.longest);
            if let Some(local) = local {
                let rotary = self.local.get_or_insert_with(|| local.clone());
                rotary.reach(self.longest);
            }
        }
        let farthest = self.longest as isize - 1;
        self.added.clear();
        for head in 0..distances.heads() {
            let all = (-farthest..=farthest).map(|distance| distances.of(head, distance));
            self.added.extend(all);
        }
    }

    /// What is added to a head's scores.
    pub(super) fn bias(&self, head: usize) -> Bias<'_> {
        if self.added.is_empty() {
            return Bias::None;
        }
        let width = 2 * self.longest - 1;
        Bias::ByDistance {
            values: &self.added[head * width..(head + 1) * width],
            center: self.longest - 1,
        }
    }

    /// The rotation of a layer that sees neighbours only, or all.
    pub(super) fn rotary(&self, local: bool) -> Option<&Rotary> {
        let local = self.local.as_ref().filter(|_| local);
        local.or(self.global.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_where_t5s_do() {
        let starts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91, 600];
        for (row, bounds) in starts.windows(2).enumerate() {
            for distance in bounds[0]..bounds[1] {
                assert_eq!(bucket(-distance, 32, 128), row, "-{distance}");
                if distance > 0 {
                    assert_eq!(bucket(distance, 32, 128), 16 + row, "{distance}");
                }
            }
        }
    }
}
