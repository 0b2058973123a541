//! Softmax attention of one head of one sequence, never holding more than a few rows of scores.
//!
//! Keys are laid in panels as a linear layer's weights are, so that both products run on the same
//! inner loop. A block of queries goes through the keys that it sees, some hundred at a time: their
//! products give rows of scores, which are turned into weights where they lie and multiplied with the
//! values. What the next keys add is weighed against what there is already, by the greatest score
//! so far (online softmax: Milakov and Gimelshein, 2018; Dao et al., 2022), so that the memory at work
//! does not grow with the sequence. The scale 1/√d is in the queries already.

use std::ops::Range;

use super::buffer::Aligned;
use super::rows::Raw;
use super::simd::Simd;

mod block;
mod places;
mod positions;
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "for units that only x86-64 has so far")
)]
pub(super) mod tiles;

pub use places::{Bias, KeyValues, Places};
pub use positions::{Disentangled, RelativePositions};

use block::{Block, Tiles};
use positions::Laid;

/// One head of one sequence.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// `[answers, head size]`
    pub(super) queries: Raw<*const f32>,
    /// `[length, head size]`
    pub(super) keys: Parts,
    pub(super) values: Parts,
    /// `[answers, head size]`
    pub(super) output: Raw<*mut f32>,
    pub(super) answers: usize,
    pub(super) length: usize,
    pub(super) head_size: usize,
    pub(super) places: Places<'a>,
}

/// Rows in two places: those of a prefix, and the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    pub(super) prefix: Raw<*const f32>,
    /// Rows of the prefix.
    pub(super) before: usize,
    pub(super) rest: Raw<*const f32>,
}

impl Parts {
    /// Where row `i` starts.
    #[inline(always)]
    fn row(&self, i: usize) -> *const f32 {
        let (rows, i) = match i < self.before {
            true => (self.prefix, i),
            false => (self.rest, i - self.before),
        };
        rows.start.wrapping_add(i * rows.stride)
    }

    /// Without the first `rows`.
    fn skip(self, rows: usize) -> Self {
        let of_prefix = rows.min(self.before);
        let skip = |from: Raw<*const f32>, rows: usize| Raw {
            start: from.start.wrapping_add(rows * from.stride),
            ..from
        };
        Self {
            prefix: skip(self.prefix, of_prefix),
            before: self.before - of_prefix,
            rest: skip(self.rest, rows - of_prefix),
        }
    }
}

impl Call<'_> {
    /// The keys that some queries see.
    fn seen(&self, queries: Range<usize>) -> Range<usize> {
        self.places.seen(queries, self.length)
    }

    /// The answer of some queries that see no key.
    ///
    /// # Safety
    /// As [`attention`].
    unsafe fn answer_nothing(&self, queries: Range<usize>) {
        for query in queries {
            // SAFETY: a row of the output.
            unsafe {
                let row = self.output.start.add(query * self.output.stride);
                std::ptr::write_bytes(row, 0, self.head_size);
            }
        }
    }

    /// Without the keys that no query sees.
    fn narrowed(&self) -> Self {
        let seen = self.seen(0..self.answers);
        Self {
            keys: self.keys.skip(seen.start),
            values: self.values.skip(seen.start),
            length: seen.len(),
            // Not less than 0: a query sees its own token.
            places: Places {
                first: self.places.first - seen.start,
                ..self.places
            },
            ..*self
        }
    }
}

/// Buffers that one thread reuses from call to call.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    keys: Aligned,
    values: Aligned,
    positions: Aligned,
    scores: Aligned,
    tiles: tiles::Buffers,
}

/// Keys whose scores are held at a time.
const KEYS_AT_ONCE: usize = 512;

/// Values in a cache line: rows of scores lie so much further apart than they need, or all would
/// share some few places of the cache.
const LINE: usize = 16;

/// Queries in a block, in vectors of them.
const VECTORS_OF_QUERIES: usize = 4;

