//! Models that make vectors, put together.

use std::sync::Arc;

use crate::config::Settings;
use crate::model_store::Usage;
use crate::models::{Served, VectorOptions};
use crate::scoring::{EncodePool, Scorer, VectorTexts};
use crate::tokenize::{TextTokenizer, TokenizeError};
use crate::types::{ModelKind, ModelSpec, VectorRules};

/// How the scores of a model come about.
pub(super) fn kind(usage: &Usage) -> ModelKind {
    match &usage.vectors {
        None => ModelKind::CrossEncoder,
        Some(rules) if rules.late_interaction => ModelKind::LateInteraction,
        Some(_) => ModelKind::BiEncoder,
    }
}

/// The most tokens of a document that its files allow.
pub(super) fn longest(spec: &ModelSpec, rules: &VectorRules, usual: Option<usize>) -> usize {
    let most = rules.document.max_tokens.or(usual);
    most.map_or(spec.max_positions, |most| most.min(spec.max_positions))
}

/// The scorers of documents and of queries.
pub(super) fn sides(
    tokenizer: &TextTokenizer,
    spec: &ModelSpec,
    rules: &VectorRules,
    max_tokens: usize,
) -> Result<(Arc<dyn Scorer>, Arc<dyn Scorer>), TokenizeError> {
    let documents = VectorTexts::of_documents(tokenizer, spec, rules, max_tokens)?;
    let queries = VectorTexts::of_queries(tokenizer, spec, rules)?;
    Ok((Arc::new(documents), Arc::new(queries)))
}

/// A model, with what it needs if it makes vectors: `queries` is then the encoder of its queries.
pub(super) fn completed(
    served: Served,
    settings: &Settings,
    usage: &Usage,
    queries: Option<EncodePool>,
) -> Served {
    match (&usage.vectors, queries) {
        (Some(rules), Some(queries)) => {
            let options = VectorOptions {
                query_prompt: rules.query.prompt.clone(),
                document_prompt: rules.document.prompt.clone(),
                similarity: settings.similarity(rules.similarity, rules.late_interaction),
                cache_bytes: settings.vector_cache_bytes(),
                cache_dtype: settings.vector_dtype(),
            };
            served.with_vectors(options, queries)
        }
        _ => served,
    }
}
