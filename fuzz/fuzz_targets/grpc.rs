//! Messages of gRPC: the first byte chooses the method, the second what is in the frame.
#![no_main]

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use libfuzzer_sys::fuzz_target;
use rerankd_fuzz::service::Service;
use rerankd_fuzz::{assert_short, choice};

/// Where the methods begin that are not ours.
const TONICS: usize = 8;
const METHODS: [&str; 10] = [
    "tei.v1.Rerank/Rerank",
    "tei.v1.Rerank/RerankStream",
    "tei.v1.Predict/PredictPair",
    "inference.GRPCInferenceService/ModelInfer",
    "inference.GRPCInferenceService/ModelMetadata",
    "inference.GRPCInferenceService/ModelReady",
    "inference.GRPCInferenceService/ServerMetadata",
    "tei.v1.Info/Info",
    "grpc.health.v1.Health/Check",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// A message with what stands before it.
fn framed(is_compressed: bool, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(is_compressed)];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

fuzz_target!(init: { Service::get(); }, |input: &[u8]| {
    let Some((method, rest)) = choice(input, METHODS.len()) else {
        return;
    };
    let Some((form, message)) = choice(rest, 4) else {
        return;
    };
    let mut request = Request::post(format!("/{}", METHODS[method]))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let body = match form {
        0 => framed(false, message),
        1 => {
            request = request.header("grpc-encoding", "gzip");
            framed(true, message)
        }
        // Two of them, as in a stream.
        2 => [framed(false, message), framed(false, message)].concat(),
        _ => message.to_vec(),
    };
    let request = request.body(Body::from(body)).expect("a request");
    let (status, headers, _) = Service::get().answer(request);
    assert_eq!(status, StatusCode::OK);
    let grpc = headers
        .get("grpc-status")
        .and_then(|status| status.to_str().ok());
    // Unknown, internal: what bad input must not end in, but for the services that tonic answers.
    assert!(
        method >= TONICS || !matches!(grpc, Some("2" | "13")),
        "{headers:?}"
    );
    if let Some(message) = headers
        .get("grpc-message")
        .filter(|message| !message.is_empty())
    {
        assert_short(&String::from_utf8_lossy(message.as_bytes()));
    }
});
