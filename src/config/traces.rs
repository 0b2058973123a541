//! What is told outside: the names of metrics, limits as metrics, and where spans are sent, if they are: the settings,
//! and the variables that OpenTelemetry's libraries read
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). Those that are not named here
//! are read by the library.

use crate::telemetry::{Alias, TraceOptions};

use super::{Limits, Settings};

impl Settings {
    /// Where spans are sent, and of which requests; `None` if none are. Reads the environment.
    #[must_use]
    pub fn traces(&self) -> Option<TraceOptions> {
        self.traces_of(|name| std::env::var(name).ok())
    }

    fn traces_of(&self, var: impl Fn(&str) -> Option<String>) -> Option<TraceOptions> {
        let var = |name: &str| {
            let value = var(name)?.trim().to_owned();
            Some(value).filter(|value| !value.is_empty())
        };
        let is = |name: &str, off: &str| var(name).is_some_and(|v| v.eq_ignore_ascii_case(off));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return None;
        }
        let set = Some(self.traces.endpoint.trim()).filter(|endpoint| !endpoint.is_empty());
        let variables = [
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ];
        if set.is_none() && variables.iter().all(|name| var(name).is_none()) {
            return None;
        }
        let sample = self.traces.sample_percent as f64 / 100.0;
        Some(TraceOptions {
            endpoint: set.map(of_traces),
            sample: var("OTEL_TRACES_SAMPLER").is_none().then_some(sample),
        })
    }

    /// Under which other names metrics are shown too.
    #[must_use]
    pub fn metric_aliases(&self) -> Vec<Alias> {
        let names = self.metrics.aliases.iter();
        // Checked when they were read.
        names.filter_map(|name| Alias::named(name)).collect()
    }
}

impl Limits {
    /// The limits, by their settings' names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("max_documents", self.max_documents as u64),
            ("max_explained", self.max_explained as u64),
            ("body_limit_bytes", self.body_limit_bytes as u64),
            (
                "max_body_bytes_in_flight",
                self.max_body_bytes_in_flight as u64,
            ),
            ("max_queue_ms", self.max_queue_ms),
            ("max_queue_tokens", self.max_queue_tokens as u64),
            ("request_timeout_ms", self.request_timeout_ms),
        ]
    }
}

/// A collector's URL for traces.
fn of_traces(endpoint: &str) -> String {
    const PATH: &str = "/v1/traces";
    match endpoint.ends_with(PATH) {
        true => endpoint.to_owned(),
        false => format!("{}{PATH}", endpoint.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(endpoint: &'static str, variables: &[(&str, &str)]) -> Option<TraceOptions> {
        let flags = vec![("traces.endpoint", endpoint.into())];
        let settings = Settings::load(None, flags).unwrap();
        settings.traces_of(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn spans_are_sent_where_settings_or_variables_say() {
        assert!(traces("", &[]).is_none());
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            let options = traces(endpoint, &[]).unwrap();
            assert_eq!(options.endpoint.unwrap(), "http://c:4318/v1/traces");
            assert_eq!(options.sample, Some(1.0));
        }
        let variable = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let options = traces("", &[variable, ("OTEL_TRACES_SAMPLER", "always_on")]).unwrap();
        assert!(options.endpoint.is_none() && options.sample.is_none());
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert!(traces("http://c:4318", &[variable, off]).is_none());
        }
    }
}
