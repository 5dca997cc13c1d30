//! `attache man`: the manual pages, made from the same definitions as `--help`.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, Failure, output};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Write a page for each command into this directory, instead of printing the page of `attache`
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let command = Cli::command();
    let Some(folder) = &arguments.out else { return output::bytes(&page(command)?) };
    clap_mangen::generate_to(command, folder)
        .map_err(|error| Failure::other(format!("cannot write into `{}`: {error}", folder.display())))
}

fn page(command: clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command)
        .render(&mut page)
        .map_err(|error| Failure::other(format!("the page could not be made: {error}")))?;
    Ok(page)
}
