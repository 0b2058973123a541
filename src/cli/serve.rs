//! `rerankd serve`.

use std::fmt;

use anyhow::Result;
use clap::Args;

use super::{ModelArgs, output};
use crate::app::{self, App};
use crate::config::{Override, Settings};
use crate::shutdown::Signals;
use crate::telemetry::{LogFormat, expect_json_logs, init_logs};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address to listen on.
    #[arg(long, help_heading = "Server")]
    host: Option<String>,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, help_heading = "Server")]
    port: Option<String>,
    /// File of the API keys that clients must send, one per line; read again when it changes.
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    keys_file: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Check everything that a start would check except the weights, print the result, and stop.
    #[arg(long, help_heading = "Settings")]
    check_config: bool,
    /// Print the settings as TOML and stop.
    #[arg(long, help_heading = "Settings")]
    print_config: bool,
}

/// The problems that would keep the server from starting.
#[derive(Debug)]
pub(super) struct CannotStart(Vec<anyhow::Error>);

impl std::error::Error for CannotStart {}

impl fmt::Display for CannotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<String> = self.0.iter().map(|p| format!("{p:#}")).collect();
        f.write_str(&problems.join("\nrerankd: "))
    }
}

pub(super) fn run(args: &ServeArgs) -> Result<()> {
    let flags = [
        ("server.host", &args.host),
        ("server.port", &args.port),
        ("auth.keys_file", &args.keys_file),
    ];
    let flags = flags.into_iter();
    let flags = flags.filter_map(|(key, value)| Some((key, value.clone()?.into())));
    let is_report = args.check_config || args.print_config;
    if args.model.log_format == Some(LogFormat::Json) && !is_report {
        // Settings that can't be used are told in it too.
        expect_json_logs();
    }
    let settings = args.model.settings(flags.collect::<Vec<Override>>())?;
    if args.check_config {
        return check(&settings);
    }
    if args.print_config {
        warn(&settings.warnings());
        return Ok(output::print(&settings.to_toml())?);
    }
    init_logs(settings.log.format, &settings.log.level);
    let runtime = super::runtime()?;
    let result = runtime.block_on(async {
        // Before anything slow, so that no signal is missed.
        let signals = Signals::install()?;
        App::bind(settings).await?.run(signals).await
    });
    // A load that was cut short by a signal would block the drop of the runtime.
    runtime.shutdown_background();
    result.map_err(|error| match app::is_settings_fault(&error) {
        true => CannotStart(vec![error]).into(),
        false => error,
    })
}

fn check(settings: &Settings) -> Result<()> {
    let report = app::check(settings);
    warn(&report.warnings);
    if !report.problems.is_empty() {
        return Err(CannotStart(report.problems).into());
    }
    let text = format!("the settings are valid\n{}", report.uses);
    Ok(output::print(&text)?)
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        output::note(&format!("warning: {warning}"));
    }
}
