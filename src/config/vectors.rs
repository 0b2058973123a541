//! The settings of models that make vectors.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Settings;
use crate::types::{Similarity, VectorDtype};

/// `model.maxsim`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[expect(missing_docs, reason = "config/default.toml documents every value")]
pub enum MaxSimName {
    Auto,
    Sum,
    Mean,
}

/// `model.vector_cache_dtype`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[expect(missing_docs, reason = "config/default.toml documents every value")]
pub enum VectorDtypeName {
    F32,
    F16,
    Int8,
}

impl Settings {
    /// How alike vectors are, where the model's files say `similarity` of one for each token, or of one of a text.
    #[must_use]
    pub fn similarity(&self, mut similarity: Similarity, is_late: bool) -> Similarity {
        let model = &self.model;
        similarity.is_mean = match model.maxsim {
            MaxSimName::Auto => similarity.is_mean,
            MaxSimName::Sum => false,
            MaxSimName::Mean => is_late,
        };
        if model.dimensions > 0 && !is_late {
            similarity.dimensions = Some(model.dimensions);
        }
        similarity
    }

    /// Most bytes of documents' vectors that are kept; 0: none are.
    #[must_use]
    pub fn vector_cache_bytes(&self) -> u64 {
        self.model.vector_cache_mb << 20
    }

    /// What documents' vectors are kept in.
    #[must_use]
    pub fn vector_dtype(&self) -> VectorDtype {
        match self.model.vector_cache_dtype {
            VectorDtypeName::F32 => VectorDtype::F32,
            VectorDtypeName::F16 => VectorDtype::F16,
            VectorDtypeName::Int8 => VectorDtype::Int8,
        }
    }
}
