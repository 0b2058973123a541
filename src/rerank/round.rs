//! A round: one model scores some documents. Each distinct pair is scored once, and cached pairs are not
//! scored. Called by `cascade` and `rerank`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Demand, work};
use crate::models::{Estimate, Info, Progress, ScoreError, Scored, Served, Timings};
use crate::schedule::{RunError, Ticket};
use crate::scoring::{Pairing, Texts};
use crate::tokenize::{Text, TokenizeError};
use crate::types::RawScore;

use super::cache::{Key, Keys, Known, ScoreCache};

/// The documents that one model is to score, with those scores that the cache has.
#[derive(Debug)]
pub(super) struct Round {
    served: Arc<Served>,
    /// For each document of the round, its index in `different`.
    places: Vec<usize>,
    /// The distinct documents.
    different: Vec<Different>,
    /// The texts of those that are not cached.
    texts: Texts,
    /// What each document in `texts` will take.
    estimates: Vec<Estimate>,
}

/// A distinct document.
#[derive(Debug)]
struct Different {
    /// Index of its first occurrence in the round.
    first: usize,
    /// The cache keys of its pairs; empty without a cache.
    keys: Vec<Key>,
    /// Its pairs' results, if the cache has all of them.
    known: Option<Vec<Known>>,
}

/// A round's result.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Raw scores `[documents x queries]`, document by document.
    pub(super) raw: Vec<RawScore>,
    /// Whether each document was truncated.
    pub(super) truncated: Vec<bool>,
    /// Number of tokens scored.
    pub(super) tokens: usize,
    pub(super) timings: Timings,
}

impl Round {
    /// Finds repeated documents and cached scores.
    pub(super) fn new(served: Arc<Served>, texts: &Texts, cache: Option<&ScoreCache>) -> Self {
        let (places, firsts) = match served.is_listwise() {
            true => (0..texts.documents.len()).map(|i| (i, i)).unzip(),
            false => distinguish(texts),
        };
        let cache = cache.filter(|_| !served.is_listwise());
        let shared = match texts.pairing {
            Pairing::All if cache.is_some() => texts.queries.iter(),
            _ => [].iter(),
        };
        let shared = shared.map(|query| Keys::new(&served, texts, query));
        let shared: Vec<Keys> = shared.collect();
        let different = firsts.into_iter().map(|first| {
            let document = &texts.documents[first];
            let keys: Vec<Key> = match (cache, texts.pairing) {
                (None, _) => Vec::new(),
                (_, Pairing::All) => shared.iter().map(|keys| keys.of(document)).collect(),
                (_, Pairing::Each) => {
                    let queries = texts.queries_of(first).iter();
                    let keys = queries.map(|query| Keys::new(&served, texts, query));
                    keys.map(|keys| keys.of(document)).collect()
                }
            };
            let known = cache.and_then(|cache| keys.iter().map(|key| cache.get(key)).collect());
            Different { first, keys, known }
        });
        let different: Vec<Different> = different.collect();
        let unknown = different.iter().filter(|d| d.known.is_none());
        let unknown: Vec<usize> = unknown.map(|d| d.first).collect();
        if let Some(cache) = cache {
            let hits = different.len() - unknown.len();
            cache.record(&served.info().name, hits, unknown.len());
        }
        let texts = select(texts, &unknown);
        Self {
            estimates: served.estimates_now(&texts),
            served,
            places,
            different,
            texts,
        }
    }

    /// The model that scores it.
    pub(super) fn model(&self) -> Arc<Info> {
        Arc::clone(self.served.info())
    }

    /// Number of documents that stand in it before.
    pub(super) fn repeated(&self) -> usize {
        self.places.len() - self.different.len()
    }

    /// What scoring it will take.
    pub(super) fn estimate(&self) -> Estimate {
        self.estimates.iter().copied().sum()
    }

    /// What admission must know of it.
    pub(super) fn demand(&self) -> Demand {
        let queries = self.texts.queries.iter().map(|query| query.len());
        let documents = self.texts.documents.iter().map(String::len);
        Demand {
            tokens: self.estimate().tokens,
            work: self.work(),
            bytes: queries.chain(documents).sum(),
        }
    }

    pub(super) fn work(&self) -> Duration {
        work(self.estimate().cost, self.served.tokens_per_second())
    }

    /// How many documents, counted from the first, can be scored within `time`.
    pub(super) fn affordable(&self, time: Duration) -> usize {
        let rate = self.served.tokens_per_second();
        let most = rate * time.as_secs_f64();
        let mut costs = vec![0.0; self.different.len()];
        for ((place, _), estimate) in self.unknown().zip(&self.estimates) {
            costs[place] = estimate.cost;
        }
        let mut cost = 0.0;
        let fits = self.places.iter().take_while(|&&place| {
            cost += std::mem::take(&mut costs[place]);
            cost <= most
        });
        fits.count()
    }

