//! The templates: the special tokens around query and document, or around a text alone, with their type ids.
//!
//! They are found by passing marked tokens through the tokenizer's post-processor. This works for every kind
//! of post-processor (`TemplateProcessing`, `BertProcessing`, `RobertaProcessing`, a `Sequence`), and lets a
//! query be tokenised once for many documents.

use tokenizers::{Encoding, Token, Tokenizer};

use crate::types::Sequence;

use super::TokenizeError;

/// `prefix text suffix`, each special token with its type id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTemplate {
    prefix: Vec<(u32, u32)>,
    text_type: u32,
    suffix: Vec<(u32, u32)>,
}

impl TextTemplate {
    /// Finds the template of a text that stands alone. `type_vocab_size` is as for [`PairTemplate::probe`].
    pub(crate) fn probe(
        tokenizer: &Tokenizer,
        type_vocab_size: usize,
    ) -> Result<Self, TokenizeError> {
        let marked = Encoding::from_tokens(vec![Token::new(DOCUMENT, String::new(), (0, 0))], 0);
        let probe = tokenizer
            .post_process(marked, None, true)
            .map_err(|e| TokenizeError::Template(e.to_string()))?;
        let known = |kind: u32| {
            if (kind as usize) < type_vocab_size {
                kind
            } else {
                0
            }
        };
        let tokens = probe.get_ids().iter().zip(probe.get_type_ids());
        let tokens: Vec<(u32, u32)> = tokens.map(|(&id, &kind)| (id, known(kind))).collect();
        let place = tokens.iter().position(|token| token.0 == DOCUMENT);
        let place = place.filter(|_| tokens.len() > 1).ok_or_else(|| {
            TokenizeError::Template("it must put special tokens around a text".into())
        })?;
        Ok(Self {
            prefix: tokens[..place].to_vec(),
            text_type: tokens[place].1,
            suffix: tokens[place + 1..].to_vec(),
        })
    }

    /// Number of special tokens around every text; at least one.
    #[must_use]
    pub fn special_tokens(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// The special tokens' ids.
    pub(crate) fn special_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.prefix.iter().chain(&self.suffix).map(|&(id, _)| id)
    }

    /// A text between its special tokens, and then `more` tokens of type 0, all of this id.
    #[must_use]
    pub fn apply(&self, text: &[u32], (id, more): (u32, usize)) -> Sequence {
        let prefix = self.prefix.iter().copied();
        let text = text.iter().map(|&id| (id, self.text_type));
        let tokens = prefix.chain(text).chain(self.suffix.iter().copied());
        let tokens = tokens.chain(std::iter::repeat_n((id, 0), more));
        let (ids, type_ids) = tokens.unzip();
        Sequence::new(ids, type_ids)
    }
}

const QUERY: u32 = u32::MAX - 1;
const DOCUMENT: u32 = u32::MAX;

/// `prefix query middle document suffix`, each special token with its type id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairTemplate {
    prefix: Vec<(u32, u32)>,
    query_type: u32,
    middle: Vec<(u32, u32)>,
    document_type: u32,
    suffix: Vec<(u32, u32)>,
}

impl PairTemplate {
    /// Finds the template. If `type_vocab_size` is below 2, the model has no segments and all type ids are 0,
    /// as in the reference.
    pub(crate) fn probe(
        tokenizer: &Tokenizer,
        type_vocab_size: usize,
    ) -> Result<Self, TokenizeError> {
        let marked = |id| Encoding::from_tokens(vec![Token::new(id, String::new(), (0, 0))], 0);
        let probe = tokenizer
            .post_process(marked(QUERY), Some(marked(DOCUMENT)), true)
            .map_err(|e| TokenizeError::Template(e.to_string()))?;
        let tokens: Vec<(u32, u32)> = probe
            .get_ids()
            .iter()
            .zip(probe.get_type_ids())
            .map(|(&id, &type_id)| (id, if type_vocab_size < 2 { 0 } else { type_id }))
            .collect();
        let position = |mark| {
            let mut found = tokens.iter().enumerate().filter(|(_, t)| t.0 == mark);
            match (found.next(), found.next()) {
                (Some((i, _)), None) => Ok(i),
                _ => Err(TokenizeError::Template(
                    "the pair template must hold each sequence once".into(),
                )),
            }
        };
        let (query, document) = (position(QUERY)?, position(DOCUMENT)?);
        if document < query {
            return Err(TokenizeError::Template(
                "the document must come after the query".into(),
            ));
        }
        if let Some((_, type_id)) = tokens
            .iter()
            .find(|t| t.1 as usize >= type_vocab_size.max(1))
        {
            return Err(TokenizeError::Template(format!(
                "type id {type_id}, but the model has only {type_vocab_size}"
            )));
        }
        Ok(Self {
            prefix: tokens[..query].to_vec(),
            query_type: tokens[query].1,
            middle: tokens[query + 1..document].to_vec(),
            document_type: tokens[document].1,
            suffix: tokens[document + 1..].to_vec(),
        })
    }

    /// Number of special tokens in every pair.
    #[must_use]
    pub fn special_tokens(&self) -> usize {
        self.prefix.len() + self.middle.len() + self.suffix.len()
    }

    /// The special tokens' ids.
    pub(crate) fn special_ids(&self) -> impl Iterator<Item = u32> + '_ {
        let all = self.prefix.iter().chain(&self.middle).chain(&self.suffix);
        all.map(|&(id, _)| id)
    }

    /// Builds a pair.
    #[must_use]
    pub fn apply(&self, query: &[u32], document: &[u32]) -> Sequence {
        let length = self.special_tokens() + query.len() + document.len();
        let (mut ids, mut type_ids) = (Vec::with_capacity(length), Vec::with_capacity(length));
        let mut add = |special: &[(u32, u32)], text: &[u32], kind: u32| {
            ids.extend(special.iter().map(|token| token.0));
            type_ids.extend(special.iter().map(|token| token.1));
            ids.extend_from_slice(text);
            type_ids.resize(ids.len(), kind);
        };
        add(&self.prefix, query, self.query_type);
        add(&self.middle, document, self.document_type);
        add(&self.suffix, &[], self.document_type);
        Sequence::new(ids, type_ids)
    }
}
