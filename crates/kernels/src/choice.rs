//! Which of the kernels that this CPU has are used.

use std::fmt;

use super::detect::Units;
use super::{Dtype, Kernels, tables};

/// The instruction set that was asked for is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuchKernels {
    /// The set that was asked for.
    pub name: String,
    /// Those that this CPU has, the best first.
    pub available: Vec<&'static str>,
}

impl fmt::Display for NoSuchKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, available) = (&self.name, self.available.join(", "));
        write!(
            f,
            "\"{name}\" is none of auto, {available} (what this CPU has)"
        )
    }
}

impl std::error::Error for NoSuchKernels {}

impl Kernels {
    /// The best that this CPU has.
    #[must_use]
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this CPU has, the best first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        tables(Units::of_this_cpu()).into_iter().map(Self).collect()
    }

    /// Those of this name, or the best for `auto`.
    ///
    /// # Errors
    /// If this CPU has none of that name; the error says which it has.
    pub fn named(name: &str) -> Result<Self, NoSuchKernels> {
        if name == "auto" {
            return Ok(Self::detect());
        }
        let available = Self::available();
        let found = available
            .iter()
            .copied()
            .find(|kernels| kernels.name() == name);
        found.ok_or_else(|| NoSuchKernels {
            name: name.to_owned(),
            available: available.iter().map(|kernels| kernels.name()).collect(),
        })
    }

    /// Whether products with weights of this type are computed in f32: a weight that the type takes without loss then
    /// counts as it would in f32.
    #[must_use]
    pub fn multiply_in_f32(self, dtype: Dtype) -> bool {
        self.arithmetic(dtype) == "f32"
    }

    /// The instruction set's name in settings and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// What a layer of this type computes its products in here, and by what, for logs: `f32`, `bf16 (amx)`,
    /// `int8 (vnni)`.
    #[must_use]
    pub fn arithmetic(self, dtype: Dtype) -> &'static str {
        match dtype {
            Dtype::F32 | Dtype::F16 => "f32",
            Dtype::Bf16 => self.0.bf16.map_or("f32", |bf16| bf16.arithmetic),
            Dtype::Int8 => self.0.int8.arithmetic,
        }
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}
