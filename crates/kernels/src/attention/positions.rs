//! Disentangled attention (He et al., 2021, arXiv 2006.03654): what distances add to scores by
//! vectors of their own.
//!
//! With `p = j - i`, query `i` and key `j` have the score `Σ k_j (q_i + pq_p) + q_i pk_p`, where `pq` are
//! the position queries and `pk` the position keys. All three products are summed up in one go: a
//! vector of keys meets vectors of positions that lie one after the other from `p` on. Two queries
//! that stand a vector's length apart need the same vectors of positions, for keys that do so, too; so
//! a tile is made of such queries, and its R queries and NV vectors of keys share R + NV - 1 vectors of
//! positions.

use std::ops::Range;

use super::{Call, VECTORS_OF_QUERIES};
use crate::buffer::Aligned;
use crate::linear::with_rows;
use crate::simd::Simd;

/// One layer's vectors of relative positions, for all its heads.
#[derive(Debug)]
pub struct RelativePositions {
    /// `[heads, head size, 2, columns]`: queries and keys, zero if there are none. The rows that were
    /// given are the columns, in reverse, so that they follow each other as keys do.
    tables: Vec<f32>,
    columns: usize,
    heads: usize,
    head_size: usize,
    /// The column of each `key - query` from `-middle` to `middle`.
    column_of: Vec<u16>,
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
        let greatest = rows.iter().copied().max().unwrap_or(0);
        let used = usize::from(greatest) + 1;
        for table in [keys, queries].into_iter().flatten() {
            assert!(
                table.len().is_multiple_of(width) && used <= table.len() / width,
                "row {greatest} of {} values in rows of {width}",
                table.len()
            );
        }
        // Not a power of two, or all lines would share some few places of the cache.
        let columns = used.next_multiple_of(LINE) + LINE;
        let mut tables = vec![0.0; 2 * width * columns];
        for (table, which) in [queries, keys].into_iter().zip(0..) {
            for (row, vector) in table
                .into_iter()
                .flat_map(|t| t.chunks(width))
                .take(used)
                .enumerate()
            {
                for (i, value) in vector.iter().enumerate() {
                    tables[(2 * i + which) * columns + used - 1 - row] = *value;
                }
            }
        }
        Self {
            tables,
            columns,
            heads,
            head_size: width / heads,
            column_of: rows.iter().rev().map(|row| greatest - row).collect(),
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
        size_of_val(&self.tables[..]) + size_of_val(&self.column_of[..])
    }
}

impl Disentangled<'_> {
    pub(super) fn head_size(&self) -> usize {
        self.positions.head_size
    }

    /// `[head size, 2, columns]`
    fn tables(&self) -> &[f32] {
        let length = self.head_size() * 2 * self.positions.columns;
        &self.positions.tables[self.head * length..][..length]
    }
}

/// Values in a cache line.
const LINE: usize = 16;

/// Inputs summed up before the next tile's turn: what these need of positions then stays in the
/// first-level cache.
const INPUTS_AT_ONCE: usize = 32;

/// The positions that a call needs, `[lines, head size, 2, 2 LANES]`: queries and keys. Line `n` starts
/// at `from + n LANES`, so that a vector that starts anywhere lies within one line. The first and the
/// last stand for all beyond.
#[derive(Debug, Clone, Copy)]
pub(super) struct Laid {
    start: *const f32,
    /// `key - query`
    from: isize,
    lines: usize,
}

impl Laid {
    /// Lays them for queries that stand at `queries` and keys at `0..keys`, whole vectors.
    ///
    /// # Safety
    /// The CPU has S's instructions.
    #[inline(always)]
    pub(super) unsafe fn lay<S: Simd>(
        head: Disentangled<'_>,
        queries: Range<usize>,
        keys: usize,
        buffer: &mut Aligned,
    ) -> Self {
        let (positions, size) = (head.positions, head.head_size());
        let lanes = S::LANES as isize;
        let middle = positions.column_of.len() as isize / 2;
        // Beyond these, all of a line is one and the same column.
        let from = (1 - queries.end as isize).max(1 - middle - 2 * lanes);
        let last = (keys as isize - lanes - queries.start as isize).min(middle + lanes);
        let lines = ((last - from) / lanes) as usize + 1;
        let line = 4 * S::LANES;
        buffer.reserve(lines * size * line);
        let out = buffer.as_mut_ptr();
        let tables = head.tables();
        let mut columns = [0usize; 16];
        let columns = &mut columns[..S::LANES];
        for n in 0..=lines {
            for (i, column) in (0..).zip(&mut *columns) {
                let p = from + n as isize * lanes + i;
                *column =
                    usize::from(positions.column_of[(p.clamp(-middle, middle) + middle) as usize]);
            }
            let consecutive = columns.windows(2).all(|pair| pair[1] == pair[0] + 1);
            for (i, table) in tables.chunks_exact(positions.columns).enumerate() {
                // SAFETY: the columns are the table's; the vector lies within lines n and n - 1.
                unsafe {
                    let vector = if consecutive {
                        S::load(table.as_ptr().add(columns[0]))
                    } else {
                        let mut line = [0.0f32; 16];
                        for (value, &column) in line.iter_mut().zip(&*columns) {
                            *value = *table.get_unchecked(column);
                        }
                        S::load(line.as_ptr())
                    };
                    let at = |n: usize| out.add((2 * n * size + i) * 2 * S::LANES);
                    if n < lines {
                        S::store(at(n), vector);
                    }
                    if n > 0 {
                        S::store(at(n - 1).add(S::LANES), vector);
                    }
                }
            }
        }
        Self {
            start: out,
            from,
            lines,
        }
    }

