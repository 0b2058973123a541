//! `rerankd completions`: a shell's script that completes the command line.

use clap::Args;
use clap_complete::Shell;

use super::{Cli, output};

#[derive(Debug, Args)]
#[command(after_help = "\
Write the script to where the shell looks for it, and start a new shell:
  bash        ~/.local/share/bash-completion/completions/rerankd
  zsh         _rerankd in a folder of $fpath, such as ~/.zfunc with `fpath+=~/.zfunc` before compinit in ~/.zshrc
  fish        ~/.config/fish/completions/rerankd.fish
  powershell  the end of $PROFILE
  elvish      the end of ~/.config/elvish/rc.elv
A package for the whole system has these scripts in it already.

Examples:
  source <(rerankd completions bash)
  rerankd completions bash > ~/.local/share/bash-completion/completions/rerankd
  rerankd completions fish > ~/.config/fish/completions/rerankd.fish")]
pub(super) struct CompletionsArgs {
    /// The shell that the script is for.
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::described(), "rerankd", &mut script);
    Ok(output::print(&String::from_utf8(script)?)?)
}
