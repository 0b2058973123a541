//! Why a document has its score, by leaving out: a part's weight is the document's raw score less that of the
//! document without the part. The parts are sentences, and the words of the one that weighs most. Called by
//! `rerank`, after the ranking; the pairs that this takes are scored as all others are, but for the cache.

mod parts;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Refused, work};
use crate::models::{self, ScoreError};
use crate::types::RawScore;

use super::ask::{Ask, Queries};
use super::cascade::{Planned, Ranking};
use super::round::relocated;
use super::session::{Asked, Session, prepared};
use super::{RerankError, Reranker};

/// Longest document that is explained, in bytes: it is in memory once for each of its parts.
const MAX_BYTES: usize = 128 << 10;
/// Usual lengths of a sentence and of a word in bytes, for the estimate.
const SENTENCE: usize = 80;
const WORD: usize = 6;

/// A part of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its text; those of all parts, joined, are the document.
    pub text: String,
    /// The document's raw score less that of the document without this part: positive supports, negative
    /// speaks against.
    pub weight: f32,
    /// Its words, if it is the part with the greatest weight and that is positive; their texts, joined, are
    /// the part's.
    pub words: Option<Vec<Word>>,
}

/// A word of a part, or several neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// Its text.
    pub text: String,
    /// As [`Part::weight`].
    pub weight: f32,
}

/// Why scores can't be explained.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unexplained {
    /// The server explains nothing.
    #[error("explain: this server explains no scores (limits.max_explained is 0); leave it out")]
    Off,
    /// A document has a score for each of several queries.
    #[error(
        "explain: it is for one query; send \"query\" in place of \"queries\", or leave \"explain\" out"
    )]
    SeveralQueries,
    /// Documents without a part would change each other's scores.
    #[error(
        "explain: the model \"{0}\" reads all documents together, so that a part of one has no weight of its own; leave \
         \"explain\" out"
    )]
    Listwise(String),
    /// A document is too long.
    #[error(
        "explain: document {document} (counted from 0) has {bytes} bytes, but one that may be explained has at most \
         {MAX_BYTES}; send it in pieces, or leave \"explain\" out"
    )]
    TooLong {
        /// Its place in the request.
        document: usize,
        /// Its length.
        bytes: usize,
    },
    /// With the explanations it would never be answered in time.
    #[error(
        "explain: {0}; explain fewer (\"top_n\"), read one window of each (\"max_chunks_per_doc\": 1), or leave \
         \"explain\" out"
    )]
    TooLarge(Refused),
}

/// Refuses what can't be explained.
pub(super) fn check(reranker: &Reranker, ask: &Ask, stages: &[Planned]) -> Result<(), RerankError> {
    if !ask.explain {
        return Ok(());
    }
    if let Some(stage) = stages.iter().find(|stage| stage.served.is_listwise()) {
        let name = stage.served.info().name.clone();
        return Err(Unexplained::Listwise(name).into());
    }
    if reranker.limits.max_explained == 0 {
        return Err(Unexplained::Off.into());
    }
    if matches!(ask.queries, Queries::Several { .. }) {
        return Err(Unexplained::SeveralQueries.into());
    }
    let mut documents = ask.documents.iter().map(String::len).enumerate();
    match documents.find(|&(_, bytes)| bytes > MAX_BYTES) {
        Some((document, bytes)) => Err(Unexplained::TooLong { document, bytes }.into()),
        None => Ok(()),
    }
}

/// What explanations will take, before it is known which documents are explained.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Estimate {
    sentences: models::Estimate,
    words: models::Estimate,
    /// The model's tokens per second.
    rate: f64,
}

impl Estimate {
    pub(super) fn tokens(&self) -> usize {
        (self.sentences + self.words).tokens
    }

    /// Engine time.
    pub(super) fn work(&self) -> Duration {
        work((self.sentences + self.words).cost, self.rate)
    }
}

/// What the explanations will cost, if there will be any: the mean of all documents, by the last model.
pub(super) fn estimate(
    reranker: &Reranker,
    ask: &Ask,
    asked: &Asked,
    stages: &[Planned],
) -> Estimate {
    let documents = &asked.documents;
    let (true, Some(last)) = (ask.explain, stages.last()) else {
        return Estimate::default();
    };
    let most = reranker.limits.max_explained;
    let explained = most.min(ask.top_n.unwrap_or(most)).min(documents.len());
    let texts = asked.texts(&last.served, Arc::clone(documents));
    let (mut sentences, mut words) = (models::Estimate::default(), models::Estimate::default());
    for (document, whole) in documents.iter().zip(last.served.estimates(&texts)) {
        let own = (document.len() / SENTENCE + 1).min(parts::MAX_SENTENCES);
        sentences = sentences + whole.times(own);
        let of_sentence = (document.len() / own / WORD + 1).min(parts::MAX_WORDS);
        words = words + whole.times(of_sentence);
    }
    let share = |all: models::Estimate| all.mean(documents.len()).times(explained);
    Estimate {
        sentences: share(sentences),
        words: share(words),
        rate: last.served.tokens_per_second(),
    }
}

/// A document that is explained.
#[derive(Debug, Clone, Copy)]
struct Explained {
    index: usize,
    /// The stage whose model is asked: the last that scored it.
    stage: usize,
    raw: RawScore,
}

