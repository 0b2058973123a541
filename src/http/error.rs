//! The one place where an error becomes an HTTP status. A handler or a layer returns it as it is; the layer
//! that surrounds them all renders it in the shape of the dialect that was called (see `shapes`).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::models::LoadError;
use crate::rerank::{ModelError, Refused, RerankError, ScoreError};
use crate::schedule::RunError;
use crate::tokenize::{Text, TokenizeError};

use super::accounts::Limited;
use super::text_fields::TextFields;

/// The content encodings that a body may have.
pub(super) const KNOWN_CODINGS: &str = "gzip, deflate, br, zstd";
/// Maximum length of a client's value in a message, in characters.
const MOST_CHARACTERS: usize = 60;
/// Maximum length of a message that may hold such values, in characters.
const LONGEST_MESSAGE: usize = 160;

/// Everything that can go wrong with a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("the body is not valid JSON: {0}")]
    InvalidJson(String),
    #[error("the body must be JSON, with the header \"content-type: application/json\"")]
    UnsupportedMediaType,
    #[error("this address answers gRPC only, with the header \"content-type: application/grpc\"")]
    NotGrpc,
    #[error("a message can't be read: {0}")]
    InvalidMessage(String),
    #[error(
        "the body's content-encoding is not known here; send it plain, or as one of: {KNOWN_CODINGS}"
    )]
    UnknownCoding,
    #[error(
        "the body can't be decoded as its header \"content-encoding: {0}\" says: it is broken, or cut off"
    )]
    CodingBroken(String),
    #[error("the header \"expect\" may say nothing but \"100-continue\"")]
    UnknownExpectation,
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("too many values, over {0} bytes of memory; leave out fields that are not ranked")]
    TooManyValues(usize),
    #[error("the request's head is not valid HTTP: {0}")]
    BadHead(&'static str),
    #[error("the body did not arrive in time")]
    BodyTimeout,
    #[error("the body could not be read")]
    BodyBroken,
    #[error("{field}: {detail}")]
    Invalid { field: String, detail: String },
    #[error("there is nothing at this address; /docs shows what there is")]
    NotFound,
    #[error("this port answers health and metrics only; everything else is at server.port")]
    HealthPort,
    #[error("the metrics are at port {0} (server.health_port), without TLS")]
    MetricsElsewhere(u16),
    #[error("this address does not answer that method; /docs shows which it does")]
    MethodNotAllowed,
    #[error(
        "an API key is needed: send it as \"Authorization: Bearer KEY\", \"Api-Key: KEY\" or \"x-api-key: KEY\""
    )]
    MissingKey,
    #[error("the API key is not valid")]
    WrongKey,
    #[error(
        "this API key may read metrics and what describes the models, and nothing else: its line in the file of keys \
         gives it no more"
    )]
    NotRerank,
    #[error(transparent)]
    RateLimited(Limited),
    #[error(
        "this API key may not load or unload models: its line in the file of keys must be NAME KEY admin"
    )]
    NotAdmin,
    #[error(
        "models can't be loaded or unloaded here: that takes an API key with the admin right (auth.keys_file), or \
         auth.open_admin = true in the server's settings"
    )]
    AdminClosed,
    #[error(transparent)]
    NotLoaded(LoadError),
    #[error("the server is shutting down")]
    Draining,
    #[error("the server is busy: it holds as many bytes of requests as it may; try again later")]
    NoRoomForBody,
    #[error("the server is busy: all its connections are taken; try again later")]
    NoRoomForConnection,
    #[error("{0}")]
    Rerank(RerankError, TextFields),
    #[error("a handler panicked")]
    Panicked,
}

/// An error as HTTP tells it, before a dialect gives it its shape.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: String,
    /// The field of the body that is wrong.
    pub(super) field: Option<String>,
}

