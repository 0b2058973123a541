//! Logs and metrics. Set up by `main` and `app`.

mod logs;
mod metrics;

pub use self::logs::{
    LEVELS, LogFormat, check_filter, flush as flush_logs, init as init_logs, print_error,
};
pub use self::metrics::{Metrics, install as install_metrics};
