//! What the operator wrote about the admin port.

use serde::{Deserialize, Serialize};

use crate::listen::UnixConfig;

/// The section `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where probes and scrapes connect: an address and a port, or `unix:` and the path of a socket.
    pub listen: String,
    /// What the Unix socket needs, if it is one.
    pub unix: UnixConfig,
    /// What `/readyz` means.
    pub readiness: ReadinessRule,
    /// Further names that the `Host` of a request may have.
    pub allowed_hosts: Vec<String>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7090".into(),
            unix: UnixConfig::default(),
            readiness: ReadinessRule::Latched,
            allowed_hosts: Vec::new(),
        }
    }
}

/// What `/readyz` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ReadinessRule {
    /// True after the first token of each required credential, until draining.
    Latched,
    /// True only while each required credential is usable.
    Strict,
}
