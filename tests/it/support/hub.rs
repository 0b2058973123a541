//! A local server that speaks the hub's protocol: the model's listing, metadata with commit and etag,
//! a redirect to storage, ranges, and all that can go wrong.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rerankd::engine::ModelFiles;
use rerankd::model_store::{self, HubOptions, Options};
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::models::{self, folder};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Where `main` is after a push.
pub(crate) const NEWER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
pub(crate) const TOKEN: &str = "hf_secret";

/// Where a hub sends those who want a large file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// An absolute URL on its own host.
    #[default]
    Absolute,
    /// A path.
    Relative,
    /// Another host (by its name, localhost).
    Elsewhere,
}

/// What the hub does wrong, or unlike the public one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Faults {
    /// Every answer needs the token.
    pub(crate) private: bool,
    /// Transfers from storage that break off in the middle before one goes through.
    pub(crate) broken_transfers: usize,
    /// Transfers from storage that stop in the middle, but stay open.
    pub(crate) stalled_transfers: usize,
    /// Storage gives other bytes than the hub's hash says.
    pub(crate) wrong_bytes: bool,
    /// `main` has moved to a newer commit.
    pub(crate) moved: bool,
    /// Every answer is this status.
    pub(crate) down: Option<u16>,
    /// No answer ever comes.
    pub(crate) silent: bool,
    /// Every answer is this content type with this body.
    pub(crate) garbage: Option<(&'static str, &'static str)>,
    /// Answers to paths that begin so have this status, X-Error-Code and X-Error-Message.
    pub(crate) refusal: Option<(&'static str, u16, &'static str, &'static str)>,
    /// Ranges are ignored.
    pub(crate) no_ranges: bool,
    /// No ETag, no X-Linked-Etag.
    pub(crate) no_etags: bool,
    /// ETags that look like git's hashes, but are none.
    pub(crate) odd_etags: bool,
    /// No X-Repo-Commit.
    pub(crate) no_commit_header: bool,
    /// The listing tells neither sizes nor hashes.
    pub(crate) no_blobs: bool,
    /// The listing tells no commit.
    pub(crate) no_commit: bool,
    /// There is no listing.
    pub(crate) no_listing: bool,
    /// Storage has Git LFS pointers.
    pub(crate) pointers: bool,
    /// The redirect's status, if not 302.
    pub(crate) redirect_status: Option<u16>,
    pub(crate) redirect: Redirect,
}

#[derive(Debug)]
pub(crate) struct Hub {
    files: HashMap<String, Vec<u8>>,
    pub(crate) faults: Mutex<Faults>,
    /// `path range` of all requests.
    seen: Mutex<Vec<String>>,
    /// The hosts that a token was sent to.
    pub(crate) told: Mutex<BTreeSet<String>>,
}

impl Hub {
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// A file's bytes; the weights are others after a push.
    fn content(&self, file: &str, faults: &Faults) -> Option<Vec<u8>> {
        let mut bytes = self.files.get(file)?.clone();
        if faults.moved && is_large(file) {
            *bytes.last_mut().unwrap() ^= 1;
        }
        Some(bytes)
    }

    pub(crate) fn transfers(&self) -> Vec<String> {
        let mut seen = self.seen();
        seen.retain(|s| s.starts_with("/storage/"));
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
    start_on(model, faults, more, |tcp, router, runtime| {
        runtime.spawn(axum::serve(tcp, router).into_future());
        "http://127.0.0.1"
    })
}

/// Starts a hub with TLS for `localhost`; also returns its certificate.
pub(crate) fn start_with_tls(model: &str) -> (TestHub, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = rustls::crypto::ring::default_provider().into();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            signing_key.serialize_der().try_into().unwrap(),
        );
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.unwrap()));
    let faults = Faults {
        redirect: Redirect::Relative,
        ..Faults::default()
    };
    let hub = start_on(model, faults, &[], |tcp, router, runtime| {
        let tls = Tls(tcp, acceptor);
        runtime.spawn(axum::serve(tls, router).into_future());
        "https://localhost"
    });
    (hub, cert.pem())
}

struct Tls(tokio::net::TcpListener, tokio_rustls::TlsAcceptor);

