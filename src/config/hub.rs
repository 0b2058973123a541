//! Where the hub and its cache are: the variables that Python's huggingface_hub reads.

use std::path::PathBuf;
use std::time::Duration;

use crate::model_store::{Certificates, HubOptions};

/// As huggingface_hub reads its environment
/// (<https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>).
/// Proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) are read by the HTTP client.
pub(super) fn from_environment(var: impl Fn(&str) -> Option<String>) -> HubOptions {
    let var = |name: &str| {
        let value = var(name)?.trim().to_owned();
        Some(value).filter(|v| !v.is_empty())
    };
    let user = || {
        let home = var("HOME").map(PathBuf::from).or_else(std::env::home_dir);
        home.unwrap_or_else(|| ".".into())
    };
    // ~ and variables are for the shell to expand, but env files and manifests have none.
    let path = |name: &str| {
        let value = var(name)?;
        let path = match value.strip_prefix('~') {
            Some("") => user(),
            Some(rest) if rest.starts_with('/') => user().join(rest.trim_start_matches('/')),
            _ => value.into(),
        };
        Some(PathBuf::from(expand(&path.to_string_lossy(), var)))
    };
    let home = path("HF_HOME").unwrap_or_else(|| {
        let cache = path("XDG_CACHE_HOME").unwrap_or_else(|| user().join(".cache"));
        cache.join("huggingface")
    });
    let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
    let cache = cache.unwrap_or_else(|| home.join("hub"));
    let clean = |token: String| {
        let token = token.replace(['\r', '\n'], "").trim().to_owned();
        Some(token).filter(|t| !t.is_empty())
    };
    let token = var("HF_TOKEN")
        .or_else(|| var("HUGGING_FACE_HUB_TOKEN"))
        .or_else(|| {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            std::fs::read_to_string(file).ok()
        })
        .and_then(clean);
    let on = |name: &str| {
        let on = |v: String| ["1", "ON", "YES", "TRUE"].contains(&&*v.to_ascii_uppercase());
        var(name).map(on)
    };
    let seconds = |name: &str, default| {
        let value = var(name).and_then(|v| v.parse().ok());
        value
            .filter(|&s| s > 0)
            .map_or(default, Duration::from_secs)
    };
    let certificates = Certificates {
        file: path("SSL_CERT_FILE"),
        folder: path("SSL_CERT_DIR"),
    };
    let bundle = || {
        let bundle = path("REQUESTS_CA_BUNDLE").or_else(|| path("CURL_CA_BUNDLE"));
        match bundle {
            Some(folder) if folder.is_dir() => Certificates {
                file: None,
                folder: Some(folder),
            },
            file => Certificates { file, folder: None },
        }
    };
    let default = HubOptions::default();
    HubOptions {
        // What the log and errors tell should not depend on the working directory.
        cache: std::path::absolute(&cache).unwrap_or(cache),
        token: token.filter(|_| on("HF_HUB_DISABLE_IMPLICIT_TOKEN") != Some(true)),
        endpoint: var("HF_ENDPOINT"),
        offline: on("HF_HUB_OFFLINE")
            .or_else(|| on("TRANSFORMERS_OFFLINE"))
            .unwrap_or(false),
        certificates: match certificates {
            Certificates {
                file: None,
                folder: None,
            } => bundle(),
            named => named,
        },
        answer_within: seconds("HF_HUB_ETAG_TIMEOUT", default.answer_within),
        stall_after: seconds("HF_HUB_DOWNLOAD_TIMEOUT", default.stall_after),
        progress_bar: on("HF_HUB_DISABLE_PROGRESS_BARS") != Some(true),
        ..default
    }
}

