//! A row of numbers as a file holds it.

/// One output's weights, or one row of an embedding table.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// Numbers.
    Floats(&'a [f32]),
    /// Integers with a scale: each stands for itself times `scale`.
    Integers {
        /// The integers.
        values: &'a [i8],
        /// What all of them are multiplied by.
        scale: f32,
    },
}

impl Stored<'_> {
    /// How many numbers there are.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Integers { values, .. } => values.len(),
        }
    }

    /// The greatest magnitude of a number; NaN or infinite if one of them is.
    #[must_use]
    pub fn greatest(self) -> f32 {
        match self {
            // Without its sign, a number's bits have the order of its magnitude, and whatever is not
            // finite has the greatest.
            Self::Floats(values) => {
                let magnitude = |x: &f32| x.to_bits() & !(1 << 31);
                f32::from_bits(values.iter().map(magnitude).fold(0, u32::max))
            }
            Self::Integers { values, scale } => {
                let greatest = values.iter().map(|x| x.unsigned_abs()).fold(0, u8::max);
                f32::from(greatest) * scale.abs()
            }
        }
    }

    /// Writes the numbers times `factor` to `out`, as far as both go.
    pub fn write(self, factor: f32, out: &mut [f32]) {
        match self {
            Self::Floats(values) => {
                for (out, x) in out.iter_mut().zip(values) {
                    *out = x * factor;
                }
            }
            Self::Integers { values, scale } => {
                for (out, &x) in out.iter_mut().zip(values) {
                    *out = f32::from(x) * scale * factor;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_shows_what_is_not_finite() {
        assert_eq!(Stored::Floats(&[1.0, -3.0, 2.0]).greatest(), 3.0);
        assert_eq!(Stored::Floats(&[]).greatest(), 0.0);
        for broken in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!Stored::Floats(&[1.0, broken, 2.0]).greatest().is_finite());
            let values = &[0, 1];
            let integers = Stored::Integers {
                values,
                scale: broken,
            };
            assert!(!integers.greatest().is_finite());
        }
        let integers = Stored::Integers {
            values: &[5, -128],
            scale: -0.5,
        };
        assert_eq!(integers.greatest(), 64.0);
    }
}
