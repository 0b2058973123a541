//! Prometheus metrics: the recorder, each metric's description and buckets.
//!
//! Components record with the `metrics` macros where the thing happens; their names are described
//! here, and a test compares the two.

use std::sync::{Mutex, PoisonError};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use rustix::time::{ClockId, clock_gettime};

use super::aliases::Alias;
use super::logs::record_dropped_lines;

/// Renders the process's metrics; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: Collector,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All metrics in Prometheus' text format, some also under the names that other servers give theirs.
    #[must_use]
    pub fn render(&self, aliases: &[Alias]) -> String {
        self.process.collect();
        record_dropped_lines();
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        put_cpu_seconds(&mut text);
        let others: String = aliases.iter().map(|alias| alias.lines(&text)).collect();
        text += &others;
        text
    }

    /// Sorts recorded samples into their buckets. Until then they are kept one by one, so this must be
    /// called from time to time even if nobody scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Writes the CPU time into the text, where the collector has put whole seconds: its counters have no fractions.
fn put_cpu_seconds(text: &mut String) {
    const NAME: &str = "\nprocess_cpu_seconds_total ";
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let Some(start) = text.find(NAME).map(|at| at + NAME.len()) else {
        return;
    };
    let end = text[start..]
        .find('\n')
        .map_or(text.len(), |length| start + length);
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    text.replace_range(start..end, &format!("{seconds:.3}"));
}

static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);

/// Seconds: from a tenth of a millisecond to a minute.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];
const TOKENS: &[f64] = &[
    32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0,
];
const PAIRS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
const DOCUMENTS: &[f64] = &[1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
const SHARE: &[f64] = &[0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0];

/// Installs the process's recorder; a second call returns the first one's.
///
/// # Errors
/// If the recorder can't be installed.
pub fn install() -> Result<Metrics, BuildError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(metrics) = &*installed {
        return Ok(metrics.clone());
    }
    let full = |name: &str| Matcher::Full(name.to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)?
        .set_buckets_for_metric(full("rerankd_batch_tokens"), TOKENS)?
        .set_buckets_for_metric(full("rerankd_batch_pairs"), PAIRS)?
        .set_buckets_for_metric(full("rerankd_request_documents"), DOCUMENTS)?
        .set_buckets_for_metric(full("rerankd_padding_share"), SHARE)?
        .install_recorder()?;
    describe();
    let process = Collector::default();
    process.describe();
    Ok(installed.insert(Metrics { handle, process }).clone())
}

