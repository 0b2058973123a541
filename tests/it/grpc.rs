//! gRPC on the same port: text-embeddings-inference's services, the Open Inference Protocol, health, reflection.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use prost::{Message, Oneof};
use serde_json::{Value, json};

use crate::support::app::{TestApp, metric};
use crate::support::different;
use crate::support::grpc::{Ended, Grpc, framed, prefixed};

const RERANK: &str = "tei.v1.Rerank/Rerank";
const STREAM: &str = "tei.v1.Rerank/RerankStream";
const INFER: &str = "inference.GRPCInferenceService/ModelInfer";
const TEXTS: [&str; 4] = ["bread", "rivers carve valleys", "the sea", "rivers"];

// Codes of gRPC.
const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
const NOT_FOUND: u32 = 5;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const UNAUTHENTICATED: u32 = 16;

#[derive(Message)]
struct RerankRequest {
    #[prost(string, tag = "1")]
    query: String,
    #[prost(string, repeated, tag = "2")]
    texts: Vec<String>,
    #[prost(bool, tag = "3")]
    truncate: bool,
    #[prost(bool, tag = "4")]
    raw_scores: bool,
    #[prost(bool, tag = "5")]
    return_text: bool,
    #[prost(int32, tag = "6")]
    truncation_direction: i32,
}

#[derive(Message)]
struct RerankStreamRequest {
    #[prost(string, tag = "1")]
    query: String,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(bool, tag = "5")]
    return_text: bool,
}

#[derive(Message)]
struct RerankResponse {
    #[prost(message, repeated, tag = "1")]
    ranks: Vec<Rank>,
    #[prost(message, optional, tag = "2")]
    metadata: Option<Metadata>,
}

#[derive(PartialEq, Message)]
struct Rank {
    #[prost(uint32, tag = "1")]
    index: u32,
    #[prost(string, optional, tag = "2")]
    text: Option<String>,
    #[prost(float, tag = "3")]
    score: f32,
}

#[derive(Message)]
struct Metadata {
    #[prost(uint32, tag = "1")]
    compute_chars: u32,
    #[prost(uint32, tag = "2")]
    compute_tokens: u32,
    #[prost(uint64, tag = "3")]
    total_time_ns: u64,
}

#[derive(Message)]
struct InferRequest {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(map = "string, message", tag = "4")]
    parameters: HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<Tensor>,
    #[prost(message, repeated, tag = "6")]
    outputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    raw_input_contents: Vec<Vec<u8>>,
}

#[derive(Message)]
struct InferResponse {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    raw_output_contents: Vec<Vec<u8>>,
}

#[derive(Clone, Message)]
struct Tensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    contents: Option<Contents>,
}

#[derive(Clone, Message)]
struct Contents {
    #[prost(int32, repeated, tag = "2")]
    int_contents: Vec<i32>,
    #[prost(float, repeated, tag = "6")]
    fp32_contents: Vec<f32>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    bytes_contents: Vec<Vec<u8>>,
}

#[derive(PartialEq, Message)]
struct Parameter {
    #[prost(oneof = "Choice", tags = "1, 3")]
    choice: Option<Choice>,
}

#[derive(PartialEq, Oneof)]
enum Choice {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(string, tag = "3")]
    Text(String),
}

/// A message with one text, in the first field.
#[derive(Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

/// A message with one number, in the first field.
#[derive(Message)]
struct Number {
    #[prost(int32, tag = "1")]
    number: i32,
}

fn rerank_request(texts: &[&str]) -> RerankRequest {
    RerankRequest {
        query: "rivers".into(),
        texts: texts.iter().map(|&text| text.into()).collect(),
        truncate: true,
        ..RerankRequest::default()
    }
}

/// An input with typed contents.
fn input(name: &str, shape: &[i64], texts: &[&str]) -> Tensor {
    Tensor {
        name: name.into(),
        datatype: "BYTES".into(),
        shape: shape.into(),
        contents: Some(Contents {
            bytes_contents: texts.iter().map(|text| text.as_bytes().into()).collect(),
            ..Contents::default()
        }),
    }
}

fn infer_request(inputs: &[Tensor]) -> InferRequest {
    InferRequest {
        model_name: "tiny-bert".into(),
        inputs: inputs.into(),
        ..InferRequest::default()
    }
}

