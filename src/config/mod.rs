//! What the operator wrote.
//!
//! Every part of the house owns its own section; here they are only collected.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    admin::AdminConfig,
    proxy::{ProxyConfig, RouteConfig},
    shutdown::ShutdownConfig,
    telemetry::logging::LogConfig,
    token::CredentialConfig,
};

/// The whole configuration of attaché.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(title = "attaché", extend("additionalProperties" = false))]
pub struct Config {
    /// The log of the process.
    pub log: LogConfig,
    /// Where callers connect.
    pub proxy: ProxyConfig,
    /// How the process ends.
    pub shutdown: ShutdownConfig,
    /// What the operator sees.
    pub admin: AdminConfig,
    /// The credentials, by name.
    pub credentials: BTreeMap<String, CredentialConfig>,
    /// The routes, by name.
    pub routes: BTreeMap<String, RouteConfig>,
}
