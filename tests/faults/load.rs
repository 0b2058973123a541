//! Requests, and what came of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

const WORDS: &str = "the of and patients study treatment effect result group control after during \
    trial dose response weeks measured pressure risk disease therapy outcome cells protein gene \
    analysis method data model system time rate";

/// Made-up text of so many words.
pub(crate) fn text(words: usize) -> String {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    let text: Vec<&str> = (0..words)
        .map(|_| all[fastrand::usize(..all.len())])
        .collect();
    text.join(" ")
}

/// The body of a request.
pub(crate) fn body(documents: &[String]) -> Bytes {
    let query = "how long do the effects of the treatment last";
    json!({"query": query, "documents": documents})
        .to_string()
        .into()
}

/// Some bodies of so many documents of 60 words.
pub(crate) fn bodies(documents: usize) -> Arc<[Bytes]> {
    let one = || body(&(0..documents).map(|_| text(60)).collect::<Vec<_>>());
    (0..16).map(|_| one()).collect()
}

/// What came of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// The status; 0 if there was no answer.
    pub(crate) status: u16,
    pub(crate) documents: usize,
    pub(crate) took: Duration,
}

/// A client with a connection pool of its own.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Sends a request.
pub(crate) async fn send(
    client: &reqwest::Client,
    base: &str,
    key: Option<&str>,
    body: Bytes,
    documents: usize,
) -> Outcome {
    let start = Instant::now();
    let mut request = client
        .post(format!("{base}/v1/rerank"))
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let mut status = 0;
    if let Ok(answer) = request.body(body).send().await {
        status = answer.status().as_u16();
        if answer.bytes().await.is_err() {
            status = 0;
        }
    }
    Outcome {
        status,
        documents,
        took: start.elapsed(),
    }
}

/// Clients that each send the next request as soon as they have an answer, until the time is over.
pub(crate) async fn closed_loop(
    base: &str,
    key: Option<&'static str>,
    clients: usize,
    documents: usize,
    time: Duration,
) -> Vec<Outcome> {
    let bodies = bodies(documents);
    let end = Instant::now() + time;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (base, bodies) = (base.to_owned(), Arc::clone(&bodies));
        tasks.spawn(async move {
            let client = client();
            let mut outcomes = Vec::new();
            while Instant::now() < end {
                let body = bodies[fastrand::usize(..bodies.len())].clone();
                outcomes.push(send(&client, &base, key, body, documents).await);
            }
            outcomes
        });
    }
    tasks.join_all().await.concat()
}

/// Documents of the requests that were answered.
pub(crate) fn answered(outcomes: &[Outcome]) -> usize {
    let answered = outcomes.iter().filter(|o| o.status == 200);
    answered.map(|o| o.documents).sum()
}

/// How many outcomes have each status, and the median and 99th percentile of their times.
pub(crate) fn print(name: &str, outcomes: &[Outcome]) {
    let mut statuses: Vec<u16> = outcomes.iter().map(|o| o.status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    for status in statuses {
        let of: Vec<Outcome> = outcomes
            .iter()
            .copied()
            .filter(|o| o.status == status)
            .collect();
        println!(
            "{name}: {} x {status}, p50 {:.0} ms, p99 {:.0} ms",
            of.len(),
            percentile(&of, 0.5).as_secs_f64() * 1e3,
            percentile(&of, 0.99).as_secs_f64() * 1e3,
        );
    }
}

/// A percentile of the outcomes' times.
pub(crate) fn percentile(outcomes: &[Outcome], share: f64) -> Duration {
    let mut times: Vec<Duration> = outcomes.iter().map(|o| o.took).collect();
    times.sort_unstable();
    let place = (share * times.len() as f64) as usize;
    times
        .get(place.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
