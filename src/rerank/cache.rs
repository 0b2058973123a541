//! The score cache: from a hash of everything that a pair's score depends on to the score. It holds no text.
//! Called by `round`.

use metrics::{counter, gauge};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use crate::models::Served;
use crate::scoring::{Direction, Fit, Strategy, Texts};
use crate::types::RawScore;

/// Bytes of an entry, including the cache's overhead.
const ENTRY: u64 = 96;

/// SHA-256 of the model, the fit, the instruction, the query and the document.
pub(super) type Key = [u8; 32];

/// A pair's cached result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Known {
    pub(super) raw: RawScore,
    /// Whether the model did not read all of the document.
    pub(super) truncated: bool,
}

#[derive(Debug, Clone)]
struct EntryBytes;

impl Weighter<Key, Known> for EntryBytes {
    fn weight(&self, _: &Key, _: &Known) -> u64 {
        ENTRY
    }
}

/// A cache of scores that evicts the least useful entries when it is full.
#[derive(Debug)]
pub struct ScoreCache(Cache<Key, Known, EntryBytes>);

impl ScoreCache {
    /// A cache of at most `bytes` bytes; `None` if that is too small for one entry.
    #[must_use]
    pub fn new(bytes: u64) -> Option<Self> {
        let entries = usize::try_from(bytes / ENTRY).ok().filter(|&n| n > 0)?;
        Some(Self(Cache::with_weighter(entries, bytes, EntryBytes)))
    }

    pub(super) fn get(&self, key: &Key) -> Option<Known> {
        self.0.get(key)
    }

    pub(super) fn insert(&self, key: Key, known: Known) {
        self.0.insert(key, known);
    }

    /// Counts hits and misses.
    pub(super) fn record(&self, model: &str, hits: usize, misses: usize) {
        counter!("rerankd_score_cache_hits_total", "model" => model.to_owned())
            .increment(hits as u64);
        counter!("rerankd_score_cache_misses_total", "model" => model.to_owned())
            .increment(misses as u64);
        gauge!("rerankd_score_cache_bytes").set(self.0.weight() as f64);
    }
}

/// Computes the keys of one query's pairs.
pub(super) struct Keys(Sha256);

impl Keys {
    /// For a query to a model with the fit and the instruction of these texts.
    pub(super) fn new(served: &Served, texts: &Texts, query: &str) -> Self {
        let Fit {
            truncation,
            max_tokens,
            max_document_tokens,
            windows,
        } = &texts.fit;
        let instruction = texts.instruction.as_deref();
        let strategy = match truncation.strategy {
            Strategy::LongestFirst => 0,
            Strategy::Document => 1,
            Strategy::Off => 2,
        };
        let direction = u64::from(truncation.direction == Direction::Left);
        // No text has u64::MAX tokens, so None is told apart from every number.
        let number = |n: &Option<usize>| n.map_or(u64::MAX, |n| n as u64);
        let mut hash = Sha256::new();
        for number in [
            served.number(),
            strategy,
            direction,
            number(max_tokens),
            number(max_document_tokens),
            windows.max as u64,
            windows.overlap as u64,
            number(&instruction.map(str::len)),
            query.len() as u64,
        ] {
            hash.update(number.to_le_bytes());
        }
        hash.update(instruction.unwrap_or_default());
        hash.update(query);
        Self(hash)
    }

    pub(super) fn of(&self, document: &str) -> Key {
        let mut hash = self.0.clone();
        hash.update(document);
        hash.finalize().into()
    }
}