/// The greatest number of queries in a block, with the longest vectors.
const MOST_QUERIES: usize = VECTORS_OF_QUERIES * 16;

/// See [`Call`].
///
/// # Safety
/// The CPU has S's instructions; the call's pointers are good for its rows; nobody else uses its
/// part of the output meanwhile.
#[inline(always)]
pub(super) unsafe fn attention<S: Simd, const MR: usize, const NV: usize>(
    call: &Call<'_>,
    buffers: &mut Buffers,
) {
    let call = &call.narrowed();
    if call.length == 0 {
        // SAFETY: the caller's.
        unsafe { call.answer_nothing(0..call.answers) };
        return;
    }
    let width = NV * S::LANES;
    let (length, size) = (call.length, call.head_size);
    let padded = length.next_multiple_of(width);
    buffers.keys.reserve(padded * size);
    buffers
        .values
        .reserve(size.next_multiple_of(width) * length);
    let stride = KEYS_AT_ONCE.min(padded) + LINE;
    buffers.scores.reserve(MOST_QUERIES * stride);
    // SAFETY: the buffers have just been made large enough; rows are the call's.
    unsafe {
        lay_keys::<S>(call, buffers.keys.as_mut_ptr(), width);
        lay_values::<S>(call, buffers.values.as_mut_ptr(), width);
        let laid = match call.places.bias {
            Bias::Disentangled(positions) => Some(Laid::lay::<S>(
                positions,
                call.places.first..call.places.first + call.answers,
                padded,
                &mut buffers.positions,
            )),
            Bias::None | Bias::ByDistance { .. } => None,
        };
        let count = call.answers.div_ceil(MR);
        let blocks = count.div_ceil(VECTORS_OF_QUERIES * S::LANES / MR);
        for block in 0..blocks {
            let tiles = Tiles {
                range: count * block / blocks..count * (block + 1) / blocks,
                count,
                queries: call.answers,
            };
            let block = Block {
                call,
                keys: buffers.keys.as_ptr(),
                values: buffers.values.as_ptr(),
                laid,
                scores: buffers.scores.as_mut_ptr(),
                stride,
                tiles,
            };
            block.run::<S, MR, NV>();
        }
    }
}

/// Keys in panels: `[panels, head size, width]`. The last key stands in for those beyond it, whose
/// scores count for nothing.
#[inline(always)]
unsafe fn lay_keys<S: Simd>(call: &Call<'_>, out: *mut f32, width: usize) {
    let (size, last) = (call.head_size, call.length - 1);
    for first in (0..call.length.next_multiple_of(width)).step_by(8) {
        // SAFETY: the panel lies within the buffer, the keys within the sequence.
        unsafe {
            let rows: [_; 8] = std::array::from_fn(|j| call.keys.row((first + j).min(last)));
            let out = out.add(first / width * size * width + first % width);
            let whole = size - size % 8;
            for i in (0..whole).step_by(8) {
                S::transpose(rows.map(|row| row.add(i)), out.add(i * width), width);
            }
            for i in whole..size {
                for (j, row) in rows.iter().enumerate() {
                    *out.add(i * width + j) = *row.add(i);
                }
            }
        }
    }
}

/// Values in panels: `[panels, length, width]`, zero beyond the head's size.
#[inline(always)]
unsafe fn lay_values<S: Simd>(call: &Call<'_>, out: *mut f32, width: usize) {
    for panel in 0..call.head_size.div_ceil(width) {
        let columns = (call.head_size - panel * width).min(width);
        for i in 0..call.length {
            // SAFETY: as lay_keys.
            unsafe {
                let out = out.add((panel * call.length + i) * width);
                let row = call.values.row(i).add(panel * width);
                if columns == width {
                    for j in (0..width).step_by(S::LANES) {
                        S::store(out.add(j), S::load(row.add(j)));
                    }
                } else {
                    std::ptr::copy_nonoverlapping(row, out, columns);
                    std::ptr::write_bytes(out.add(columns), 0, width - columns);
                }
            }
        }
    }
}
