//! A local server that speaks the hub's protocol: the model's listing, metadata with commit and etag,
//! a redirect to storage, ranges, and all that can go wrong.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rerankd::engine::ModelFiles;
use rerankd::model_store::{self, HubOptions, Options};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::models::folder;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Where `main` is after a push.
pub(crate) const NEWER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
pub(crate) const TOKEN: &str = "hf_secret";

/// What the hub does wrong.
#[derive(Debug, Default, Clone)]
pub(crate) struct Faults {
    /// Every answer needs the token.
    pub(crate) private: bool,
    /// Transfers from storage that break off in the middle before one goes through.
    pub(crate) broken_transfers: usize,
    /// Storage gives other bytes than the hub's hash says.
    pub(crate) wrong_bytes: bool,
    /// `main` has moved to a newer commit.
    pub(crate) moved: bool,
    /// Every answer is this status.
    pub(crate) down: Option<u16>,
}

#[derive(Debug)]
pub(crate) struct Hub {
    files: HashMap<String, Vec<u8>>,
    pub(crate) faults: Mutex<Faults>,
    /// `METHOD path range` of all requests.
    seen: Mutex<Vec<String>>,
}

impl Hub {
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn transfers(&self) -> Vec<String> {
        let mut seen = self.seen();
        seen.retain(|s| s.starts_with("/storage/") && !s.ends_with("bytes=0-0"));
        seen
    }
}

/// A hub with one tiny model as `org/model`.
#[derive(Debug)]
pub(crate) struct TestHub {
    pub(crate) hub: Arc<Hub>,
    pub(crate) endpoint: String,
    pub(crate) cache: TempDir,
    _runtime: tokio::runtime::Runtime,
}

/// Starts a hub.
pub(crate) fn start(model: &str, faults: Faults) -> TestHub {
    start_with(model, faults, &[])
}

/// Starts a hub that has more files, empty JSON objects.
pub(crate) fn start_with(model: &str, faults: Faults, more: &[&str]) -> TestHub {
    let more = more.iter().map(|&file| (file.to_owned(), b"{}".to_vec()));
    let mut files: HashMap<String, Vec<u8>> = more.collect();
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
    pub(crate) fn options(&self) -> Options {
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

    pub(crate) fn fetch(&self) -> Result<ModelFiles, String> {
        model_store::resolve(&self.options()).map_err(|e| e.to_string())
    }

    /// The cached repository's folder, as Python names it.
    pub(crate) fn repository(&self) -> std::path::PathBuf {
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
    let moved = hub.faults.lock().unwrap().moved;
    let commit = match revision.as_str() {
        "main" if moved => NEWER_COMMIT,
        "main" | "v1" | COMMIT => COMMIT,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let siblings: Vec<_> = hub.files.keys().map(|f| json!({"rfilename": f})).collect();
    axum::Json(json!({"sha": commit, "siblings": siblings})).into_response()
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
    UrlPath((commit, file)): UrlPath<(String, String)>,
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
        .insert("x-repo-commit", commit.parse().unwrap());
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
