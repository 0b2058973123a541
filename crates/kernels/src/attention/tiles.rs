//! Attention of a model in bfloat16 where the CPU multiplies that: both products in tiles, softmax between them in f32.
//!
//! Queries and weights are rows of tiles, keys and values panels, as those of a linear layer are: of keys, 32 stand side
//! by side with their inputs in pairs; of values, 32 of the head's, with keys in pairs.

use super::block::{Shares, Total, weigh_row};
use super::{Call, KEYS_AT_ONCE, LINE, MOST_QUERIES};
use crate::ahead::Ahead;
use crate::bf16::{Rounds, STEP, round_rows, round_some};
use crate::buffer::Aligned;
use crate::linear::{load, store};
use crate::rows::Raw;
use crate::simd::Simd;
use crate::tiles::{Cut, PANEL_STEP, PANEL_WIDTH, Product, Run, Turn};
use half::bf16;

/// Buffers that one thread reuses from call to call.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Tiles.
    queries: Aligned<bf16>,
    /// `[panels of keys, steps over the head, 16, 32, 2]`
    keys: Aligned<bf16>,
    /// `[panels of the head, steps over the keys, 16, 32, 2]`
    values: Aligned<bf16>,
    /// Tiles.
    weights: Aligned<bf16>,
    /// `[rows of some tiles, 32]`
    sums: Aligned,
}

/// Where all of a call's queries, keys and values are.
struct Laid {
    cut: Cut,
    queries: *const u8,
    keys: *const u8,
    values: *const u8,
    /// Steps over all keys.
    steps: usize,
}

/// Where some queries are at work.
struct Work {
    scores: *mut f32,
    stride: usize,
    weights: *mut bf16,
    sums: *mut f32,
}

/// See [`Call`]. Nothing may be added by products with distances.
///
/// # Safety
/// As [`super::attention`], with U's instructions too.
#[inline(always)]
pub(crate) unsafe fn attention<S: Simd, U: Rounds>(call: &Call<'_>, buffers: &mut super::Buffers) {
    let call = &call.narrowed();
    if call.length == 0 {
        // SAFETY: the caller's.
        unsafe { call.answer_nothing(0..call.answers) };
        return;
    }
    let cut = Cut::new::<U>(call.answers, call.head_size * size_of::<bf16>());
    let steps = call.length.div_ceil(STEP);
    let keys_at_once = KEYS_AT_ONCE.min(steps * STEP);
    let stride = keys_at_once + LINE;
    let rows = cut.height * U::TILES.min(cut.tiles);
    buffers.scores.reserve(rows * stride);
    let tiles = &mut buffers.tiles;
    let panels = call.head_size.div_ceil(PANEL_WIDTH);
    tiles.queries.reserve(cut.bytes() / size_of::<bf16>());
    tiles
        .keys
        .reserve(steps * cut.panel_bytes() / size_of::<bf16>());
    tiles
        .values
        .reserve(panels * steps * PANEL_STEP / size_of::<bf16>());
    tiles.weights.reserve(rows * keys_at_once);
    tiles.sums.reserve(rows * PANEL_WIDTH);
    // SAFETY: the buffers have just been made large enough; rows are the call's.
    unsafe {
        round_rows::<U>(
            call.queries,
            call.head_size,
            cut,
            tiles.queries.as_mut_ptr(),
        );
        lay_keys::<S, U>(call, cut.steps, tiles.keys.as_mut_ptr());
        lay_values::<U>(call, steps, tiles.values.as_mut_ptr());
        let laid = Laid {
            cut,
            queries: tiles.queries.as_ptr().cast(),
            keys: tiles.keys.as_ptr().cast(),
            values: tiles.values.as_ptr().cast(),
            steps,
        };
        let work = Work {
            scores: buffers.scores.as_mut_ptr(),
            stride,
            weights: tiles.weights.as_mut_ptr(),
            sums: tiles.sums.as_mut_ptr(),
        };
        U::begin(cut.height);
        for turn in cut.turns::<U>() {
            answer::<S, U>(call, &laid, &work, turn);
        }
        U::end();
    }
}

/// Keys in panels: `[panels, steps, 16, 32, 2]`, zero beyond the head's size. The last key stands in for those beyond it,
/// whose scores count for nothing.
#[inline(always)]
unsafe fn lay_keys<S: Simd, U: Rounds>(call: &Call<'_>, steps: usize, out: *mut bf16) {
    let (size, last) = (call.head_size, call.length - 1);
    for first in (0..call.length.next_multiple_of(PANEL_WIDTH)).step_by(8) {
        for step in 0..steps {
            let mut lines = [[0.0f32; LINE]; 8];
            let count = (size - step * STEP).min(STEP);
            // SAFETY: the panel lies within the buffer, the keys within the sequence. A pair is moved as one f32.
            unsafe {
                for (j, line) in lines.iter_mut().enumerate() {
                    let key = call.keys.row((first + j).min(last)).add(step * STEP);
                    round_some::<U>(key, count, line.as_mut_ptr().cast());
                }
                let step = first / PANEL_WIDTH * steps + step;
                let out = out.cast::<f32>();
                let out = out.add(step * PANEL_STEP / 4 + first % PANEL_WIDTH);
                for pairs in [0, 8] {
                    let rows = std::array::from_fn(|j| lines[j][pairs..].as_ptr());
                    S::transpose(rows, out.add(pairs * PANEL_WIDTH), PANEL_WIDTH);
                }
            }
        }
    }
}