/// Replaces `$NAME` and `${NAME}`; a variable that is not set stays as it is.
fn expand(text: &str, var: impl Fn(&str) -> Option<String>) -> String {
    let mut parts = text.split('$');
    let mut expanded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let braced = part.strip_prefix('{').and_then(|p| p.split_once('}'));
        let (name, rest) = braced.unwrap_or_else(|| {
            let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            part.split_at(part.find(ends).unwrap_or(part.len()))
        });
        match var(name) {
            Some(value) => expanded.extend([&value, rest]),
            None => expanded.extend(["$", part]),
        }
    }
    expanded
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> HubOptions {
        from_environment(move |name| {
            let found = pairs.iter().find(|(n, _)| *n == name);
            found.map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        for (pairs, cache) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")],
                "/c/huggingface/hub",
            ),
            (&[("HF_HOME", "/x")], "/x/hub"),
            (&[("HF_HOME", "~/x"), ("HOME", "/h")], "/h/x/hub"),
            (&[("HF_HOME", "~"), ("HOME", "/h")], "/h/hub"),
            (&[("HF_HOME", "/x"), ("HF_HUB_CACHE", "/y")], "/y"),
            (&[("HF_HUB_CACHE", "~/y"), ("HOME", "/h")], "/h/y"),
            (&[("HUGGINGFACE_HUB_CACHE", "/z"), ("HF_HOME", "/x")], "/z"),
            (
                &[("HUGGINGFACE_HUB_CACHE", "/z"), ("HF_HUB_CACHE", "/y")],
                "/y",
            ),
            (
                &[("HF_HOME", "$A/${B}/$C/d"), ("A", "/a"), ("B", "b")],
                "/a/b/$C/d/hub",
            ),
            (
                &[("HF_HOME", ""), ("HOME", "/h")],
                "/h/.cache/huggingface/hub",
            ),
        ] {
            assert_eq!(env(pairs).cache, Path::new(cache), "{pairs:?}");
        }
    }

    #[test]
    fn the_token_is_cleaned_and_found_as_python_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\r\n").unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, "  hf_other\n\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let other = other.to_str().unwrap();
        let old = "HUGGING_FACE_HUB_TOKEN";
        for (pairs, token) in [
            (&[("HF_TOKEN", "hf_x\n"), (old, "hf_y")][..], Some("hf_x")),
            (&[("HF_TOKEN", " hf_x \r\n")], Some("hf_x")),
            (&[("HF_TOKEN", "hf_\nx")], Some("hf_x")),
            (&[("HF_TOKEN", ""), (old, "\thf_y ")], Some("hf_y")),
            (&[("HF_HOME", home)], Some("hf_file")),
            (
                &[("HF_HOME", home), ("HF_TOKEN_PATH", other)],
                Some("hf_other"),
            ),
            (
                &[("HF_TOKEN_PATH", "~/other"), ("HOME", home)],
                Some("hf_other"),
            ),
            (&[("HF_TOKEN", " \n"), ("HF_HOME", home)], Some("hf_file")),
            (
                &[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")],
                None,
            ),
            (&[("HF_HOME", "/no/such")], None),
        ] {
            assert_eq!(env(pairs).token.as_deref(), token, "{pairs:?}");
        }
    }

    #[test]
    fn switches_and_times_are_read_as_python_reads_them() {
        assert!(env(&[("HF_HUB_OFFLINE", "true")]).offline);
        assert!(env(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(!env(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
        let times = |etag, download| {
            let options = env(&[
                ("HF_HUB_ETAG_TIMEOUT", etag),
                ("HF_HUB_DOWNLOAD_TIMEOUT", download),
            ]);
            [options.answer_within, options.stall_after].map(|t| t.as_secs())
        };
        assert_eq!(times("3", "60"), [3, 60]);
        assert_eq!(times("0", "soon"), [10, 10]);
        assert!(env(&[]).progress_bar);
        assert!(!env(&[("HF_HUB_DISABLE_PROGRESS_BARS", "1")]).progress_bar);
    }

    #[test]
    fn certificates_come_from_the_variables_of_openssl_requests_and_curl() {
        let file = |pairs| env(pairs).certificates.file;
        let folder = |pairs| env(pairs).certificates.folder;
        let bundles = [("REQUESTS_CA_BUNDLE", "/r"), ("CURL_CA_BUNDLE", "/c")];
        assert_eq!(file(&bundles), Some("/r".into()));
        assert_eq!(file(&bundles[1..]), Some("/c".into()));
        assert_eq!(folder(&[("CURL_CA_BUNDLE", "/")]), Some("/".into()));
        let named = [("SSL_CERT_FILE", "/s"), bundles[0]];
        assert_eq!(file(&named), Some("/s".into()));
        let named = [("SSL_CERT_DIR", "/d"), bundles[0]];
        assert_eq!((file(&named), folder(&named)), (None, Some("/d".into())));
    }
}
