//! Estimates of a request's tokens from its characters, for admission, before anything is tokenised.

use std::iter::Sum;
use std::ops::Add;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::scoring::{Around, Pairing, Texts};
use crate::tokenize::MAX_TOKENS;
use crate::types::Cost;

/// A guess of a text's tokens by its characters, of which no more are read than give `most`.
///
/// A word has a token for every six letters that it begins, or two digits or letters of other alphabets; a mark has
/// one, and so has a character of a script with thousands of them. Of English, German, Chinese, numbers or code that is
/// half to twice as many as there are (BERT's and byte-level vocabularies), whatever the text's length.
pub(super) fn guess(text: &str, most: usize) -> usize {
    const LETTERS: u8 = 6;
    let (mut tokens, mut letters) = (0, 0);
    for byte in text.bytes() {
        let step = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => 1,
            b'0'..=b'9' | 0xC0..0xE0 => LETTERS / 2,
            // The rest of a character.
            0x80..0xC0 => continue,
            _ => 0,
        };
        if step == 0 {
            tokens += usize::from(!byte.is_ascii_whitespace());
            letters = 0;
        } else {
            tokens += usize::from(letters == 0);
            letters = (letters + step) % LETTERS;
        }
        if tokens >= most {
            break;
        }
    }
    tokens
}

/// Tokens that recent texts had for each guessed one.
#[derive(Debug)]
pub(super) struct Ratio(Mutex<Sums>);

/// Tokens that there were, and those that were guessed; both fade.
#[derive(Debug, Clone, Copy)]
struct Sums {
    tokens: f64,
    guessed: f64,
}

/// After so many guessed tokens a text counts with about a third (1/e).
const MEMORY: f64 = 8192.0;
/// A request counts with so many guessed tokens at most, so that none decides for the others.
const MOST: f64 = 512.0;
/// The ratio is between one `RANGE`th and `RANGE`, whatever the requests were.
const RANGE: f64 = 2.0;

impl Default for Ratio {
    fn default() -> Self {
        Self(Mutex::new(Sums {
            tokens: MEMORY,
            guessed: MEMORY,
        }))
    }
}

impl Ratio {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        // Nothing panics under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> f64 {
        let Sums { tokens, guessed } = *self.sums();
        (tokens / guessed).clamp(1.0 / RANGE, RANGE)
    }

    /// Adds a request whose texts were read to their ends.
    pub(super) fn record(&self, tokens: usize, guessed: usize) {
        let (tokens, guessed) = (tokens as f64, guessed as f64);
        let ratio = tokens / guessed;
        // A text in no language, such as one letter many times, says nothing of others.
        let is_text = (0.5 / RANGE..=2.0 * RANGE).contains(&ratio);
        if !is_text {
            return;
        }
        let counts = guessed.min(MOST);
        let fade = (-counts / MEMORY).exp();
        let mut sums = self.sums();
        sums.tokens = sums.tokens * fade + counts * ratio;
        sums.guessed = sums.guessed * fade + counts;
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
    /// Tokens for each guessed one.
    pub(super) ratio: f64,
    pub(super) around: Around,
    pub(super) cost: Cost,
}

impl Known {
    /// About how many tokens of a text are read.
    pub(super) fn tokens(&self, text: &str) -> usize {
        let most = (MAX_TOKENS as f64 / self.ratio) as usize;
        let guessed = guess(text, most) as f64 * self.ratio;
        (guessed.ceil() as usize).min(MAX_TOKENS)
    }
}

/// Estimates of each document's pairs, after truncation. What a query's pairs share counts with the first of them.
pub(super) fn estimates(texts: &Texts, known: &Known) -> Vec<Estimate> {
    let (fit, around) = (&texts.fit, &known.around);
    let longest = fit.max_tokens.unwrap_or(usize::MAX).min(known.longest);
    let read = fit.max_document_tokens.unwrap_or(usize::MAX);
    let tokens = |text: &str| known.tokens(text);
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
            ratio: 1.2,
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
    fn a_guess_is_near_what_texts_of_all_kinds_have() {
        // What BERT's English vocabulary makes of them.
        for (text, tokens) in [
            ("q", 1),
            ("How long do the effects of the treatment last?", 10),
            ("https://example.com/a/b/c?x=1&y=2", 21),
            ("12345 678.90 0x7fff 1999-12-31", 16),
            ("機械学習は人工知能の一分野であり", 16),
            ("Машинное обучение", 16),
            ("Verfahren zur Konstruktion von Algorithmen", 14),
            ("...", 3),
            ("", 0),
        ] {
            let guessed = guess(text, usize::MAX);
            assert!(
                guessed <= 2 * tokens && tokens <= 2 * guessed,
                "{text}: {guessed}"
            );
        }
        assert_eq!(guess(&"word ".repeat(1_000_000), 100), 100);
    }

    #[test]
    fn the_ratio_follows_the_requests() {
        let ratio = Ratio::default();
        for _ in 0..200 {
            ratio.record(1500, 1000);
        }
        assert!((ratio.get() - 1.5).abs() < 0.01);
    }

    #[test]
    fn neither_tiny_texts_nor_those_in_no_language_decide_for_others() {
        let ratio = Ratio::default();
        for _ in 0..300 {
            // "q" and "d" with two words each; a letter 300,000 times is one token.
            ratio.record(2, 2);
            ratio.record(1, 50_000);
            ratio.record(5000, 1000);
        }
        assert!((ratio.get() - 1.0).abs() < 0.01, "{}", ratio.get());
        for _ in 0..300 {
            ratio.record(3990, 1000);
        }
        assert!(ratio.get() <= RANGE);
    }

    #[test]
    fn of_a_document_no_more_than_is_read_counts() {
        let known = known(Around::default(), Cost::default());
        let all = "word ".repeat(100_000);
        assert_eq!(known.tokens(&all), MAX_TOKENS);
        assert_eq!(known.tokens(&all[..5000]), 1200);
    }
}