fn describe() {
    for (name, text) in [
        (
            "rerankd_requests_total",
            "Requests by route, method and status.",
        ),
        (
            "rerankd_requests_rejected_total",
            "Rerank requests refused because the queue was full; not those that are too large, or leave too little time, for an idle server.",
        ),
        (
            "rerankd_requests_cancelled_total",
            "Rerank requests whose client went before the answer.",
        ),
        (
            "rerankd_pairs_scored_total",
            "Query-document pairs scored; each window of a long document is one.",
        ),
        (
            "rerankd_batches_stopped_total",
            "Batches that ended early, since nobody waited for them any more: callers were gone, or deadlines had passed.",
        ),
        (
            "rerankd_tokens_scored_total",
            "Tokens scored, special tokens included, padding not.",
        ),
        (
            "rerankd_truncated_documents_total",
            "Documents of which the model did not read all, since they are too long.",
        ),
        (
            "rerankd_models_loaded_total",
            "How often a model was loaded.",
        ),
        (
            "rerankd_models_unloaded_total",
            "How often a model was unloaded, by an operator or for the memory budget.",
        ),
        (
            "rerankd_repeated_documents_total",
            "Documents that stood in their request before, and were not scored again.",
        ),
        (
            "rerankd_score_cache_hits_total",
            "Documents whose scores were in the cache.",
        ),
        (
            "rerankd_score_cache_misses_total",
            "Documents whose scores were looked for in the cache and not found.",
        ),
        (
            "rerankd_vector_cache_hits_total",
            "Documents whose vectors were in the cache.",
        ),
        (
            "rerankd_vector_cache_misses_total",
            "Documents whose vectors were looked for and not found, and made.",
        ),
        (
            "rerankd_trace_exports_total",
            "Requests with spans to the collector, by their result: sent or failed.",
        ),
        (
            "rerankd_key_requests_total",
            "Requests to rank or score, by the API key's name; of more than 100 names the others are one.",
        ),
        (
            "rerankd_key_refused_total",
            "Those of them that were refused, by reason.",
        ),
        (
            "rerankd_key_tokens_total",
            "Tokens scored, by the API key's name.",
        ),
        (
            "rerankd_key_pairs_total",
            "Pairs answered, by the API key's name, also those whose scores were in the cache; a document of several windows is one.",
        ),
        (
            "rerankd_tls_handshakes_failed_total",
            "Connections that began no TLS: plain_http, late (server.head_timeout_ms), or failed.",
        ),
        (
            "rerankd_bad_heads_total",
            "Requests whose head could not be read, of HTTP/1.1: bad_head, or head_too_large (also for the number of headers).",
        ),
        (
            "rerankd_log_lines_dropped_total",
            "Log lines dropped because nobody read them or stderr took none.",
        ),
    ] {
        describe_counter!(name, text);
    }
    for (name, text) in [
        ("rerankd_requests_in_flight", "Requests being answered."),
        (
            "rerankd_build_info",
            "1; its labels are the version and what the program was built for.",
        ),
        (
            "rerankd_ready",
            "1 while the server is ready for requests, as /health/ready tells, else 0.",
        ),
        (
            "rerankd_limit",
            "The limits in force, by their settings' names.",
        ),
        (
            "rerankd_load",
            "Work in the system over what limits.max_queue_ms and max_queue_tokens let in; from 1 on requests are refused.",
        ),
        (
            "rerankd_capacity_tokens_per_second",
            "Tokens that the engine scores for a model in a second of its work, as measured of late; those of long texts count for more than one, by their attention.",
        ),
        (
            "rerankd_queue_requests",
            "Requests that wait, none of whose pairs has been scored.",
        ),
        (
            "rerankd_running_requests",
            "Requests whose pairs are being scored.",
        ),
        ("rerankd_queue_pairs", "Pairs that wait to be scored."),
        ("rerankd_queue_tokens", "Tokens that wait to be scored."),
        (
            "rerankd_model_info",
            "A model; 1 while it is loaded, 0 once it is not.",
        ),
        ("rerankd_model_ready", "1 while a model is loaded, else 0."),
        ("rerankd_score_cache_bytes", "Bytes of scores in the cache."),
        (
            "rerankd_vector_cache_bytes",
            "Bytes of documents' vectors in a model's cache.",
        ),
        (
            "rerankd_keys_file_ok",
            "1 if the file of API keys holds the keys in force, 0 if it can't be used any more.",
        ),
        (
            "rerankd_tls_files_ok",
            "1 if the files of TLS hold what is in force, 0 if they can't be used any more.",
        ),
        (
            "rerankd_tls_certificate_expiry_timestamp_seconds",
            "When the TLS certificate in force, or one that it depends on, expires, in seconds since the epoch.",
        ),
    ] {
        describe_gauge!(name, text);
    }
    for (name, text) in [
        (
            "rerankd_request_seconds",
            "From a request's head to its answer.",
        ),
        (
            "rerankd_queue_wait_seconds",
            "From queueing a request to its first batch.",
        ),
        (
            "rerankd_request_inference_seconds",
            "From the begin of a request's first batch to the end of its last.",
        ),
        (
            "rerankd_tokenize_seconds",
            "Tokenising one request, waiting for a thread included.",
        ),
        (
            "rerankd_model_load_seconds",
            "From the begin of a model's load to its being ready.",
        ),
        (
            "rerankd_inference_seconds",
            "The engine's time for one batch.",
        ),
    ] {
        describe_histogram!(name, Unit::Seconds, text);
    }
    describe_histogram!(
        "rerankd_request_documents",
        "Documents in one request that was answered."
    );
    describe_histogram!("rerankd_batch_tokens", "Tokens in one batch.");
    describe_histogram!(
        "rerankd_batch_pairs",
        "Pairs in one batch; each window of a long document is one."
    );
    describe_histogram!(
        "rerankd_padding_share",
        "Share of one batch's work that was padding, from 0 to 1."
    );
}

#[cfg(test)]
mod tests {
    use metrics::{histogram, with_local_recorder};

    use super::*;

    fn resident_bytes() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn cpu_time_has_fractions() {
        let mut text = "# TYPE x\nprocess_cpu_seconds_total 0\nprocess_open_fds 8\n".to_owned();
        put_cpu_seconds(&mut text);
        let seconds = text
            .lines()
            .nth(1)
            .and_then(|line| line.split(' ').nth(1))
            .unwrap();
        assert!(seconds.parse::<f64>().unwrap() > 0.0, "{text}");
        assert!(text.ends_with("\nprocess_open_fds 8\n"), "{text}");
    }

    #[test]
    fn samples_that_nobody_scrapes_do_not_pile_up() {
        // Kept one by one these would take 17 bytes each.
        const ROUNDS: usize = 20;
        const SAMPLES: usize = 500_000;
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = Metrics {
            handle: recorder.handle(),
            process: Collector::default(),
        };
        let seconds = with_local_recorder(&recorder, || histogram!("seconds"));
        let before = resident_bytes();
        for _ in 0..ROUNDS {
            (0..SAMPLES).for_each(|i| seconds.record(i as f64));
            metrics.upkeep();
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < ROUNDS * SAMPLES * 17 / 2, "{grown} bytes");
        let count = format!("seconds_count {}", ROUNDS * SAMPLES);
        assert!(metrics.handle.render().contains(&count));
    }
}
