//! A request's ranking. In a cascade, each stage's model ranks the best documents of the stage before. The
//! scores for several queries are combined, and the first stage's scores are fused in. Called by `rerank`.

use std::sync::Arc;
use std::time::Duration;

use crate::admission::work;
use crate::models::{Info, ModelError, ScoreError, Served};
use crate::rank::fusion::{FirstStage, Fusion, RrfK, combine_ranks, fuse};
use crate::types::{Activation, Ranked, RawScore, ScoreKind};

use super::ask::{Ask, Combine, Joined, Queries, StageDone};
use super::round::Round;
use super::session::{Asked, Session};
use super::{RerankError, Reranker};

/// Default number of documents that go to the next stage.
const DEPTH: usize = 50;
/// Fraction of the remaining time that a stage may plan for; the rest is for waiting in the queue.
const FILL: f64 = 0.9;

/// A stage with its model.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) served: Arc<Served>,
    /// Number of documents that go to the next stage; unused in the last stage.
    depth: usize,
}

/// A request's stages with their models.
pub(super) fn plan(reranker: &Reranker, ask: &Ask) -> Result<Vec<Planned>, RerankError> {
    let get = |name: Option<&str>, depth: Option<usize>| {
        Ok::<_, ModelError>(Planned {
            served: reranker.models.get(name)?,
            depth: depth.unwrap_or(DEPTH),
        })
    };
    if ask.cascade.is_empty() {
        return Ok(vec![get(ask.model.as_deref(), None)?]);
    }
    let stages = ask.cascade.iter().enumerate();
    let stages = stages.map(|(stage, asked)| {
        let planned = get(Some(&asked.model), asked.depth);
        planned.map_err(|error| RerankError::Stage { stage, error })
    });
    stages.collect()
}

/// Estimated engine time of the stages after the first, from the number of documents and their cost in the
/// first stage.
pub(super) fn later_work(stages: &[Planned], first: &Round, ask: &Ask) -> Duration {
    let documents = ask.documents.len();
    let each = first.estimate().mean(documents).tokens;
    let mut handed = documents;
    let later = stages.windows(2).map(|pair| {
        handed = handed.min(pair[0].depth);
        let served = &pair[1].served;
        let cost = served.cost().of(0, each) * handed as f64;
        work(cost, served.tokens_per_second())
    });
    let later: Duration = later.sum();
    match ask.max_latency {
        Some(latency) => later.min(latency),
        None => later,
    }
}

/// A document's place after a stage.
#[derive(Debug, Clone, Copy)]
struct Place {
    index: usize,
    stage: usize,
    /// The stage's model's own score for the first query.
    raw: RawScore,
    key: RawScore,
}

/// The result of all stages.
pub(super) struct Ranking {
    pub(super) ranked: Vec<Ranked>,
    /// What the last model that scored each of them gave it for the first query, before any fusion.
    pub(super) raw: Vec<RawScore>,
    pub(super) score_kind: ScoreKind,
    pub(super) stages: Vec<StageDone>,
    pub(super) truncated: Vec<bool>,
}

impl Ranking {
    /// The last model that scored a document.
    pub(super) fn last_model(&self) -> Arc<Info> {
        let scored = self.stages.iter().rev().find(|stage| stage.documents > 0);
        // The first stage always scores.
        Arc::clone(&scored.unwrap_or(&self.stages[0]).model)
    }
}

