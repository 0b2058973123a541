//! The cache of documents' vectors: from a hash of a text, and of what else its vectors depend on, to the vectors. It
//! holds no text, and lives as long as its model is loaded.

use std::sync::Arc;

use metrics::{counter, gauge};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use crate::scoring::{Direction, DocumentVectors, Fit, Strategy};

/// Bytes of an entry besides its vectors: the key, the allocations, the cache's own.
const OVERHEAD: u64 = 160;

/// The first half of a SHA-256.
pub(super) type Key = [u8; 16];

/// What is kept of a document.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) vectors: DocumentVectors,
    /// Whether a part of it is not in them.
    pub(super) truncated: bool,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, Arc<Kept>> for Bytes {
    fn weight(&self, _: &Key, kept: &Arc<Kept>) -> u64 {
        OVERHEAD + kept.vectors.bytes() as u64
    }
}

/// A cache of vectors that evicts the least useful ones when it is full.
#[derive(Debug)]
pub(in crate::models) struct VectorCache(Cache<Key, Arc<Kept>, Bytes>);

impl VectorCache {
    /// A cache of at most `bytes` bytes; none if there are none.
    pub(super) fn new(bytes: u64) -> Option<Self> {
        /// A document of 100 tokens in half precision, to begin with.
        const USUAL: u64 = 20_000;
        let entries = usize::try_from(bytes / USUAL + 1).ok()?;
        (bytes > 0).then(|| Self(Cache::with_weighter(entries, bytes, Bytes)))
    }

    pub(super) fn has(&self, document: &str, fit: &Fit) -> bool {
        self.0.contains_key(&key(document, fit))
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        self.0.get(key)
    }

    pub(super) fn insert(&self, key: Key, vectors: DocumentVectors, truncated: bool) {
        self.0.insert(key, Arc::new(Kept { vectors, truncated }));
    }

    /// Counts hits and misses.
    pub(super) fn record(&self, model: &str, hits: usize, misses: usize) {
        let model = || model.to_owned();
        counter!("rerankd_vector_cache_hits_total", "model" => model()).increment(hits as u64);
        counter!("rerankd_vector_cache_misses_total", "model" => model()).increment(misses as u64);
        gauge!("rerankd_vector_cache_bytes", "model" => model()).set(self.0.weight() as f64);
    }
}

/// The key of a document that is read in one way. The prompt before it is the model's, and so in all of its cache.
pub(super) fn key(document: &str, fit: &Fit) -> Key {
    // No text has u64::MAX tokens, so None is told apart from every number.
    let number = |n: Option<usize>| n.map_or(u64::MAX, |n| n as u64);
    let mut hash = Sha256::new();
    for number in [
        u64::from(fit.truncation.strategy == Strategy::Off),
        u64::from(fit.truncation.direction == Direction::Left),
        number(fit.max_tokens),
        number(fit.max_document_tokens),
    ] {
        hash.update(number.to_le_bytes());
    }
    hash.update(document);
    let mut key = Key::default();
    key.copy_from_slice(&hash.finalize()[..size_of::<Key>()]);
    key
}
