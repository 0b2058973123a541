//! Estimates of a request's tokens from its bytes, for admission, before anything is tokenised.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::scoring::Texts;

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

/// Estimated tokens of each document's pairs, after truncation. `longest` is the model's longest pair in
/// tokens.
pub(super) fn estimates(texts: &Texts, longest: usize, density: f64) -> Vec<usize> {
    let fit = &texts.fit;
    let longest = fit.max_tokens.map_or(longest, |max| max.min(longest));
    let read = fit.max_document_tokens.unwrap_or(usize::MAX);
    let tokens = |text: &str| (text.len() as f64 * density) as usize + 1;
    let pair = |query: &str, document: &str| {
        let query = tokens(query) + 2;
        let document = tokens(document).min(read);
        if query + document <= longest {
            return query + document;
        }
        // Each window holds the query, or half a window of it.
        let room = (longest - query.min(longest / 2)).max(1);
        let windows = document.div_ceil(room);
        let windows = windows.clamp(1, fit.windows.max.max(1));
        windows.saturating_mul(longest)
    };
    let documents = texts.documents.iter().enumerate().map(|(i, document)| {
        let queries = texts.queries_of(i).iter();
        queries.map(|query| pair(query, document)).sum()
    });
    documents.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::{Fit, Pairing, Strategy, Truncation, Windows};
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
        }
    }

    #[test]
    fn only_what_is_read_of_a_document_counts() {
        assert_eq!(estimates(&texts(None, 1), 256, 0.2), [26, 256]);
        assert_eq!(estimates(&texts(None, 4), 256, 0.2), [26, 1024]);
        assert_eq!(estimates(&texts(Some(8), 4), 256, 0.2), [13, 13]);
    }

    #[test]
    fn a_document_costs_as_much_as_its_pairs_with_all_queries() {
        let mut texts = texts(None, 4);
        let query = texts.queries[0].clone();
        texts.queries = [query.clone(), query].into();
        assert_eq!(estimates(&texts, 256, 0.2), [52, 2048]);
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
