//! Fields that say how documents are ranked, beyond one model and one query.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::DocumentInput;
use crate::http::dialects::fields::at_least_1;
use crate::http::error::{ApiError, MAX_STAGES};
use crate::http::extract::{number, whole};
use crate::rank::fusion::{FirstStage, Fusion, FusionError, FusionMethod};
use crate::rerank::{Combine, Joined, Queries, Stage};
use crate::types::RawScore;

/// Maximum number of queries in a request.
const MAX_QUERIES: usize = 16;

/// What a document's scores against several queries make of it.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum CombineInput {
    /// The greatest.
    Max,
    /// The mean.
    Mean,
    /// Reciprocal rank fusion of the queries' rankings.
    Rrf,
}

/// How the model's scores are joined with the first stage's.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct FusionInput {
    /// By ranks (reciprocal rank fusion), or by scores, normalised over the request's documents.
    #[schema(value_type = String, example = "weighted", pattern = "^(rrf|weighted)$")]
    method: FusionMethod,
    /// The first stage's share, the rest being the model's; 0.5 with `rrf` and 0.2 with `weighted` if left out.
    #[schema(minimum = 0, maximum = 1)]
    #[serde(default, deserialize_with = "number")]
    #[schema(value_type = Option<f32>)]
    weight: Option<f32>,
    /// The constant of reciprocal rank fusion: more than 0 and at most 1,000,000; 60 if left out.
    #[schema(exclusive_minimum = 0, maximum = 1_000_000)]
    #[serde(default, deserialize_with = "number")]
    #[schema(value_type = Option<f32>)]
    k: Option<f32>,
}

/// A stage of a cascade.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct StageInput {
    /// A served model's name or an alias of it.
    #[schema(example = "rerankd-builtin")]
    model: String,
    /// Number of documents, the best of this stage, that the next one ranks; 50 if left out. The last stage
    /// hands none on.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    depth: Option<usize>,
}

/// The query, or the queries.
pub(super) fn queries(
    query: Option<String>,
    queries: Option<Vec<String>>,
    combine: Option<CombineInput>,
) -> Result<Queries, ApiError> {
    let queries = match (query, queries) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "queries",
                "send \"query\" or \"queries\", not both",
            ));
        }
        (None, None) => return Err(ApiError::invalid("query", "it is missing")),
        (Some(_), None) if combine.is_some() => {
            return Err(ApiError::invalid(
                "combine",
                "it is for \"queries\"; leave it out with one \"query\"",
            ));
        }
        (Some(query), None) => return Ok(Queries::One(query)),
        (None, Some(queries)) => queries,
    };
    if queries.is_empty() || queries.len() > MAX_QUERIES {
        let detail = format!(
            "there must be 1 to {MAX_QUERIES} of them, but there are {}",
            queries.len()
        );
        return Err(ApiError::invalid("queries", detail));
    }
    if let Some(i) = queries.iter().position(String::is_empty) {
        return Err(ApiError::invalid(format!("queries[{i}]"), "it is empty"));
    }
    let combine = match combine {
        None | Some(CombineInput::Max) => Combine::Max,
        Some(CombineInput::Mean) => Combine::Mean,
        Some(CombineInput::Rrf) => Combine::Rrf,
    };
    Ok(Queries::Several { queries, combine })
}

/// The stages; none without `cascade`.
pub(super) fn cascade(stages: Option<Vec<StageInput>>) -> Result<Vec<Stage>, ApiError> {
    let Some(stages) = stages else {
        return Ok(Vec::new());
    };
    if stages.is_empty() || stages.len() > MAX_STAGES {
        let detail = format!(
            "there must be 1 to {MAX_STAGES} stages, but there are {}; leave it out for one model",
            stages.len()
        );
        return Err(ApiError::invalid("cascade", detail));
    }
    let stages = stages.into_iter().enumerate().map(|(i, stage)| {
        let depth = stage.depth;
        let depth = depth.map(|n| at_least_1(n, &format!("cascade[{i}].depth")));
        Ok(Stage {
            model: stage.model,
            depth: depth.transpose()?,
        })
    });
    stages.collect()
}

/// The time that a cascade should take.
pub(super) fn max_latency(
    milliseconds: Option<u64>,
    cascade: &[Stage],
) -> Result<Option<Duration>, ApiError> {
    let invalid = |detail| Err(ApiError::invalid("max_latency_ms", detail));
    match milliseconds {
        Some(0) => invalid("it must be at least 1; leave it out for no bound"),
        Some(_) if cascade.is_empty() => {
            invalid("it bounds a cascade; send \"cascade\", or leave it out")
        }
        milliseconds => Ok(milliseconds.map(Duration::from_millis)),
    }
}

