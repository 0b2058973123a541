//! `rerankd health`: asks a running server, so that an image needs no curl.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::{Client, StatusCode, Url};
use serde_json::Value;

use super::{Usage, output};
use crate::config::{Settings, certificates};
use crate::model_store::trusting;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  healthy: a model is loaded and has scored (also while the server finishes its work before it stops)
  1  not healthy: no answer within 3 seconds, no model loaded yet, or an error
  2  wrong usage or settings

Examples:
  rerankd health
  rerankd health --port 9000
  rerankd health --url https://rerank.example.com
  rerankd health && echo up")]
pub(super) struct HealthArgs {
    /// A TOML file that overlays the defaults, for the server's host and port (server.health_port if it is set).
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Port of a server on this machine, in place of the settings'.
    #[arg(long)]
    port: Option<u16>,
    /// Base URL of the server; from the settings if left out. For https:// the system's certificates are trusted, or
    /// those that SSL_CERT_FILE names.
    #[arg(long, conflicts_with = "port")]
    url: Option<String>,
}

pub(super) fn run(args: &HealthArgs) -> Result<()> {
    let client = Client::builder().timeout(Duration::from_secs(3)).no_proxy();
    let mut hint = "";
    let (base, client) = match &args.url {
        Some(url) => {
            let is_http = |url: &Url| ["http", "https"].contains(&url.scheme());
            if !Url::parse(url).is_ok_and(|url| is_http(&url)) {
                let wrong = format!("--url is {url}, but it must begin with http:// or https://");
                return Err(Usage(wrong).into());
            }
            let tls = trusting(&certificates()).map_err(anyhow::Error::msg)?;
            (
                url.trim_end_matches('/').to_owned(),
                client.use_preconfigured_tls(tls),
            )
        }
        None => {
            let settings = Settings::load(args.config.as_deref(), vec![])?;
            let own = (settings.server.host.as_str(), settings.server.port);
            let health = settings.health_address();
            let is_asked = |(_, port): &(&str, u16)| args.port.is_none_or(|asked| asked == *port);
            let (scheme, (host, port)) = match health.filter(is_asked) {
                Some(address) => ("http", address),
                None => (settings.scheme(), (own.0, args.port.unwrap_or(own.1))),
            };
            if scheme == "https" && !settings.tls.client_ca_file.as_os_str().is_empty() {
                hint = "; the server asks for clients' certificates (tls.client_ca_file), and this command has none: \
                        set server.health_port";
            }
            let host = match host {
                "0.0.0.0" => "127.0.0.1".to_owned(),
                "::" => "[::1]".to_owned(),
                v6 if v6.contains(':') => format!("[{v6}]"),
                other => other.to_owned(),
            };
            // It is the server on this host, whose certificate has another name; nothing secret is sent.
            let client = client.danger_accept_invalid_certs(true);
            (format!("{scheme}://{host}:{port}"), client)
        }
    };
    super::runtime()?.block_on(async {
        let client = client.build()?;
        let asked = get(&client, &format!("{base}/health")).await;
        let (status, answer) = asked.with_context(|| format!("not healthy{hint}"))?;
        if !status.is_success() {
            bail!(
                "not healthy: {base}/health answers {}",
                words(status, &answer)
            );
        }
        let mut text = format!("healthy: {base} has a model loaded");
        if let Some(detail) = answer["detail"].as_str() {
            text += &format!("\nbut {detail}");
        }
        if let Some(documents) = answer["truncated_documents"].as_u64() {
            text += &format!("\n{documents} documents were too long to be read whole (see /info)");
        }
        let (status, answer) = get(&client, &format!("{base}/health/ready")).await?;
        text += &match status.is_success() {
            true => "\nready for requests\n".to_owned(),
            false => format!("\nnot ready for new requests: {}\n", words(status, &answer)),
        };
        Ok(output::print(&text)?)
    })
}

/// An answer's status, and its body if that is JSON.
async fn get(client: &Client, url: &str) -> Result<(StatusCode, Value)> {
    let asked = async {
        let answer = client.get(url).send().await?;
        let status = answer.status();
        Ok::<_, reqwest::Error>((status, answer.bytes().await?))
    };
    let (status, body) = asked
        .await
        .with_context(|| format!("no answer from {url}"))?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// A status with the body's explanation.
fn words(status: StatusCode, body: &Value) -> String {
    let said = ["detail", "message"]
        .iter()
        .find_map(|key| body[key].as_str());
    match said {
        Some(said) => format!("{status}: {said}"),
        None => status.to_string(),
    }
}
