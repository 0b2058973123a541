//! Logs and metrics. Set up by `main` and `app`.

mod logs;
mod metrics;

pub use self::logs::{LogFormat, check_filter, init as init_logs};
pub use self::metrics::{Metrics, install as install_metrics};
