//! What several tests need.

pub(crate) mod app;
pub(crate) mod gate;
pub(crate) mod grpc;
pub(crate) mod http2;
pub(crate) mod hub;
pub(crate) mod models;
pub(crate) mod process;
pub(crate) mod tls;

/// The longest that anything here may take, on the busiest machine: what fails must say so, not hang.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// Asks again and again until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
    }
}

/// Whether a message for a user says all that it must.
pub(crate) fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

/// The error that a program ended with, whether it was written as text or as a line of a JSON log.
pub(crate) fn last_error(stderr: &[u8]) -> String {
    let stderr = String::from_utf8_lossy(stderr);
    let text = stderr.lines().rev().find_map(|line| {
        let logged = serde_json::from_str::<serde_json::Value>(line).ok();
        let logged = logged.filter(|line| line["level"] == "ERROR");
        let logged = logged.and_then(|line| Some(line["message"].as_str()?.to_owned()));
        logged.or_else(|| line.strip_prefix("rerankd: ").map(str::to_owned))
    });
    text.unwrap_or_default()
}

/// So many documents, each a text with a number of its own: equal ones would be scored once.
pub(crate) fn different(text: &str, documents: usize) -> Vec<String> {
    (0..documents).map(|i| format!("{text} {i}")).collect()
}
