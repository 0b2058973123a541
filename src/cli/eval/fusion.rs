//! `--fusion`: each ranking joined with the candidates' own scores.

use std::collections::HashMap;

use super::Ranked;
use crate::eval::{Collection, Query, Run};
use crate::rank::fusion::{FirstStage, Fusion, FusionError, FusionMethod, fuse};
use crate::types::RawScore;

/// What `--fusion` means without a value.
pub(super) const ALL: &str = "all";

/// The candidates' shares that are measured then.
const WEIGHTS: [f32; 4] = [0.1, 0.2, 0.3, 0.5];

const SYNTAX: &str = "it must be all, weighted:WEIGHT (such as weighted:0.3), rrf:K or rrf:K:WEIGHT (such as \
                      rrf:60, rrf:20:0.4)";

/// What `--fusion` asks for.
#[derive(Debug, Clone)]
pub(super) struct Fusions(Vec<Fusion>);

/// A ranking joined with the candidates'.
pub(super) struct Fused {
    pub(super) name: String,
    /// As `--fusion` takes it.
    pub(super) how: String,
    /// Which of the rankings it is made of.
    pub(super) of: usize,
    pub(super) run: Run,
}

/// Reads the flag's value.
pub(super) fn parse(text: &str) -> Result<Fusions, String> {
    let told = |error: FusionError| error.to_string();
    let new = |method, weight, k| Fusion::new(method, weight, k).map_err(told);
    if text == ALL {
        let weighted = WEIGHTS.map(|weight| new(FusionMethod::Weighted, Some(weight), None));
        let all = weighted
            .into_iter()
            .chain([new(FusionMethod::Rrf, None, None)]);
        return Ok(Fusions(all.collect::<Result<_, _>>()?));
    }
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let numbers: Result<Vec<f32>, _> = parts.map(str::parse).collect();
    let numbers = numbers.map_err(|_| SYNTAX)?;
    let fusion = match (name, &numbers[..]) {
        ("weighted", &[]) => new(FusionMethod::Weighted, None, None),
        ("weighted", &[weight]) => new(FusionMethod::Weighted, Some(weight), None),
        ("rrf", &[]) => new(FusionMethod::Rrf, None, None),
        ("rrf", &[k]) => new(FusionMethod::Rrf, None, Some(k)),
        ("rrf", &[k, weight]) => new(FusionMethod::Rrf, Some(weight), Some(k)),
        _ => return Err(SYNTAX.into()),
    };
    Ok(Fusions(vec![fusion?]))
}

/// A fusion as the flag takes it.
fn name(fusion: Fusion) -> String {
    let (weight, k) = (fusion.weight(), fusion.k().get());
    match fusion.method() {
        FusionMethod::Weighted => format!("weighted:{weight}"),
        FusionMethod::Rrf => format!("rrf:{k}:{weight}"),
    }
}

impl Fusions {
    /// All of them for each ranking.
    pub(super) fn of(&self, ranked: &[Ranked], collection: &Collection) -> Vec<Fused> {
        let of = |(of, ranked): (usize, &Ranked)| {
            let fused = self.0.iter().map(move |&fusion| {
                let how = name(fusion);
                Fused {
                    name: format!("{} + {how}", ranked.name),
                    how,
                    of,
                    run: join(&ranked.run, collection, fusion),
                }
            });
            fused.collect::<Vec<_>>()
        };
        ranked.iter().enumerate().flat_map(of).collect()
    }
}

fn join(run: &Run, collection: &Collection, fusion: Fusion) -> Run {
    let ranked = |query: &Query| {
        // Scores that are not finite are refused where they are read.
        let scored = run.get(&query.id)?.iter();
        let (ids, model): (Vec<&String>, Vec<RawScore>) = scored
            .filter_map(|(id, score)| Some((id, RawScore::new(*score)?)))
            .unzip();
        let given = query.candidates.iter();
        let given: HashMap<&String, f32> = given.map(|(id, score)| (id, *score)).collect();
        // Candidates without scores are in steps of one, which is what ranks come to.
        let first = ids.iter().map(|id| RawScore::new(*given.get(id)?));
        let first = FirstStage::Scores(first.collect());
        let fused = fuse(&model, &first, fusion).into_iter();
        let scored = ids.into_iter().zip(fused);
        let scored = scored.map(|(id, score)| (id.clone(), score.get()));
        Some((query.id.clone(), scored.collect()))
    };
    collection.queries.iter().filter_map(ranked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let fusions = parse(text).unwrap().0;
        fusions.into_iter().map(name).collect()
    }

    #[test]
    fn a_value_is_one_fusion_and_none_all() {
        let all = [
            "weighted:0.1",
            "weighted:0.2",
            "weighted:0.3",
            "weighted:0.5",
            "rrf:60:0.5",
        ];
        assert_eq!(names(ALL), all);
        for (text, expected) in [
            ("weighted", "weighted:0.2"),
            ("weighted:.35", "weighted:0.35"),
            ("rrf", "rrf:60:0.5"),
            ("rrf:20", "rrf:20:0.5"),
            ("rrf:20:0.4", "rrf:20:0.4"),
        ] {
            assert_eq!(names(text), [expected]);
            assert_eq!(names(expected), [expected]);
        }
    }

    #[test]
    fn a_wrong_value_is_told_what_it_may_be() {
        for text in [
            "",
            "sum",
            "0.3",
            "weighted:",
            "weighted:half",
            "weighted:0.2:60",
            "rrf:1:0.5:1",
        ] {
            assert_eq!(parse(text).unwrap_err(), SYNTAX, "{text}");
        }
        for (text, words) in [
            (
                "weighted:1.5",
                "weight, the first stage's share, must be from 0 to 1, but is 1.5",
            ),
            ("weighted:nan", "but is NaN"),
            (
                "rrf:0",
                "k must be more than 0 and at most 1000000, but is 0",
            ),
            ("rrf:60:-1", "weight"),
        ] {
            let told = parse(text).unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }
}
