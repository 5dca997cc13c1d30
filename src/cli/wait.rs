//! `attache wait`: returns once a running sidecar is ready, for start-up orders without a shell.

use std::{io, time::Duration};

use clap::Args;
use tokio::time::{self, Instant};

use super::{
    ConfigArgument, Failure,
    get::{Answer, Target},
};
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
    /// Wait for the answer of this process, while another one may still have the port, and fail when it has ended
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// How long to wait at most
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    timeout: Span,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let target = match &arguments.url {
        Some(target) => target.clone(),
        None => Target::of_config(arguments.config.config.as_deref(), "/readyz")?,
    };
    super::block_on(until_ready(&target, arguments.pid, arguments.timeout.0))?
}

async fn until_ready(target: &Target, pid: Option<i32>, timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let mut seen: Option<String> = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match target.get(left.min(Duration::from_secs(2))).await {
            Ok(answer) if !pid.is_none_or(|pid| is_of(&answer, pid)) => {
                let whose = if answer.body.contains("\"pid\"") {
                    "another process"
                } else {
                    "one that tells no `pid`"
                };
                seen = Some(format!("{target} is answered by {whose}"));
            }
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) => seen = Some(format!("{target} answered {}", answer.summary())),
            // An answer tells more than the attempt that the deadline cut off.
            Err(error) if seen.is_none() || error.kind() != io::ErrorKind::TimedOut => {
                seen = Some(format!("{target} does not answer: {error}"));
            }
            Err(_) => {}
        }
        if let Some(pid) = pid.filter(|pid| has_ended(*pid)) {
            return Err(Failure::other(format!("process {pid} has ended")));
        }
        if Instant::now() >= deadline {
            let (timeout, seen) = (Span(timeout), seen.unwrap_or_default());
            return Err(Failure::other(format!("not ready after {timeout}: {seen}")));
        }
        time::sleep(PAUSE.min(left)).await;
    }
}

fn is_of(answer: &Answer, pid: i32) -> bool {
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    body["pid"] == pid
}

/// Whether there is no such process, or only what its parent has not taken notice of yet (proc_pid_stat(5)).
fn has_ended(pid: i32) -> bool {
    let known = rustix::process::Pid::from_raw(pid).map(rustix::process::test_kill_process);
    let is_gone = matches!(known, None | Some(Err(rustix::io::Errno::SRCH)));
    // The name before the state may hold anything, but no further parenthesis follows it.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    is_gone || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}
