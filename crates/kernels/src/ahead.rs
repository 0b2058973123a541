//! Memory that is asked for before it is needed.

use super::simd::Simd;

/// Inputs between two turns of asking for memory ahead: few enough to spread it, too many for the
/// compiler to unroll the loop between them.
pub(super) const AHEAD_EVERY: usize = 16;

/// Memory that will be needed soon: asked for line by line while a product is computed, or each
/// panel of weights would come in at the speed of the last-level cache.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Ahead {
    pub(super) start: *const u8,
    /// Lines to ask for with every [`AHEAD_EVERY`] inputs, or every step.
    pub(super) lines: usize,
}

impl Ahead {
    pub(super) const NOTHING: Self = Self {
        start: std::ptr::null(),
        lines: 0,
    };

    /// The share of tile `t` of `tiles` in asking for `bytes` from `start` on, while it sums up
    /// `inputs`.
    #[inline(always)]
    pub(super) fn share(
        start: *const u8,
        bytes: usize,
        t: usize,
        tiles: usize,
        inputs: usize,
    ) -> Self {
        Self::each_step(start, bytes, t, tiles, inputs.div_ceil(AHEAD_EVERY))
    }

    /// That share, of a tile that asks in so many steps.
    #[inline(always)]
    pub(super) fn each_step(
        start: *const u8,
        bytes: usize,
        t: usize,
        tiles: usize,
        steps: usize,
    ) -> Self {
        let lines = bytes / 64 / tiles.max(1);
        Self {
            start: start.wrapping_add(t * lines * 64),
            lines: lines.div_ceil(steps),
        }
    }

    /// Asks for the next lines; to be called every [`AHEAD_EVERY`] inputs, or every step.
    #[inline(always)]
    pub(super) fn ask<S: Simd>(&mut self) {
        for _ in 0..self.lines {
            S::prefetch(self.start);
            self.start = self.start.wrapping_add(64);
        }
    }
}
