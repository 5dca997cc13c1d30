//! What the operator wrote about credentials.

use std::path::PathBuf;

use serde::Deserialize;

use super::source::SourceConfig;
use crate::{duration::Span, secret::SecretRef};

/// A section `[credentials.NAME]`: which source, and what is the same for all sources. The keys of both stand in the
/// one section.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(extend("unevaluatedProperties" = false)))]
pub struct CredentialConfig {
    /// `type`, and the keys that belong to it.
    #[serde(flatten)]
    pub source: SourceConfig,
    /// The keys that every type has.
    #[serde(flatten)]
    pub common: CommonConfig,
}

/// The keys of a credential that every `type` has. Unknown keys are not refused here: the keys of the type stand in the
/// same section, and whoever loads it checks both together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct CommonConfig {
    /// Lifetime of a token whose answer does not tell one.
    pub default_lifetime: Span,
    /// How long a request may wait for a token when there is none.
    pub token_wait: Span,
    /// Whether readiness waits for this credential.
    pub required: bool,
    /// Most token requests within an hour; nothing means that only the pace of retries limits them.
    pub max_requests_per_hour: Option<u32>,
    /// The file that outlives the process: refresh tokens, and encrypted access tokens. In a folder of attaché's own.
    pub store: Option<PathBuf>,
    /// What the store is encrypted with: 32 characters or more. Access tokens are kept only in an encrypted store.
    pub store_key: Option<SecretRef>,
}

impl Default for CommonConfig {
    fn default() -> Self {
        Self {
            default_lifetime: Span::secs(300),
            token_wait: Span::secs(5),
            required: true,
            max_requests_per_hour: None,
            store: None,
            store_key: None,
        }
    }
}