/// The lowest score that is shown.
pub(super) fn min_score(
    min_score: Option<f32>,
    score_threshold: Option<f32>,
) -> Result<Option<f32>, ApiError> {
    let (field, value) = match (min_score, score_threshold) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "score_threshold",
                "send \"min_score\" or \"score_threshold\", not both",
            ));
        }
        (Some(_), None) => ("min_score", min_score),
        (None, _) => ("score_threshold", score_threshold),
    };
    match value {
        Some(value) if !value.is_finite() => Err(ApiError::invalid(field, NOT_FINITE)),
        value => Ok(value),
    }
}

const NOT_FINITE: &str = "it must be a finite number of 32 bits";

/// How the first stage's scores are joined. Null, which for other fields is the same as absent, switches the server's
/// setting off.
pub(super) fn joined(fusion: Option<Option<FusionInput>>) -> Result<Joined, ApiError> {
    let Some(fusion) = fusion else {
        return Ok(Joined::AsConfigured);
    };
    let Some(fusion) = fusion else {
        return Ok(Joined::Off);
    };
    let made = Fusion::new(fusion.method, fusion.weight, fusion.k);
    let made = made.map_err(|error| {
        let key = match error {
            FusionError::Weight(_) => "weight",
            FusionError::K(_) => "k",
        };
        ApiError::invalid(format!("fusion.{key}"), error.to_string())
    });
    made.map(Joined::By)
}

/// The error for a fusion without anything to join the model's scores with.
pub(super) fn no_evidence() -> ApiError {
    ApiError::invalid(
        "fusion",
        "it needs the first stage's scores or ranks: send \"first_stage_scores\", or \"first_stage_score\" \
         or \"first_stage_rank\" in each document",
    )
}

/// What the first stage says of the documents, if it is told, and the field that tells it.
pub(super) fn first_stage(
    documents: &[DocumentInput],
    scores: Option<Vec<Option<f32>>>,
) -> Result<Option<(&'static str, FirstStage)>, ApiError> {
    let within = |name: &str| documents.iter().map(|d| d.field(name)).collect::<Vec<_>>();
    let (in_scores, in_ranks) = (within("first_stage_score"), within("first_stage_rank"));
    let has = |values: &[Option<&Value>]| values.iter().any(Option::is_some);
    match (scores, has(&in_scores), has(&in_ranks)) {
        (None, false, false) => Ok(None),
        (Some(scores), false, false) => {
            let listed = listed(&scores, documents.len())?;
            Ok(Some(("first_stage_scores", listed)))
        }
        (None, true, false) => {
            let scores = in_scores.into_iter().enumerate();
            let scores = scores.map(|(i, value)| value.map(|v| score(v, i)).transpose());
            let scores = FirstStage::Scores(scores.collect::<Result<_, _>>()?);
            Ok(Some(("first_stage_score", scores)))
        }
        (None, false, true) => {
            let ranks = in_ranks.into_iter().enumerate();
            let ranks = ranks.map(|(i, value)| value.map(|v| rank(v, i)).transpose());
            let ranks = FirstStage::Ranks(ranks.collect::<Result<_, _>>()?);
            Ok(Some(("first_stage_rank", ranks)))
        }
        (Some(_), _, _) => Err(ApiError::invalid(
            "first_stage_scores",
            "the documents say what the first stage gave them too; send it in one place",
        )),
        (None, true, true) => Err(ApiError::invalid(
            "documents",
            "some have a \"first_stage_score\" and some a \"first_stage_rank\"; send one kind",
        )),
    }
}

fn listed(scores: &[Option<f32>], documents: usize) -> Result<FirstStage, ApiError> {
    if scores.len() != documents {
        let detail = format!("{} scores for {documents} documents", scores.len());
        return Err(ApiError::invalid("first_stage_scores", detail));
    }
    let scores = scores.iter().enumerate().map(|(i, score)| {
        let Some(score) = *score else { return Ok(None) };
        let field = || format!("first_stage_scores[{i}]");
        let finite = RawScore::new(score).ok_or_else(|| ApiError::invalid(field(), NOT_FINITE));
        finite.map(Some)
    });
    Ok(FirstStage::Scores(scores.collect::<Result<_, _>>()?))
}

fn score(value: &Value, document: usize) -> Result<RawScore, ApiError> {
    let invalid =
        |detail| ApiError::invalid(format!("documents[{document}].first_stage_score"), detail);
    let number = value.as_f64().ok_or_else(|| invalid("expected a number"))?;
    RawScore::new(number as f32).ok_or_else(|| invalid(NOT_FINITE))
}

fn rank(value: &Value, document: usize) -> Result<NonZeroUsize, ApiError> {
    let rank = value.as_u64().and_then(|rank| usize::try_from(rank).ok());
    rank.and_then(NonZeroUsize::new).ok_or_else(|| {
        let field = format!("documents[{document}].first_stage_rank");
        ApiError::invalid(field, "expected a whole number from 1, the best document's")
    })
}
