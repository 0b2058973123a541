//! Logs, metrics and traces. Set up by `main` and `app`.

mod aliases;
mod logs;
mod metrics;
mod traces;

pub use self::aliases::Alias;
pub use self::logs::{
    LEVELS, LogFormat, check_filter, expect_json as expect_json_logs, flush as flush_logs,
    init as init_logs, log_last_error, print_error,
};
pub use self::metrics::{Metrics, install as install_metrics};
pub use self::traces::{
    RequestSpan, TRACE_RESPONSE, TraceError, TraceOptions, flush as flush_traces,
    install as install_traces,
};
pub use opentelemetry::KeyValue;
