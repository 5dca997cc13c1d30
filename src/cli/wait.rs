//! `attache wait`: returns once a running sidecar is ready, for start-up orders without a shell.

use std::{io, time::Duration};

use clap::Args;
use tokio::time::{self, Instant};

use super::{ConfigArgument, Failure, get::Target};
use crate::duration::Span;

/// Short enough that nobody notices, long enough to cost nothing.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Wait for this instead of the admin port of the configuration, such as http://127.0.0.1:7090/readyz
    #[arg(long, conflicts_with = "config", value_parser = Target::of_url)]
    url: Option<Target>,
    /// How long to wait at most
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    timeout: Span,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let target = match &arguments.url {
        Some(target) => target.clone(),
        None => Target::of_config(arguments.config.config.as_deref(), "/readyz")?,
    };
    super::block_on(until_ready(&target, arguments.timeout.0))?
}

async fn until_ready(target: &Target, timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let mut seen: Option<String> = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match target.get(left.min(Duration::from_secs(2))).await {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) => seen = Some(format!("{target} answered {}", answer.summary())),
            // An answer tells more than the attempt that the deadline cut off.
            Err(error) if seen.is_none() || error.kind() != io::ErrorKind::TimedOut => {
                seen = Some(format!("{target} does not answer: {error}"));
            }
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            let (timeout, seen) = (Span(timeout), seen.unwrap_or_default());
            return Err(Failure::other(format!("not ready after {timeout}: {seen}")));
        }
        time::sleep(PAUSE.min(left)).await;
    }
}
