//! Where the hub and its cache are: the `HF_*` variables, which Python has too.

use std::path::PathBuf;

use crate::model_store::HubOptions;

/// As huggingface_hub reads its environment
/// (<https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>).
pub(super) fn from_environment(var: impl Fn(&str) -> Option<String>) -> HubOptions {
    let var = |name| var(name).filter(|v: &String| !v.is_empty());
    let home = var("HF_HOME").map_or_else(
        || {
            let cache = var("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.unwrap_or_else(|| {
                PathBuf::from(var("HOME").unwrap_or_else(|| ".".into())).join(".cache")
            });
            cache.join("huggingface")
        },
        PathBuf::from,
    );
    let cache = var("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from);
    let token = var("HF_TOKEN").or_else(|| {
        let text = std::fs::read_to_string(home.join("token")).ok()?;
        Some(text.trim().to_owned()).filter(|t| !t.is_empty())
    });
    let on = |v: String| matches!(v.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
    HubOptions {
        // hf-hub links snapshots to blobs and wants one kind of path for both.
        cache: std::path::absolute(&cache).unwrap_or(cache),
        token,
        endpoint: var("HF_ENDPOINT"),
        offline: var("HF_HUB_OFFLINE").is_some_and(on),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::from_environment;

    #[test]
    fn the_hub_is_found_as_python_finds_it() {
        let env = |pairs: &'static [(&str, &str)]| {
            from_environment(move |name| {
                let found = pairs.iter().find(|(n, _)| *n == name);
                found.map(|(_, v)| (*v).to_owned())
            })
        };
        assert_eq!(
            env(&[("HOME", "/h")]).cache,
            Path::new("/h/.cache/huggingface/hub")
        );
        assert_eq!(env(&[("HF_HOME", "/x")]).cache, Path::new("/x/hub"));
        let both = env(&[
            ("HF_HOME", "/x"),
            ("HF_HUB_CACHE", "/y"),
            ("HF_HUB_OFFLINE", "true"),
        ]);
        assert_eq!(both.cache, Path::new("/y"));
        assert!(both.offline && !env(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(env(&[("HF_TOKEN", "t")]).token.as_deref(), Some("t"));
    }
}
