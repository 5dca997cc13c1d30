//! The command line: one file per subcommand.
//!
//! 1. [`parse`] reads the arguments; wrong usage ends with exit code 2.
//! 2. [`Command::execute`] does what was asked for.
//! 3. A [`Failure`] becomes one message on standard error and the exit code.

mod check;
mod completions;
mod demo;
mod failure;
mod get;
mod man;
mod online;
mod output;
mod probe;
mod run;
mod schema;
mod signals;
mod token;
mod top;
mod wait;
mod whoami;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub use self::failure::Failure;
use crate::config::{self, Loaded};

/// What `--help` says below the options.
const EPILOGUE: &str = "\
Environment:
  ATTACHE__A__B  sets the key `a.b` of the configuration, over the file: ATTACHE__ROUTES__ORDERS__UPSTREAM is
                 `routes.orders.upstream`. A `-` in a name may be written `_`, if the file has the name.

Exit codes:
  0   done
  1   failed
  2   wrong usage
  78  invalid configuration, before anything was bound";

#[derive(Debug, Parser)]
#[command(
    name = "attache",
    version,
    about = "A sidecar that carries the credentials, so that the service beside it does not have to",
    after_help = EPILOGUE,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What was asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the sidecar
    #[command(after_help = EPILOGUE)]
    Run(run::Arguments),
    /// See it work: an identity provider, an echo upstream and the sidecar between them, in one process
    Demo(demo::Arguments),
    /// Check the configuration
    #[command(after_help = EPILOGUE)]
    Check(check::Arguments),
    /// Print a token of a credential
    Token(token::Arguments),
    /// Tell whom a token of a credential speaks for, and who says so
    Whoami(whoami::Arguments),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Ask a running sidecar once: exit code 0 means healthy
    Probe(probe::Arguments),
    /// Wait until a running sidecar is ready
    Wait(wait::Arguments),
    /// Watch the status of a running sidecar in a terminal
    Top(top::Arguments),
    /// Print the script that lets a shell complete this command line
    Completions(completions::Arguments),
    /// Print the manual page, or write those of all commands
    Man(man::Arguments),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigArgument {
    /// The configuration: TOML or YAML, by its ending. Without it, the environment alone
    #[arg(short, long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    fn load(&self) -> Result<Loaded, Failure> {
        Ok(config::load_with_origin(self.config.as_deref(), config::environment()?)?)
    }
}

/// Reads the arguments; `Err` is what to exit with, once help or the mistake has been printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, ExitCode> {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => Ok(cli.command),
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = error.print();
            Err(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)))
        }
    }
}

/// Runs one future to its end, on this thread.
fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    Ok(runtime.block_on(future))
}

impl Command {
    /// Does it.
    pub fn execute(self) -> Result<(), Failure> {
        match self {
            Self::Run(arguments) => run::execute(&arguments),
            Self::Demo(arguments) => demo::execute(&arguments),
            Self::Check(arguments) => check::execute(&arguments),
            Self::Token(arguments) => token::execute(&arguments),
            Self::Whoami(arguments) => whoami::execute(&arguments),
            Self::Schema => schema::execute(),
            Self::Probe(arguments) => probe::execute(&arguments),
            Self::Wait(arguments) => wait::execute(&arguments),
            Self::Top(arguments) => top::execute(&arguments),
            Self::Completions(arguments) => completions::execute(&arguments),
            Self::Man(arguments) => man::execute(&arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
