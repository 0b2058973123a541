//! What is told outside: the names of metrics, limits as metrics, and where spans are sent, if they are: the settings,
//! and the variables that OpenTelemetry's libraries read
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). Those that are not named here
//! are read by the library.

use url::Url;

use crate::telemetry::{Alias, TraceOptions};

use super::check::is_url;
use super::{ConfigError, Limits, Settings};

/// Where spans go, by the settings and the environment.
#[derive(Debug)]
pub struct Traces {
    /// Where they are sent, and of which requests; `None` if none are.
    pub options: Option<TraceOptions>,
    /// The same in words, without a password.
    pub text: String,
    /// Variables and settings that are not heeded.
    pub warnings: Vec<String>,
}

/// What OpenTelemetry's variable may name, and whether it takes a share of requests.
const SAMPLERS: [(&str, bool); 6] = [
    ("always_on", false),
    ("always_off", false),
    ("traceidratio", true),
    ("parentbased_always_on", false),
    ("parentbased_always_off", false),
    ("parentbased_traceidratio", true),
];
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
/// What can't be done as these ask.
const NOT_HEEDED: [&str; 3] = ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"];

impl Settings {
    /// Where spans are sent, and of which requests. Reads the environment.
    ///
    /// # Errors
    /// If a variable names no collector.
    pub fn traces(&self) -> Result<Traces, ConfigError> {
        self.traces_of(|name| std::env::var(name).ok())
    }

    fn traces_of(&self, var: impl Fn(&str) -> Option<String>) -> Result<Traces, ConfigError> {
        let var = |name: &str| {
            let value = var(name)?.trim().to_owned();
            Some(value).filter(|value| !value.is_empty())
        };
        let mut warnings = Vec::new();
        let percent = self.traces.sample_percent;
        let none = |text: String, mut warnings: Vec<String>| {
            if percent != 100 {
                warnings.push(format!(
                    "traces.sample_percent is {percent}, but no spans are sent ({text})"
                ));
            }
            Ok(Traces {
                options: None,
                text,
                warnings,
            })
        };
        if var("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return none("none: OTEL_SDK_DISABLED is true".into(), warnings);
        }
        let exporter = var("OTEL_TRACES_EXPORTER").map(|name| name.to_ascii_lowercase());
        match exporter.as_deref() {
            Some("none") => return none("none: OTEL_TRACES_EXPORTER is none".into(), warnings),
            None | Some("otlp") => {}
            Some(other) => warnings.push(format!(
                "OTEL_TRACES_EXPORTER is \"{other}\", which is not known here: spans are sent by otlp, if at all"
            )),
        }
        let Some(endpoint) = self.collector(var)? else {
            return none("none: no collector is named".into(), warnings);
        };
        if let Some((name, protocol)) = of_signal("PROTOCOL", var)
            && protocol != "http/protobuf"
        {
            warnings.push(format!(
                "{name} is \"{protocol}\", but spans are sent as http/protobuf only: the collector must take that at \
                 {} (its port for it is usually 4318, that for gRPC 4317)",
                without_password(&endpoint)
            ));
        }
        if let Some((name, compression)) = of_signal("COMPRESSION", var)
            && !["gzip", "none"].contains(&&*compression.to_ascii_lowercase())
        {
            warnings.push(format!(
                "{name} is \"{compression}\", but it must be gzip or none: spans are sent as they are"
            ));
        }
        warnings.extend(NOT_HEEDED.iter().filter_map(|what| {
            let (name, _) = of_signal(what, var)?;
            Some(format!(
                "{name} has no effect: the collector's certificate is checked as the hub's is (SSL_CERT_FILE), and none is \
                 shown to it"
            ))
        }));
        let sampler = var(SAMPLER);
        let known = sampler
            .as_ref()
            .and_then(|name| SAMPLERS.iter().find(|(known, _)| known == name));
        let mut sample = Some(percent as f64 / 100.0);
        let mut how = format!("{percent} % of the requests whose clients don't say");
        match (known, sampler) {
            (Some((name, takes_share)), _) => {
                (sample, how) = (None, format!("{SAMPLER}={name}"));
                let share = var(SAMPLER_ARG).filter(|_| *takes_share);
                let is_share = |text: &String| {
                    let share: Option<f64> = text.parse().ok();
                    share.is_some_and(|share| (0.0..=1.0).contains(&share))
                };
                match share {
                    Some(share) if is_share(&share) => how += &format!(", {SAMPLER_ARG}={share}"),
                    Some(share) => warnings.push(format!(
                        "{SAMPLER_ARG} is \"{share}\", but it must be a number from 0 to 1: all requests are traced"
                    )),
                    None => {}
                }
                if percent != 100 {
                    warnings.push(format!(
                        "traces.sample_percent is {percent}, but has no effect, since {SAMPLER} is {name}"
                    ));
                }
            }
            (None, Some(other)) => {
                let known: Vec<&str> = SAMPLERS.iter().map(|(name, _)| *name).collect();
                warnings.push(format!(
                    "{SAMPLER} is \"{other}\", which is not known here (known are {}): traces.sample_percent, {percent}, \
                     is used",
                    known.join(", ")
                ));
            }
            (None, None) => {}
        }
        Ok(Traces {
            text: format!("{}, {how}", without_password(&endpoint)),
            options: Some(TraceOptions { endpoint, sample }),
            warnings,
        })
    }

