//! The `rerankd` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rerankd::cli::run(rerankd::cli::Cli::from_command_line())
}
