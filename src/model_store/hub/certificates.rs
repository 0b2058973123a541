//! Which certificate authorities are trusted.

use std::path::PathBuf;

use reqwest::Client;
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::{load_certs_from_paths, load_native_certs};

/// Where the trusted certificates are; without either, the system's, and where that has none,
/// Mozilla's list within the binary.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    /// A file in PEM: `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE`.
    pub file: Option<PathBuf>,
    /// A folder of such files: `SSL_CERT_DIR`.
    pub folder: Option<PathBuf>,
}

impl Certificates {
    /// An HTTP client that trusts them, uses the proxies that the environment names, and follows no redirect.
    ///
    /// # Errors
    /// If no certificate can be read where they should be.
    pub fn client(&self) -> Result<Client, String> {
        let client = Client::builder()
            .use_preconfigured_tls(trusting(self)?)
            .http1_only()
            .redirect(Policy::none())
            .user_agent(concat!("rerankd/", env!("CARGO_PKG_VERSION")))
            .build();
        client.map_err(|error| super::http::root_cause(&error))
    }
}

/// What a client of TLS trusts with these.
///
/// # Errors
/// If those that are named can't be read.
pub fn trusting(certificates: &Certificates) -> Result<ClientConfig, String> {
    let Certificates { file, folder } = certificates;
    let mut roots = RootCertStore::empty();
    if file.is_some() || folder.is_some() {
        let found = load_certs_from_paths(file.as_deref(), folder.as_deref());
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let named: Vec<_> = [file, folder].into_iter().flatten().collect();
            let reason = found.errors.first().map(|e| format!(" ({e})"));
            return Err(format!(
                "no certificate could be read from {named:?}{}, which SSL_CERT_FILE, SSL_CERT_DIR, \
                 REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names",
                reason.unwrap_or_default()
            ));
        }
    } else {
        let (added, _) = roots.add_parsable_certificates(load_native_certs().certs);
        if added == 0 {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
    }
    let provider = rustls::crypto::ring::default_provider().into();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