    /// Scores the documents that are not cached. `progress` is called with the remaining work.
    pub(super) async fn run(
        self,
        ticket: Ticket,
        progress: &mut (dyn FnMut(Duration) -> Result<(), RunError> + Send),
        cache: Option<&ScoreCache>,
    ) -> Result<Outcome, ScoreError> {
        let each = match self.texts.pairing {
            Pairing::All => self.texts.queries.len(),
            Pairing::Each => 1,
        };
        let unknown: Vec<usize> = self.unknown().map(|(i, _)| i).collect();
        let scored = if unknown.is_empty() {
            Scored::default()
        } else {
            let rate = self.served.tokens_per_second();
            let mut tell = |left: f64| progress(work(left, rate));
            let tell: Progress<'_> = &mut tell;
            let texts = self.texts.clone();
            let scored = self.served.score(texts, &self.estimates, ticket, tell);
            let original = |document: usize| {
                let place = unknown.get(document).map(|&i| self.different[i].first);
                place.unwrap_or(document)
            };
            scored.await.map_err(|error| relocated(error, original))?
        };
        let mut different = self.different;
        let found = scored.raw.chunks(each).zip(&scored.truncated);
        for (&place, (raw, &truncated)) in unknown.iter().zip(found) {
            let known = raw.iter().map(|&raw| Known { raw, truncated });
            let known: Vec<Known> = known.collect();
            let different = &mut different[place];
            if let Some(cache) = cache {
                for (&key, &known) in different.keys.iter().zip(&known) {
                    cache.insert(key, known);
                }
            }
            different.known = Some(known);
        }
        let documents = self.places.len();
        let mut raw = Vec::with_capacity(documents * each);
        let mut truncated = Vec::with_capacity(documents);
        for place in self.places {
            let known = different[place].known.iter().flatten();
            truncated.push(known.clone().any(|known| known.truncated));
            raw.extend(known.map(|known| known.raw));
        }
        Ok(Outcome {
            raw,
            truncated,
            tokens: scored.tokens,
            timings: scored.timings,
        })
    }

    fn unknown(&self) -> impl Iterator<Item = (usize, &Different)> {
        let different = self.different.iter().enumerate();
        different.filter(|(_, different)| different.known.is_none())
    }
}

/// For each document its index among the distinct ones, and for each of these the index of its first
/// occurrence. If each document has its own query, both must be equal.
fn distinguish(texts: &Texts) -> (Vec<usize>, Vec<usize>) {
    let mut seen: HashMap<(&str, &str), usize> = HashMap::with_capacity(texts.documents.len());
    let mut firsts = Vec::new();
    let places = texts.documents.iter().enumerate().map(|(i, document)| {
        let query = match texts.pairing {
            Pairing::All => "",
            Pairing::Each => texts.queries_of(i).first().map_or("", |query| query),
        };
        match seen.entry((query, document)) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(place) => {
                firsts.push(i);
                *place.insert(firsts.len() - 1)
            }
        }
    });
    (places.collect(), firsts)
}

/// The texts of some documents and their queries.
fn select(texts: &Texts, documents: &[usize]) -> Texts {
    if documents.len() == texts.documents.len() {
        return texts.clone();
    }
    let queries = match texts.pairing {
        Pairing::All => Arc::clone(&texts.queries),
        Pairing::Each => {
            let queries = documents.iter().flat_map(|&i| texts.queries_of(i));
            queries.cloned().collect()
        }
    };
    Texts {
        queries,
        pairing: texts.pairing,
        documents: documents
            .iter()
            .map(|&i| texts.documents[i].clone())
            .collect(),
        fit: texts.fit,
        instruction: texts.instruction.clone(),
        is_kept: texts.is_kept,
    }
}

/// The error with the document's index changed by `original`.
pub(crate) fn relocated(error: ScoreError, original: impl Fn(usize) -> usize) -> ScoreError {
    match error {
        ScoreError::NotFinite(document) => ScoreError::NotFinite(original(document)),
        ScoreError::Tokenize(TokenizeError::TooLong {
            document,
            tokens,
            at_least,
            max_tokens,
            windows,
        }) => ScoreError::Tokenize(TokenizeError::TooLong {
            document: original(document),
            tokens,
            at_least,
            max_tokens,
            windows,
        }),
        ScoreError::Tokenize(TokenizeError::TextTooLong {
            text: Text::Document(document),
            tokens,
            at_least,
            max_tokens,
        }) => ScoreError::Tokenize(TokenizeError::TextTooLong {
            text: Text::Document(original(document)),
            tokens,
            at_least,
            max_tokens,
        }),
        other => other,
    }
}
