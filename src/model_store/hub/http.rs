//! HTTP to the hub and to where it sends us: redirects, the token, certificates, time limits.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Client, Response};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use url::Url;

use super::Options;

/// The public hub. Whatever mirror is asked, the token may go there.
const HUB: &str = "https://huggingface.co";
const MOST_REDIRECTS: usize = 10;
/// The longest that the hub may make us wait before the next try.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a request brought nothing.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// A status other than success.
    Refused(Refusal),
    /// The hub can't be reached, is silent, or breaks off.
    Network(String),
    /// What answers is no hub, or a setting is wrong: another try would bring the same.
    NoHub(String),
}

/// The hub's refusal.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) url: String,
    /// `X-Error-Code`, such as GatedRepo.
    pub(super) code: String,
    /// `X-Error-Message`.
    pub(super) message: String,
    retry_after: Option<Duration>,
}

impl Failure {
    /// Whether another try may succeed.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Refused(refusal) => matches!(refusal.status, 408 | 429 | 500..),
            Self::Network(_) => true,
            Self::NoHub(_) => false,
        }
    }

    /// How long the hub asks us to wait.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Refused(refusal) => refusal.retry_after.unwrap_or_default().min(LONGEST_WAIT),
            _ => Duration::ZERO,
        }
    }

    /// What happened, as a clause.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Refused(Refusal {
                status,
                url,
                message,
                ..
            }) => {
                let message = match message.as_str() {
                    "" => String::new(),
                    message => format!(": {message}"),
                };
                format!("the hub answers HTTP {status} for {url}{message}")
            }
            Self::Network(reason) => format!("the hub can't be reached ({reason})"),
            Self::NoHub(reason) => reason.clone(),
        }
    }
}

/// What the hub says of a file in the headers, before it sends us to where the bytes are.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub(super) commit: Option<String>,
    /// Of a large file: its SHA-256.
    pub(super) linked_etag: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) linked_size: Option<u64>,
}

/// A successful answer, its body yet to come.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) about: About,
    response: Response,
    url: String,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(self.response.headers(), name)
    }

    pub(super) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }
}

/// A client of one hub. It blocks.
#[derive(Debug)]
pub(super) struct Http {
    runtime: Runtime,
    client: Client,
    endpoint: Url,
    token: Option<HeaderValue>,
    answer_within: Duration,
    stall_after: Duration,
}

impl Http {
    pub(super) fn new(options: &Options) -> Result<Self, Failure> {
        let endpoint = options.endpoint.as_deref().unwrap_or(HUB);
        let parsed = Url::parse(endpoint).ok();
        let parsed = parsed.filter(|u| ["http", "https"].contains(&u.scheme()) && u.has_host());
        let endpoint = parsed.ok_or_else(|| {
            Failure::NoHub(format!(
                "HF_ENDPOINT is {endpoint}, but must be a URL such as {HUB}"
            ))
        })?;
        let token = options.token.as_ref().map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                Failure::NoHub(
                    "the token (HF_TOKEN or the token's file) has characters that no token has"
                        .into(),
                )
            })?;
            value.set_sensitive(true);
            Ok(value)
        });
        let client = options.certificates.client();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Ok(Self {
            runtime: runtime.map_err(|e| Failure::NoHub(e.to_string()))?,
            client: client.map_err(Failure::NoHub)?,
            endpoint,
            token: token.transpose()?,
            answer_within: options.answer_within,
            stall_after: options.stall_after,
        })
    }

    /// Ends the client. A name look-up that hangs would block its drop.
    pub(super) fn close(self) {
        self.runtime.shutdown_background();
    }

    /// Whether a token is sent.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// A URL of the hub; each part is one segment of the path.
    pub(super) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// A model's page, for people.
    pub(super) fn page(&self, model: &str) -> String {
        shown(&self.url(model.split('/')))
    }

    /// Gets a whole small answer, within the time for answers.
    pub(super) fn text(&self, url: &Url) -> Result<(About, Vec<u8>), Failure> {
        self.within(url, async {
            let answer = self.follow(url, 0, false).await?;
            let shown = answer.url;
            let body = answer.response.bytes().await;
            let body = body.map_err(|e| network(&shown, &e))?;
            Ok((answer.about, body.to_vec()))
        })
    }

    /// Gets what the hub says of a file, not the file.
    pub(super) fn about(&self, url: &Url) -> Result<About, Failure> {
        self.within(url, async { Ok(self.follow(url, 0, true).await?.about) })
    }

    /// Gets a file from an offset on; the answer may be the whole file all the same.
    pub(super) fn get(&self, url: &Url, offset: u64) -> Result<Answer, Failure> {
        self.within(url, self.follow(url, offset, false))
    }

    /// The next bytes of an answer; none at its end.
    pub(super) fn chunk(&self, answer: &mut Answer) -> Result<Option<bytes::Bytes>, Failure> {
        let chunk = async { timeout(self.stall_after, answer.response.chunk()).await };
        match self.runtime.block_on(chunk) {
            Ok(chunk) => chunk.map_err(|e| network(&answer.url, &e)),
            Err(_) => Err(Failure::Network(format!(
                "{}: nothing came for {}",
                answer.url,
                seconds(self.stall_after)
            ))),
        }
    }

    fn within<T>(
        &self,
        url: &Url,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let limited = async { timeout(self.answer_within, work).await };
        self.runtime.block_on(limited).unwrap_or_else(|_| {
            let limit = seconds(self.answer_within);
            let reason = format!("{}: no answer in {limit}", shown(url));
            Err(Failure::Network(reason))
        })
    }

    /// Follows redirects to the answer; with `hub_only`, not away from the hub once that has said
    /// what the file is.
    async fn follow(&self, url: &Url, offset: u64, hub_only: bool) -> Result<Answer, Failure> {
        let mut url = url.clone();
        let mut about = About::default();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.client.get(url.clone());
            // Compressed, a file would have another length, and an offset another meaning.
            request = request.header(ACCEPT_ENCODING, "identity");
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let trusted = self.trusts(&url);
            if let (Some(token), true) = (&self.token, trusted) {
                request = request.header(AUTHORIZATION, token.clone());
            }
            let response = request
                .send()
                .await
                .map_err(|e| network(&shown(&url), &e))?;
            about.add(response.headers(), trusted);
            let status = response.status().as_u16();
            let next = header(response.headers(), LOCATION.as_str());
            if let (301 | 302 | 303 | 307 | 308, Some(next)) = (status, next) {
                let next = url.join(next).map_err(|_| {
                    Failure::NoHub(format!(
                        "{} redirects to {next}, which is no URL",
                        shown(&url)
                    ))
                })?;
                if !(hub_only && about.has_identity() && !self.trusts(&next)) {
                    url = next;
                    continue;
                }
            } else if !response.status().is_success() {
                return Err(Failure::Refused(refusal(&url, &response)));
            } else {
                check_content(&url, response.headers())?;
            }
            return Ok(Answer {
                about,
                response,
                url: shown(&url),
            });
        }
        Err(Failure::NoHub(format!(
            "{} redirects more than {MOST_REDIRECTS} times; check HF_ENDPOINT",
            shown(&url)
        )))
    }

    /// Whether the token may go there: to the hub that was named, also where it changes from http
    /// to https, and to the public hub.
    fn trusts(&self, url: &Url) -> bool {
        let upgraded = |from: &Url| {
            from.scheme() == "http"
                && url.scheme() == "https"
                && (from.host(), from.port(), url.port()) == (url.host(), None, None)
        };
        url.origin() == self.endpoint.origin()
            || upgraded(&self.endpoint)
            || url.origin().ascii_serialization() == HUB
    }
}