    /// The collector's URL for traces, if one is named.
    fn collector(
        &self,
        var: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<String>, ConfigError> {
        let set = self.traces.endpoint.trim();
        if !set.is_empty() {
            return Ok(Some(of_traces(set)));
        }
        let Some((name, value)) = of_signal("ENDPOINT", var) else {
            return Ok(None);
        };
        if !is_url(&value) {
            return Err(ConfigError::Value {
                place: format!("environment variable {name}"),
                value: format!("\"{value}\""),
                must: "a collector's URL, such as http://collector:4318, or empty".into(),
            });
        }
        Ok(Some(match name.contains("TRACES") {
            // It is taken as it is, which the specification asks for.
            true => value,
            false => format!("{}/v1/traces", value.trim_end_matches('/')),
        }))
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

/// OpenTelemetry's variable of this name for traces, or else for all signals, if it is set.
fn of_signal(name: &str, var: impl Fn(&str) -> Option<String>) -> Option<(String, String)> {
    let names = ["TRACES_", ""].map(|signal| format!("OTEL_EXPORTER_OTLP_{signal}{name}"));
    names.into_iter().find_map(|name| {
        let value = var(&name)?;
        Some((name, value))
    })
}

fn without_password(endpoint: &str) -> String {
    let Ok(mut url) = Url::parse(endpoint) else {
        return endpoint.to_owned();
    };
    // It can't fail where there is a host.
    let _ = url.set_password(None).and_then(|()| url.set_username(""));
    url.to_string()
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

    fn traces(endpoint: &'static str, variables: &[(&str, &str)]) -> Result<Traces, ConfigError> {
        let flags = vec![("traces.endpoint", endpoint.into())];
        let settings = Settings::load(None, flags).unwrap();
        settings.traces_of(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn spans_are_sent_where_settings_or_variables_say() {
        let sent = |endpoint, variables: &[(&str, &str)]| {
            let traces = traces(endpoint, variables).unwrap();
            assert_eq!(traces.warnings, [""; 0], "{variables:?}");
            traces.options.map(|o| (o.endpoint, o.sample))
        };
        assert_eq!(sent("", &[]), None);
        let url = "http://c:4318/v1/traces".to_owned();
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(sent(endpoint, &[]), Some((url.clone(), Some(1.0))));
        }
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");
        for (sampler, share) in [
            ("always_on", ""),
            ("always_off", ""),
            ("traceidratio", "0.25"),
            ("parentbased_traceidratio", ""),
        ] {
            let variables = [all, (SAMPLER, sampler), (SAMPLER_ARG, share)];
            assert_eq!(sent("", &variables), Some((url.clone(), None)));
            let told = traces("", &variables).unwrap().text;
            assert!(told.contains(sampler) && told.contains(share), "{told}");
        }
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d/x");
        let options = sent(
            "",
            &[all, own, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
        );
        assert_eq!(options.unwrap().0, "http://d/x");
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(sent("http://c:4318", &[all, off]), None);
        }
    }

    #[test]
    fn variables_that_are_not_heeded_are_told() {
        for (name, value, told) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf only"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                "http/json",
                "http/protobuf only",
            ),
            (SAMPLER, "bogus", "traces.sample_percent, 100, is used"),
            (SAMPLER, "jaeger_remote", "parentbased_traceidratio"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "sent by otlp"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip or none"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem", "has no effect"),
        ] {
            let traces = traces("http://u:secret@c:4318", &[(name, value)]).unwrap();
            let [warning] = &traces.warnings[..] else {
                panic!("{name}: {:?}", traces.warnings);
            };
            assert!(
                warning.contains(name) && warning.contains(told),
                "{warning}"
            );
            assert!(!traces.text.contains("secret") && !warning.contains("secret"));
            assert_eq!(traces.options.unwrap().sample, Some(1.0));
        }
        let ratio = [(SAMPLER, "traceidratio"), (SAMPLER_ARG, "25 %")];
        let told = traces("http://c:4318", &ratio).unwrap().warnings;
        assert!(
            told.len() == 1 && told[0].contains("from 0 to 1"),
            "{told:?}"
        );
        let flags = vec![("traces.sample_percent", 5.into())];
        let settings = Settings::load(None, flags).unwrap();
        let told = settings.traces_of(|_| None).unwrap().warnings;
        assert!(
            told.len() == 1 && told[0].contains("sample_percent"),
            "{told:?}"
        );
    }

    #[test]
    fn a_variable_that_names_no_collector_is_a_wrong_setting() {
        for value in ["foo", "collector:4317", "ftp://c"] {
            let error = traces("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", value)]);
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && error.contains(value),
                "{error}"
            );
            // Nobody asks it.
            let off = ("OTEL_SDK_DISABLED", "true");
            assert!(traces("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", value), off]).is_ok());
        }
    }
}
