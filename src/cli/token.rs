//! `attache token`: a token on standard output, for use in a shell.

use std::io::{self, IsTerminal as _};

use clap::Args;

use super::{ConfigArgument, Failure, online, output};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The credential
    name: String,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = arguments.config.load()?;
    let (manager, credential) = online::one_credential(&loaded.config, &loaded.origin, &arguments.name)?;
    let config = &loaded.config.credentials[&arguments.name];
    let token = super::block_on(online::first_token(config, &manager, &credential))?;
    let token = token.map_err(|error| Failure::other(error.message).hint(error.hint))?;
    if io::stdout().is_terminal() {
        output::complain("warning: this token is a secret, and now stands on your screen");
    }
    output::line(token.token().expose())
}
