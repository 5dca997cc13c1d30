//! What the operator wrote about the access log, and what follows for a request.

use serde::{Deserialize, Serialize};

use super::ProxyConfig;
use crate::chance::chance;

/// Which requests get a line in the log. A line never holds a header or a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// None.
    Off,
    /// attaché's own answers and those with a status code of 500 and above.
    Errors,
    /// All.
    All,
}

/// Which requests get a line, and what it shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::proxy) struct AccessRule {
    which: AccessLog,
    sample: f64,
    pub(in crate::proxy) query: bool,
}

impl AccessRule {
    pub(in crate::proxy) fn of(proxy: &ProxyConfig) -> Self {
        Self { which: proxy.access_log, sample: proxy.access_log_sample, query: proxy.access_log_query }
    }

    /// Whether a request may get a line.
    pub(in crate::proxy) fn is_on(self) -> bool {
        self.which != AccessLog::Off
    }

    /// Whether it gets one. What went wrong is not sampled. Without randomness every request gets its line.
    pub(in crate::proxy) fn takes(self, is_error: bool) -> bool {
        match self.which {
            AccessLog::Off => false,
            AccessLog::Errors => is_error,
            AccessLog::All => is_error || self.sample >= 1.0 || chance() < self.sample,
        }
    }
}
