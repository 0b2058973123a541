//! The integration tests: one file per promise, against the real server on a loopback port with
//! real (tiny) models.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on should panic"
)]

mod architecture;
mod bad_input;
#[cfg(feature = "builtin-model")]
mod builtin;
mod callers;
mod cli;
mod connections;
mod dashscope;
mod dialects;
mod docker;
mod dtypes;
mod encodings;
mod eval;
mod explain;
mod grpc;
mod heads;
mod health_port;
mod http2_floods;
mod hub;
mod hub_cache;
mod hub_mirrors;
mod hub_names;
mod keys;
mod labels;
mod limits;
mod listwise;
mod load;
mod model_files;
mod names;
mod native;
mod nim;
mod openapi;
mod operations;
mod order;
mod page;
mod parity;
mod precision;
mod prompts;
mod requests;
mod scheduling;
mod score;
mod several_models;
mod shapes;
#[cfg(target_os = "linux")]
mod shrinking_weights;
mod shutdown;
mod smuggling;
mod spellings;
mod strategies;
mod streams;
mod support;
mod tei;
mod tls;
mod traces;
mod truncation;
mod values;
mod variants;
mod vectors;
mod vertex;
mod vllm;
mod voyage;
mod windows;
mod xinference;
