//! What comes before a request's body is read, and after its answer: its deadline, its class, and the limits and metrics
//! of its API key's owner.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout_at;

use crate::rerank::{Cost, Refused, RerankError};
use crate::types::Deadline;

use super::accounts::Account;
use super::error::{ApiError, Failed};
use super::receive::Receiver;
use super::terms::Asked;

/// The layer around the routes that rank or score, over HTTP.
pub(super) async fn enter(
    State(receiver): State<Receiver>,
    request: Request,
    next: Next,
) -> Response {
    match receiver.takes(&request) {
        true => enter_any(request, next).await,
        false => next.run(request).await,
    }
}

/// The same around routes all of which rank or score.
pub(super) async fn enter_any(mut request: Request, next: Next) -> Response {
    let account = request.extensions().get::<Arc<Account>>().cloned();
    let mut response = match Asked::of(request.headers()) {
        Err(error) => error.into_response(),
        Ok(asked) => {
            request.extensions_mut().insert(asked);
            run(request, next, asked, account.as_ref()).await
        }
    };
    if let Some(account) = account {
        if let Some(cost) = response.extensions().get::<Cost>() {
            account.count(cost);
        }
        if let Some(Failed(error)) = response.extensions().get()
            && let Some(reason) = reason(error)
        {
            account.count_refused(reason);
        }
        account.tell(response.headers_mut());
    }
    response
}

/// Answers a request, as long as its client waits and its key's owner may ask.
async fn run(
    request: Request,
    next: Next,
    asked: Asked,
    account: Option<&Arc<Account>>,
) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let entered = account.map(|account| account.enter(length.unwrap_or(0)));
    let entered = match entered.transpose() {
        Ok(entered) => entered,
        Err(limited) => return ApiError::RateLimited(limited).into_response(),
    };
    let answered = next.run(request);
    let response = match asked.deadline {
        None => answered.await,
        Some(Deadline { timeout, at }) => {
            let answer = timeout_at(at.into(), answered).await;
            let late = || ApiError::from(RerankError::DeadlineExceeded(timeout));
            answer.unwrap_or_else(|_| late().into_response())
        }
    };
    if let Some(entered) = entered {
        let cost = response.extensions().get::<Cost>();
        entered.settle(cost.map_or(0, |cost| cost.tokens));
    }
    response
}

/// Why a request was refused, in a word, if it was.
fn reason(error: &ApiError) -> Option<&'static str> {
    match error {
        ApiError::RateLimited(limited) => Some(limited.reason()),
        ApiError::Rerank(RerankError::AboveLimit { .. }, _) => Some("tokens_per_minute"),
        ApiError::Rerank(
            RerankError::DeadlineExceeded(_) | RerankError::Refused(Refused::NoTime { .. }),
            _,
        ) => Some("deadline"),
        error if error.is_overload() => Some("overloaded"),
        _ => None,
    }
}
