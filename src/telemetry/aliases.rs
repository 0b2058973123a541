//! Metrics under the names that other servers give theirs, for dashboards and autoscalers that are made for those.
//! Only names and labels change; what is under both names is the same.

/// Whose names they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alias {
    /// text-embeddings-inference.
    Tei,
    /// vLLM, and so the inference gateways of Kubernetes that read its metrics.
    Vllm,
}

/// A metric's other name.
struct Other {
    ours: &'static str,
    theirs: &'static str,
    /// Which of our lines count, by their labels.
    of: fn(&str) -> bool,
}

const fn other(ours: &'static str, theirs: &'static str) -> Other {
    let of: fn(&str) -> bool = |_| true;
    Other { ours, theirs, of }
}

fn is_scoring(labels: &str) -> bool {
    labels.contains("method=\"POST\"")
}

fn has_status(labels: &str, first: char) -> bool {
    labels.contains(&format!("status=\"{first}"))
}

/// text-embeddings-inference counts requests for scores, and by their outcome.
const TEI: &[Other] = &[
    Other {
        ours: "rerankd_requests_total",
        theirs: "te_request_count",
        of: is_scoring,
    },
    Other {
        ours: "rerankd_requests_total",
        theirs: "te_request_success",
        of: |labels| is_scoring(labels) && has_status(labels, '2'),
    },
    Other {
        ours: "rerankd_requests_total",
        theirs: "te_request_failure",
        of: |labels| is_scoring(labels) && !has_status(labels, '2'),
    },
    Other {
        ours: "rerankd_request_seconds",
        theirs: "te_request_duration",
        of: is_scoring,
    },
    other(
        "rerankd_tokenize_seconds",
        "te_request_tokenization_duration",
    ),
    other("rerankd_queue_wait_seconds", "te_request_queue_duration"),
    other(
        "rerankd_request_inference_seconds",
        "te_request_inference_duration",
    ),
    other("rerankd_pairs_scored_total", "te_predict_count"),
    other("rerankd_queue_pairs", "te_queue_size"),
    other("rerankd_batch_pairs", "te_batch_next_size"),
    other("rerankd_batch_tokens", "te_batch_next_tokens"),
];

const VLLM: &[Other] = &[
    other("rerankd_queue_requests", "vllm:num_requests_waiting"),
    other("rerankd_running_requests", "vllm:num_requests_running"),
    // There is no such cache. What is meant is how full the server is.
    other("rerankd_load", "vllm:kv_cache_usage_perc"),
    other("rerankd_tokens_scored_total", "vllm:prompt_tokens_total"),
    other(
        "rerankd_queue_wait_seconds",
        "vllm:request_queue_time_seconds",
    ),
];

impl Alias {
    /// The one of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "tei" => Some(Self::Tei),
            "vllm" => Some(Self::Vllm),
            _ => None,
        }
    }

    /// What is to be added to metrics in Prometheus' text format.
    pub(super) fn lines(self, metrics: &str) -> String {
        let (others, model) = match self {
            Self::Tei => (TEI, "model"),
            Self::Vllm => (VLLM, "model_name"),
        };
        others
            .iter()
            .map(|other| other.lines(metrics, model))
            .collect()
    }
}

impl Other {
    /// The metric's lines with the other name, and the model's label under the name `model`.
    fn lines(&self, metrics: &str, model: &str) -> String {
        let mut lines = String::new();
        for line in metrics.lines() {
            let (kind, sample) = match line.strip_prefix("# ") {
                Some(comment) => {
                    let Some((kind, rest)) = comment.split_once(' ') else {
                        continue;
                    };
                    (Some(kind), rest)
                }
                None => (None, line),
            };
            let Some(rest) = sample.strip_prefix(self.ours) else {
                continue;
            };
            // The name goes on where it is another metric's; a histogram's has its endings.
            let ends = ["_bucket", "_sum", "_count"];
            let end = ends
                .into_iter()
                .find(|end| rest.starts_with(end))
                .unwrap_or("");
            let rest = &rest[end.len()..];
            if !rest.starts_with(['{', ' ']) {
                continue;
            }
            if let Some(kind) = kind {
                lines += &format!("# {kind} {}{end}{rest}\n", self.theirs);
            } else if (self.of)(rest) {
                let rest = match rest.split_once("model=") {
                    Some((before, after)) if model != "model" && before.ends_with(['{', ',']) => {
                        format!("{before}{model}={after}")
                    }
                    _ => rest.to_owned(),
                };
                lines += &format!("{}{end}{rest}\n", self.theirs);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# HELP rerankd_queue_pairs Pairs that wait.
# TYPE rerankd_queue_pairs gauge
rerankd_queue_pairs{model=\"m\"} 3
# TYPE rerankd_queue_pairs_other gauge
rerankd_queue_pairs_other 7
# TYPE rerankd_queue_requests gauge
rerankd_queue_requests{model=\"m\"} 2
# TYPE rerankd_requests_total counter
rerankd_requests_total{route=\"/rerank\",method=\"POST\",status=\"200\"} 5
rerankd_requests_total{route=\"/rerank\",method=\"POST\",status=\"503\"} 2
rerankd_requests_total{route=\"/health\",method=\"GET\",status=\"200\"} 9
# TYPE rerankd_request_seconds histogram
rerankd_request_seconds_bucket{route=\"/rerank\",method=\"POST\",le=\"+Inf\"} 7
rerankd_request_seconds_sum{route=\"/rerank\",method=\"POST\"} 0.5
rerankd_request_seconds_count{route=\"/health\",method=\"GET\"} 9
";

    #[test]
    fn metrics_have_the_other_servers_names_and_labels() {
        let tei = Alias::Tei.lines(METRICS);
        for line in [
            "# TYPE te_queue_size gauge",
            "te_queue_size{model=\"m\"} 3",
            "# TYPE te_request_count counter",
            "te_request_success{route=\"/rerank\",method=\"POST\",status=\"200\"} 5",
            "te_request_failure{route=\"/rerank\",method=\"POST\",status=\"503\"} 2",
            "te_request_duration_bucket{route=\"/rerank\",method=\"POST\",le=\"+Inf\"} 7",
            "te_request_duration_sum{route=\"/rerank\",method=\"POST\"} 0.5",
        ] {
            assert!(tei.lines().any(|l| l == line), "{line} in\n{tei}");
        }
        assert!(!tei.contains("/health") && !tei.contains("other"), "{tei}");
        let vllm = Alias::Vllm.lines(METRICS);
        assert!(
            vllm.contains("\nvllm:num_requests_waiting{model_name=\"m\"} 2\n"),
            "{vllm}"
        );
    }
}
