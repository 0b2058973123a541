//! What a dialect calls the query and the documents.

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
