//! gRPC's statuses.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use prost::Message;
use prost_types::{Any, Duration};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::http::error::ApiError;

/// How long a client should wait before it tries again, in milliseconds: gRPC's own retries heed it.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Whether a request is one of gRPC.
pub(in crate::http) fn is_grpc(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE);
    let media_type = media_type.map_or(&b""[..], HeaderValue::as_bytes);
    let media_type = media_type.split(|&b| b == b';').next();
    let media_type = media_type.unwrap_or_default().trim_ascii();
    [&b"application/grpc"[..], b"application/grpc+proto"].contains(&media_type)
}

/// The status for an error: the one place where it is chosen.
fn code(error: &ApiError) -> Code {
    if error.is_overload() || matches!(error, ApiError::RateLimited(_)) {
        return Code::ResourceExhausted;
    }
    match (error, error.describe().status) {
        (ApiError::NotFound | ApiError::MethodNotAllowed, _) => Code::Unimplemented,
        // gRPC's libraries say the same of a message that is too large.
        (ApiError::BodyTooLarge(_) | ApiError::TooManyValues(_), _) => Code::ResourceExhausted,
        (ApiError::UnknownCoding, _) => Code::Unimplemented,
        (_, StatusCode::UNAUTHORIZED) => Code::Unauthenticated,
        (_, StatusCode::FORBIDDEN) => Code::PermissionDenied,
        (_, StatusCode::NOT_FOUND) => Code::NotFound,
        (_, StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT) => Code::DeadlineExceeded,
        (_, StatusCode::SERVICE_UNAVAILABLE) => Code::Unavailable,
        (_, status) if status.is_server_error() => Code::Internal,
        _ => Code::InvalidArgument,
    }
}

/// An error as gRPC tells it: in headers, without a body.
pub(in crate::http) fn error(error: &ApiError) -> Response {
    let code = code(error);
    let message = match error {
        ApiError::NotFound => {
            "this method is not served here; reflection tells which are".to_owned()
        }
        _ => error.describe().detail,
    };
    let mut metadata = MetadataMap::new();
    let mut details = Vec::new();
    let may_retry = error.is_overload() || matches!(error, ApiError::RateLimited(_));
    if let Some(seconds) = error
        .retry_after()
        .filter(|_| may_retry || code == Code::Unavailable)
    {
        metadata = MetadataMap::from_headers(HeaderMap::from_iter([(
            PUSHBACK,
            HeaderValue::from(seconds * 1000),
        )]));
        details = retry_details(code, &message, seconds);
    }
    let status = Status::with_details_and_metadata(code, message, details.into(), metadata);
    let mut response: Response = status.into_http();
    if matches!(error, ApiError::UnknownCoding) {
        let known = HeaderValue::from_static("identity,gzip,deflate");
        response.headers_mut().insert(ACCEPT_ENCODING, known);
    }
    response
}

/// `google.rpc.Status`, as far as it is written here.
#[derive(Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Duration>,
}

/// A status that tells when to try again.
fn retry_details(code: Code, message: &str, seconds: u64) -> Vec<u8> {
    let retry = RetryInfo {
        retry_delay: Some(Duration {
            seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
            nanos: 0,
        }),
    };
    let status = RpcStatus {
        code: code.into(),
        message: message.to_owned(),
        details: vec![Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: retry.encode_to_vec(),
        }],
    };
    status.encode_to_vec()
}