impl axum::serve::Listener for Tls {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.0.accept().await.unwrap();
            // A client that does not trust us breaks off.
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

fn start_on(
    model: &str,
    faults: Faults,
    more: &[&str],
    serve: impl FnOnce(tokio::net::TcpListener, Router, &tokio::runtime::Runtime) -> &'static str,
) -> TestHub {
    let more = more.iter().map(|&file| {
        let text = match file {
            "modules.json" => {
                r#"[{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]"#
            }
            _ => "{}",
        };
        (file.to_owned(), text.into())
    });
    let mut files: HashMap<String, Vec<u8>> = more.collect();
    for name in models::files(model) {
        let bytes = std::fs::read(folder(model).join(&name)).unwrap();
        files.insert(name, bytes);
    }
    let hub = Arc::new(Hub {
        files,
        faults: Mutex::new(faults),
        seen: Mutex::default(),
        told: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new()
        .route("/api/models/org/model/revision/{revision}", get(listing))
        .route("/org/model/resolve/{revision}/{*file}", get(resolve))
        .route("/storage/{*file}", get(storage))
        .fallback(|| async { refuse(404, "RepoNotFound", "Repository not found") })
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&hub),
            guard,
        ))
        .with_state(Arc::clone(&hub));
    let base = serve(listener, router, &runtime);
    TestHub {
        hub,
        endpoint: format!("{base}:{port}"),
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
                endpoint: Some(self.endpoint.clone()),
                pause: Duration::from_millis(1),
                ..HubOptions::default()
            },
        }
    }

    pub(crate) fn fetch(&self) -> Result<ModelFiles, String> {
        model_store::resolve(&self.options()).map_err(|e| e.to_string())
    }

    /// Sets what the hub does wrong from now on.
    pub(crate) fn set(&self, faults: Faults) {
        *self.hub.faults.lock().unwrap() = faults;
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
    let path = request.uri().path();
    let token = request.headers().get(header::AUTHORIZATION).cloned();
    if token.is_some() {
        let host = request.headers()[header::HOST].to_str().unwrap();
        hub.told.lock().unwrap().insert(host.to_owned());
    }
    if faults.silent {
        return std::future::pending().await;
    }
    if let Some(status) = faults.down {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    if let Some((kind, body)) = faults.garbage {
        return ([(header::CONTENT_TYPE, kind)], body).into_response();
    }
    if let Some((start, status, code, message)) = faults.refusal
        && path.starts_with(start)
    {
        return refuse(status, code, message);
    }
    let authorized = token.is_some_and(|a| a == format!("Bearer {TOKEN}"));
    if faults.private && !authorized && !path.starts_with("/storage") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    next.run(request).await
}

/// As the hub says what is wrong.
fn refuse(status: u16, code: &'static str, message: &'static str) -> Response {
    let mut response = StatusCode::from_u16(status).unwrap().into_response();
    for (name, value) in [("x-error-code", code), ("x-error-message", message)] {
        if !value.is_empty() {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
    }
    response
}

fn is_large(file: &str) -> bool {
    !file.ends_with(".json")
}

async fn listing(State(hub): State<Arc<Hub>>, UrlPath(revision): UrlPath<String>) -> Response {
    let faults = hub.faults.lock().unwrap().clone();
    if faults.no_listing {
        return StatusCode::NOT_FOUND.into_response();
    }
    let commit = match revision.as_str() {
        "main" if faults.moved => NEWER_COMMIT,
        "main" | "v1" | "refs/pr/1" | COMMIT => COMMIT,
        _ => return refuse(404, "RevisionNotFound", "Invalid rev id"),
    };
    let sibling = |file: &String| {
        let bytes = hub.content(file, &faults).unwrap();
        let size = bytes.len();
        match () {
            () if faults.no_blobs => json!({"rfilename": file}),
            () if is_large(file) => json!({
                "rfilename": file,
                "size": size,
                "blobId": git_sha1(b"of the pointer"),
                "lfs": {"sha256": sha256(&bytes), "size": size, "pointerSize": 134},
            }),
            () => json!({"rfilename": file, "size": size, "blobId": git_sha1(&bytes)}),
        }
    };
    let siblings: Vec<_> = hub.files.keys().map(sibling).collect();
    let mut answer = json!({"id": "org/model", "siblings": siblings});
    if !faults.no_commit {
        answer["sha"] = commit.into();
    }
    axum::Json(answer).into_response()
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn git_sha1(bytes: &[u8]) -> String {
    let mut hash = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hex(&hash.finalize())
}

/// Small files come from the hub itself, large ones (LFS) by a redirect to storage.
async fn resolve(
    State(hub): State<Arc<Hub>>,
    UrlPath((commit, file)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let faults = hub.faults.lock().unwrap().clone();
    let Some(bytes) = &hub.content(&file, &faults) else {
        return refuse(404, "EntryNotFound", "Entry not found");
    };
    let mut extra = Vec::new();
    let mut response = if is_large(&file) {
        let status = faults.redirect_status.unwrap_or(302);
        let mut response = StatusCode::from_u16(status).unwrap().into_response();
        let host = headers[header::HOST].to_str().unwrap();
        let location = match faults.redirect {
            Redirect::Absolute => format!("http://{host}/storage/{file}?signature=secret"),
            Redirect::Relative => format!("../../../../storage/{file}"),
            Redirect::Elsewhere => {
                let port = host.split_once(':').unwrap().1;
                format!("http://localhost:{port}/storage/{file}?signature=secret")
            }
        };
        let location = location.parse().unwrap();
        response.headers_mut().insert(header::LOCATION, location);
        if !faults.no_etags {
            extra.push(("x-linked-etag", format!("\"{}\"", sha256(bytes))));
            extra.push(("x-linked-size", bytes.len().to_string()));
            extra.push(("etag", "W/\"of the redirect\"".into()));
        }
        response
    } else {
        if !faults.no_etags {
            extra.push(("etag", format!("\"{}\"", git_sha1(bytes))));
        }
        ranged(bytes, &headers, faults.no_ranges)
    };
    if faults.odd_etags {
        let odd = format!("\"{}\"", &sha256(file.as_bytes())[..40]);
        extra = vec![("etag", odd)];
    }
    if !faults.no_commit_header {
        extra.push(("x-repo-commit", commit));
    }
    for (name, value) in extra {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

async fn storage(
    State(hub): State<Arc<Hub>>,
    UrlPath(file): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    let mut faults = hub.faults.lock().unwrap();
    let mut bytes = hub.content(&file, &faults).unwrap();
    if faults.wrong_bytes {
        bytes[5000] ^= 1;
    }
    if faults.pointers {
        bytes = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec();
    }
    let mut response = ranged(&bytes, &headers, faults.no_ranges);
    // A storage's ETag is its own.
    let etag = header::HeaderValue::from_static("\"0123456789abcdef0123456789abcdef\"");
    response.headers_mut().insert(header::ETAG, etag);
    let end = if faults.broken_transfers > 0 {
        faults.broken_transfers -= 1;
        Broken::Off
    } else if faults.stalled_transfers > 0 {
        faults.stalled_transfers -= 1;
        Broken::Stalled
    } else {
        return response;
    };
    // The length promises all, the body ends in the middle.
    let (parts, _) = response.into_parts();
    let length: usize = parts.headers[header::CONTENT_LENGTH]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let start = bytes.len() - length;
    let half = bytes[start..start + length / 2].to_vec();
    Response::from_parts(parts, Body::new(Broken::Bytes(half, Box::new(end))))
}

/// Some bytes, a pause in which they are sent, then an error or nothing more.
enum Broken {
    Bytes(Vec<u8>, Box<Broken>),
    Pause(Box<Broken>),
    Stalled,
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
            Broken::Bytes(bytes, end) => {
                *self = Broken::Pause(end);
                Poll::Ready(Some(Ok(http_body::Frame::data(bytes.into()))))
            }
            Broken::Pause(end) => {
                *self = *end;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Broken::Stalled => {
                *self = Broken::Stalled;
                Poll::Pending
            }
            Broken::Off => Poll::Ready(Some(Err(std::io::Error::other("the transfer breaks")))),
        }
    }
}

fn ranged(bytes: &[u8], headers: &HeaderMap, ignore: bool) -> Response {
    let range = headers.get(header::RANGE).filter(|_| !ignore);
    let Some(range) = range else {
        let length = [(header::CONTENT_LENGTH, bytes.len().to_string())];
        return (length, bytes.to_vec()).into_response();
    };
    let start = range.to_str().unwrap();
    let start = start.strip_prefix("bytes=").unwrap().strip_suffix('-');
    let start: usize = start.unwrap().parse().unwrap();
    if start >= bytes.len() {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let content_range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    let body = bytes[start..].to_vec();
    let headers = [
        (header::CONTENT_RANGE, content_range),
        (header::CONTENT_LENGTH, body.len().to_string()),
    ];
    (StatusCode::PARTIAL_CONTENT, headers, body).into_response()
}
