//! Models that make vectors, or read documents together, put together: what they have besides what reads pairs.

use std::sync::Arc;

use crate::config::Settings;
use crate::model_store::Usage;
use crate::models::{Served, VectorOptions};
use crate::scoring::{EncodePool, Listwise, Scorer, VectorTexts};
use crate::tokenize::{TextTokenizer, TokenizeError};
use crate::types::{ModelKind, ModelSpec, VectorRules};

/// How the scores of a model come about.
pub(super) fn kind(usage: &Usage) -> ModelKind {
    match &usage.vectors {
        None if usage.is_listwise => ModelKind::Listwise,
        None => ModelKind::CrossEncoder,
        Some(rules) if rules.late_interaction => ModelKind::LateInteraction,
        Some(_) => ModelKind::BiEncoder,
    }
}

/// The most tokens of a document that its files allow.
pub(super) fn longest(spec: &ModelSpec, rules: &VectorRules) -> usize {
    let most = rules.document.max_tokens;
    most.map_or(spec.max_positions, |most| most.min(spec.max_positions))
}

/// What makes sequences of documents.
pub(super) fn documents(
    tokenizer: &TextTokenizer,
    spec: &ModelSpec,
    rules: &VectorRules,
    max_tokens: usize,
) -> Result<Arc<dyn Scorer>, TokenizeError> {
    let documents = VectorTexts::of_documents(tokenizer, spec, rules, max_tokens)?;
    Ok(Arc::new(documents))
}

/// What makes sequences of queries.
pub(super) fn queries(
    tokenizer: &TextTokenizer,
    spec: &ModelSpec,
    rules: &VectorRules,
) -> Result<Arc<dyn Scorer>, TokenizeError> {
    Ok(Arc::new(VectorTexts::of_queries(tokenizer, spec, rules)?))
}

/// A model, with what it needs if it makes vectors, of which `queries` is then the encoder of its queries, or reads
/// `lists`.
pub(super) fn completed(
    served: Served,
    settings: &Settings,
    usage: &Usage,
    queries: Option<EncodePool>,
    lists: Option<Arc<Listwise>>,
) -> Served {
    if let Some(lists) = lists {
        return served.with_lists(lists);
    }
    match (&usage.vectors, queries) {
        (Some(rules), Some(queries)) => {
            let options = VectorOptions {
                similarity: settings.similarity(rules.similarity, rules.late_interaction),
                cache_bytes: settings.vector_cache_bytes(),
                cache_dtype: settings.vector_dtype(),
            };
            served.with_vectors(options, queries)
        }
        _ => served,
    }
}
