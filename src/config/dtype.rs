//! `engine.dtype`.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::types::Dtype;

/// `engine.dtype`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
#[expect(missing_docs, reason = "config/default.toml documents every value")]
pub enum DtypeName {
    Auto,
    F32,
    F16,
    Bf16,
    Int8,
}

impl DtypeName {
    /// The type that is asked for; none if it is the one that suits the model.
    pub(super) fn asked(self) -> Option<Dtype> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(Dtype::F32),
            Self::F16 => Some(Dtype::F16),
            Self::Bf16 => Some(Dtype::Bf16),
            Self::Int8 => Some(Dtype::Int8),
        }
    }
}

impl From<Dtype> for DtypeName {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
            Dtype::Int8 => Self::Int8,
        }
    }
}
