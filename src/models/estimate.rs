//! Estimates of a request's tokens from its bytes, for admission, before anything is tokenised.

use std::iter::Sum;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::scoring::{Around, Pairing, Texts};
use crate::types::Cost;

/// Tokens per byte of text, averaged over recent requests.
#[derive(Debug)]
pub(super) struct Density(AtomicU64);

impl Default for Density {
    fn default() -> Self {
        // English text and its usual vocabularies.
        Self(AtomicU64::new(0.2f64.to_bits()))
    }
}

impl Density {
    pub(super) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Adds a request whose texts were read to their ends.
    pub(super) fn record(&self, tokens: usize, bytes: usize) {
        const WEIGHT: f64 = 1.0 / 16.0;
        let now = tokens as f64 / bytes.max(1) as f64;
        let mean = self.get() + WEIGHT * (now - self.get());
        // If two requests update it at once, one update may be lost, which does no harm.
        self.0.store(mean.to_bits(), Ordering::Relaxed);
    }
}

/// What scoring takes, as far as it is known before anything is tokenised.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// Tokens of all sequences.
    pub tokens: usize,
    /// What they cost the engine, see [`Cost`].
    pub cost: f64,
}

impl Estimate {
    /// That of a sequence which stands alone.
    pub(super) fn of(tokens: usize, cost: &Cost) -> Self {
        Self {
            tokens,
            cost: cost.of(0, tokens),
        }
    }

    /// That of so many of its kind.
    #[must_use]
    pub fn times(self, n: usize) -> Self {
        Self {
            tokens: self.tokens.saturating_mul(n),
            cost: self.cost * n as f64,
        }
    }

    /// That of the mean of `n`, of which this is the sum.
    #[must_use]
    pub fn mean(self, n: usize) -> Self {
        Self {
            tokens: self.tokens.div_ceil(n.max(1)),
            cost: self.cost / n.max(1) as f64,
        }
    }
}

impl Add for Estimate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            cost: self.cost + other.cost,
        }
    }
}

impl Sum for Estimate {
    fn sum<I: Iterator<Item = Self>>(estimates: I) -> Self {
        estimates.fold(Self::default(), Add::add)
    }
}

/// What is known of a model for its estimates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Its longest pair in tokens.
    pub(super) longest: usize,
    /// Tokens per byte.
    pub(super) density: f64,
    pub(super) around: Around,
    pub(super) cost: Cost,
}

/// Estimates of each document's pairs, after truncation. What a query's pairs share counts with the first of them.
pub(super) fn estimates(texts: &Texts, known: &Known) -> Vec<Estimate> {
    let (fit, around) = (&texts.fit, &known.around);
    let longest = fit.max_tokens.unwrap_or(usize::MAX).min(known.longest);
    let read = fit.max_document_tokens.unwrap_or(usize::MAX);
    let tokens = |text: &str| (text.len() as f64 * known.density) as usize + 1;
    let instruction = texts.instruction.as_deref().map_or(0, tokens);
    let fixed = (around.tokens + instruction).min(longest);
    let pair = |query: &str, document: &str, is_first: bool| {
        let query = tokens(query);
        let document = tokens(document).min(read);
        let room = longest - fixed;
        let (windows, length) = match query + document <= room {
            true => (1, fixed + query + document),
            false => {
                // Each window holds the query, or half a window of it.
                let room = (room - query.min(room / 2)).max(1);
                let windows = document.div_ceil(room);
                (windows.clamp(1, fit.windows.max.max(1)), longest)
            }
        };
        let shared = match around.shared {
            0 => 0,
            shared => shared + instruction + if around.shares_query { query } else { 0 },
        };
        let shared = shared.min(length);
        let once = if is_first {
            known.cost.of(0, shared)
        } else {
            0.0
        };
        Estimate {
            tokens: windows.saturating_mul(length),
            cost: once + windows as f64 * known.cost.of(shared, length),
        }
    };
    let documents = texts.documents.iter().enumerate().map(|(i, document)| {
        let queries = texts.queries_of(i).iter();
        let is_first = i == 0 || texts.pairing == Pairing::Each;
        queries.map(|query| pair(query, document, is_first)).sum()
    });
    documents.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::{Fit, Strategy, Truncation, Windows};
    use crate::tokenize::Direction;

    fn texts(max_document_tokens: Option<usize>, windows: usize) -> Texts {
        Texts {
            queries: ["q".repeat(10).into()].into(),
            pairing: Pairing::All,
            documents: ["d".repeat(100), "d".repeat(100_000)].into(),
            fit: Fit {
                truncation: Truncation {
                    strategy: Strategy::LongestFirst,
                    direction: Direction::Right,
                },
                max_tokens: None,
                max_document_tokens,
                windows: Windows {
                    max: windows,
                    overlap: 0,
                },
            },
            instruction: None,
            is_kept: true,
        }
    }

    fn known(around: Around, cost: Cost) -> Known {
        Known {
            longest: 256,
            density: 0.2,
            around,
            cost,
        }
    }

    fn tokens(texts: &Texts) -> Vec<usize> {
        let around = Around {
            tokens: 2,
            ..Around::default()
        };
        let estimates = estimates(texts, &known(around, Cost::default()));
        let same = |estimate: &Estimate| estimate.cost == estimate.tokens as f64;
        assert!(estimates.iter().all(same), "{estimates:?}");
        estimates.iter().map(|estimate| estimate.tokens).collect()
    }

    #[test]
    fn only_what_is_read_of_a_document_counts() {
        assert_eq!(tokens(&texts(None, 1)), [26, 256]);
        assert_eq!(tokens(&texts(None, 4)), [26, 1024]);
        assert_eq!(tokens(&texts(Some(8), 4)), [13, 13]);
    }

    #[test]
    fn a_document_costs_as_much_as_its_pairs_with_all_queries() {
        let mut texts = texts(None, 4);
        let query = texts.queries[0].clone();
        texts.queries = [query.clone(), query].into();
        assert_eq!(tokens(&texts), [52, 2048]);
    }

    #[test]
    fn what_documents_share_costs_once_and_attention_more_the_longer_they_are() {
        let around = Around {
            tokens: 100,
            shared: 80,
            shares_query: true,
        };
        let mut texts = texts(None, 1);
        texts.documents = vec!["d".repeat(100); 2].into();
        let of = |texts: &Texts, cost| estimates(texts, &known(around, cost));
        let found = of(&texts, Cost::default());
        // 100 around, 3 of the query, 21 of the document; of these 83 are shared.
        assert_eq!(found.iter().map(|e| e.tokens).collect::<Vec<_>>(), [124; 2]);
        assert_eq!(
            found.iter().map(|e| e.cost).collect::<Vec<_>>(),
            [124.0, 41.0]
        );
        texts.instruction = Some("i".repeat(50).into());
        let found = of(&texts, Cost::default());
        assert_eq!(
            found.iter().map(|e| e.cost).collect::<Vec<_>>(),
            [135.0, 41.0]
        );
    }

    #[test]
    fn the_density_follows_the_requests() {
        let density = Density::default();
        for _ in 0..200 {
            density.record(400, 1000);
        }
        assert!((density.get() - 0.4).abs() < 0.001);
    }
}
