//! Disentangled attention (He et al., 2021, arXiv 2006.03654): what distances add to scores by
//! vectors of their own.

/// One layer's vectors of relative positions, for all its heads.
#[derive(Debug)]
pub struct RelativePositions {
    /// `[rows, width]`
    keys: Option<Vec<f32>>,
    /// `[rows, width]`
    queries: Option<Vec<f32>>,
    width: usize,
    heads: usize,
    /// By distance, from `-(rows.len() / 2)` on.
    rows: Vec<u16>,
}

/// One head's share of [`RelativePositions`].
#[derive(Debug, Clone, Copy)]
pub struct Disentangled<'a> {
    positions: &'a RelativePositions,
    head: usize,
}

impl RelativePositions {
    /// To the score of query `i` and key `j` they add `q_i · keys[r] + k_j · queries[r]`, with `r` the
    /// row of distance `i - j`; either may be missing.
    ///
    /// `keys` and `queries` are `[positions, heads * head size]`, already projected; queries that are
    /// asked have the scale in them, as these `queries` must. `rows` has the row of each distance from
    /// `-(max - 1)` to `max - 1`, `[2 max - 1]`; the first and last are those of all distances beyond,
    /// too.
    ///
    /// # Panics
    /// If `rows` is of an even length, or there is no such row; if the heads do not share `width`
    /// evenly.
    #[must_use]
    pub fn new(
        width: usize,
        heads: usize,
        keys: Option<&[f32]>,
        queries: Option<&[f32]>,
        rows: &[u16],
    ) -> Self {
        assert!(
            heads > 0 && width > 0 && width.is_multiple_of(heads),
            "{heads} heads share {width}"
        );
        assert!(rows.len() % 2 == 1, "{} rows, no middle one", rows.len());
        let greatest = rows.iter().max().map_or(0, |&row| usize::from(row));
        for table in [keys, queries].into_iter().flatten() {
            assert!(
                table.len().is_multiple_of(width) && greatest < table.len() / width,
                "row {greatest} of {} values in rows of {width}",
                table.len()
            );
        }
        Self {
            keys: keys.map(<[f32]>::to_vec),
            queries: queries.map(<[f32]>::to_vec),
            width,
            heads,
            rows: rows.to_vec(),
        }
    }

    /// Head `head`'s.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn head(&self, head: usize) -> Disentangled<'_> {
        assert!(head < self.heads, "head {head} of {}", self.heads);
        Disentangled {
            positions: self,
            head,
        }
    }

    /// The memory that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tables = [&self.keys, &self.queries].into_iter().flatten();
        tables.map(|table| size_of_val(&table[..])).sum::<usize>() + size_of_val(&self.rows[..])
    }
}

impl Disentangled<'_> {
    pub(super) fn head_size(&self) -> usize {
        self.positions.width / self.positions.heads
    }

    /// What is added to one score.
    pub(super) fn naive(&self, i: usize, j: usize, query: &[f32], key: &[f32]) -> f32 {
        let positions = self.positions;
        let last = positions.rows.len() - 1;
        let index = (i + last / 2).saturating_sub(j).min(last);
        let row = usize::from(positions.rows[index]) * positions.width;
        let start = row + self.head * self.head_size();
        let product = |table: &Option<Vec<f32>>, with: &[f32]| {
            table.as_ref().map_or(0.0, |table| {
                let vector = &table[start..start + with.len()];
                with.iter().zip(vector).map(|(a, b)| a * b).sum()
            })
        };
        product(&positions.keys, query) + product(&positions.queries, key)
    }
}
