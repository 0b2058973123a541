//! Models from the hub, against a local server that speaks its protocol: the model's listing,
//! metadata with commit and etag, a redirect to storage, ranges, and all that can go wrong.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rerankd::engine::{ModelFile, ModelFiles};
use rerankd::model_store::{self, HubOptions, Options};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::assert_says;
use crate::support::models::folder;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// What the hub does wrong.
#[derive(Debug, Default, Clone)]
struct Faults {
    /// Every answer needs the token.
    private: bool,
    /// Transfers from storage that break off in the middle before one goes through.
    broken_transfers: usize,
    /// Storage gives other bytes than the hub's hash says.
    wrong_bytes: bool,
    /// Every answer is this status.
    down: Option<u16>,
}

#[derive(Debug)]
struct Hub {
    files: HashMap<String, Vec<u8>>,
    faults: Mutex<Faults>,
    /// `METHOD path range` of all requests.
    seen: Mutex<Vec<String>>,
}

impl Hub {
    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn transfers(&self) -> Vec<String> {
        let mut seen = self.seen();
        seen.retain(|s| s.starts_with("/storage/") && !s.ends_with("bytes=0-0"));
        seen
    }
}

/// A hub with one tiny model as `org/model`.
struct TestHub {
    hub: Arc<Hub>,
    endpoint: String,
    cache: TempDir,
    _runtime: tokio::runtime::Runtime,
}

fn start(model: &str, faults: Faults) -> TestHub {
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(folder(model)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        files.insert(name, std::fs::read(entry.path()).unwrap());
    }
    let hub = Arc::new(Hub {
        files,
        faults: Mutex::new(faults),
        seen: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/api/models/org/model/revision/{revision}", get(listing))
        .route("/org/model/resolve/{revision}/{file}", get(resolve))
        .route("/storage/{file}", get(storage))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&hub),
            guard,
        ))
        .with_state(Arc::clone(&hub));
    runtime.spawn(axum::serve(listener, router).into_future());
    TestHub {
        hub,
        endpoint,
        cache: tempfile::tempdir().unwrap(),
        _runtime: runtime,
    }
}

impl TestHub {
    fn options(&self) -> Options {
        Options {
            model: "org/model".into(),
            revision: "main".into(),
            hub: HubOptions {
                cache: self.cache.path().into(),
                token: None,
                endpoint: Some(self.endpoint.clone()),
                offline: false,
            },
        }
    }

    fn fetch(&self) -> Result<ModelFiles, String> {
        model_store::resolve(&self.options()).map_err(|e| e.to_string())
    }

    /// The cached repository's folder, as Python names it.
    fn repository(&self) -> std::path::PathBuf {
        self.cache.path().join("models--org--model")
    }
}

