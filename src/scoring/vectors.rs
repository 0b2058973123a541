//! Models that make vectors: query and document are sequences of their own.

use std::borrow::Cow;

use crate::tokenize::{Direction, Text, TextTemplate, TextTokenizer, TokenizeError, Tokens};
use crate::types::{ModelSpec, Output, RawScore, Sequence, VectorRules};

use super::fit::{Fit, Strategy};
use super::{EncodedDocument, Scorer};

/// What makes sequences of one side's texts.
///
/// It is a scorer whose query says nothing: texts are its documents.
#[derive(Debug)]
pub struct VectorTexts {
    is_query: bool,
    template: TextTemplate,
    /// What stands before each text.
    prompt_text: String,
    /// Its tokens, which stay where a text is cut at its beginning.
    prompt: Vec<u32>,
    max_tokens: usize,
    filling: Option<Filling>,
    /// Whether the vectors of all tokens are read, but for those that are skipped.
    reads_all: bool,
    /// Ascending.
    skipped: Vec<u32>,
}

/// Tokens that fill a query up.
#[derive(Debug, Clone, Copy)]
struct Filling {
    token: u32,
    length: usize,
    is_seen: bool,
}

impl VectorTexts {
    /// What makes sequences of queries.
    ///
    /// # Errors
    /// If the tokenizer does not fit the model, lacks the token that fills up queries, or leaves no room for text.
    pub fn of_queries(
        tokenizer: &TextTokenizer,
        spec: &ModelSpec,
        rules: &VectorRules,
    ) -> Result<Self, TokenizeError> {
        let mut texts = Self::new(tokenizer, spec, rules, true)?;
        let Some(expansion) = &rules.expansion else {
            return Ok(texts);
        };
        let token = match &expansion.token {
            Some(token) => tokenizer.id_of(token),
            None => {
                let roles = ["mask_token", "eos_token"];
                roles.into_iter().find_map(|r| tokenizer.special_id(r))
            }
        };
        let token = token.ok_or_else(|| {
            let name = expansion.token.as_deref().unwrap_or("mask token");
            TokenizeError::Template(format!(
                "queries are filled up with the {name}, which its vocabulary lacks"
            ))
        })?;
        let length = expansion.length.min(spec.max_positions);
        texts.max_tokens = match expansion.is_fixed {
            true => length,
            false => texts.max_tokens.max(length),
        };
        texts.filling = Some(Filling {
            token,
            length,
            is_seen: expansion.is_seen,
        });
        texts.check_room()?;
        Ok(texts)
    }

    /// What makes sequences of documents, of at most `max_tokens` tokens each, special tokens included.
    ///
    /// # Errors
    /// If the tokenizer does not fit the model, or leaves no room for text.
    pub fn of_documents(
        tokenizer: &TextTokenizer,
        spec: &ModelSpec,
        rules: &VectorRules,
        max_tokens: usize,
    ) -> Result<Self, TokenizeError> {
        let mut texts = Self::new(tokenizer, spec, rules, false)?;
        texts.max_tokens = max_tokens;
        texts.check_room()?;
        Ok(texts)
    }

    fn new(
        tokenizer: &TextTokenizer,
        spec: &ModelSpec,
        rules: &VectorRules,
        is_query: bool,
    ) -> Result<Self, TokenizeError> {
        let side = match is_query {
            true => &rules.query,
            false => &rules.document,
        };
        // A word that is no token of the vocabulary is not skipped: it would be every unknown one.
        let skipped = rules.skipped_words.iter().filter(|_| side.skips_words);
        let mut skipped: Vec<u32> = skipped.filter_map(|w| tokenizer.id_of(w)).collect();
        skipped.sort_unstable();
        let most = side.max_tokens.unwrap_or(usize::MAX);
        Ok(Self {
            is_query,
            template: tokenizer.text_template(spec.type_vocab_size, spec.vocab_size)?,
            prompt: tokenizer.encode_text(&side.prompt)?,
            prompt_text: side.prompt.clone(),
            max_tokens: most.min(spec.max_positions),
            filling: None,
            reads_all: rules.late_interaction,
            skipped,
        })
    }

