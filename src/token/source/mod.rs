//! Where access tokens come from: one file per kind of source, one enum that lists them.

mod client_credentials;

use serde::{Deserialize, Serialize};

pub use self::client_credentials::{ClientAuthMethod, ClientCredentialsConfig};

/// The values of `credentials.NAME.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceType {
    /// RFC 6749 §4.4.
    ClientCredentials,
}

/// The keys of a credential that belong to its `type`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// RFC 6749 §4.4.
    ClientCredentials(ClientCredentialsConfig),
}

impl SourceConfig {
    /// The value of `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ClientCredentials(_) => "client_credentials",
        }
    }
}
