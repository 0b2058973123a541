//! Rotary position embedding (Su et al., "RoFormer", 2021), in the form that turns the two halves of a
//! head against each other: value `i` and value `i + size / 2` are a pair.

use super::RowsMut;
use super::simd::Simd;

/// Cosines and sines of each place's angles.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// `[head size / 2]`: radians per place.
    frequencies: Vec<f32>,
    scale: f32,
    /// `[places, head size / 2]`, times the scale.
    cosines: Vec<f32>,
    /// `[places, head size / 2]`, times the scale.
    sines: Vec<f32>,
}

impl Rotary {
    /// For heads of twice as many values as there are `frequencies`, radians per place. The cosines
    /// and sines are multiplied by `scale`. The tables reach no place yet.
    ///
    /// # Panics
    /// If there are no frequencies.
    #[must_use]
    pub fn new(frequencies: &[f32], scale: f32) -> Self {
        assert!(!frequencies.is_empty(), "no frequencies");
        Self {
            frequencies: frequencies.to_vec(),
            scale,
            cosines: Vec::new(),
            sines: Vec::new(),
        }
    }

    /// Makes the tables reach all places below `places`.
    pub fn reach(&mut self, places: usize) {
        for place in self.places()..places {
            // An angle is rounded to f32 as PyTorch's is: far out, its error shows.
            let angles = self.frequencies.iter().map(|f| place as f32 * f);
            for angle in angles.map(f64::from) {
                self.cosines.push(angle.cos() as f32 * self.scale);
                self.sines.push(angle.sin() as f32 * self.scale);
            }
        }
    }

    /// How many places the tables reach.
    fn places(&self) -> usize {
        self.cosines.len() / self.frequencies.len()
    }

    /// That the rotation of these rows is within them and the tables.
    pub(super) fn check(&self, places: &[u32], heads: &RowsMut<'_>) {
        let size = 2 * self.frequencies.len();
        assert!(
            places.len() == heads.len() && heads.width().is_multiple_of(size),
            "{} places for {} rows of {} values, heads of {size}",
            places.len(),
            heads.len(),
            heads.width()
        );
        let (last, reached) = (places.iter().max(), self.places());
        assert!(
            last.is_none_or(|&last| (last as usize) < reached),
            "place {last:?} of {reached}"
        );
    }
}

/// Turns each pair `(a, b)` to `(a cos - b sin, b cos + a sin)`.
///
/// # Safety
/// The CPU has S's instructions; the rows have passed [`Rotary::check`].
#[inline(always)]
pub(super) unsafe fn rotate<S: Simd>(rotary: &Rotary, places: &[u32], heads: &mut RowsMut<'_>) {
    let half = rotary.frequencies.len();
    let whole = half - half % S::LANES;
    for (i, &place) in places.iter().enumerate() {
        let start = place as usize * half;
        let cosines = &rotary.cosines[start..start + half];
        let sines = &rotary.sines[start..start + half];
        for head in heads.row(i).chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            // SAFETY: offsets below `whole` leave LANES values in all four, each `half` long.
            unsafe {
                for i in (0..whole).step_by(S::LANES) {
                    let (a, b) = (first.as_mut_ptr().add(i), second.as_mut_ptr().add(i));
                    let cos = S::load(cosines.as_ptr().add(i));
                    let sin = S::load(sines.as_ptr().add(i));
                    let (x, y) = (S::load(a), S::load(b));
                    let minus = S::mul(sin, S::splat(-1.0));
                    S::store(a, S::fma(x, cos, S::mul(y, minus)));
                    S::store(b, S::fma(y, cos, S::mul(x, sin)));
                }
            }
            for i in whole..half {
                let (x, y) = (first[i], second[i]);
                first[i] = x * cosines[i] - y * sines[i];
                second[i] = y * cosines[i] + x * sines[i];
            }
        }
    }
}
