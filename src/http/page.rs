//! The page at `/`: files within the binary, which need no other host and no build. And the API's
//! description as a page, at `/docs`.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::accept::{parts, weighted};
use super::error::ApiError;
use super::state::AppState;

/// The page's own scripts and styles, nothing from elsewhere, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The same for `/docs`, and the one style that its script puts in, by its hash: with another version of Swagger UI the
/// browser tells another hash, which `tests/page` notices.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Beside these: no frame for browsers that know no policy, and no address told to where a link leads.
const FRAMES: &str = "DENY";
const REFERRER: &str = "no-referrer";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file of the page.
struct File {
    /// Its name below `/page/`.
    name: &'static str,
    media_type: &'static str,
    content: &'static str,
    etag: String,
}

macro_rules! files {
    ($($name:literal: $media_type:ident,)*) => {
        vec![$(File::new($name, $media_type, include_str!(concat!("page/", $name))),)*]
    };
}

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    files! {
        "index.html": HTML,
        "style.css": CSS,
        "api.js": SCRIPT,
        "app.js": SCRIPT,
        "documents.js": SCRIPT,
        "examples.js": SCRIPT,
        "form.js": SCRIPT,
        "html.js": SCRIPT,
        "input.js": SCRIPT,
        "results.js": SCRIPT,
        "snippets.js": SCRIPT,
        "vendor/hooks.js": SCRIPT,
        "vendor/htm.js": SCRIPT,
        "vendor/preact.js": SCRIPT,
        "vendor/licences.txt": TEXT,
    }
});

impl File {
    fn new(name: &'static str, media_type: &'static str, content: &'static str) -> Self {
        let digest = Sha256::digest(content);
        let hex: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        Self {
            name,
            media_type,
            content,
            // Weak, since the answer may be compressed.
            etag: format!("W/\"{hex}\""),
        }
    }

    /// The file, or that what the client has is current.
    fn respond(&'static self, request: &HeaderMap) -> Response {
        let fixed = [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_FRAME_OPTIONS, FRAMES),
            (header::REFERRER_POLICY, REFERRER),
            // It is asked for every time, since the next version has the same names.
            (header::CACHE_CONTROL, "no-cache"),
            (header::ETAG, &self.etag),
        ];
        match is_current(request, &self.etag) {
            true => (StatusCode::NOT_MODIFIED, fixed).into_response(),
            false => {
                let media_type = [(header::CONTENT_TYPE, self.media_type)];
                (fixed, media_type, self.content).into_response()
            }
        }
    }
}

/// Whether `If-None-Match` names what would be sent. Compared weakly, as RFC 9110 has it.
fn is_current(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut known = known
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    known.any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}

/// The page itself; `/` has another answer for other clients.
pub(super) fn index(headers: &HeaderMap) -> Response {
    ([(header::VARY, "accept")], found("index.html", headers)).into_response()
}

fn found(name: &str, headers: &HeaderMap) -> Response {
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => file.respond(headers),
        None => ApiError::NotFound.into_response(),
    }
}

/// The page's files; like `/docs`, no part of the API.
pub(super) fn router() -> Router<AppState> {
    // The page itself is at `/` only, where its links are right.
    let file = |Path(name): Path<String>, headers: HeaderMap| async move {
        match &*name {
            "index.html" => ApiError::NotFound.into_response(),
            name => found(name, &headers),
        }
    };
    Router::new().route("/page/{*file}", get(file))
}

/// The API's description, as a page and as JSON.
pub(super) fn docs(document: OpenApi) -> Router<AppState> {
    // Beside the page's folder, under whatever prefix a proxy gives it. No badge of a validator on the Internet.
    let config = Config::new(["../openapi.json"]).validator_url("none");
    let docs = SwaggerUi::new("/docs").config(config);
    let docs: Router<AppState> = docs.url("/openapi.json", document).into();
    docs.layer(map_response(async |mut response: Response| {
        // The library's own has no body.
        if response.status() == StatusCode::NOT_FOUND {
            return ApiError::NotFound.into_response();
        }
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, DOCS_POLICY),
            (header::X_FRAME_OPTIONS, FRAMES),
            (header::REFERRER_POLICY, REFERRER),
        ] {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        // From /docs to the folder, which a proxy's prefix may stand before.
        if let Some(place) = response.headers_mut().get_mut(header::LOCATION) {
            *place = HeaderValue::from_static("docs/");
        }
        response
    }))
}

/// Whether a client wants a page rather than JSON: it names HTML, and does not like JSON better. Clients
/// that take anything are programs.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    // One that can't be read counts as not wanted.
    let ranges = parts(headers, header::ACCEPT).map(weighted);
    let ranges = ranges.map(|(range, weight)| (range.to_ascii_lowercase(), weight.unwrap_or(0.0)));
    let ranges: Vec<(String, f32)> = ranges.collect();
    let named = |name: &str| {
        let range = ranges.iter().find(|(range, _)| range == name);
        range.map(|&(_, weight)| weight)
    };
    let html = named("text/html").or_else(|| named("text/*"));
    let json = named("application/json").or_else(|| named("application/*"));
    let json = json.or_else(|| named("*/*")).unwrap_or(0.0);
    html.is_some_and(|html| html > 0.0 && html >= json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_for_those_who_name_html_and_like_json_no_better() {
        for (accept, expected) in [
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                true,
            ),
            ("text/html", true),
            ("TEXT/HTML; q=0.5", true),
            ("text/*", true),
            ("text/html, */*", true),
            ("text/html;level=1;q=0.4, */*;q=0.3", true),
            ("application/json;q=0.5, text/html", true),
            ("*/*", false),
            ("application/json", false),
            ("application/json, text/html;q=0.9", false),
            ("text/html;q=0", false),
            ("text/html;q=0, */*", false),
            ("text/html;q=0.2, */*;q=0.7", false),
            ("text/html;q=x", false),
            ("text/htmlx", false),
            ("application/xhtml+text/html", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(is_wanted(&headers), expected, "{accept}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }

    #[test]
    fn what_the_client_has_is_current_if_any_of_its_tags_is() {
        for (tags, expected) in [
            ("W/\"a\"", true),
            ("\"a\"", true),
            ("\"b\", W/\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, tags.parse().unwrap())]);
            assert_eq!(is_current(&headers, "W/\"a\""), expected, "{tags}");
        }
    }

    #[test]
    fn the_page_is_small() {
        let own = FILES
            .iter()
            .filter(|file| !file.name.starts_with("vendor/"));
        let bytes: usize = own.map(|file| file.content.len()).sum();
        assert!(bytes < 60_000, "{bytes} bytes");
    }
}