    fn check_room(&self) -> Result<(), TokenizeError> {
        let taken = self.template.special_tokens() + self.prompt.len();
        match self.max_tokens > taken {
            true => Ok(()),
            false => Err(TokenizeError::TooShort {
                what: if self.is_query { "query" } else { "document" },
                max_tokens: self.max_tokens,
                around: taken,
                least: taken + 1,
            }),
        }
    }

    /// The most tokens of a text that `fit` allows, special tokens included. A query's are the model's affair.
    fn longest(&self, fit: &Fit) -> usize {
        let asked = fit.max_tokens.filter(|_| !self.is_query);
        asked.map_or(self.max_tokens, |asked| asked.min(self.max_tokens))
    }

    /// The most tokens of a text, its prompt's included, that are kept.
    fn room(&self, fit: &Fit) -> usize {
        let room = self
            .longest(fit)
            .saturating_sub(self.template.special_tokens());
        let asked = fit.max_document_tokens.filter(|_| !self.is_query);
        let asked = asked.map(|asked| asked.saturating_add(self.prompt.len()));
        asked.map_or(room, |asked| asked.min(room))
    }

    /// The sequence of these tokens, which fit.
    fn sequence(&self, text: &[u32]) -> Sequence {
        let own = text.len() + self.template.special_tokens();
        let (token, length, is_seen) = match self.filling {
            Some(filling) => (filling.token, filling.length, filling.is_seen),
            None => (0, 0, true),
        };
        let more = length.saturating_sub(own);
        let mut sequence = self.template.apply(text, (token, more));
        if !is_seen {
            sequence = sequence.with_unseen_tail(more);
        }
        if !self.reads_all {
            return sequence;
        }
        let counts = |(_, id): &(usize, &u32)| self.skipped.binary_search(id).is_err();
        let places = sequence.ids().iter().enumerate().filter(counts);
        let mut places: Box<[u32]> = places.map(|(place, _)| place as u32).collect();
        if places.is_empty() {
            places = (0..sequence.len() as u32).collect();
        }
        sequence.reading(places)
    }
}

impl Scorer for VectorTexts {
    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn needed(&self, _: usize, fit: &Fit) -> usize {
        // One more token tells whether the text ends there.
        self.room(fit).saturating_add(1)
    }

    fn encode(
        &self,
        _: &Tokens,
        text: &Tokens,
        fit: &Fit,
        index: usize,
    ) -> Result<EncodedDocument, TokenizeError> {
        let (room, ids) = (self.room(fit), text.ids());
        let is_cut = text.has_more() || ids.len() > room;
        let has_room = room > self.prompt.len();
        // Documents of so many tokens were asked for.
        let is_asked = room
            < self
                .longest(fit)
                .saturating_sub(self.template.special_tokens());
        let is_error = is_cut && fit.truncation.strategy == Strategy::Off && !is_asked;
        if !has_room || is_error {
            return Err(TokenizeError::TextTooLong {
                text: match self.is_query {
                    true => Text::Query,
                    false => Text::Document(index),
                },
                tokens: ids.len() + self.template.special_tokens(),
                at_least: text.has_more(),
                max_tokens: self.longest(fit),
            });
        }
        let kept = match fit.truncation.direction {
            Direction::Left if is_cut => {
                let rest = room - self.prompt.len();
                let rest = &ids[ids.len() - rest.min(ids.len())..];
                [&self.prompt[..], rest].concat()
            }
            _ => ids[..room.min(ids.len())].to_vec(),
        };
        Ok(EncodedDocument {
            sequences: vec![self.sequence(&kept)],
            truncated: is_cut || !text.is_whole(),
        })
    }

    fn document_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.prompt_text.as_str() {
            "" => text.into(),
            prompt => format!("{prompt}{text}").into(),
        }
    }

    /// Always none: one side's vectors are no score.
    fn decode(&self, _: &[Output]) -> Option<RawScore> {
        None
    }
}

#[cfg(test)]
mod tests;
