//! TLS: the certificate, its key and the authority of clients' certificates. They come from files, which are read again
//! when they change: connections that are there stay as they are, new ones get what the files hold now.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::gauge;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Version};

use crate::text_file::{self, TextFileError};

use super::renewal::{Renewal, Seen};

/// Protocols within TLS, the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where the parts are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that must have signed clients' certificates, if they must show one.
    pub client_ca: Option<PathBuf>,
}

/// Why the files can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {path}: {reason}")]
pub struct TlsError {
    /// The setting that names the file.
    setting: &'static str,
    /// The file.
    path: String,
    /// What is wrong with it.
    reason: String,
}

const CERTIFICATE: &str = "tls.cert_file";
const KEY: &str = "tls.key_file";
const CLIENT_CA: &str = "tls.client_ca_file";

fn wrong(setting: &'static str, path: &Path, reason: &(impl ToString + ?Sized)) -> TlsError {
    TlsError {
        setting,
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

/// What the files hold.
#[derive(Debug)]
struct Contents {
    config: Arc<ServerConfig>,
    /// What the certificate is for, and until when, in words.
    text: String,
    /// Seconds since the epoch; the first that any certificate on the way to the authority ends with.
    expires: i64,
    /// What is not as it should be, but keeps nothing from being used.
    warnings: Vec<String>,
}

/// What `--check-config` tells of the files.
#[derive(Debug)]
pub struct TlsReport {
    /// What the certificate is for, and until when.
    pub text: String,
    /// What is not as it should be.
    pub warnings: Vec<String>,
}

/// Reads the files as a start does.
///
/// # Errors
/// If they can't be used.
pub fn check_tls(files: &TlsFiles) -> Result<TlsReport, TlsError> {
    let contents = contents(&texts(files)?, files)?;
    Ok(TlsReport {
        text: contents.text,
        warnings: contents.warnings,
    })
}

/// What is in force, and the files that it comes from.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
    renewal: Renewal,
}

impl Tls {
    /// Reads the files.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let (seen, contents) = read(files);
        let contents = contents?;
        tell(&contents);
        Ok(Self {
            files: files.clone(),
            config: RwLock::new(contents.config),
            renewal: Renewal::new(seen, "rerankd_tls_files_ok"),
        })
    }

    /// Reads the files again, and tells in the log if they have changed since (`only_changes`) or whatever they hold.
    /// What can't be used leaves what is in force as it is.
    pub(super) fn reload(&self, only_changes: bool) {
        let put = |contents: Contents| {
            *self.config.write().unwrap_or_else(PoisonError::into_inner) =
                Arc::clone(&contents.config);
            contents
        };
        match self.renewal.renew(only_changes, || read(&self.files), put) {
            None => {}
            Some(Ok(contents)) => {
                tracing::info!(certificate = contents.text, "TLS files read again");
                tell(&contents);
            }
            Some(Err(error)) => tracing::error!(%error, "the TLS certificate stays as it was"),
        }
    }

    /// Whether the files now hold what is in force.
    pub(super) fn is_current(&self) -> bool {
        self.renewal.is_current()
    }

    /// What a new connection gets.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn tell(contents: &Contents) {
    gauge!("rerankd_tls_certificate_expiry_timestamp_seconds").set(contents.expires as f64);
    for warning in &contents.warnings {
        tracing::warn!("{warning}");
    }
}

/// The files' texts.
struct Texts {
    certificate: String,
    key: String,
    client_ca: Option<String>,
}

fn texts(files: &TlsFiles) -> Result<Texts, TlsError> {
    let text = |setting, path: &Path| {
        text_file::read(path).map_err(|reason| match reason {
            TextFileError::Encoding if is_der(path) => wrong(setting, path, &in_der(setting)),
            reason => wrong(setting, path, &reason),
        })
    };
    let client_ca = files.client_ca.as_deref();
    Ok(Texts {
        certificate: text(CERTIFICATE, &files.certificate)?,
        key: text(KEY, &files.key)?,
        client_ca: client_ca.map(|path| text(CLIENT_CA, path)).transpose()?,
    })
}

/// Whether a file begins as DER does, with a sequence whose length takes more than a byte.
fn is_der(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    matches!(bytes[..], [0x30, 0x81..=0x84, ..])
}

/// What is to be done with such a file.
fn in_der(setting: &str) -> String {
    let command = match setting {
        KEY => "pkey",
        _ => "x509",
    };
    format!(
        "it is in DER, but must be in PEM: `openssl {command} -inform der -in FILE -out NEW` makes it so (of a PKCS #12 \
         file, .p12 or .pfx: `openssl pkcs12 -in FILE -out NEW -nodes`)"
    )
}

fn read(files: &TlsFiles) -> (Seen, Result<Contents, TlsError>) {
    let texts = match texts(files) {
        Ok(texts) => texts,
        Err(error) => return (Err(error.to_string()), Err(error)),
    };
    let mut hash = Sha256::new();
    for text in [&texts.certificate, &texts.key]
        .into_iter()
        .chain(&texts.client_ca)
    {
        hash.update(Sha256::digest(text));
    }
    (Ok(hash.finalize().into()), contents(&texts, files))
}

