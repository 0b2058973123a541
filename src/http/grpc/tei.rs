//! text-embeddings-inference's services: what a request asks, and how it is answered.
//!
//! Source: text-embeddings-inference 1.9, proto/tei.proto and router/src/grpc/server.rs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tei_messages::{
    InfoRequest, InfoResponse, Metadata, PredictPairRequest, PredictResponse, Prediction, RERANKER,
    Rank, RerankRequest, RerankResponse, RerankStreamRequest, TruncationDirection,
};
use super::wire::{Each, One, Reply};
use crate::http::error::ApiError;
use crate::http::routes::dtype;
use crate::http::state::Call;
use crate::rerank::{Ask, Cost, PairsAsk, Queries, RerankError};
use crate::scoring::FitOverrides;
use crate::tokenize::Direction;
use crate::types::Ranked;

/// `Info/Info`.
pub(super) async fn info(
    call: Call,
    One(InfoRequest {}): One<InfoRequest>,
) -> Result<Reply<InfoResponse>, ApiError> {
    let served = call.described(None)?;
    let model = served.info();
    Ok(Reply::free(InfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_id: model.name.clone(),
        model_sha: model.revision.clone(),
        model_dtype: dtype(model.dtype).to_owned(),
        model_type: RERANKER,
        max_input_length: number(served.max_input_tokens()),
        max_batch_tokens: number(model.max_batch_tokens),
        max_client_batch_size: number(call.reranker().limits().max_documents),
        tokenization_workers: number(model.tokenize_threads),
    }))
}

/// `Rerank/Rerank`.
pub(super) async fn rerank(
    call: Call,
    One(request): One<RerankRequest>,
) -> Result<Reply<RerankResponse>, ApiError> {
    let start = Instant::now();
    let texts: Arc<[String]> = request.texts.into();
    let query = request.query.chars().count();
    let characters = texts.iter().map(|text| query + text.chars().count()).sum();
    let ask = Ask {
        queries: Queries::One(request.query),
        documents: Arc::clone(&texts),
        raw_scores: request.raw_scores,
        fit: fit(request.truncate, request.truncation_direction)?,
        ..Ask::default()
    };
    let answer = call.reranker().rerank(&ask, &call.terms).await?;
    let returned = request.return_text.then_some(&texts[..]);
    let response = RerankResponse {
        ranks: ranks(&answer.ranked, returned),
        metadata: Some(metadata(&answer.cost, characters, start)),
    };
    Ok(Reply::new(response, answer.cost))
}

/// `Rerank/RerankStream`.
pub(super) async fn rerank_stream(
    call: Call,
    Each(requests): Each<RerankStreamRequest>,
) -> Result<Reply<RerankResponse>, ApiError> {
    let start = Instant::now();
    let first = requests.first().ok_or(RerankError::NoDocuments)?;
    let (raw_scores, return_text) = (first.raw_scores, first.return_text);
    let fit = fit(first.truncate, first.truncation_direction)?;
    let characters = |r: &RerankStreamRequest| r.query.chars().count() + r.text.chars().count();
    let characters = requests.iter().map(characters).sum();
    let is_one = requests.iter().all(|request| request.query == first.query);
    let (queries, texts): (Vec<Arc<str>>, Vec<String>) = requests
        .into_iter()
        .map(|request| (request.query.into(), request.text))
        .unzip();
    let queries = if is_one { &queries[..1] } else { &queries[..] };
    let texts: Arc<[String]> = texts.into();
    let ask = PairsAsk {
        model: None,
        queries: queries.into(),
        documents: Arc::clone(&texts),
        fit,
        raw_scores,
        ..PairsAsk::default()
    };
    let answer = call.reranker().score(&ask, &call.terms).await?;
    let ranked = answer.ranked(0..texts.len(), None);
    let response = RerankResponse {
        ranks: ranks(&ranked, return_text.then_some(&texts[..])),
        metadata: Some(metadata(&answer.cost, characters, start)),
    };
    Ok(Reply::new(response, answer.cost))
}

/// `Predict/PredictPair`.
pub(super) async fn predict_pair(
    call: Call,
    One(request): One<PredictPairRequest>,
) -> Result<Reply<PredictResponse>, ApiError> {
    let start = Instant::now();
    let count = request.inputs.len();
    let [query, text] = <[String; 2]>::try_from(request.inputs).map_err(|_| {
        let detail = format!("expected a query and a text, found {count} texts");
        ApiError::invalid("inputs", detail)
    })?;
    let characters = query.chars().count() + text.chars().count();
    let ask = PairsAsk {
        model: None,
        queries: [query.into()].into(),
        documents: [text].into(),
        fit: fit(request.truncate, request.truncation_direction)?,
        raw_scores: request.raw_scores,
        ..PairsAsk::default()
    };
    let answer = call.reranker().score(&ask, &call.terms).await?;
    let predictions = answer.scores().map(|score| Prediction {
        score: score.get(),
        label: "LABEL_0".to_owned(),
    });
    let response = PredictResponse {
        predictions: predictions.collect(),
        metadata: Some(metadata(&answer.cost, characters, start)),
    };
    Ok(Reply::new(response, answer.cost))
}

/// How pairs are cut. What is not sent is false here: then, as the service does, none is.
fn fit(truncate: bool, direction: i32) -> Result<FitOverrides, ApiError> {
    let direction = TruncationDirection::try_from(direction).map_err(|_| {
        let detail = format!("{direction} is none; 0 is right, 1 is left");
        ApiError::invalid("truncation_direction", detail)
    })?;
    Ok(FitOverrides {
        truncate: Some(truncate),
        direction: Some(match direction {
            TruncationDirection::Right => Direction::Right,
            TruncationDirection::Left => Direction::Left,
        }),
        ..FitOverrides::default()
    })
}

fn ranks(ranked: &[Ranked], returned: Option<&[String]>) -> Vec<Rank> {
    let ranks = ranked.iter().map(|ranked| Rank {
        index: number(ranked.index),
        text: returned.map(|texts| texts[ranked.index].clone()),
        score: ranked.score.get(),
    });
    ranks.collect()
}

fn metadata(cost: &Cost, characters: usize, start: Instant) -> Metadata {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let timings = cost.timings;
    Metadata {
        compute_chars: number(characters),
        compute_tokens: number(cost.tokens),
        total_time_ns: ns(start.elapsed()),
        tokenization_time_ns: ns(timings.tokenize.time),
        queue_time_ns: ns(timings.queue.time),
        inference_time_ns: ns(timings.inference.time),
    }
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