/// Values in panels: `[panels, steps, 16, 32, 2]`, zero beyond the head's size and the last key.
#[inline(always)]
unsafe fn lay_values<U: Rounds>(call: &Call<'_>, steps: usize, out: *mut bf16) {
    let zeros = [0.0; PANEL_WIDTH];
    for panel in 0..call.head_size.div_ceil(PANEL_WIDTH) {
        let columns = (call.head_size - panel * PANEL_WIDTH).min(PANEL_WIDTH);
        for pair in 0..steps * STEP / 2 {
            let mut lines = [zeros; 2];
            let mut rows = [zeros.as_ptr(); 2];
            // SAFETY: as lay_keys.
            unsafe {
                for (j, row) in rows.iter_mut().enumerate() {
                    if pair * 2 + j < call.length {
                        *row = call.values.row(pair * 2 + j).add(panel * PANEL_WIDTH);
                        if columns < PANEL_WIDTH {
                            let line = lines[j].as_mut_ptr();
                            std::ptr::copy_nonoverlapping(*row, line, columns);
                            *row = line;
                        }
                    }
                }
                let line = panel * steps * STEP / 2 + pair;
                U::pair(rows, out.add(line * PANEL_WIDTH * 2));
            }
        }
    }
}

/// Answers a turn's queries.
///
/// # Safety
/// As [`attention`]; all is laid, and what is at work is for us alone.
#[inline(always)]
unsafe fn answer<S: Simd, U: Rounds>(call: &Call<'_>, laid: &Laid, work: &Work, turn: Turn) {
    let all = turn.row..turn.row + turn.rows;
    let seen = call.seen(all.clone());
    if seen.is_empty() {
        // SAFETY: the function's own conditions.
        return unsafe { call.answer_nothing(all) };
    }
    let panels = seen.start / PANEL_WIDTH..seen.end.div_ceil(PANEL_WIDTH);
    let parts = panels.len().div_ceil(KEYS_AT_ONCE / PANEL_WIDTH);
    let mut totals = [Total::NOTHING; MOST_QUERIES];
    let mut shares = [Shares::default(); MOST_QUERIES];
    let product = Product {
        runs: [Run::NONE; 2],
        tiles: turn.tiles,
        height: laid.cut.height,
        sums: work.sums.cast(),
        stride: PANEL_WIDTH * size_of::<f32>(),
        ahead: Ahead::NOTHING,
    };
    for part in 0..parts {
        let first = panels.start + panels.len() * part / parts;
        let count = panels.start + panels.len() * (part + 1) / parts - first;
        let width = count * PANEL_WIDTH;
        // SAFETY: the panels are among the keys', and fit into a row of scores.
        unsafe {
            for panel in 0..count {
                let keys = laid.keys.add((first + panel) * laid.cut.panel_bytes());
                let queries = Run {
                    rows: laid.queries.add(laid.cut.row(turn.row)),
                    panel: keys,
                    steps: laid.cut.steps,
                };
                U::product(Product {
                    runs: [queries, Run::NONE],
                    sums: work.scores.add(panel * PANEL_WIDTH).cast(),
                    stride: work.stride * size_of::<f32>(),
                    ..product
                });
            }
            for (row, query) in all.clone().enumerate() {
                let scores = work.scores.add(row * work.stride);
                let scores = std::slice::from_raw_parts_mut(scores, width);
                let from = first * PANEL_WIDTH;
                shares[row] = weigh_row::<S, true>(call, query, scores, from, &mut totals[row]);
            }
            let scores = Raw {
                start: work.scores.cast_const(),
                stride: work.stride,
            };
            let cut = Cut {
                rows: turn.rows,
                tiles: turn.tiles,
                steps: count,
                ..laid.cut
            };
            round_rows::<U>(scores, width, cut, work.weights);
            for panel in 0..call.head_size.div_ceil(PANEL_WIDTH) {
                let weights = Run {
                    rows: work.weights.cast_const().cast(),
                    panel: laid.values.add((panel * laid.steps + first) * PANEL_STEP),
                    steps: count,
                };
                U::product(Product {
                    runs: [weights, Run::NONE],
                    ..product
                });
                write::<S>(call, turn, panel, work.sums, &shares, part == 0);
            }
        }
    }
}

/// Writes some queries' sums to one panel of the output.
#[inline(always)]
unsafe fn write<S: Simd>(
    call: &Call<'_>,
    turn: Turn,
    panel: usize,
    sums: *const f32,
    shares: &[Shares],
    first: bool,
) {
    let column = panel * PANEL_WIDTH;
    let columns = (call.head_size - column).min(PANEL_WIDTH);
    for (row, shares) in shares[..turn.rows].iter().enumerate() {
        // SAFETY: a row of the call's, and one of the sums.
        unsafe {
            let out = call.output.row(turn.row + row).add(column);
            let (before, next) = (S::splat(shares.before), S::splat(shares.next));
            for i in (0..columns).step_by(S::LANES) {
                let count = (columns - i).min(S::LANES);
                let mut v = S::mul(S::load(sums.add(row * PANEL_WIDTH + i)), next);
                if !first {
                    v = S::fma(load::<S>(out.add(i), count), before, v);
                }
                store::<S>(out.add(i), v, count);
            }
        }
    }
}
