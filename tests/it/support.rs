//! What several tests need.

pub(crate) mod app;
pub(crate) mod gate;
pub(crate) mod http2;
pub(crate) mod hub;
pub(crate) mod models;
pub(crate) mod process;

/// Whether a message for a user says all that it must.
pub(crate) fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}