/// Runs the stages, the first of which is `round`.
pub(super) async fn run(
    session: &mut Session<'_>,
    reranker: &Reranker,
    ask: &Ask,
    asked: &Asked,
    stages: &[Planned],
    round: Round,
) -> Result<Ranking, ScoreError> {
    let mut places: Vec<Place> = Vec::new();
    let mut done: Vec<StageDone> = Vec::new();
    let queries = ask.queries.texts().len().max(1);
    let mut truncated = vec![false; ask.documents.len()];
    let mut later = later_work(stages, &round, ask);
    let mut next = Some((round, (0..ask.documents.len()).collect::<Vec<usize>>()));
    for (stage, planned) in stages.iter().enumerate() {
        let (round, documents) = match next.take() {
            Some(first) => first,
            None => {
                let most = stages[stage - 1].depth.min(done[stage - 1].documents);
                let documents = places[..most].iter().map(|place| place.index);
                let mut documents: Vec<usize> = documents.collect();
                let mut round = asked
                    .round(reranker, &planned.served, Some(&documents))
                    .await;
                if let Some(latency) = ask.max_latency {
                    let left = latency.saturating_sub(session.started.elapsed());
                    let fits = round.affordable(left.mul_f64(FILL));
                    if fits < documents.len() {
                        documents.truncate(fits);
                        round = asked
                            .round(reranker, &planned.served, Some(&documents))
                            .await;
                    }
                }
                later = later.saturating_sub(round.work());
                (round, documents)
            }
        };
        done.push(StageDone {
            model: Arc::clone(planned.served.info()),
            documents: documents.len(),
        });
        if documents.is_empty() {
            continue;
        }
        let outcome = session.run(round, later).await?;
        for (&index, is_cut) in documents.iter().zip(outcome.truncated) {
            truncated[index] = is_cut;
        }
        let raw = outcome.raw;
        let keys = keys(&raw, ask, planned, &documents);
        let raw = raw.chunks(queries).map(|own| own[0]);
        for ((&index, key), raw) in documents.iter().zip(keys).zip(raw) {
            let place = Place {
                index,
                stage,
                raw,
                key,
            };
            match places
                .iter_mut()
                .find(|p| p.index == index)
                .filter(|_| stage > 0)
            {
                Some(known) => *known = place,
                None => places.push(place),
            }
        }
        // Documents that a later stage scored come first; ties keep the request's order.
        places.sort_by_key(|p| (std::cmp::Reverse((p.stage, p.key)), p.index));
    }
    let fused: Vec<bool> = stages.iter().map(|stage| is_fused(ask, stage)).collect();
    let shown = |place: &Place| {
        let served = &stages[place.stage].served;
        let activation = match ask.raw_scores || fused[place.stage] {
            true => Activation::Identity,
            false => served.options().activation,
        };
        Ranked {
            index: place.index,
            raw: place.key,
            score: activation.apply(place.key),
            stage: place.stage,
        }
    };
    let ranked = places.iter().map(|place| (place.raw, shown(place)));
    let kept = ranked.filter(|(_, r)| ask.min_score.is_none_or(|least| r.score.get() >= least));
    let kept = kept.take(ask.top_n.unwrap_or(usize::MAX));
    let (raw, ranked) = kept.unzip();
    let last = &stages[stages.len() - 1].served;
    Ok(Ranking {
        ranked,
        raw,
        score_kind: match ask.raw_scores {
            _ if fused[stages.len() - 1] => ScoreKind::Fused,
            true => ScoreKind::of(last.info().kind, Activation::Identity),
            false => ScoreKind::of(last.info().kind, last.options().activation),
        },
        stages: done,
        truncated,
    })
}

/// The fusion for a stage and the first stage's results; `None` without both.
pub(super) fn fusion<'a>(ask: &'a Ask, planned: &Planned) -> Option<(Fusion, &'a FirstStage)> {
    let first_stage = ask.first_stage.as_ref()?;
    let fusion = match ask.fusion {
        Joined::By(fusion) => fusion,
        Joined::Off => return None,
        Joined::AsConfigured => planned.served.options().fusion?,
    };
    Some((fusion, first_stage))
}

fn is_fused(ask: &Ask, planned: &Planned) -> bool {
    let combined = match &ask.queries {
        Queries::Several { combine, .. } => *combine == Combine::Rrf,
        Queries::One(_) => false,
    };
    combined || fusion(ask, planned).is_some()
}

/// The documents' sort keys, from their raw scores for each query.
fn keys(raw: &[RawScore], ask: &Ask, planned: &Planned, documents: &[usize]) -> Vec<RawScore> {
    let scores = match &ask.queries {
        Queries::One(_) => raw.to_vec(),
        Queries::Several { queries, combine } => combined(raw, queries.len(), *combine),
    };
    match fusion(ask, planned) {
        Some((fusion, first_stage)) => fuse(&scores, &first_stage.of(documents), fusion),
        None => scores,
    }
}

/// Each document's score, combined from its scores for several queries.
fn combined(raw: &[RawScore], queries: usize, combine: Combine) -> Vec<RawScore> {
    let documents = raw.chunks(queries.max(1));
    match combine {
        Combine::Max => documents
            .filter_map(|own| own.iter().max().copied())
            .collect(),
        Combine::Mean => {
            let mean = |own: &[RawScore]| {
                let sum: f64 = own.iter().map(|raw| f64::from(raw.get())).sum();
                // The mean of finite values is finite.
                RawScore::new((sum / own.len() as f64) as f32)
            };
            documents.filter_map(mean).collect()
        }
        Combine::Rrf => {
            let of = |query: usize| raw.iter().skip(query).step_by(queries).copied();
            let lists: Vec<Vec<RawScore>> = (0..queries).map(|q| of(q).collect()).collect();
            combine_ranks(&lists, RrfK::default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_queries_make_one_score_of_each_document() {
        let raw = [1.0, 5.0, 2.0, 2.0, 0.0, 6.0].map(|v| RawScore::new(v).unwrap());
        let found = |combine| -> Vec<f32> {
            let combined = combined(&raw, 2, combine);
            combined.into_iter().map(RawScore::get).collect()
        };
        assert_eq!(found(Combine::Max), [5.0, 2.0, 6.0]);
        assert_eq!(found(Combine::Mean), [3.0, 2.0, 3.0]);
        // By rank: second and second; first and third; third and first.
        let rrf = found(Combine::Rrf);
        assert!(
            rrf[1] > rrf[0] && rrf[2] > rrf[0] && rrf[1] == rrf[2],
            "{rrf:?}"
        );
    }
}
