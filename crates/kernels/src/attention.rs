//! Softmax attention of one head of one sequence, never holding more than a few rows of scores.
//!
//! Keys are laid in panels as a linear layer's weights are, so that both products run on the same
//! inner loop: a tile of queries against all keys gives a few rows of scores, which are turned
//! into weights where they lie and multiplied with the values. The scale 1/√d is in the query's
//! weights already.

use super::buffer::Aligned;
use super::elementwise::softmax;
use super::linear::{Ahead, product, with_rows};
use super::rows::Raw;
use super::simd::Simd;

mod places;
mod positions;

pub use places::{Bias, Places};
pub use positions::{Disentangled, RelativePositions};

/// One head of one sequence.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// `[answers, head size]`
    pub(super) queries: Raw<*const f32>,
    /// `[length, head size]`
    pub(super) keys: Raw<*const f32>,
    pub(super) values: Raw<*const f32>,
    /// `[answers, head size]`
    pub(super) output: Raw<*mut f32>,
    pub(super) answers: usize,
    pub(super) length: usize,
    pub(super) head_size: usize,
    pub(super) places: Places<'a>,
}

/// Buffers that one thread reuses from call to call.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    keys: Aligned,
    values: Aligned,
    scores: Aligned,
}

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
    let width = NV * S::LANES;
    let (length, size) = (call.length, call.head_size);
    let key_panels = length.div_ceil(width);
    let value_panels = size.div_ceil(width);
    let padded = key_panels * width;
    buffers.keys.reserve(padded * size);
    buffers.values.reserve(value_panels * length * width);
    buffers.scores.reserve(MR * padded);
    // SAFETY: the buffers have just been made large enough; rows are the call's.
    unsafe {
        lay_keys(call, buffers.keys.as_mut_ptr(), width);
        lay_values(call, buffers.values.as_mut_ptr(), width);
        let count = call.answers.div_ceil(MR);
        for t in 0..count {
            let first = call.answers * t / count;
            let rows = call.answers * (t + 1) / count - first;
            with_rows!(rows, MR, R => answer::<S, R, NV>(call, buffers, first));
        }
    }
}

/// Keys laid out together: as many stores in a row as a cache line half holds.
const KEYS_AT_ONCE: usize = 8;

/// Keys in panels: `[panels, head size, width]`. The last key stands in for those beyond it, whose
/// scores the softmax leaves out.
#[inline(always)]
unsafe fn lay_keys(call: &Call<'_>, out: *mut f32, width: usize) {
    let (size, last) = (call.head_size, call.length - 1);
    for first in (0..call.length.next_multiple_of(width)).step_by(KEYS_AT_ONCE) {
        // SAFETY: the panel lies within the buffer, the keys within the sequence.
        unsafe {
            let mut rows = [call.keys.start; KEYS_AT_ONCE];
            for (j, row) in rows.iter_mut().enumerate() {
                *row = row.add((first + j).min(last) * call.keys.stride);
            }
            let out = out.add(first / width * size * width + first % width);
            for i in 0..size {
                let line = rows.map(|row| *row.add(i));
                out.add(i * width)
                    .cast::<[f32; KEYS_AT_ONCE]>()
                    .write_unaligned(line);
            }
        }
    }
}

/// Values in panels: `[panels, length, width]`, zero beyond the head's size.
unsafe fn lay_values(call: &Call<'_>, out: *mut f32, width: usize) {
    for panel in 0..call.head_size.div_ceil(width) {
        let columns = (call.head_size - panel * width).min(width);
        for i in 0..call.length {
            // SAFETY: as lay_keys.
            unsafe {
                let out = out.add((panel * call.length + i) * width);
                let row = call
                    .values
                    .start
                    .add(i * call.values.stride + panel * width);
                std::ptr::copy_nonoverlapping(row, out, columns);
                std::ptr::write_bytes(out.add(columns), 0, width - columns);
            }
        }
    }
}

/// Answers R queries from `first` on.
#[inline(always)]
unsafe fn answer<S: Simd, const R: usize, const NV: usize>(
    call: &Call<'_>,
    buffers: &mut Buffers,
    first: usize,
) {
    let width = NV * S::LANES;
    let (length, size) = (call.length, call.head_size);
    let padded = length.next_multiple_of(width);
    // SAFETY: as attention.
    unsafe {
        let queries = Raw {
            start: call.queries.start.add(first * call.queries.stride),
            stride: call.queries.stride,
        };
        let scores = buffers.scores.as_mut_ptr();
        for panel in 0..padded / width {
            let keys = buffers.keys.as_ptr().add(panel * size * width);
            let sums = product::<S, f32, R, NV>(queries, keys, size, Ahead::NOTHING);
            for (r, sums) in sums.into_iter().enumerate() {
                for (j, v) in sums.into_iter().enumerate() {
                    S::store(scores.add(r * padded + panel * width + j * S::LANES), v);
                }
            }
        }
        for r in 0..R {
            let row = std::slice::from_raw_parts_mut(scores.add(r * padded), length);
            place(call, first + r, row);
        }
        let mut scales = [0.0; R];
        for (r, scale) in scales.iter_mut().enumerate() {
            let row = std::slice::from_raw_parts_mut(scores.add(r * padded), padded);
            *scale = softmax::<S>(row, length);
        }
        // For a panel that is not full.
        let mut line = [0.0f32; 64];
        for panel in 0..size.div_ceil(width) {
            let weights = Raw {
                start: scores.cast_const(),
                stride: padded,
            };
            let values = buffers.values.as_ptr().add(panel * length * width);
            let sums = product::<S, f32, R, NV>(weights, values, length, Ahead::NOTHING);
            let columns = (size - panel * width).min(width);
            for (r, sums) in sums.into_iter().enumerate() {
                let row = (first + r) * call.output.stride + panel * width;
                let out = call.output.start.add(row);
                let to = if columns == width {
                    out
                } else {
                    line.as_mut_ptr()
                };
                for (j, v) in sums.into_iter().enumerate() {
                    S::store(to.add(j * S::LANES), S::mul(v, S::splat(scales[r])));
                }
                if columns < width {
                    std::ptr::copy_nonoverlapping(line.as_ptr(), out, columns);
                }
            }
        }
    }
}

/// Adds to one query's scores what its and the keys' places say.
unsafe fn place(call: &Call<'_>, query: usize, scores: &mut [f32]) {
    let (places, size) = (call.places, call.head_size);
    let here = places.first + query;
    for (key, score) in scores.iter_mut().enumerate() {
        if places.reach.is_some_and(|reach| here.abs_diff(key) > reach) {
            *score = f32::NEG_INFINITY;
            continue;
        }
        match places.bias {
            Bias::None => {}
            Bias::ByDistance { values, center } => *score += values[key + center - here],
            Bias::Disentangled(positions) => {
                // SAFETY: rows of the call.
                let (query, key_row) = unsafe {
                    let query = call.queries.start.add(query * call.queries.stride);
                    let key = call.keys.start.add(key * call.keys.stride);
                    (
                        std::slice::from_raw_parts(query, size),
                        std::slice::from_raw_parts(key, size),
                    )
                };
                *score += positions.naive(here, key, query, key_row);
            }
        }
    }
}
