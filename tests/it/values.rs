//! A body of few bytes and many values takes no more memory than its limits allow, in any dialect; large bodies that
//! mean something are answered.

use prost::Message;
use serde_json::{Value, json};

use crate::support::app::TestApp;
use crate::support::grpc::{Grpc, prefixed};
use crate::support::process::Server;

/// Megabytes.
const MB: usize = 1 << 20;

/// So many bytes of small objects, with commas between.
fn objects(bytes: usize) -> String {
    let mut objects = r#"{"":0},"#.repeat(bytes / 7);
    objects.push('0');
    objects
}

async fn post(server: &Server, path: &str, body: String) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = client.post(format!("{}{path}", server.base));
    let post = post.header("content-type", "application/json").body(body);
    let answer = post.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_values_in_few_bytes_are_refused_before_they_are_made() {
    let server = Server::start(&[]);
    let objects = objects(15 * MB);
    let tensors = |data: &str| {
        format!(
            r#"{{"inputs":[{{"name":"query","shape":[1],"datatype":"BYTES","data":["q"]}},
                {{"name":"documents","shape":[1],"datatype":"BYTES","data":[{data}]}}]}}"#
        )
    };
    let document = format!(r#"{{"query":"q","documents":[{{"text":"d","x":[{objects}]}}]}}"#);
    let before = server.peak_memory();
    for (path, body) in [
        ("/v1/rerank", document.clone()),
        ("/v2/rerank", document.clone()),
        ("/rerank", document.clone()),
        ("/rerank", format!(r#"{{"query":"q","texts":[{objects}]}}"#)),
        ("/pinecone/rerank", document.clone()),
        (
            "/v1/reranking",
            format!(r#"{{"query":"q","input":[{objects}]}}"#),
        ),
        ("/v2/models/tiny-bert/infer", tensors(&objects)),
        (
            "/v1/rerank",
            format!(
                r#"{{"query":"q","documents":[{}""]}}"#,
                r#""","#.repeat(5 * MB)
            ),
        ),
        (
            "/v1/rerank",
            format!(r#"{{"query":"q","documents":[{}0]}}"#, "[],".repeat(5 * MB)),
        ),
        (
            "/v1/rerank",
            format!(r#"{{"query":"q","documents":[{}0]}}"#, "0,".repeat(7 * MB)),
        ),
    ] {
        let (status, answer) = post(&server, path, body).await;
        assert_eq!(status, 413, "{path}: {answer}");
        let answer = answer.to_string();
        assert!(answer.contains("too many values"), "{path}: {answer}");
    }
    let grown = server.peak_memory() - before;
    assert!(grown < 120 * MB, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_let_in_takes_the_memory_that_is_counted() {
    // One body's values may take 36 MB here.
    let server = Server::start(&[("limits.body_limit_bytes", "6291456")]);
    let before = server.peak_memory();
    for (element, count) in [
        (r#"{"":0},"#, 36 * MB / 880),
        ("[0],", 36 * MB / 224),
        ("0,", 36 * MB / 64),
        (r#""a","#, 36 * MB / 128),
    ] {
        let list = element.repeat(count - 100);
        let body = format!(r#"{{"query":"q","documents":[{{"text":"d","x":[{list}0]}}]}}"#);
        let (status, answer) = post(&server, "/v1/rerank", body).await;
        assert_eq!(status, 200, "{element}: {answer}");
        let grown = server.peak_memory() - before;
        assert!(grown < 60 * MB, "{element}: {grown} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_with_fields_vectors_and_long_texts_are_answered() {
    let app = TestApp::start("tiny-bert").await;
    let fields: serde_json::Map<String, Value> = (0..50)
        .map(|i| (format!("field {i}"), format!("value {i}").into()))
        .collect();
    let documents = (0..1000).map(|i| {
        let mut document = fields.clone();
        document.insert("text".to_owned(), format!("river {i}").into());
        Value::from(document)
    });
    let body = json!({"query": "rivers", "documents": documents.collect::<Vec<Value>>(), "top_n": 1,
        "return_documents": true});
    let answer = app.post("/v1/rerank", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let returned = &answer.body["results"][0]["document"];
    assert_eq!(returned["field 49"], "value 49");

    let vector: Vec<f64> = (0..1024).map(|i| f64::from(i) / 8.0).collect();
    let documents = (0..1000).map(|i| json!({"text": format!("river {i}"), "vector": vector}));
    let body =
        json!({"query": "rivers", "documents": documents.collect::<Vec<Value>>(), "top_n": 1});
    let answer = app.post("/v1/rerank", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);

    let text = "rivers, \"seas\" and lakes\n".repeat(16 * MB / 30);
    let body = json!({"query": "rivers", "documents": [text]});
    let answer = app.post("/v1/rerank", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    app.stop().await;
}

#[derive(Message)]
struct Raw {
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<RawInput>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    contents: Vec<Vec<u8>>,
}

#[derive(Message)]
struct RawInput {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_many_small_elements_are_refused_before_they_are_decoded() {
    const RESOURCE_EXHAUSTED: u32 = 8;
    const INVALID_ARGUMENT: u32 = 3;
    let infer = "inference.GRPCInferenceService/ModelInfer";
    let server = Server::start(&[]);
    let grpc = Grpc::connect(&server.base).await;
    let before = server.peak_memory();
    let of_length = |tag: u8, value: &[u8]| {
        let mut message = vec![tag];
        prost::encoding::encode_varint(value.len() as u64, &mut message);
        message.extend(value);
        message
    };
    for (method, message) in [
        (infer, b"\x2a\x00".repeat(7 * MB)),
        (infer, b"\x3a\x00".repeat(7 * MB)),
        (infer, b"\x22\x00".repeat(7 * MB)),
        (
            infer,
            of_length(0x2a, &of_length(0x2a, &b"\x42\x00".repeat(7 * MB))),
        ),
        (infer, of_length(0x2a, &of_length(0x1a, &vec![1; 14 * MB]))),
        ("tei.v1.Rerank/Rerank", b"\x12\x00".repeat(7 * MB)),
        ("tei.v1.Predict/PredictPair", b"\x0a\x00".repeat(7 * MB)),
    ] {
        let ended = grpc.send(method, &[], prefixed(0, &message)).await;
        assert_eq!(ended.status, RESOURCE_EXHAUSTED, "{}", ended.message);
        assert!(
            ended.message.contains("too many values"),
            "{}",
            ended.message
        );
    }
    // Strings of no bytes in raw contents.
    let input = |name: &str, count| RawInput {
        name: name.to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![count],
    };
    let count = 3 * MB;
    let raw = Raw {
        inputs: vec![input("query", 1), input("documents", count as i64)],
        contents: vec![b"\x01\x00\x00\x00q".to_vec(), vec![0; 4 * count]],
    };
    let body = prefixed(0, &raw.encode_to_vec());
    let ended = grpc.send(infer, &[], body).await;
    assert_eq!(ended.status, INVALID_ARGUMENT, "{}", ended.message);
    assert!(ended.message.contains("1000"), "{}", ended.message);
    let grown = server.peak_memory() - before;
    assert!(grown < 150 * MB, "{grown} bytes");
}
