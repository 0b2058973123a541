//! What of a request's texts is to be encoded: distinct queries, and distinct documents whose vectors are not there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::scoring::{Pairing, Texts};
use crate::tokenize::{Text, TokenizeError};

use super::cache::{Kept, Key, VectorCache, key};

/// A distinct document.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: Key,
    /// Its index in the request, where it stands first.
    first: usize,
    pub(super) known: Option<Arc<Kept>>,
    /// Its pairs, with the query of each.
    pub(super) pairs: Vec<(usize, usize)>,
}

/// A request's distinct texts, and which pairs they make.
#[derive(Debug)]
pub(super) struct Plan {
    /// The distinct queries, as documents that stand alone.
    pub(super) query_texts: Texts,
    /// The documents whose vectors are not there, likewise.
    pub(super) missing_texts: Texts,
    /// Their slots.
    pub(super) missing: Vec<usize>,
    pub(super) slots: Vec<Slot>,
    /// Each document's slot.
    places: Vec<usize>,
    /// The queries of each pair.
    queries: Vec<usize>,
    /// Number of pairs of a document, and of all.
    pub(super) each: usize,
    pub(super) pairs: usize,
}

impl Plan {
    /// Hashes the documents and looks them up.
    pub(super) fn new(texts: &Texts, cache: Option<&VectorCache>) -> Self {
        let each = texts.queries_of_each();
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut distinct = Vec::new();
        let query_of = texts.queries.iter().map(|text| {
            *seen.entry(&**text).or_insert_with(|| {
                distinct.push(text.to_string());
                distinct.len() - 1
            })
        });
        let query_of: Vec<usize> = query_of.collect();
        let mut slots: Vec<Slot> = Vec::new();
        let (mut places, mut queries) = (Vec::new(), Vec::new());
        let mut known: HashMap<Key, usize> = HashMap::new();
        for (i, document) in texts.documents.iter().enumerate() {
            let key = key(document, &texts.fit);
            let slot = match known.entry(key) {
                Entry::Occupied(slot) => *slot.get(),
                Entry::Vacant(place) => {
                    slots.push(Slot {
                        key,
                        first: i,
                        known: cache.and_then(|cache| cache.get(&key)),
                        pairs: Vec::new(),
                    });
                    *place.insert(slots.len() - 1)
                }
            };
            places.push(slot);
            let own = match texts.pairing {
                Pairing::All => 0..texts.queries.len(),
                Pairing::Each => i..i + 1,
            };
            for query in own {
                let pair = queries.len();
                slots[slot].pairs.push((pair, query_of[query]));
                queries.push(query_of[query]);
            }
        }
        let missing: Vec<usize> = (0..slots.len())
            .filter(|&s| slots[s].known.is_none())
            .collect();
        let documents = missing
            .iter()
            .map(|&slot| texts.documents[slots[slot].first].clone());
        let alone = |texts_alone: Vec<String>| Texts {
            queries: [Arc::from("")].into(),
            pairing: Pairing::All,
            documents: texts_alone.into(),
            fit: texts.fit,
            instruction: None,
            is_kept: texts.is_kept,
        };
        let missing_texts = alone(documents.collect());
        Self {
            query_texts: alone(distinct),
            missing_texts,
            missing,
            slots,
            places,
            pairs: queries.len(),
            queries,
            each,
        }
    }

    /// The slots whose vectors are there.
    pub(super) fn known_slots(&self) -> Vec<usize> {
        let slots = 0..self.slots.len();
        slots.filter(|&s| self.slots[s].known.is_some()).collect()
    }

    /// How many there are.
    pub(super) fn known(&self) -> usize {
        self.slots.len() - self.missing.len()
    }

    /// Whether each document or one of its queries was truncated; `missing` and `queries` tell of those that were
    /// encoded.
    pub(super) fn truncated(&self, missing: &[bool], queries: &[bool]) -> Vec<bool> {
        let known = |slot: &Slot| slot.known.as_ref().is_some_and(|known| known.truncated);
        let mut cut: Vec<bool> = self.slots.iter().map(known).collect();
        for (&slot, &is_cut) in self.missing.iter().zip(missing) {
            cut[slot] = is_cut;
        }
        let documents = self.places.iter().enumerate().map(|(i, &slot)| {
            let own = &self.queries[i * self.each..(i + 1) * self.each];
            cut[slot] || own.iter().any(|&query| queries.get(query) == Some(&true))
        });
        documents.collect()
    }

    /// The error with the document's index in the request.
    pub(super) fn relocated(&self, error: TokenizeError) -> TokenizeError {
        match error {
            TokenizeError::TextTooLong {
                text: Text::Document(document),
                tokens,
                at_least,
                max_tokens,
            } => {
                let slot = self
                    .missing
                    .get(document)
                    .map(|&slot| self.slots[slot].first);
                TokenizeError::TextTooLong {
                    text: Text::Document(slot.unwrap_or(document)),
                    tokens,
                    at_least,
                    max_tokens,
                }
            }
            other => other,
        }
    }
}
