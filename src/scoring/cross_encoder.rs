//! Cross-encoders: query and document in one sequence, a logit for each label. A document that does not fit is read in
//! windows, each with the query.

use std::ops::Range;

use crate::tokenize::{PairTemplate, TextTokenizer, TokenizeError, Tokens};
use crate::types::{ModelSpec, Output, RawScore, Sequence, WindowScore};

use super::fit::Fit;
use super::pairs::{Join, Pairs};
use super::{Around, EncodedDocument, Scorer};

/// The scorer of a cross-encoder.
#[derive(Debug)]
pub struct CrossEncoder {
    template: PairTemplate,
    pairs: Pairs,
}

impl CrossEncoder {
    /// The scorer of a model whose longest pair has `max_tokens`, special tokens included. Documents
    /// are scored by its label with the number `label`.
    ///
    /// # Errors
    /// If the tokenizer has no pair template, or ids that the model's embedding table lacks.
    pub fn new(
        tokenizer: &TextTokenizer,
        spec: &ModelSpec,
        max_tokens: usize,
        window_score: WindowScore,
        label: usize,
    ) -> Result<Self, TokenizeError> {
        let template = tokenizer.pair_template(spec.type_vocab_size, spec.vocab_size)?;
        if max_tokens <= template.special_tokens() {
            let around = template.special_tokens();
            return Err(TokenizeError::TooShort {
                what: "pair",
                max_tokens,
                around,
                least: around + 1,
            });
        }
        Ok(Self {
            template,
            pairs: Pairs::new(max_tokens, window_score, label),
        })
    }
}

/// A query and a document between a template's special tokens.
struct Pair<'a> {
    template: &'a PairTemplate,
    query: &'a [u32],
    document: &'a [u32],
}

impl Join for Pair<'_> {
    fn overhead(&self) -> usize {
        self.template.special_tokens()
    }

    fn join(&self, query: Range<usize>, document: Range<usize>) -> Sequence {
        self.template
            .apply(&self.query[query], &self.document[document])
    }
}

impl Scorer for CrossEncoder {
    fn max_tokens(&self) -> usize {
        self.pairs.max_tokens
    }

    fn needed(&self, query: usize, fit: &Fit) -> usize {
        self.pairs
            .needed(self.template.special_tokens(), query, fit)
    }

    fn encode(
        &self,
        query: &Tokens,
        document: &Tokens,
        fit: &Fit,
        index: usize,
    ) -> Result<EncodedDocument, TokenizeError> {
        let pair = Pair {
            template: &self.template,
            query: &query.ids,
            document: &document.ids,
        };
        let (query, document) = (query.into(), document.into());
        self.pairs.encode(&pair, query, document, fit, index)
    }

    fn around(&self) -> Around {
        Around {
            tokens: self.template.special_tokens(),
            ..Around::default()
        }
    }

    fn decode(&self, outputs: &[Output]) -> Option<RawScore> {
        self.pairs.decode(outputs)
    }
}

#[cfg(test)]
pub(super) mod tests;
