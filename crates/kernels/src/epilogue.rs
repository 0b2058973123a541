//! What a linear layer does to its sums before it writes them.

use std::ops::Range;

use super::{Activation, Rows};

/// What follows the products and the bias: `activation(x) + residual`; of a gated layer,
/// `activation(gate) * up + residual`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// The activation.
    pub activation: Activation,
    /// `[rows, outputs]` to add.
    pub residual: Option<Rows<'a>>,
}

impl<'a> Epilogue<'a> {
    /// Adds a residual.
    #[must_use]
    pub fn add(residual: Rows<'a>) -> Self {
        Self {
            residual: Some(residual),
            activation: Activation::None,
        }
    }

    /// Applies an activation.
    #[must_use]
    pub fn activate(activation: Activation) -> Self {
        Self {
            residual: None,
            activation,
        }
    }

    /// What follows the products of some outputs.
    ///
    /// # Panics
    /// If the residual has no such columns.
    #[must_use]
    pub fn columns(self, columns: Range<usize>) -> Self {
        Self {
            residual: self.residual.map(|rows| rows.columns(columns)),
            ..self
        }
    }
}
