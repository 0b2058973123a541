//! `rerankd serve`.

use anyhow::Result;
use clap::Args;

use super::{ModelArgs, output};
use crate::app::App;
use crate::config::Override;
use crate::shutdown::Signals;
use crate::telemetry::init_logs;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Address to listen on.
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on; 0 takes a free one.
    #[arg(long)]
    port: Option<u16>,
    /// Check the settings and stop.
    #[arg(long)]
    check_config: bool,
    /// Print the settings as TOML and stop.
    #[arg(long)]
    print_config: bool,
}

pub(super) fn run(args: &ServeArgs) -> Result<()> {
    let mut overrides: Vec<Override> = Vec::new();
    if let Some(host) = &args.host {
        overrides.push(("server.host", host.as_str().into()));
    }
    if let Some(port) = args.port {
        overrides.push(("server.port", port.into()));
    }
    let settings = args.model.settings(overrides)?;
    if args.print_config || args.check_config {
        for warning in settings.warnings() {
            output::note(&format!("warning: {warning}"));
        }
    }
    if args.print_config {
        return Ok(output::print(&settings.to_toml())?);
    }
    if args.check_config {
        return Ok(output::print("the settings are valid\n")?);
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
    result
}