fn contents(texts: &Texts, files: &TlsFiles) -> Result<Contents, TlsError> {
    let chain = certificates(CERTIFICATE, &files.certificate, &texts.certificate)?;
    if chain.first().is_some_and(is_outdated) {
        let reason = "the certificate is of X.509 version 1, which TLS takes of authorities only: make one of version 3, \
                      which has the names that it is for (subjectAltName); `openssl req -x509 -addext ...` does";
        return Err(wrong(CERTIFICATE, &files.certificate, reason));
    }
    let periods = periods(CERTIFICATE, &files.certificate, &chain)?;
    let expires = periods.iter().map(|period| period.until).min();
    let mut text = periods
        .first()
        .map_or_else(String::new, |period| period.text.clone());
    let mut warnings = faults(CERTIFICATE, &files.certificate, &periods);
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|reason| wrong(CERTIFICATE, &files.certificate, &reason))?;
    let builder = match files.client_ca.as_deref().zip(texts.client_ca.as_ref()) {
        None => builder.with_no_client_auth(),
        Some((path, pem)) => {
            let authorities = certificates(CLIENT_CA, path, pem)?;
            let periods = self::periods(CLIENT_CA, path, &authorities)?;
            warnings.extend(faults(CLIENT_CA, path, &periods));
            text += &format!("; clients must show a certificate by {}", path.display());
            let verifier =
                verifier(authorities).map_err(|reason| wrong(CLIENT_CA, path, &reason))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, private_key(&files.key, &texts.key)?)
        .map_err(|reason| match reason {
            rustls::Error::InconsistentKeys(_) => {
                let place = files.certificate.display();
                let reason =
                    format!("it is not the key of the certificate in {CERTIFICATE} {place}");
                wrong(KEY, &files.key, &reason)
            }
            rustls::Error::InvalidCertificate(reason) => {
                let reason = format!("the certificate can't be used: {reason}");
                wrong(CERTIFICATE, &files.certificate, &reason)
            }
            // The key's kind, or how it is written.
            reason => wrong(KEY, &files.key, &reason),
        })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(Contents {
        config: config.into(),
        text,
        expires: expires.unwrap_or_default(),
        warnings,
    })
}

/// Asks clients for a certificate by one of these.
fn verifier(
    authorities: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|reason| reason.to_string())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
    verifier.build().map_err(|reason| reason.to_string())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    rustls::crypto::ring::default_provider().into()
}

/// A file's certificates; at least one.
fn certificates(
    setting: &'static str,
    path: &Path,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => {
            let reason = "it holds no certificate in PEM (-----BEGIN CERTIFICATE-----)";
            Err(wrong(setting, path, &reason))
        }
        found => found.map_err(|reason| wrong(setting, path, &reason)),
    }
}

fn private_key(path: &Path, text: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let none = || {
        let reason = match text.contains("ENCRYPTED") {
            true => "the key is encrypted; `openssl pkey -in FILE -out NEW` makes one that is not",
            false => "it holds no private key in PEM (-----BEGIN PRIVATE KEY-----)",
        };
        wrong(KEY, path, &reason)
    };
    // What else is wrong may quote the text.
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| none())
}

/// Whether a certificate is of an older version than the one with extensions.
fn is_outdated(certificate: &CertificateDer<'_>) -> bool {
    let parsed = X509Certificate::from_der(certificate);
    parsed.is_ok_and(|(_, certificate)| certificate.version() != X509Version::V3)
}

/// When the certificates of a file are valid.
fn periods(
    setting: &'static str,
    path: &Path,
    certificates: &[CertificateDer<'_>],
) -> Result<Vec<Period>, TlsError> {
    let periods = certificates.iter().map(Period::of);
    periods
        .map(|period| period.map_err(|reason| wrong(setting, path, &reason)))
        .collect()
}

/// What is wrong with them now, in sentences.
fn faults(setting: &'static str, path: &Path, periods: &[Period]) -> Vec<String> {
    let faults = periods.iter().filter_map(|period| period.fault(now()));
    faults
        .map(|fault| wrong(setting, path, &fault).to_string())
        .collect()
}

/// When a certificate is valid, in seconds since the epoch.
#[derive(Debug)]
struct Period {
    from: i64,
    until: i64,
    /// Its names and its end, in words.
    text: String,
}

impl Period {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|reason| format!("a certificate can't be read: {reason}"))?;
        let validity = certificate.validity();
        let until = validity.not_after.timestamp();
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names
            .into_iter()
            .flat_map(|names| &names.value.general_names);
        let names: Vec<String> = names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                GeneralName::IPAddress(bytes) => address(bytes),
                _ => None,
            })
            .collect();
        let names = match names.is_empty() {
            true => certificate.subject().to_string(),
            false => names.join(", "),
        };
        Ok(Self {
            from: validity.not_before.timestamp(),
            until,
            text: format!("{names}, until {}", date(until)),
        })
    }

    /// What is wrong with it now.
    fn fault(&self, now: i64) -> Option<String> {
        let text = &self.text;
        if now > self.until {
            Some(format!(
                "the certificate ({text}) has expired: clients refuse it"
            ))
        } else if now < self.from {
            let from = date(self.from);
            Some(format!(
                "the certificate ({text}) is not valid before {from}: clients refuse it"
            ))
        } else {
            None
        }
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string());
    let v6 =
        || <[u8; 16]>::try_from(bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string());
    v4.or_else(|_| v6()).ok()
}

/// A day, as 2027-01-31.
fn date(seconds: i64) -> String {
    let date = OffsetDateTime::from_unix_timestamp(seconds);
    date.map_or_else(|_| "an unknown day".into(), |date| date.date().to_string())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_at_fault_before_and_after_its_time() {
        let period = Period {
            from: 100,
            until: 200,
            text: "a.example, until 1970-01-01".into(),
        };
        assert!(
            period
                .fault(99)
                .unwrap()
                .contains("not valid before 1970-01-01")
        );
        assert_eq!(period.fault(100), None);
        assert_eq!(period.fault(200), None);
        assert!(period.fault(201).unwrap().contains("has expired"));
    }
}
