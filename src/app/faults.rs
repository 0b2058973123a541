//! Which errors are the settings' fault, so that another start would end in the same way.

use std::io;

use crate::http::FileError;
use crate::model_store::StoreError;
use crate::models::{LoadError, Unusable};
use crate::telemetry::TraceError;

/// A model's settings or files, or the environment, ask for what can't be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Wrong(pub(super) String);

/// Whether an error of a start will be there at the next one too, unless somebody changes the settings or the files that
/// they name.
#[must_use]
pub fn is_settings_fault(error: &anyhow::Error) -> bool {
    let store = error.downcast_ref::<StoreError>();
    let may_not_listen = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    };
    error.is::<Wrong>()
        || error.is::<FileError>()
        || error.is::<TraceError>()
        || store.is_some_and(|error| !error.may_pass())
        || error.chain().any(may_not_listen)
}

/// Why a model's files can't be used, and whether that will pass.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
pub(super) fn unusable(error: anyhow::Error) -> Unusable {
    let store = error.downcast_ref::<StoreError>();
    // The system's own, as of a full disk, may pass too.
    let is_of_the_system = error.chain().any(|cause| cause.is::<io::Error>());
    Unusable {
        reason: format!("{error:#}"),
        is_lasting: !is_of_the_system && store.is_none_or(|error| !error.may_pass()),
    }
}

/// Why the start failed; `is_one` if there is one model, which need not be named.
pub(super) fn not_loaded(error: LoadError, is_one: bool) -> anyhow::Error {
    let is_lasting = error.is_lasting();
    let text = match error {
        LoadError::Failed { reason, .. } if is_one => reason,
        error => error.to_string(),
    };
    match is_lasting {
        true => Wrong(text).into(),
        false => anyhow::Error::msg(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_network_or_the_system_does_may_pass() {
        let unreachable = || StoreError::Unreachable {
            model: "a/b".into(),
            cache: String::new(),
            reason: String::new(),
            copy: String::new(),
        };
        let missing = || StoreError::MissingFile {
            place: "m".into(),
            file: "config.json".into(),
            hint: "",
        };
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        assert!(!is_settings_fault(&unreachable().into()));
        assert!(!is_settings_fault(
            &anyhow::Error::new(taken).context("port")
        ));
        assert!(is_settings_fault(
            &anyhow::Error::new(denied()).context("port")
        ));
        assert!(is_settings_fault(
            &anyhow::Error::new(missing()).context("m")
        ));
        assert!(unusable(missing().into()).is_lasting);
        assert!(!unusable(unreachable().into()).is_lasting);
        assert!(!unusable(anyhow::Error::new(denied()).context("file")).is_lasting);
        let failed = |is_lasting| LoadError::Failed {
            name: "m".into(),
            reason: "r".into(),
            is_lasting,
        };
        assert!(is_settings_fault(&not_loaded(failed(true), true)));
        let other = not_loaded(failed(false), true);
        assert!(!is_settings_fault(&other) && other.to_string() == "r");
    }
}
