//! The messages of `proto/open_inference.proto`, as far as they are read or written here: a field that is missing is
//! skipped. Names and numbers are the same there.

use std::collections::HashMap;

use bytes::Bytes;
use prost::{Message, Oneof};

use super::elements::{Described, FLAT, Fields};

/// A request that says nothing.
#[derive(Message)]
pub(super) struct Nothing {}

#[derive(Message)]
pub(super) struct ServerLive {
    #[prost(bool, tag = "1")]
    pub(super) live: bool,
}

#[derive(Message)]
pub(super) struct Ready {
    #[prost(bool, tag = "1")]
    pub(super) ready: bool,
}

#[derive(Message)]
pub(super) struct ServerMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

/// A model that is asked about. Its version, whatever it is, is the one that there is.
#[derive(Message)]
pub(super) struct OfModel {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Message)]
pub(super) struct ModelMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) versions: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) platform: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) inputs: Vec<TensorMetadata>,
    #[prost(message, repeated, tag = "5")]
    pub(super) outputs: Vec<TensorMetadata>,
}

#[derive(Message)]
pub(super) struct TensorMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
}

#[derive(Message)]
pub(super) struct ModelInferRequest {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(string, tag = "3")]
    pub(super) id: String,
    #[prost(map = "string, message", tag = "4")]
    pub(super) parameters: HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    pub(super) inputs: Vec<Tensor>,
    #[prost(message, repeated, tag = "6")]
    pub(super) outputs: Vec<RequestedOutput>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub(super) raw_input_contents: Vec<Bytes>,
}

impl Described for ModelInferRequest {
    const FIELDS: &'static Fields = &Fields {
        messages: &[(4, &FLAT), (5, &TENSOR), (6, &FLAT)],
        packed: &[],
    };
}

const TENSOR: Fields = Fields {
    messages: &[(5, &CONTENTS)],
    packed: &[3],
};

const CONTENTS: Fields = Fields {
    messages: &[],
    packed: &[2, 6],
};

#[derive(Message)]
pub(super) struct ModelInferResponse {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(string, tag = "2")]
    pub(super) model_version: String,
    #[prost(string, tag = "3")]
    pub(super) id: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) outputs: Vec<Tensor>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub(super) raw_output_contents: Vec<Bytes>,
}

/// An input or an output.
#[derive(Message)]
pub(super) struct Tensor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    pub(super) contents: Option<Contents>,
}

#[derive(Message)]
pub(super) struct RequestedOutput {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Message)]
pub(super) struct Contents {
    #[prost(int32, repeated, tag = "2")]
    pub(super) int_contents: Vec<i32>,
    #[prost(float, repeated, tag = "6")]
    pub(super) fp32_contents: Vec<f32>,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub(super) bytes_contents: Vec<Bytes>,
}

#[derive(PartialEq, Message)]
pub(super) struct Parameter {
    #[prost(oneof = "ParameterChoice", tags = "1, 2, 3, 5")]
    pub(super) parameter_choice: Option<ParameterChoice>,
}

/// Of a kind that any parameter has which is read here.
#[derive(PartialEq, Oneof)]
pub(super) enum ParameterChoice {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(int64, tag = "2")]
    Int64(i64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(uint64, tag = "5")]
    Uint64(u64),
}