    /// Scores of the queries of a block with one panel of keys, whose first is `first`.
    ///
    /// # Safety
    /// The CPU has S's instructions; queries, panel and distances are the call's; `to` is good for a
    /// panel's width of each row, `stride` apart.
    #[inline(always)]
    pub(super) unsafe fn score<S: Simd, const NV: usize>(
        self,
        call: &Call<'_>,
        queries: Range<usize>,
        keys: *const f32,
        first: usize,
        to: *mut f32,
        stride: usize,
    ) {
        let lanes = S::LANES;
        for input in (0..call.head_size).step_by(INPUTS_AT_ONCE) {
            for start in 0..lanes.min(queries.len()) {
                let rows = (queries.len() - start).div_ceil(lanes);
                let here = call.places.first + queries.start + start;
                let tile = Tile {
                    // SAFETY: the caller's.
                    queries: unsafe {
                        let query = (queries.start + start) * call.queries.stride;
                        call.queries.start.add(query + input)
                    },
                    queries_stride: lanes * call.queries.stride,
                    // SAFETY: the caller's.
                    keys: unsafe { keys.add(input * NV * lanes) },
                    ahead: first as isize - here as isize,
                    input,
                    inputs: INPUTS_AT_ONCE.min(call.head_size - input),
                    size: call.head_size,
                    // SAFETY: the caller's.
                    to: unsafe { to.add(start * stride) },
                    to_stride: lanes * stride,
                };
                // SAFETY: the caller's.
                with_rows!(rows, VECTORS_OF_QUERIES, R => unsafe { self.tile::<S, R, NV>(&tile) });
            }
        }
    }

    /// Where a line's vector `n` vectors from position `p` on starts.
    #[inline(always)]
    fn vector<S: Simd>(self, p: isize, n: isize, tile: &Tile) -> *const f32 {
        let lanes = S::LANES as isize;
        let offset = p - self.from;
        let line = (offset.div_euclid(lanes) + n).clamp(0, self.lines as isize - 1) as usize;
        let within = offset.rem_euclid(lanes) as usize;
        self.start
            .wrapping_add((line * tile.size + tile.input) * 4 * S::LANES + within)
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const NV: usize>(self, tile: &Tile) {
        // SAFETY: see score.
        unsafe {
            let mut lines = [self.start; 8];
            for (n, line) in (1 - R as isize..NV as isize).zip(&mut lines) {
                *line = self.vector::<S>(tile.ahead, n, tile);
            }
            let mut sums = [[S::splat(0.0); NV]; R];
            if tile.input > 0 {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = S::load(tile.to.add(r * tile.to_stride + v * S::LANES));
                    }
                }
            }
            // With few sums, one after the other would wait for each other.
            let apart = R * NV <= 4;
            let mut others = [[S::splat(0.0); NV]; R];
            for i in 0..tile.inputs {
                for r in 0..R {
                    let query = S::splat(*tile.queries.add(r * tile.queries_stride + i));
                    for v in 0..NV {
                        let line = lines[v + R - 1 - r].add(i * 4 * S::LANES);
                        let (asked, shown) = (S::load(line), S::load(line.add(2 * S::LANES)));
                        let key = S::load(tile.keys.add((i * NV + v) * S::LANES));
                        let other = if apart { &mut others } else { &mut sums };
                        other[r][v] = S::fma(query, shown, other[r][v]);
                        sums[r][v] = S::fma(key, S::add(query, asked), sums[r][v]);
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (v, mut sum) in sums.into_iter().enumerate() {
                    if apart {
                        sum = S::add(sum, others[r][v]);
                    }
                    S::store(tile.to.add(r * tile.to_stride + v * S::LANES), sum);
                }
            }
        }
    }
}

/// Some queries a vector's length apart, and one panel of keys.
#[derive(Debug)]
struct Tile {
    queries: *const f32,
    queries_stride: usize,
    keys: *const f32,
    /// How far the first key stands ahead of the first query.
    ahead: isize,
    /// The inputs summed up in this turn.
    input: usize,
    inputs: usize,
    size: usize,
    to: *mut f32,
    to_stride: usize,
}