impl ApiError {
    /// The mapping. Exhaustive on purpose: a new error must be given a status here.
    pub(super) fn describe(&self) -> Described {
        use StatusCode as S;
        let (status, code, title, field) = match self {
            Self::InvalidJson(_) => (S::BAD_REQUEST, "invalid_json", "Invalid JSON", None),
            Self::InvalidMessage(_) => (S::BAD_REQUEST, "invalid_message", "Invalid message", None),
            Self::UnsupportedMediaType | Self::NotGrpc => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported media type",
                None,
            ),
            Self::UnknownCoding => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unknown_encoding",
                "Unknown content encoding",
                None,
            ),
            Self::CodingBroken(_) => (S::BAD_REQUEST, "body_broken", "Body broken", None),
            Self::UnknownExpectation => (
                S::EXPECTATION_FAILED,
                "unknown_expectation",
                "Expectation failed",
                None,
            ),
            Self::BodyTooLarge(_) => (
                S::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "Body too large",
                None,
            ),
            Self::TooManyValues(_) => (
                S::PAYLOAD_TOO_LARGE,
                "too_many_values",
                "Too many values",
                None,
            ),
            Self::BadHead(_) => (S::BAD_REQUEST, "bad_head", "Bad head", None),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body_timeout", "Body timed out", None),
            Self::BodyBroken => (S::BAD_REQUEST, "body_broken", "Body broken", None),
            Self::Invalid { field, .. } => (
                S::UNPROCESSABLE_ENTITY,
                "invalid_field",
                "Invalid field",
                Some(field.as_str()),
            ),
            Self::NotFound | Self::HealthPort | Self::MetricsElsewhere(_) => {
                (S::NOT_FOUND, "not_found", "Not found", None)
            }
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
                None,
            ),
            Self::MissingKey | Self::WrongKey => {
                (S::UNAUTHORIZED, "unauthorized", "Unauthorized", None)
            }
            Self::NotAdmin | Self::NotRerank | Self::AdminClosed => {
                (S::FORBIDDEN, "forbidden", "Forbidden", None)
            }
            Self::RateLimited(_) => (
                S::TOO_MANY_REQUESTS,
                "rate_limited",
                "Too many requests",
                None,
            ),
            Self::NotLoaded(LoadError::Model(error)) => describe_model(error),
            Self::NotLoaded(
                LoadError::Failed { .. } | LoadError::TooLarge { .. } | LoadError::NoRoom { .. },
            ) => MODEL_FAILED,
            Self::Draining => NOT_READY,
            Self::NoRoomForBody | Self::NoRoomForConnection => OVERLOADED,
            Self::Rerank(error, fields) => describe_rerank(error, *fields),
            Self::Panicked => INTERNAL,
        };
        let detail = if status == S::INTERNAL_SERVER_ERROR {
            // The cause is for the log, not for the client.
            "the server failed on this request; its log says why".to_owned()
        } else {
            self.to_string()
        };
        Described {
            status,
            code,
            title,
            detail,
            field: field.map(str::to_owned),
        }
    }
}

type Row = (StatusCode, &'static str, &'static str, Option<&'static str>);

const INTERNAL: Row = (
    StatusCode::INTERNAL_SERVER_ERROR,
    "internal",
    "Internal error",
    None,
);

const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
const OVERLOADED: Row = (UNAVAILABLE, "overloaded", "Overloaded", None);

const NOT_READY: Row = (UNAVAILABLE, "not_ready", "Not ready", None);

const DEADLINE: Row = (
    StatusCode::GATEWAY_TIMEOUT,
    "deadline_exceeded",
    "Deadline exceeded",
    None,
);

const NO_MODEL: Row = (
    StatusCode::NOT_FOUND,
    "model_not_found",
    "Model not found",
    Some("model"),
);

const MODEL_FAILED: Row = (
    StatusCode::SERVICE_UNAVAILABLE,
    "model_failed",
    "Model failed to load",
    Some("model"),
);

const UNLOADED: Row = (
    StatusCode::SERVICE_UNAVAILABLE,
    "model_unloaded",
    "Model not loaded",
    Some("model"),
);

/// Maximum number of stages of a cascade.
pub(super) const MAX_STAGES: usize = 4;

/// The fields of a cascade's stages that name their models.
const STAGES: [&str; MAX_STAGES] = [
    "cascade[0].model",
    "cascade[1].model",
    "cascade[2].model",
    "cascade[3].model",
];

fn describe_model(error: &ModelError) -> Row {
    match error {
        ModelError::NotFound { .. } => NO_MODEL,
        ModelError::Loading => NOT_READY,
        ModelError::Failed { .. } => MODEL_FAILED,
        ModelError::Idle(_) | ModelError::Unloaded(_) => UNLOADED,
    }
}

fn describe_rerank(error: &RerankError, fields: TextFields) -> Row {
    use StatusCode as S;
    let invalid = |code, field| (S::UNPROCESSABLE_ENTITY, code, "Invalid field", Some(field));
    match error {
        RerankError::Model(error) => describe_model(error),
        RerankError::Stage { stage, error } => {
            let (status, code, title, field) = describe_model(error);
            let of_stage = field.and_then(|_| STAGES.get(*stage).copied());
            (status, code, title, of_stage)
        }
        RerankError::EmptyQuery(_) => invalid("empty_query", fields.query),
        RerankError::NoDocuments => invalid("no_documents", fields.documents),
        RerankError::Unpaired { .. } => invalid("unpaired", "queries"),
        RerankError::TooManyDocuments { .. } => invalid("too_many_documents", fields.documents),
        RerankError::Unexplained(_) => invalid("cannot_explain", "explain"),
        RerankError::Refused(Refused::Overloaded { .. }) => OVERLOADED,
        RerankError::Refused(Refused::NoTime { .. }) => DEADLINE,
        RerankError::Refused(Refused::TooLarge { .. }) | RerankError::AboveLimit { .. } => {
            invalid("too_many_tokens", fields.documents)
        }
        RerankError::DeadlineExceeded(_) => DEADLINE,
        RerankError::Score(error) => match error {
            ScoreError::Tokenize(TokenizeError::TooLong { .. }) => {
                invalid("input_too_long", fields.documents)
            }
            ScoreError::Tokenize(TokenizeError::TextTooLong { text, .. }) => {
                let field = match text {
                    Text::Query => fields.query,
                    Text::Document(_) => fields.documents,
                };
                invalid("input_too_long", field)
            }
            ScoreError::Tokenize(TokenizeError::Instruction { .. }) => {
                invalid("instruction_too_long", "instruction")
            }
            ScoreError::Run(RunError::DeadlineExceeded | RunError::TooLate { .. }) => DEADLINE,
            ScoreError::Run(RunError::Stopped) => NOT_READY,
            ScoreError::Run(RunError::Engine(_))
            | ScoreError::NotFinite(_)
            | ScoreError::Tokenize(
                TokenizeError::File { .. }
                | TokenizeError::Template(_)
                | TokenizeError::TooShort { .. }
                | TokenizeError::Failed(_),
            ) => INTERNAL,
        },
    }
}

impl From<LoadError> for ApiError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Model(error) => RerankError::Model(error).into(),
            error => Self::NotLoaded(error),
        }
    }
}