async fn guard(
    State(hub): State<Arc<Hub>>,
    request: Request,
    next: axum::middleware::Next,
) -> Response {
    let range = request
        .headers()
        .get(header::RANGE)
        .map_or("", |r| r.to_str().unwrap());
    hub.seen
        .lock()
        .unwrap()
        .push(format!("{} {range}", request.uri().path()));
    let faults = hub.faults.lock().unwrap().clone();
    if let Some(status) = faults.down {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let authorized = request.headers().get(header::AUTHORIZATION);
    let authorized = authorized.is_some_and(|a| a == &format!("Bearer {TOKEN}"));
    if faults.private && !authorized && !request.uri().path().starts_with("/storage") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    next.run(request).await
}

async fn listing(State(hub): State<Arc<Hub>>, UrlPath(revision): UrlPath<String>) -> Response {
    if !["main", "v1", COMMIT].contains(&revision.as_str()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let siblings: Vec<_> = hub.files.keys().map(|f| json!({"rfilename": f})).collect();
    axum::Json(json!({"sha": COMMIT, "siblings": siblings})).into_response()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Small files come from the hub itself, large ones (LFS) by a redirect to storage.
async fn resolve(
    State(hub): State<Arc<Hub>>,
    UrlPath((_, file)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(bytes) = hub.files.get(&file) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut response = if file.ends_with(".json") {
        let mut response = ranged(bytes, &headers);
        let etag = format!("\"{}\"", &sha256(bytes)[..40]);
        response
            .headers_mut()
            .insert(header::ETAG, etag.parse().unwrap());
        response
    } else {
        let host = headers[header::HOST].to_str().unwrap();
        let mut response = StatusCode::FOUND.into_response();
        let location = format!("http://{host}/storage/{file}");
        response
            .headers_mut()
            .insert(header::LOCATION, location.parse().unwrap());
        let etag = format!("\"{}\"", sha256(bytes));
        response
            .headers_mut()
            .insert("x-linked-etag", etag.parse().unwrap());
        response
    };
    response
        .headers_mut()
        .insert("x-repo-commit", COMMIT.parse().unwrap());
    response
}

async fn storage(
    State(hub): State<Arc<Hub>>,
    UrlPath(file): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    let mut bytes = hub.files[&file].clone();
    let mut faults = hub.faults.lock().unwrap();
    let probe = headers[header::RANGE] == "bytes=0-0";
    if faults.wrong_bytes && !probe {
        bytes[5000] ^= 1;
    }
    if faults.broken_transfers > 0 && !probe {
        faults.broken_transfers -= 1;
        // The length promises all, the body ends in the middle.
        let response = ranged(&bytes, &headers);
        let (parts, _) = response.into_parts();
        let start = parts.headers[header::CONTENT_RANGE].to_str().unwrap();
        let start: usize = start[6..].split('-').next().unwrap().parse().unwrap();
        let half = bytes[start..start + (bytes.len() - start) / 2].to_vec();
        return Response::from_parts(parts, Body::new(Broken::Bytes(half)));
    }
    ranged(&bytes, &headers)
}

/// Some bytes, a pause in which they are sent, then an error.
enum Broken {
    Bytes(Vec<u8>),
    Pause,
    Off,
}

impl http_body::Body for Broken {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        match std::mem::replace(&mut *self, Broken::Off) {
            Broken::Bytes(bytes) => {
                *self = Broken::Pause;
                Poll::Ready(Some(Ok(http_body::Frame::data(bytes.into()))))
            }
            Broken::Pause => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Broken::Off => Poll::Ready(Some(Err(std::io::Error::other("the transfer breaks")))),
        }
    }
}

fn ranged(bytes: &[u8], headers: &HeaderMap) -> Response {
    let range = headers[header::RANGE]
        .to_str()
        .unwrap()
        .strip_prefix("bytes=")
        .unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = end
        .parse::<usize>()
        .map_or(bytes.len(), |e| e + 1)
        .min(bytes.len());
    let content_range = format!("bytes {start}-{}/{}", end.max(1) - 1, bytes.len());
    let body = bytes[start.min(end)..end].to_vec();
    let headers = [
        (header::CONTENT_RANGE, content_range),
        (header::CONTENT_LENGTH, body.len().to_string()),
    ];
    (StatusCode::PARTIAL_CONTENT, headers, body).into_response()
}

/// Where config.json is.
fn config(files: &ModelFiles) -> &Path {
    let ModelFile::Disk(path) = &files.config else {
        panic!("{files:?}");
    };
    path
}

#[test]
fn a_model_is_fetched_into_pythons_cache_layout_and_loads() {
    for model in ["tiny-bert", "tiny-roberta", "tiny-xlmr"] {
        let hub = start(model, Faults::default());
        let files = hub.fetch().unwrap();
        assert_eq!(files.name, "org/model");
        assert_eq!(files.revision.as_deref(), Some(COMMIT));
        let snapshot = hub.repository().join("snapshots").join(COMMIT);
        let config = config(&files);
        assert_eq!(config, snapshot.join("config.json"));
        let reference = std::fs::read_to_string(hub.repository().join("refs/main")).unwrap();
        assert_eq!(reference, COMMIT);
        let blob = config.canonicalize().unwrap();
        assert!(blob.starts_with(hub.repository().canonicalize().unwrap().join("blobs")));
        let options = rerankd::engine::Options {
            device: "cpu".into(),
            dtype: rerankd::types::Dtype::F32,
            threads: 1,
            instructions: "auto".into(),
        };
        rerankd::engine::load(&files, &options).unwrap();
    }
}

#[test]
fn a_second_start_fetches_nothing() {
    let hub = start("tiny-bert", Faults::default());
    hub.fetch().unwrap();
    let before = hub.hub.seen().len();
    hub.fetch().unwrap();
    let seen = hub.hub.seen()[before..].to_vec();
    assert_eq!(
        seen,
        ["/api/models/org/model/revision/main "],
        "only the commit is asked for"
    );
}

#[test]
fn a_revision_is_asked_for_by_its_name() {
    let hub = start("tiny-bert", Faults::default());
    let options = Options {
        revision: "v1".into(),
        ..hub.options()
    };
    let files = model_store::resolve(&options).unwrap();
    assert_eq!(files.revision.as_deref(), Some(COMMIT));
    assert!(hub.repository().join("refs/v1").is_file());
    let options = Options {
        revision: "no-such".into(),
        ..hub.options()
    };
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["org/model", "no-such", "404"]);
}

#[test]
fn a_broken_transfer_is_resumed_where_it_broke() {
    let hub = start(
        "tiny-bert",
        Faults {
            broken_transfers: 2,
            ..Faults::default()
        },
    );
    let files = hub.fetch().unwrap();
    let original = std::fs::read(folder("tiny-bert").join("model.safetensors")).unwrap();
    let config = config(&files);
    let snapshot = config.parent().unwrap();
    assert!(std::fs::read(snapshot.join("model.safetensors")).unwrap() == original);
    let transfers = hub.hub.transfers();
    assert_eq!(transfers.len(), 3, "{transfers:?}");
    assert!(transfers[0].ends_with("bytes=0-") && !transfers[1].ends_with("bytes=0-"));
}

#[test]
fn a_transfer_that_keeps_breaking_fails_and_the_next_start_resumes_it() {
    let hub = start(
        "tiny-bert",
        Faults {
            broken_transfers: 100,
            ..Faults::default()
        },
    );
    let message = hub.fetch().unwrap_err();
    assert_says(
        &message,
        &["model.safetensors", "org/model", "start rerankd again"],
    );
    hub.hub.faults.lock().unwrap().broken_transfers = 0;
    hub.fetch().unwrap();
    let last = hub.hub.transfers().pop().unwrap();
    assert!(!last.ends_with("bytes=0-"), "{last}");
}

#[test]
fn bytes_that_are_not_the_hubs_are_refused_and_not_kept() {
    let hub = start(
        "tiny-bert",
        Faults {
            wrong_bytes: true,
            ..Faults::default()
        },
    );
    assert_says(&hub.fetch().unwrap_err(), &["model.safetensors", "SHA-256"]);
    hub.hub.faults.lock().unwrap().wrong_bytes = false;
    hub.fetch().unwrap();
}

#[test]
fn a_private_model_needs_the_token() {
    let hub = start(
        "tiny-bert",
        Faults {
            private: true,
            ..Faults::default()
        },
    );
    assert_says(&hub.fetch().unwrap_err(), &["org/model", "401", "HF_TOKEN"]);
    let mut options = hub.options();
    options.hub.token = Some("hf_wrong".into());
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["401"]);
    assert!(!message.contains("hf_wrong"), "a token is never shown");
    options.hub.token = Some(TOKEN.into());
    model_store::resolve(&options).unwrap();
}

#[test]
fn an_unknown_model_is_told() {
    let hub = start("tiny-bert", Faults::default());
    let options = Options {
        model: "org/other".into(),
        ..hub.options()
    };
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["org/other", "404", "check the name"]);
}

