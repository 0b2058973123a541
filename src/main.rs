//! The `rerankd` program; everything is in the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    rerankd::cli::run(rerankd::cli::Cli::parse())
}