impl About {
    /// Takes over what one answer on the way says. The ETag of a storage is its own affair.
    fn add(&mut self, headers: &HeaderMap, trusted: bool) {
        let text = |name: &str| header(headers, name).map(str::to_owned);
        let etag = |name: &str| {
            let tag = text(name)?;
            let tag = tag.trim_start_matches("W/").trim_matches('"');
            Some(tag.to_ascii_lowercase())
        };
        let commit = text("x-repo-commit");
        if trusted || commit.is_some() {
            self.etag = etag(ETAG.as_str()).or(self.etag.take());
        }
        self.commit = commit.or(self.commit.take());
        self.linked_etag = etag("x-linked-etag").or(self.linked_etag.take());
        let size = text("x-linked-size").and_then(|s| s.parse().ok());
        self.linked_size = size.or(self.linked_size);
    }

    fn has_identity(&self) -> bool {
        self.linked_etag.is_some() || self.etag.is_some()
    }
}

fn refusal(url: &Url, response: &Response) -> Refusal {
    let text = |name: &str| header(response.headers(), name).unwrap_or_default();
    Refusal {
        status: response.status().as_u16(),
        url: shown(url),
        code: text("x-error-code").to_owned(),
        message: text("x-error-message").to_owned(),
        retry_after: text(RETRY_AFTER.as_str())
            .parse()
            .ok()
            .map(Duration::from_secs),
    }
}

/// Refuses what no hub sends: the page of a network's login, or compressed bytes.
fn check_content(url: &Url, headers: &HeaderMap) -> Result<(), Failure> {
    let says = |name: &str, what: &str| header(headers, name).is_some_and(|v| v.contains(what));
    let encoded =
        headers.contains_key(CONTENT_ENCODING) && !says(CONTENT_ENCODING.as_str(), "identity");
    let found = if says(CONTENT_TYPE.as_str(), "text/html") {
        "a web page"
    } else if encoded {
        "a compressed answer, though none was asked for"
    } else {
        return Ok(());
    };
    Err(not_a_hub(&shown(url), found))
}

/// What was asked does not speak the hub's protocol.
pub(super) fn not_a_hub(url: &str, found: &str) -> Failure {
    Failure::NoHub(format!(
        "{url} does not answer as a hub does, but with {found} (check HF_ENDPOINT, and whether the network asks for a login)"
    ))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A URL as users may see it: signatures and passwords are secrets.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Only a URL without a host has none to clear.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

fn network(url: &str, error: &reqwest::Error) -> Failure {
    let cause = root_cause(error);
    let hint = if cause.contains("certificate") {
        "; if your network has a certificate authority of its own, name the file with its certificate in SSL_CERT_FILE"
    } else {
        ""
    };
    Failure::Network(format!("{url}: {cause}{hint}"))
}

/// The innermost error says what happened; those around it only where.
pub(super) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
