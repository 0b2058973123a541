//! The messages of `proto/tei.proto`, as far as they are read or written here: a field that is missing is skipped.
//! Names and numbers are the same there, from which clients make their code; those in `tests/compat` check it.

use prost::{Enumeration, Message};

use super::elements::Described;

/// The kind of a model that ranks.
pub(super) const RERANKER: i32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(super) enum TruncationDirection {
    Right = 0,
    Left = 1,
}

#[derive(Message)]
pub(super) struct InfoRequest {}

#[derive(Message)]
pub(super) struct InfoResponse {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(string, tag = "4")]
    pub(super) model_id: String,
    #[prost(string, optional, tag = "5")]
    pub(super) model_sha: Option<String>,
    #[prost(string, tag = "6")]
    pub(super) model_dtype: String,
    #[prost(int32, tag = "7")]
    pub(super) model_type: i32,
    #[prost(uint32, tag = "9")]
    pub(super) max_input_length: u32,
    #[prost(uint32, tag = "10")]
    pub(super) max_batch_tokens: u32,
    #[prost(uint32, tag = "12")]
    pub(super) max_client_batch_size: u32,
    #[prost(uint32, tag = "13")]
    pub(super) tokenization_workers: u32,
}

#[derive(Message)]
pub(super) struct Metadata {
    #[prost(uint32, tag = "1")]
    pub(super) compute_chars: u32,
    #[prost(uint32, tag = "2")]
    pub(super) compute_tokens: u32,
    #[prost(uint64, tag = "3")]
    pub(super) total_time_ns: u64,
    #[prost(uint64, tag = "4")]
    pub(super) tokenization_time_ns: u64,
    #[prost(uint64, tag = "5")]
    pub(super) queue_time_ns: u64,
    #[prost(uint64, tag = "6")]
    pub(super) inference_time_ns: u64,
}

#[derive(Message)]
pub(super) struct RerankRequest {
    #[prost(string, tag = "1")]
    pub(super) query: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) texts: Vec<String>,
    #[prost(bool, tag = "3")]
    pub(super) truncate: bool,
    #[prost(bool, tag = "4")]
    pub(super) raw_scores: bool,
    #[prost(bool, tag = "5")]
    pub(super) return_text: bool,
    #[prost(enumeration = "TruncationDirection", tag = "6")]
    pub(super) truncation_direction: i32,
}

impl Described for RerankRequest {}

#[derive(Message)]
pub(super) struct RerankStreamRequest {
    #[prost(string, tag = "1")]
    pub(super) query: String,
    #[prost(string, tag = "2")]
    pub(super) text: String,
    #[prost(bool, tag = "3")]
    pub(super) truncate: bool,
    #[prost(bool, tag = "4")]
    pub(super) raw_scores: bool,
    #[prost(bool, tag = "5")]
    pub(super) return_text: bool,
    #[prost(enumeration = "TruncationDirection", tag = "6")]
    pub(super) truncation_direction: i32,
}

impl Described for RerankStreamRequest {}

#[derive(Message)]
pub(super) struct Rank {
    #[prost(uint32, tag = "1")]
    pub(super) index: u32,
    #[prost(string, optional, tag = "2")]
    pub(super) text: Option<String>,
    #[prost(float, tag = "3")]
    pub(super) score: f32,
}

#[derive(Message)]
pub(super) struct RerankResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) ranks: Vec<Rank>,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<Metadata>,
}

#[derive(Message)]
pub(super) struct PredictPairRequest {
    #[prost(string, repeated, tag = "1")]
    pub(super) inputs: Vec<String>,
    #[prost(bool, tag = "2")]
    pub(super) truncate: bool,
    #[prost(bool, tag = "3")]
    pub(super) raw_scores: bool,
    #[prost(enumeration = "TruncationDirection", tag = "4")]
    pub(super) truncation_direction: i32,
}

impl Described for PredictPairRequest {}

#[derive(Message)]
pub(super) struct Prediction {
    #[prost(float, tag = "1")]
    pub(super) score: f32,
    #[prost(string, tag = "2")]
    pub(super) label: String,
}

#[derive(Message)]
pub(super) struct PredictResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) predictions: Vec<Prediction>,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<Metadata>,
}
