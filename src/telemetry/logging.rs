//! The log of the process: one line an event, on standard error, as text, logfmt or JSON.
//!
//! Requests are not logged unless the access log is on; a token refresh is one line. No secret, token, header, query
//! or body is ever a field of an event.

use std::io;

use serde::Deserialize;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

pub use super::lines::Log;
use super::{lines::Lines, logfmt::Logfmt};
use crate::invalid::Invalid;

/// The section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Which events are logged: a level for all, and `target=level` for some, separated by commas. Levels are `off`, `error`,
    /// `warn`, `info`, `debug` and `trace`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".into() }
    }
}

impl LogFormat {
    /// What is said where lines are missing, by the thread that writes and has no subscriber.
    fn losing(self) -> fn(u64) -> String {
        match self {
            Self::Text => |lost| format!(" WARN attache::telemetry: {lost} lines of the log were lost"),
            Self::Logfmt => |lost| {
                format!("level=warn target=attache::telemetry msg=\"{lost} lines of the log were lost\"")
            },
            Self::Json => {
                |lost| format!("{{\"level\":\"WARN\",\"message\":\"{lost} lines of the log were lost\"}}")
            }
        }
    }
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// `key=value` pairs, for people and machines.
    Logfmt,
    /// One JSON object a line.
    Json,
}

impl LogConfig {
    /// Checks the filter without setting anything up.
    pub fn check(&self) -> Result<(), Invalid> {
        self.parse().map(drop)
    }

    fn parse(&self) -> Result<Targets, Invalid> {
        // The filter with regular expressions that others use costs 0.4 MB of the binary; these are plain prefixes.
        let mut filter = Targets::new();
        let directives = self.filter.split(',').map(str::trim).filter(|directive| !directive.is_empty());
        for (at, directive) in directives.enumerate() {
            let (target, level) = match directive.split_once('=') {
                Some((target, level)) => (Some(target.trim_end()), level.trim_start()),
                None => (None, directive),
            };
            let level: LevelFilter = level.parse().map_err(|_| {
                // What stands there is not shown, as nothing is that may have come to the wrong place.
                Invalid::new("filter", format!("not a log filter: part {} does not end in a level", at + 1)).hint(
                    "write a level, such as \"info\", or directives, such as \"info,attache::token=debug\"",
                )
            })?;
            filter = match target {
                Some(target) => filter.with_target(target, level),
                None => filter.with_default(level),
            };
        }
        Ok(filter)
    }

    /// Makes this the log of the process, until what is returned is dropped. A second call keeps the first log, as
    /// tests do.
    pub fn install(&self) -> Result<Log, Invalid> {
        let filter = self.parse()?;
        let (lines, log) = Lines::write_to(io::stderr(), self.format.losing())
            .map_err(|error| Invalid::new("", format!("the log cannot be started: {error}")))?;
        let writer = move || lines.clone();
        let registry = tracing_subscriber::registry().with(filter);
        // Losing the race to another subscriber is harmless: there is a log.
        let _ = match self.format {
            LogFormat::Text => registry.with(fmt::layer().with_writer(writer).with_ansi(false)).try_init(),
            LogFormat::Logfmt => {
                registry.with(fmt::layer().event_format(Logfmt).with_writer(writer)).try_init()
            }
            LogFormat::Json => {
                registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
            }
        };
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_parsed_is_refused_with_a_hint() {
        let config = LogConfig { filter: "attache=loudly".into(), ..LogConfig::default() };
        let error = config.check().unwrap_err();
        assert_eq!(error.key(), "filter");
        assert!(error.cure().is_some());
        assert!(!error.to_string().contains("loudly"), "{error}");
        // A mistyped level is not the name of something that logs.
        let config = LogConfig { filter: "inf".into(), ..LogConfig::default() };
        assert!(config.check().is_err());
    }

    #[test]
    fn that_lines_are_missing_is_told_in_the_format_of_the_others() {
        let told = [LogFormat::Text, LogFormat::Logfmt, LogFormat::Json].map(|format| format.losing()(7));
        assert!(told.iter().all(|line| line.contains("7 lines of the log were lost")));
        assert!(told[0].starts_with(" WARN ") && told[1].starts_with("level=warn "));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&told[2]).unwrap()["level"], "WARN");
    }

    #[test]
    fn a_filter_has_one_level_for_all_and_others_for_some() {
        let config = LogConfig { filter: "warn, attache::token = debug,".into(), ..LogConfig::default() };
        let filter = config.parse().unwrap();
        assert!(filter.would_enable("attache::token::refresher", &tracing::Level::DEBUG));
        assert!(filter.would_enable("attache::proxy", &tracing::Level::WARN));
        assert!(!filter.would_enable("attache::proxy", &tracing::Level::INFO));
    }
}
