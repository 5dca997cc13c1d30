//! The client credentials grant (RFC 6749 §4.4).

use serde::Deserialize;

use super::Fetched;
use crate::{
    invalid::Invalid,
    token::{clock::Clock, error::FetchError, grant::Grant, oauth::OAuthConfig},
};

/// The keys of a credential of type `client_credentials`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClientCredentialsConfig {
    /// What the provider knows this service by.
    pub client_id: String,
    /// The keys of every token endpoint.
    #[serde(flatten)]
    pub oauth: OAuthConfig,
}

/// A client credentials grant that is ready to be asked for.
pub(in crate::token) struct ClientCredentials(Grant);

impl ClientCredentials {
    /// Checks the section; the secret must be there now.
    pub(in crate::token) fn build(config: &ClientCredentialsConfig, clock: Clock) -> Result<Self, Invalid> {
        Grant::build(&config.oauth, Some(&config.client_id), "client_credentials", clock).map(Self)
    }

    /// Asks for a token once.
    pub(in crate::token) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        self.0.fetch(&[]).await
    }

    /// The grant that it asks for.
    pub(super) fn grant(&self) -> &Grant {
        &self.0
    }

    /// Whether a secret has been replaced, so that it is worth asking at once.
    pub(in crate::token) fn look(&mut self) -> bool {
        self.0.look()
    }
}
