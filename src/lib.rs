//! rerankd: an HTTP reranking service around cross-encoders.
//!
//! Data flows one way: HTTP dialect → admission → tokenise → schedule → engine → ranking →
//! response. Each module may use those after it, never those before it:
//!
//! - [`types`] and [`lenient`] import nothing; [`rank`], [`tokenize`], [`engine`] and [`admission`] import
//!   [`types`]; [`model_store`] adds [`engine`]'s file types.
//! - [`schedule`] adds [`engine`]; [`rerank`] imports those above.
//! - [`text_file`] imports [`lenient`]; [`http`] imports [`rerank`] and its parts' errors, both of these, and
//!   [`telemetry`]'s metrics.
//! - [`data_file`] imports nothing; [`eval`] imports it and [`lenient`]: judged collections, measures, statistics.
//! - [`app`] sees all; [`config`] composes each component's options; [`cli`] and `main` stand on
//!   top.
//!
//! `tests/it/architecture.rs` enforces it. `unsafe` is in the crate `rerankd-kernels` alone.

#![forbid(unsafe_code)]

pub mod admission;
pub mod app;

pub mod cli;
pub mod config;
pub mod data_file;
pub mod engine;
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
pub mod telemetry;
pub mod text_file;
pub mod tokenize;
pub mod types;
