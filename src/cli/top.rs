//! `attache top`: the status of a running sidecar in a terminal, again and again.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time;

use super::{
    ConfigArgument, Failure,
    get::Target,
    output::{self, Reader},
};

/// Often enough to watch a refresh, seldom enough to cost nothing.
const INTERVAL: Duration = Duration::from_secs(1);

/// For one look.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Home, then clear what is below (ECMA-48): no flicker.
const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Look at this instead of the admin port of the configuration, such as http://127.0.0.1:7090/status
    #[arg(long, conflicts_with = "config", value_parser = Target::of_url)]
    url: Option<Target>,
    /// Look once, and do not clear the screen
    #[arg(long)]
    once: bool,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let target = match &arguments.url {
        Some(target) => target.clone(),
        None => Target::of_config(arguments.config.config.as_deref(), "/status")?,
    };
    super::block_on(watch(&target, arguments.once))?
}

async fn watch(target: &Target, once: bool) -> Result<(), Failure> {
    loop {
        let seen = look(target).await;
        if once {
            return output::line(&seen?);
        }
        // A sidecar that restarts is worth waiting for.
        let text = seen.unwrap_or_else(|failure| failure.message().to_owned());
        if output::one_of_many(&format!("{CLEAR}{text}"))? == Reader::Gone {
            return Ok(());
        }
        time::sleep(INTERVAL).await;
    }
}

async fn look(target: &Target) -> Result<String, Failure> {
    let failed = |why: String| Failure::other(format!("{target} {why}"));
    let answer = target.get(TIMEOUT).await.map_err(|error| failed(format!("does not answer: {error}")))?;
    if answer.status != 200 {
        return Err(failed(format!("answered {}", answer.summary())));
    }
    let status = serde_json::from_str(&answer.body).map_err(|_| failed("is not a status".into()))?;
    Ok(render(&status))
}

fn render(status: &Value) -> String {
    let word = match (status["draining"].as_bool(), status["ready"].as_bool()) {
        (Some(true), _) => "draining",
        (_, Some(true)) => "ready",
        _ => "not ready",
    };
    let mut text = format!("attaché {}  {word}\n", plain(&status["version"]));
    if let Some(why) = status["configuration"]["rejected"].as_str() {
        text += &format!("the changed configuration cannot be used: {}\n", shown(why));
    }
    let seconds = |value: &Value| value.as_u64().map_or("-".to_owned(), |seconds| format!("{seconds} s"));
    let credentials = status["credentials"].as_array().into_iter().flatten().map(|credential| {
        vec![
            plain(&credential["name"]),
            plain(&credential["type"]),
            plain(&credential["state"]),
            life(credential),
            seconds(&credential["next_attempt_in_seconds"]),
            plain(&credential["last_error"]["message"]),
        ]
    });
    let header = ["CREDENTIAL", "TYPE", "STATE", "LEFT", "NEXT", "LAST ERROR"];
    text += &table(&header, credentials.collect());
    let routes = status["routes"].as_array().into_iter().flatten().map(|route| {
        let matched = format!("{}{}", plain(&route["host"]), plain(&route["path"]));
        vec![plain(&route["name"]), matched, plain(&route["upstream"]), plain(&route["credential"])]
    });
    text += &table(&["ROUTE", "MATCH", "UPSTREAM", "CREDENTIAL"], routes.collect());
    let answers = status["own_answers"].as_array().into_iter().flatten().map(|answer| {
        let number = |key| answer[key].as_u64().unwrap_or(0).to_string();
        vec![plain(&answer["route"]), plain(&answer["reason"]), number("recent"), number("count")]
    });
    let answers: Vec<_> = answers.collect();
    if !answers.is_empty() {
        text += &table(&["ROUTE", "ANSWERED BY ATTACHÉ", "LAST 15 MIN", "SINCE START"], answers);
    }
    text
}

/// How much of a token's life is left, as a bar and in seconds.
fn life(credential: &Value) -> String {
    const CELLS: u64 = 10;
    let Some(left) = credential["expires_in_seconds"].as_u64() else { return "-".to_owned() };
    let whole = credential["lifetime_seconds"].as_u64().unwrap_or(left).max(left).max(1);
    // Nothing only when nothing is left.
    let full = left.saturating_mul(CELLS).div_ceil(whole).min(CELLS) as usize;
    format!("{}{} {left} s", "#".repeat(full), ".".repeat(CELLS as usize - full))
}

/// Columns as wide as what stands in them.
fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let header: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&header]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in [&header].into_iter().chain(&rows) {
        text.push('\n');
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
    }
    text + "\n"
}

fn plain(value: &Value) -> String {
    shown(value.as_str().unwrap_or_default())
}

/// Safe for a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_and_routes_stand_in_columns_and_nothing_steers_the_terminal() {
        let status = json!({
            "version": "1", "ready": false, "draining": false, "configuration": { "rejected": null },
            "credentials": [{
                "name": "a-long-name", "type": "t", "state": "failing", "expires_in_seconds": 7, "lifetime_seconds": 60,
                "next_attempt_in_seconds": null, "last_error": { "message": "no\u{1b}[2Jt" },
            }],
            "own_answers": [{ "route": "r", "reason": "no_route", "count": 3, "recent": 2 }],
            "routes": [{ "name": "r", "host": null, "path": "/", "upstream": "https://u", "credential": "a-long-name" }],
        });
        let text = render(&status);
        assert!(text.starts_with("attaché 1  not ready\n"), "{text}");
        assert!(text.contains("\na-long-name  t     failing  ##........ 7 s  -     no[2Jt\n"), "{text}");
        assert!(text.contains("\nr      no_route             2            3\n"), "{text}");
        assert!(text.contains("\nr      /      https://u  a-long-name\n"), "{text}");
    }
}