impl From<RerankError> for ApiError {
    fn from(error: RerankError) -> Self {
        let short = |error: ModelError| match error {
            ModelError::NotFound { asked, served } => ModelError::NotFound {
                asked: shortened(&asked).into_owned(),
                served,
            },
            other => other,
        };
        let error = match error {
            RerankError::Model(error) => RerankError::Model(short(error)),
            RerankError::Stage { stage, error } => RerankError::Stage {
                stage,
                error: short(error),
            },
            other => other,
        };
        Self::Rerank(error, TextFields::USUAL)
    }
}

impl ApiError {
    /// A field of the body that is wrong.
    pub(super) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            detail: detail.into(),
        }
    }

    /// Whether the server would answer the same request later.
    pub(super) fn is_overload(&self) -> bool {
        matches!(
            self,
            Self::NoRoomForBody
                | Self::NoRoomForConnection
                | Self::Rerank(RerankError::Refused(Refused::Overloaded { .. }), _)
        )
    }

    /// Whole seconds after which a client should try again: at least one; `None` if waiting does not help.
    pub(super) fn retry_after(&self) -> Option<u64> {
        let after = match self {
            Self::RateLimited(limited) => limited.retry_after(),
            _ if self.describe().code == UNLOADED.1 => return None,
            Self::Rerank(error, _) => error.retry_after(),
            _ => Duration::ZERO,
        };
        Some((after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
    }
}

/// Adds the headers that go with an error, whatever the dialect.
pub(super) fn with_headers(
    error: &ApiError,
    status: StatusCode,
    mut response: Response,
) -> Response {
    *response.status_mut() = status;
    let may_retry = [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if let Some(after) = error.retry_after().filter(|_| may_retry.contains(&status)) {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after));
    }
    if status == StatusCode::REQUEST_TIMEOUT || matches!(error, ApiError::BadHead(_)) {
        // What comes after it would be the rest of the body, or what a proxy takes for that.
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if matches!(error, ApiError::UnknownCoding) {
        let known = HeaderValue::from_static(KNOWN_CODINGS);
        response
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, known);
    }
    if status == StatusCode::UNAUTHORIZED {
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// On a response: the error that it stands for, to be rendered.
#[derive(Debug, Clone)]
pub(super) struct Failed(pub(super) Arc<ApiError>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self.describe().status;
        response.extensions_mut().insert(Failed(Arc::new(self)));
        response
    }
}

/// The answer where there is nothing.
pub(super) async fn not_found() -> ApiError {
    ApiError::NotFound
}

/// The answer to a method that a path doesn't know.
pub(super) async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}

/// The beginning of a text that a client chose, for a message.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    beginning(text, MOST_CHARACTERS)
}

/// A message, or its beginning if a client's text makes it long.
pub(super) fn shortened_message(text: &str) -> Cow<'_, str> {
    beginning(text, LONGEST_MESSAGE)
}

fn beginning(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}
