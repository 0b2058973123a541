//! Scores rows: what is asked of the model, and what becomes of pairs that it can't score.

use std::sync::Arc;

use anyhow::Result;

use crate::models::ScoreError;
use crate::rerank::{PairsAsk, RerankError, Reranker, relocated};
use crate::tables::{RowScores, Texts};
use crate::types::{Caller, RawScore};

pub(super) struct Scorer {
    pub(super) reranker: Reranker,
    /// Whether a document's score depends on those beside it.
    pub(super) is_listwise: bool,
    pub(super) raw_scores: bool,
    pub(super) top_n: usize,
}

/// Rows with their scores.
#[derive(Debug, Default)]
pub(super) struct Scored {
    /// Each row's; none if nothing of it can be scored.
    pub(super) rows: Vec<Option<RowScores>>,
    pub(super) pairs: usize,
    /// How many pairs have no score.
    pub(super) unscored: usize,
    pub(super) truncated: usize,
    /// The first row of which something can't be scored, and why.
    pub(super) failed: Option<(usize, String)>,
}

/// A pair of a row.
#[derive(Clone)]
struct Pair {
    row: usize,
    place: usize,
    query: Arc<str>,
    document: String,
}

/// A score to sort by, and as it is shown.
type Both = (RawScore, f32);

impl Scorer {
    /// Scores rows.
    pub(super) async fn score(&self, rows: &[Result<Texts, String>]) -> Result<Scored> {
        let mut failed: Option<(usize, String)> = None;
        let mut fail = |row: usize, reason: &str| {
            if failed.as_ref().is_none_or(|(first, _)| row < *first) {
                failed = Some((row, reason.to_owned()));
            }
        };
        let mut pairs = Vec::new();
        for (row, texts) in rows.iter().enumerate() {
            match texts {
                Err(reason) => fail(row, reason),
                Ok(texts) if texts.query.is_empty() => fail(row, "the query is empty"),
                Ok(texts) => {
                    for (place, document) in texts.documents.iter().enumerate() {
                        match document {
                            Err(reason) => fail(row, reason),
                            Ok(document) => pairs.push(Pair {
                                row,
                                place,
                                query: Arc::clone(&texts.query),
                                document: document.clone(),
                            }),
                        }
                    }
                }
            }
        }
        let empty = |texts: &Result<Texts, String>| {
            let texts = texts.as_ref().ok().filter(|texts| !texts.query.is_empty());
            texts.map(|texts| vec![None; texts.documents.len()])
        };
        let mut found: Vec<Option<Vec<Option<Both>>>> = rows.iter().map(empty).collect();
        let mut truncated = 0;
        let mut asks = match self.is_listwise {
            false => vec![pairs],
            true => pairs
                .chunk_by(|a, b| a.row == b.row)
                .map(<[Pair]>::to_vec)
                .collect(),
        };
        asks.reverse();
        while let Some(mut ask) = asks.pop() {
            if ask.is_empty() {
                continue;
            }
            match self.ask(&ask).await {
                Ok((scores, cut)) => {
                    truncated += cut;
                    for (pair, score) in ask.iter().zip(scores) {
                        if let Some(scores) = &mut found[pair.row] {
                            scores[pair.place] = Some(score);
                        }
                    }
                }
                Err(error) if !is_of_a_pair(&error) => return Err(error.into()),
                // Whose fault it is shows when each half is asked for alone; but a list is scored whole or not at all.
                Err(_) if ask.len() > 1 && !self.is_listwise => {
                    asks.push(ask.split_off(ask.len() / 2));
                    asks.push(ask);
                }
                Err(error) => {
                    // Named by its place in the row, from 1.
                    let place =
                        |document: usize| ask.get(document).map_or(0, |pair| pair.place + 1);
                    let error = match error {
                        RerankError::Score(error) => RerankError::Score(relocated(error, place)),
                        error => error,
                    };
                    fail(ask[0].row, &error.to_string());
                }
            }
        }
        let mut scored = Scored {
            failed,
            truncated,
            ..Scored::default()
        };
        for row in found {
            let pairs = row.as_ref().map_or(1, Vec::len);
            let with_score = row.iter().flatten().filter(|score| score.is_some()).count();
            scored.pairs += pairs;
            scored.unscored += pairs - with_score;
            scored.rows.push(row.map(|scores| self.row(&scores)));
        }
        Ok(scored)
    }

    /// The scores of pairs, and how many were truncated.
    async fn ask(&self, pairs: &[Pair]) -> Result<(Vec<Both>, usize), RerankError> {
        let queries = pairs.chunk_by(|a, b| a.query == b.query).count();
        let queries = match queries {
            1 => pairs.iter().take(1),
            _ => pairs.iter().take(pairs.len()),
        };
        let ask = PairsAsk {
            queries: queries.map(|pair| Arc::clone(&pair.query)).collect(),
            documents: pairs.iter().map(|pair| pair.document.clone()).collect(),
            raw_scores: self.raw_scores,
            ..PairsAsk::default()
        };
        let answer = self.reranker.score(&ask, &Caller::local()).await?;
        let shown = answer.scores().map(|score| score.get());
        let scores = answer.raw.iter().copied().zip(shown).collect();
        Ok((scores, answer.cost.truncated))
    }

    fn row(&self, scores: &[Option<Both>]) -> RowScores {
        let places = scores.iter().enumerate();
        let mut order: Vec<(RawScore, usize)> = places
            .filter_map(|(place, score)| Some((score.as_ref()?.0, place)))
            .collect();
        order.sort_by_key(|&(raw, place)| (std::cmp::Reverse(raw), place));
        let order = order.into_iter().take(self.top_n);
        RowScores {
            scores: scores
                .iter()
                .map(|score| score.map(|(_, shown)| shown))
                .collect(),
            order: order
                .map(|(_, place)| i32::try_from(place).unwrap_or(i32::MAX))
                .collect(),
        }
    }
}

/// Whether another pair might not have the error.
fn is_of_a_pair(error: &RerankError) -> bool {
    use ScoreError::{NotFinite, Tokenize};
    matches!(error, RerankError::Score(Tokenize(_) | NotFinite(_)))
}