/// The parts of the best documents.
pub(super) async fn run(
    session: &mut Session<'_>,
    reranker: &Reranker,
    asked: &Asked,
    stages: &[Planned],
    ranking: &Ranking,
    estimate: Estimate,
) -> Result<Vec<Vec<Part>>, ScoreError> {
    let ranked = ranking.ranked.iter().zip(&ranking.raw);
    let explained = ranked.take(reranker.limits.max_explained);
    let explained = explained.map(|(ranked, &raw)| Explained {
        index: ranked.index,
        stage: ranked.stage,
        raw,
    });
    let explained: Vec<Explained> = explained.collect();
    let mut scoring = Scoring {
        session,
        reranker,
        asked,
        stages,
        explained: &explained,
    };
    let text = |explained: &Explained| asked.documents[explained.index].as_str();

    scoring.session.afterwards = work(estimate.words.cost, estimate.rate);
    let whole = explained.iter().map(|e| Some((e.index, 0..text(e).len())));
    let sentences = cut(asked, whole.collect(), parts::sentences).await;
    let weights = scoring.weights(&sentences).await?;

    scoring.session.afterwards = Duration::ZERO;
    let best: Vec<Option<usize>> = weights.iter().map(|weights| greatest(weights)).collect();
    let cuts = explained.iter().zip(&sentences).zip(&best);
    let cuts = cuts.map(|((e, sentences), best)| Some((e.index, sentences[(*best)?].clone())));
    let words = cut(asked, cuts.collect(), parts::words).await;
    let word_weights = scoring.weights(&words).await?;

    let explanations = explained.iter().enumerate().map(|(i, explained)| {
        let text = |range: &Range<usize>| text(explained)[range.clone()].to_owned();
        let parts = sentences[i].iter().zip(&weights[i]).enumerate();
        let parts = parts.map(|(part, (range, &weight))| Part {
            text: text(range),
            weight,
            words: (best[i] == Some(part)).then(|| {
                let words = words[i].iter().zip(&word_weights[i]);
                let words = words.map(|(range, &weight)| Word {
                    text: text(range),
                    weight,
                });
                words.collect()
            }),
        });
        parts.collect()
    });
    Ok(explanations.collect())
}

/// Cuts ranges of documents into parts, which are ranges of the documents too.
async fn cut(
    asked: &Asked,
    ranges: Vec<Option<(usize, Range<usize>)>>,
    parts: fn(&str) -> Vec<Range<usize>>,
) -> Vec<Vec<Range<usize>>> {
    let documents = Arc::clone(&asked.documents);
    let bytes = ranges.iter().flatten().map(|(_, range)| range.len()).sum();
    let cut = move || {
        let ranges = ranges.into_iter().map(|range| {
            let Some((document, Range { start, end })) = range else {
                return Vec::new();
            };
            let parts = parts(&documents[document][start..end]).into_iter();
            let parts = parts.map(|part| start + part.start..start + part.end);
            parts.collect()
        });
        ranges.collect()
    };
    prepared(bytes, cut).await
}

/// The place of the greatest weight, if that is positive; of equal ones the first.
fn greatest(weights: &[f32]) -> Option<usize> {
    let weights = weights.iter().enumerate().rev();
    let greatest = weights.max_by(|a, b| a.1.total_cmp(b.1));
    greatest
        .filter(|&(_, &weight)| weight > 0.0)
        .map(|(place, _)| place)
}

/// What the rounds of an explanation need.
struct Scoring<'a, 'b> {
    session: &'a mut Session<'b>,
    reranker: &'a Reranker,
    asked: &'a Asked,
    stages: &'a [Planned],
    explained: &'a [Explained],
}

impl Scoring<'_, '_> {
    /// The weight of each part of the explained documents. One round, or one for each model of a cascade that
    /// scored some of them last.
    async fn weights(&mut self, parts: &[Vec<Range<usize>>]) -> Result<Vec<Vec<f32>>, ScoreError> {
        let mut weights: Vec<Vec<f32>> = vec![Vec::new(); parts.len()];
        for (stage, planned) in self.stages.iter().enumerate() {
            let own = self.explained.iter().zip(parts).enumerate();
            let own = own.filter(|(_, (explained, _))| explained.stage == stage);
            // For each pair, which of the explained documents it is of, that one's index, and what is left out.
            let left_out = own.flat_map(|(place, (explained, parts))| {
                let parts = parts.iter().cloned();
                parts.map(move |part| (place, explained.index, part))
            });
            let left_out: Vec<(usize, usize, Range<usize>)> = left_out.collect();
            if left_out.is_empty() {
                continue;
            }
            let documents = Arc::clone(&self.asked.documents);
            let bytes = left_out.iter().map(|(_, i, _)| documents[*i].len()).sum();
            let cuts = left_out.clone();
            let documents = prepared(bytes, move || {
                let cuts = cuts.into_iter();
                let cut = cuts.map(|(_, index, part)| without(&documents[index], part));
                cut.collect::<Arc<[String]>>()
            });
            let asked = Asked {
                documents: documents.await,
                // They would push out of it what is asked again.
                is_cached: false,
                ..self.asked.clone()
            };
            let round = asked.round(self.reranker, &planned.served, None).await;
            let outcome = self.session.run_apart(round, Duration::ZERO).await;
            let original = |pair: usize| left_out.get(pair).map_or(pair, |(_, index, _)| *index);
            let raw = outcome.map_err(|error| relocated(error, original))?.raw;
            for (&(place, ..), without) in left_out.iter().zip(raw) {
                weights[place].push(self.explained[place].raw.get() - without.get());
            }
        }
        Ok(weights)
    }
}

/// A text without one part of it.
fn without(text: &str, part: Range<usize>) -> String {
    [&text[..part.start], &text[part.end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_weighs_most_is_the_first_of_the_greatest_if_that_is_positive() {
        assert_eq!(greatest(&[-1.0, 2.0, 1.0, 2.0]), Some(1));
        assert_eq!(greatest(&[-1.0, -2.0]), None);
        assert_eq!(greatest(&[0.0]), None);
        assert_eq!(greatest(&[]), None);
    }
}
