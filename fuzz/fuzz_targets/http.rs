//! A body of each dialect: the first byte chooses the path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rerankd_fuzz::choice;
use rerankd_fuzz::service::Service;

/// New ones come last, so that the seeds keep their paths.
const PATHS: [&str; 22] = [
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/reranking",
    "/v1/reranking",
    "/api/v1/services/rerank/text-rerank/text-rerank",
    "/compatible-api/v1/reranks",
    "/v1/reranks",
    "/",
    "/invocations",
    "/vertex",
    "/predict",
    "/score",
    "/v1/score",
    "/infinity/rerank",
    "/voyage/v1/rerank",
    "/v1/ranking",
    "/v1/retrieval/tiny-bert/reranking",
    "/pinecone/rerank",
    "/v2/models/tiny-bert/infer",
    "/v2/models/tiny-colbert-st/infer",
    "/v2/repository/index",
];

fuzz_target!(init: { Service::get(); }, |input: &[u8]| {
    let Some((path, body)) = choice(input, PATHS.len()) else {
        return;
    };
    Service::get().post(PATHS[path], &[], body);
});