/// The native route's ranking: index and score.
async fn native(app: &TestApp, raw_scores: bool) -> Vec<(u32, f32)> {
    let body = json!({"query": "rivers", "documents": TEXTS, "raw_scores": raw_scores});
    let body = app.post("/v1/rerank", &body).await.body;
    let results = body["results"].as_array().unwrap().iter();
    let number = |value: &Value| value.as_f64().unwrap();
    let ranking = results.map(|r| (number(&r["index"]), number(&r["relevance_score"])));
    ranking.map(|(i, score)| (i as u32, score as f32)).collect()
}

fn ranking(ranks: &[Rank]) -> Vec<(u32, f32)> {
    ranks.iter().map(|rank| (rank.index, rank.score)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tei_ranks_as_the_native_route_does() {
    let app = TestApp::start("tiny-bert").await;
    let client = Grpc::connect(&app.base).await;
    for raw_scores in [false, true] {
        let request = RerankRequest {
            raw_scores,
            return_text: raw_scores,
            ..rerank_request(&TEXTS)
        };
        let ended = client
            .send(RERANK, &[("x-request-id", "call-1")], framed(&request))
            .await;
        assert_eq!(ended.metadata["x-request-id"], "call-1");
        assert!(ended.metadata.contains_key("server-timing"));
        let response: RerankResponse = ended.one();
        assert_eq!(ranking(&response.ranks), native(&app, raw_scores).await);
        for rank in &response.ranks {
            let text = raw_scores.then(|| TEXTS[rank.index as usize].to_owned());
            assert_eq!(rank.text, text);
        }
        let metadata = response.metadata.unwrap();
        let characters = TEXTS.iter().map(|text| text.len() + "rivers".len());
        assert_eq!(metadata.compute_chars as usize, characters.sum::<usize>());
        assert!(metadata.total_time_ns > 0);
        assert!(metadata.compute_tokens > 0);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_texts_is_ranked_at_its_end() {
    let app = TestApp::start("tiny-bert").await;
    let client = Grpc::connect(&app.base).await;
    let message = |query: &str, text: &str| {
        framed(&RerankStreamRequest {
            query: query.into(),
            text: text.into(),
            return_text: true,
        })
    };
    let body = TEXTS.map(|text| message("rivers", text)).concat();
    let response: RerankResponse = client.send(STREAM, &[], body).await.one();
    assert_eq!(ranking(&response.ranks), native(&app, false).await);
    let first = response.ranks[0].index as usize;
    assert_eq!(response.ranks[0].text.as_deref(), Some(TEXTS[first]));

    // Each text may have a query of its own.
    let body = [message("rivers", TEXTS[1]), message("bread", TEXTS[1])].concat();
    let each: RerankResponse = client.send(STREAM, &[], body).await.one();
    let score = |ranks: &[Rank], index| ranks.iter().find(|r| r.index == index).unwrap().score;
    assert_eq!(score(&each.ranks, 0), score(&response.ranks, 1));
    assert_ne!(score(&each.ranks, 0), score(&each.ranks, 1));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_inference_protocol_gives_scores_typed_or_raw() {
    let app = TestApp::start("tiny-bert").await;
    let client = Grpc::connect(&app.base).await;
    let mut expected = native(&app, false).await;
    expected.sort_by_key(|(index, _)| *index);
    let expected: Vec<f32> = expected.into_iter().map(|(_, score)| score).collect();

    let mut request = infer_request(&[
        input("query", &[1], &["rivers"]),
        input("documents", &[4], &TEXTS),
    ]);
    request.id = "mine".into();
    let response: InferResponse = client.call(INFER, &request).await.one();
    assert_eq!(
        (&*response.model_name, &*response.id),
        ("tiny-bert", "mine")
    );
    let output = &response.outputs[0];
    assert_eq!((&*output.name, &*output.datatype), ("scores", "FP32"));
    assert_eq!(output.shape, [4]);
    assert_eq!(output.contents.as_ref().unwrap().fp32_contents, expected);

    // As tritonclient sends it.
    for input in &mut request.inputs {
        let contents = input.contents.take().unwrap().bytes_contents;
        let raw = contents.iter().flat_map(|text| {
            let length = u32::try_from(text.len()).unwrap();
            [&length.to_le_bytes()[..], text].concat()
        });
        request.raw_input_contents.push(raw.collect());
    }
    let response: InferResponse = client.call(INFER, &request).await.one();
    let floats = response.raw_output_contents[0].chunks(4);
    let floats = floats.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    assert_eq!(floats.collect::<Vec<f32>>(), expected);
    assert!(response.outputs[0].contents.is_none());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nims_tensors_give_its_ranking() {
    let name = "NVIDIA/Rerank-1b.v2";
    let app = TestApp::changed(|s| s.model.served_name = name.into()).await;
    let client = Grpc::connect(&app.base).await;
    let expected = native(&app, true).await;
    let same = ["rivers"; 4];
    for (passages, queries) in [("passage", &same[..1]), ("passages", &same)] {
        let count = i64::try_from(queries.len()).unwrap();
        let mut request = infer_request(&[
            input("query", &[count, 1], queries),
            input(passages, &[4, 1], &TEXTS),
        ]);
        request.model_name = "nvidia_rerank_1b_v2".into();
        let choice = Some(Choice::Text("END".into()));
        request.parameters = HashMap::from([("truncate".into(), Parameter { choice })]);
        let response: InferResponse = client.call(INFER, &request).await.one();
        assert_eq!(response.model_name, name);
        let [index, logit, count] = &response.outputs[..] else {
            panic!("{response:?}");
        };
        assert_eq!((&*index.name, &*index.datatype), ("index", "INT32"));
        assert_eq!((&*logit.name, &*logit.datatype), ("logit", "FP32"));
        assert_eq!(
            (&index.shape[..], &logit.shape[..]),
            (&[4, 1][..], &[4, 1][..])
        );
        let contents = |tensor: &Tensor| tensor.contents.clone().unwrap();
        let indices = contents(index).int_contents.into_iter();
        let found = indices.zip(contents(logit).fp32_contents);
        let found: Vec<(u32, f32)> = found.map(|(i, logit)| (i as u32, logit)).collect();
        assert_eq!(found, expected);
        assert_eq!((&*count.name, &count.shape[..]), ("token_count", &[4][..]));
        let counts = contents(count).int_contents;
        assert!(
            counts.iter().all(|&n| n > 0) && counts[1] > counts[3],
            "{counts:?}"
        );

        request.outputs = vec![input("logit", &[], &[])];
        let response: InferResponse = client.call(INFER, &request).await.one();
        let names: Vec<&str> = response.outputs.iter().map(|o| &*o.name).collect();
        assert_eq!(names, ["logit"]);
    }
    let mut request = infer_request(&[
        input("query", &[2, 1], &["rivers", "bread"]),
        input("passage", &[2, 1], &TEXTS[..2]),
    ]);
    request.model_name.clear();
    assert_fails(
        &client.call(INFER, &request).await,
        INVALID_ARGUMENT,
        "inputs.query",
    );
    app.stop().await;
}

fn assert_fails(ended: &Ended, status: u32, word: &str) {
    assert_eq!(ended.status, status, "{ended:?}");
    assert!(ended.message.contains(word), "{word}: {ended:?}");
    assert!(ended.messages.is_empty());
    assert!(ended.metadata.contains_key("x-request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_in_grpcs_statuses() {
    let app = TestApp::changed(|s| {
        s.limits.max_documents = 3;
        s.limits.body_limit_bytes = 10_000;
    })
    .await;
    let client = Grpc::connect(&app.base).await;
    let three = rerank_request(&TEXTS[..3]);
    let long = "rivers ".repeat(1000);
    let inputs = |shape: &[i64], texts: &[&str]| {
        infer_request(&[
            input("query", &[1], &["x"]),
            input("documents", shape, texts),
        ])
    };
    let unknown_input = infer_request(&[
        input("query", &[1], &["x"]),
        input("documents", &[1], &["x"]),
        input("passage_image", &[1], &["x"]),
    ]);
    let with = |change: &dyn Fn(&mut InferRequest)| {
        let mut request = inputs(&[1], &["x"]);
        change(&mut request);
        framed(&request)
    };
    let numbers = |request: &mut InferRequest| request.inputs[1].datatype = "FP32".into();
    let no_text = |request: &mut InferRequest| {
        let contents = request.inputs[1].contents.as_mut().unwrap();
        contents.bytes_contents = vec![vec![0xff]];
    };
    let cut_off = |request: &mut InferRequest| {
        request.raw_input_contents = vec![vec![1, 0, 0, 0, b'x'], vec![9, 0, 0, 0, b'x']];
    };
    let one_raw = |request: &mut InferRequest| request.raw_input_contents = vec![vec![]];
    let other_model = |request: &mut InferRequest| request.model_name = "other".into();
    let other_output =
        |request: &mut InferRequest| request.outputs = vec![input("logits", &[], &[])];
    let truncate = |request: &mut InferRequest| {
        let choice = Some(Choice::Bool(true));
        request.parameters = HashMap::from([("truncate".into(), Parameter { choice })]);
    };
    for (method, body, status, word) in [
        (
            "tei.v1.Rerank/Other",
            framed(&three),
            UNIMPLEMENTED,
            "reflection",
        ),
        (
            "tei.v1.Embed/Embed",
            framed(&three),
            UNIMPLEMENTED,
            "reflection",
        ),
        (
            RERANK,
            framed(&rerank_request(&TEXTS)),
            INVALID_ARGUMENT,
            "at most 3",
        ),
        (
            RERANK,
            framed(&rerank_request(&[])),
            INVALID_ARGUMENT,
            "no documents",
        ),
        (
            RERANK,
            framed(&rerank_request(&[&"x".repeat(20_000)])),
            RESOURCE_EXHAUSTED,
            "10000",
        ),
        (RERANK, vec![], INVALID_ARGUMENT, "one message"),
        (
            RERANK,
            framed(&three).repeat(2),
            INVALID_ARGUMENT,
            "one message",
        ),
        (
            RERANK,
            framed(&three)[..20].into(),
            INVALID_ARGUMENT,
            "body",
        ),
        (
            RERANK,
            prefixed(0, b"\x0a\x01\xff"),
            INVALID_ARGUMENT,
            "UTF-8",
        ),
        (RERANK, prefixed(1, b"?"), INVALID_ARGUMENT, "grpc-encoding"),
        (
            RERANK,
            framed(&RerankRequest {
                truncation_direction: 7,
                ..rerank_request(&TEXTS[..3])
            }),
            INVALID_ARGUMENT,
            "truncation_direction",
        ),
        (
            RERANK,
            framed(&RerankRequest {
                truncate: false,
                ..rerank_request(&[&long])
            }),
            INVALID_ARGUMENT,
            "tokens",
        ),
        (STREAM, vec![], INVALID_ARGUMENT, "no documents"),
        (
            STREAM,
            framed(&three).repeat(4),
            INVALID_ARGUMENT,
            "at most 3",
        ),
        (
            "tei.v1.Predict/PredictPair",
            framed(&Text { text: "one".into() }),
            INVALID_ARGUMENT,
            "found 1",
        ),
        (INFER, with(&other_model), NOT_FOUND, "other"),
        (INFER, with(&other_output), INVALID_ARGUMENT, "scores"),
        (INFER, with(&truncate), INVALID_ARGUMENT, "END"),
        (INFER, with(&numbers), INVALID_ARGUMENT, "FP32"),
        (INFER, with(&no_text), INVALID_ARGUMENT, "UTF-8"),
        (INFER, with(&cut_off), INVALID_ARGUMENT, "length"),
        (
            INFER,
            with(&one_raw),
            INVALID_ARGUMENT,
            "raw_input_contents",
        ),
        (
            INFER,
            framed(&inputs(&[2], &["x"])),
            INVALID_ARGUMENT,
            "shape",
        ),
        (
            INFER,
            framed(&inputs(&[-1], &["x"])),
            INVALID_ARGUMENT,
            "shape",
        ),
        (
            INFER,
            framed(&infer_request(&[])),
            INVALID_ARGUMENT,
            "query",
        ),
        (
            INFER,
            framed(&unknown_input),
            INVALID_ARGUMENT,
            "passage_image",
        ),
    ] {
        assert_fails(&client.send(method, &[], body).await, status, word);
    }
    let snappy = [("grpc-encoding", "snappy")];
    let ended = client.send(RERANK, &snappy, prefixed(1, b"?")).await;
    assert_fails(&ended, UNIMPLEMENTED, "encoding");
    assert_eq!(
        ended.metadata["grpc-accept-encoding"],
        "identity,gzip,deflate"
    );
    let ended = client
        .send(RERANK, &[("grpc-timeout", "soon")], framed(&three))
        .await;
    assert_fails(&ended, INVALID_ARGUMENT, "grpc-timeout");
    // The log and the metrics tell what it would be over HTTP.
    let metrics = app.metrics().await;
    assert!(
        metrics.contains(r#"route="/tei.v1.Rerank/Rerank",method="POST",status="422""#),
        "{metrics}"
    );

    let answer = app.post("/tei.v1.Rerank/Rerank", &json!({})).await;
    assert_eq!(answer.status, 415);
    assert!(answer.body["detail"].as_str().unwrap().contains("gRPC"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_may_be_compressed() {
    let app = TestApp::start("tiny-bert").await;
    let client = Grpc::connect(&app.base).await;
    let message = rerank_request(&TEXTS).encode_to_vec();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&message).unwrap();
    let body = prefixed(1, &encoder.finish().unwrap());
    let gzip = [("grpc-encoding", "gzip")];
    let response: RerankResponse = client.send(RERANK, &gzip, body).await.one();
    assert_eq!(ranking(&response.ranks), native(&app, false).await);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_asked_for_in_metadata() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&keys, "team secret\n").unwrap();
    let app = TestApp::changed(|s| {
        s.auth.keys_file = keys.path().to_str().unwrap().into();
        s.auth.protect_docs = true;
        s.auth.protect_info = false;
    })
    .await;
    let client = Grpc::connect(&app.base).await;
    let body = framed(&rerank_request(&TEXTS));
    let ended = client.send(RERANK, &[], body.clone()).await;
    assert_fails(&ended, UNAUTHENTICATED, "Authorization");
    let wrong = [("authorization", "Bearer other")];
    let ended = client.send(RERANK, &wrong, body.clone()).await;
    assert_fails(&ended, UNAUTHENTICATED, "not valid");
    let right = [("authorization", "Bearer secret")];
    let response: RerankResponse = client.send(RERANK, &right, body).await.one();
    assert_eq!(response.ranks.len(), 4);
    // Health is open, what describes the models is with these settings, the documentation is not.
    let empty = Text::default();
    for (method, status) in [
        ("grpc.health.v1.Health/Check", 0),
        ("inference.GRPCInferenceService/ServerReady", 0),
        ("tei.v1.Info/Info", 0),
        (
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            UNAUTHENTICATED,
        ),
    ] {
        assert_eq!(client.call(method, &empty).await.status, status, "{method}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_deadline_and_a_full_queue_have_statuses_of_their_own() {
    let (app, gate) = TestApp::gated(|s| s.limits.max_queue_tokens = 60).await;
    let client = Grpc::connect(&app.base).await;
    let texts = different("rivers carve valleys", 2);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let body = framed(&rerank_request(&texts));
    let ended = client
        .send(RERANK, &[("grpc-timeout", "200m")], body.clone())
        .await;
    assert_fails(&ended, DEADLINE_EXCEEDED, "200 ms");
    tokio::task::block_in_place(|| gate.entered());

    // Its work is out of the queue: as much fits as before.
    app.until_metric("rerankd_queue_pairs", |n| n == 0.0).await;
    let many = different("rivers carve valleys", 90);
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut held = Vec::new();
    for _ in 0..3 {
        let (client, body) = (Grpc::connect(&app.base).await, body.clone());
        held.push(tokio::spawn(
            async move { client.send(RERANK, &[], body).await },
        ));
    }
    app.until_metric("rerankd_queue_pairs", |n| n == 6.0).await;
    let ended = client.call(RERANK, &rerank_request(&many)).await;
    assert_fails(&ended, RESOURCE_EXHAUSTED, "busy");
    assert_eq!(ended.metadata["grpc-retry-pushback-ms"], "1000");
    assert!(ended.metadata.contains_key("grpc-status-details-bin"));
    drop(gate.open_for_good());
    for held in held {
        let response: RerankResponse = held.await.unwrap().one();
        assert_eq!(response.ranks.len(), 2);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_and_its_models_are_told_of() {
    #[derive(Message)]
    struct Info {
        #[prost(string, tag = "4")]
        model_id: String,
        #[prost(string, tag = "6")]
        model_dtype: String,
        #[prost(int32, tag = "7")]
        model_type: i32,
        #[prost(uint32, tag = "9")]
        max_input_length: u32,
        #[prost(uint32, tag = "12")]
        max_client_batch_size: u32,
    }
    let app = TestApp::start("tiny-bert").await;
    let client = Grpc::connect(&app.base).await;
    let empty = Text::default();
    let rest = app.get("/info").await.body;
    let info: Info = client.call("tei.v1.Info/Info", &empty).await.one();
    assert_eq!(info.model_id, rest["model_id"]);
    assert_eq!(info.model_dtype, rest["model_dtype"]);
    assert_eq!(info.model_type, 2);
    assert_eq!(
        info.max_input_length,
        rest["max_input_length"].as_u64().unwrap() as u32
    );
    assert_eq!(info.max_client_batch_size, 1000);

    let service = "inference.GRPCInferenceService";
    for (method, of, expected) in [
        ("ServerLive", "", 1),
        ("ServerReady", "", 1),
        ("ModelReady", "tiny-bert", 1),
        ("ModelReady", "tiny_bert", 1),
    ] {
        let of = Text { text: of.into() };
        let answer: Number = client.call(&format!("{service}/{method}"), &of).await.one();
        assert_eq!(answer.number, expected, "{method}");
    }
    let other = Text {
        text: "other".into(),
    };
    let ended = client.call(&format!("{service}/ModelReady"), &other).await;
    assert_fails(&ended, NOT_FOUND, "other");
    let server: Text = client
        .call(&format!("{service}/ServerMetadata"), &empty)
        .await
        .one();
    assert_eq!(server.text, "rerankd");
    let model: Text = client
        .call(&format!("{service}/ModelMetadata"), &empty)
        .await
        .one();
    assert_eq!(model.text, "tiny-bert");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_served() {
    let app = TestApp::start("tiny-bert").await;
    let client = Grpc::connect(&app.base).await;
    let check = "grpc.health.v1.Health/Check";
    for service in ["", "tei.v1.Rerank", "inference.GRPCInferenceService"] {
        let of = Text {
            text: service.into(),
        };
        let answer: Number = client.call(check, &of).await.one();
        assert_eq!(answer.number, 1, "{service}");
    }
    let other = Text {
        text: "other".into(),
    };
    assert_eq!(client.call(check, &other).await.status, NOT_FOUND);

    /// Asks for the list of services.
    #[derive(Message)]
    struct List {
        #[prost(string, tag = "7")]
        list_services: String,
    }
    let list = List {
        list_services: "*".into(),
    };
    for version in ["v1", "v1alpha"] {
        let method = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let ended = client.call(&method, &list).await;
        let listed = String::from_utf8_lossy(&ended.messages[0]);
        for service in [
            "grpc.health.v1.Health",
            "inference.GRPCInferenceService",
            "tei.v1.Info",
            "tei.v1.Predict",
            "tei.v1.Rerank",
        ] {
            assert!(listed.contains(service), "{service}: {listed}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_health_is_told_that_the_server_goes() {
    let (app, gate) = TestApp::gated(|s| s.server.write_timeout_ms = 100).await;
    let watching = Grpc::connect(&app.base).await;
    let watching = tokio::spawn(async move {
        watching
            .call("grpc.health.v1.Health/Watch", &Text::default())
            .await
    });
    let client = Grpc::connect(&app.base).await;
    let call = tokio::spawn(async move { client.call(RERANK, &rerank_request(&TEXTS)).await });
    tokio::task::block_in_place(|| gate.entered());
    let before = metric(&app.metrics().await, "rerankd_requests_in_flight");
    assert!(before >= 1.0, "{before}");
    // Where nothing is to be told, the client is not slow.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!watching.is_finished());
    let stopping = tokio::spawn(app.stop());
    let ended = watching.await.unwrap();
    assert!(ended.message.contains("shutting down"), "{ended:?}");
    assert_eq!(Number::decode(ended.messages[0].clone()).unwrap().number, 1);
    // What is in is finished.
    drop(gate.open_for_good());
    let response: RerankResponse = call.await.unwrap().one();
    assert_eq!(response.ranks.len(), 4);
    stopping.await.unwrap();
}
