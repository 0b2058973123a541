//! rerankd: an HTTP reranking service.
//!
//! Sequences in, outputs out: a reranker makes sequences of token ids of a query and its documents
//! ([`scoring`]), a model makes an output of each ([`engine`]), and the reranker makes scores of the outputs.
//! [`schedule`] lies between them and knows neither texts nor scores. [`models`] are those that are served,
//! [`rerank`] is the use case over them, and [`http`] its dialects. ARCHITECTURE.md has the whole picture, and
//! which module may use which.
//!
//! `tests/it/architecture.rs` enforces it. `unsafe` is in the crate `rerankd-kernels` alone.

#![forbid(unsafe_code)]

pub mod admission;
pub mod app;
pub mod cli;
pub mod config;
pub mod data_file;
pub mod eval;
pub mod http;
pub mod lenient;
pub mod model_store;
pub mod models;
pub mod rank;
pub mod rerank;
pub mod schedule;
pub mod scoring;
pub mod shutdown;
pub mod tables;
pub mod telemetry;
pub mod text_file;
pub mod tokenize;
pub mod types;

pub use rerankd_engine as engine;
