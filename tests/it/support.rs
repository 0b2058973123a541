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

/// So many documents, each a text with a number of its own: equal ones would be scored once.
pub(crate) fn different(text: &str, documents: usize) -> Vec<String> {
    (0..documents).map(|i| format!("{text} {i}")).collect()
}
