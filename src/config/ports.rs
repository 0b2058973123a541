//! TLS, and the port for health and metrics.

use std::path::{Path, PathBuf};

use super::{ConfigError, Settings, hub, millis};
use crate::{http, model_store};

impl Settings {
    /// Host and port for health and metrics, if they have one of their own.
    #[must_use]
    pub fn health_address(&self) -> Option<(&str, u16)> {
        let server = &self.server;
        let host = match server.health_host.as_str() {
            "" => server.host.as_str(),
            host => host,
        };
        (server.health_port > 0).then_some((host, server.health_port))
    }

    /// How the server is spoken to.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self.tls.cert_file.as_os_str().is_empty() {
            true => "http",
            false => "https",
        }
    }

    /// Limits on the main port's connections.
    pub(super) fn connections(&self) -> http::ConnectionLimits {
        let server = &self.server;
        http::ConnectionLimits {
            max_connections: server.max_connections,
            of: "server.max_connections is",
            beside: self
                .health_address()
                .map_or(0, |_| http::HEALTH_CONNECTIONS),
            head_timeout: millis(server.head_timeout_ms),
            write_timeout: millis(server.write_timeout_ms),
            idle_timeout: millis(server.idle_timeout_ms),
        }
    }

    /// The files of TLS, if it is spoken.
    pub(super) fn tls_files(&self) -> Option<http::TlsFiles> {
        Some(http::TlsFiles {
            certificate: file(&self.tls.cert_file)?,
            key: self.tls.key_file.clone(),
            client_ca: file(&self.tls.client_ca_file),
        })
    }
}

/// A file, if one is named.
fn file(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

/// The certificates that this process trusts as a client, by its environment.
#[must_use]
pub fn certificates() -> model_store::Certificates {
    hub::from_environment(|name| std::env::var(name).ok()).certificates
}

/// What several settings say of the ports.
pub(super) fn check(settings: &Settings) -> Result<(), ConfigError> {
    let (server, tls) = (&settings.server, &settings.tls);
    let (cert, key, ca) = (&tls.cert_file, &tls.key_file, &tls.client_ca_file);
    let half = match (
        file(cert).is_some(),
        file(key).is_some(),
        file(ca).is_some(),
    ) {
        (true, false, _) => Some(("tls.cert_file", "tls.key_file")),
        (false, true, _) => Some(("tls.key_file", "tls.cert_file")),
        (false, false, true) => Some(("tls.client_ca_file", "tls.cert_file")),
        _ => None,
    };
    if let Some((has, lacks)) = half {
        return Err(ConfigError::HalfTls { has, lacks });
    }
    let is_same = settings.health_address() == Some((&server.host, server.port));
    match is_same {
        true => Err(ConfigError::SamePort(server.port)),
        false => Ok(()),
    }
}
