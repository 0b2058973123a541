//! What a dialect calls the query and the documents.

use super::error::ApiError;

/// The fields of a body that hold the query and the documents, as its dialect calls them.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextFields {
    pub(super) query: &'static str,
    pub(super) documents: &'static str,
}

impl TextFields {
    pub(super) const USUAL: Self = Self {
        query: "query",
        documents: "documents",
    };
}

impl ApiError {
    /// This error with the names that a dialect has for query and documents.
    pub(super) fn of_fields(self, fields: TextFields) -> Self {
        match self {
            Self::Rerank(error, _) => Self::Rerank(error, fields),
            other => other,
        }
    }
}
