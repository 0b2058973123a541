//! `rerankd health`: asks a running server, so that an image needs no curl.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::output;
use crate::config::Settings;

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// A TOML file that overlays the defaults; its host and port are asked.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// The server's base URL; from the settings if left out.
    #[arg(long)]
    url: Option<String>,
}

pub(super) fn run(args: &HealthArgs) -> Result<()> {
    let base = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let server = Settings::load(args.config.as_deref(), vec![])?.server;
            let host = match server.host.as_str() {
                "0.0.0.0" => "127.0.0.1".to_owned(),
                "::" => "[::1]".to_owned(),
                v6 if v6.contains(':') => format!("[{v6}]"),
                other => other.to_owned(),
            };
            format!("http://{host}:{}", server.port)
        }
    };
    let url = format!("{base}/health");
    super::runtime()?.block_on(async {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(3))
            .no_proxy()
            .build()?;
        let answer = client.get(&url).send().await;
        let answer = answer.with_context(|| format!("no answer from {url}"))?;
        let status = answer.status();
        ensure!(status.is_success(), "{url} answers {status}");
        // What is healthy without a body that can be read is healthy all the same.
        let health: serde_json::Value = answer.json().await.unwrap_or_default();
        let healthy = match &health["truncated_documents"] {
            serde_json::Value::Null => "healthy\n".to_owned(),
            documents => {
                format!(
                    "healthy; {documents} documents were too long to be read whole (see /info)\n"
                )
            }
        };
        Ok(output::print(&healthy)?)
    })
}
