//! `attache probe`: one health check, for images without a shell.

use std::time::Duration;

use clap::Args;

use super::{ConfigArgument, Failure, get::Target, output};
use crate::duration::Span;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// What to ask for on the admin port of the configuration: /healthz, /livez, /startupz or /readyz
    #[arg(long, default_value = "/healthz", value_name = "PATH", value_parser = Target::path)]
    path: String,
    /// Ask this instead, such as http://127.0.0.1:7090/readyz
    #[arg(long, conflicts_with_all = ["path", "config"], value_parser = Target::of_url)]
    url: Option<Target>,
    /// How long the answer may take
    #[arg(long, default_value = "2s", value_name = "DURATION")]
    timeout: Span,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let target = match &arguments.url {
        Some(target) => target.clone(),
        None => Target::of_config(arguments.config.config.as_deref(), &arguments.path)?,
    };
    let Span(timeout) = arguments.timeout;
    let answer = super::block_on(target.get(timeout.max(Duration::from_millis(1))))?;
    match answer {
        Ok(answer) if answer.status == 200 => output::line(&answer.summary()),
        Ok(answer) => Err(Failure::other(format!("{target} answered {}", answer.summary()))),
        Err(error) => Err(Failure::other(format!("{target} does not answer: {error}"))
            .hint("is attaché running, with this `admin.listen`?")),
    }
}