#[test]
fn offline_takes_the_cache_only() {
    let hub = start("tiny-bert", Faults::default());
    let mut options = hub.options();
    options.hub.offline = true;
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["HF_HUB_OFFLINE", "org/model", "--model FOLDER"]);
    assert!(hub.hub.seen().is_empty(), "nothing was asked of the hub");
    hub.fetch().unwrap();
    let before = hub.hub.seen().len();
    let files = model_store::resolve(&options).unwrap();
    assert_eq!(files.revision.as_deref(), Some(COMMIT));
    assert_eq!(hub.hub.seen().len(), before);
}

#[test]
fn an_unreachable_hub_is_told_with_the_way_out_unless_the_cache_has_the_model() {
    let hub = start("tiny-bert", Faults::default());
    let mut away = hub.options();
    away.hub.endpoint = Some("http://127.0.0.1:9".into());
    let message = model_store::resolve(&away).unwrap_err().to_string();
    let cache = hub.cache.path().to_str().unwrap();
    assert_says(
        &message,
        &["can't be reached", "--model FOLDER", "HF_HUB_CACHE", cache],
    );
    hub.fetch().unwrap();
    let files = model_store::resolve(&away).unwrap();
    assert!(config(&files).is_file());
    hub.hub.faults.lock().unwrap().down = Some(500);
    let empty = tempfile::tempdir().unwrap();
    let mut options = hub.options();
    options.hub.cache = Path::new(empty.path()).into();
    let message = model_store::resolve(&options).unwrap_err().to_string();
    assert_says(&message, &["HTTP 500", "--model FOLDER"]);
}
