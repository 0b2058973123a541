//! `rerankd man`: manual pages, made of what `--help` says.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{Cli, output};

#[derive(Debug, Args)]
#[command(after_help = "\
The pages are those of `rerankd --help` and `rerankd COMMAND --help`: rerankd(1), rerankd-serve(1), \
rerankd-rerank(1) and so on. A package for the whole system has them in it already.

Examples:
  rerankd man | man --local-file -
  rerankd man --folder ~/.local/share/man/man1
  man rerankd-serve")]
pub(super) struct ManArgs {
    /// Write the pages of all commands into this folder, which is made if need be, in place of printing rerankd(1).
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Result<()> {
    let mut command = Cli::described()
        .disable_help_subcommand(true)
        .subcommand_help_heading("COMMANDS")
        .subcommand_value_name("COMMAND");
    command.build();
    let Some(folder) = &args.folder else {
        let (_, text) = page(&command)?;
        return Ok(output::print(&text)?);
    };
    fs::create_dir_all(folder)
        .with_context(|| format!("can't make the folder {}", folder.display()))?;
    for command in [&command].into_iter().chain(command.get_subcommands()) {
        let (name, text) = page(command)?;
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(())
}

/// A command's page and the name of its file.
fn page(command: &Command) -> Result<(String, String)> {
    let man = Man::new(command.clone())
        .source(concat!("rerankd ", env!("CARGO_PKG_VERSION")))
        .manual("rerankd");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut end = Roff::default();
    if let Some(text) = command.get_after_help() {
        sections(&mut end, &text.to_string());
    }
    if !command.has_subcommands() {
        end.control("SH", ["SEE ALSO"]);
        end.text([roman("rerankd(1)")]);
    }
    end.to_writer(&mut page)?;
    Ok((man.get_filename(), String::from_utf8(page)?))
}

/// What stands below a command's help. A paragraph whose first line is only words and a colon, such as "Examples:",
/// is a section; all others are notes.
fn sections(roff: &mut Roff, text: &str) {
    let heading = |paragraph: &&str| {
        let words = paragraph.split_once(":\n").map_or("", |(line, _)| line);
        !words.is_empty() && words.chars().all(|c| c.is_alphabetic() || c == ' ')
    };
    let (headed, notes): (Vec<&str>, Vec<&str>) = text.split("\n\n").partition(heading);
    // Lines are broken where the help breaks them; blanks between words stay as they are, and no word is divided.
    roff.control("na", []);
    roff.control("nh", []);
    for (i, paragraph) in notes.into_iter().enumerate() {
        match i {
            0 => roff.control("SH", ["NOTES"]),
            _ => roff.control("PP", []),
        };
        lines(roff, paragraph);
    }
    for paragraph in headed {
        let (heading, text) = paragraph.split_once(":\n").unwrap_or_default();
        roff.control("SH", [heading.to_uppercase().as_str()]);
        lines(roff, text);
    }
}

fn lines(roff: &mut Roff, text: &str) {
    for (i, line) in text.lines().enumerate() {
        if i > 0 {
            roff.control("br", []);
        }
        roff.text([roman(line)]);
    }
}
