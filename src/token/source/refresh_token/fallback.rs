//! The grant that takes over from a refresh token that is not accepted any more.

use serde::Deserialize;

use super::RefreshTokenConfig;
use crate::{
    invalid::Invalid,
    token::{
        error::FetchError,
        grant::Grant,
        source::{Fetched, password::Login},
    },
};

/// The grants that can take over from a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FallbackGrant {
    /// RFC 6749 §4.4.
    ClientCredentials,
    /// RFC 6749 §4.3.
    Password,
}

/// One that is ready to be asked for.
pub(super) enum Fallback {
    ClientCredentials,
    Password(Login),
}

impl Fallback {
    /// Checks the keys of the section that belong to it; nothing when there is none.
    pub(super) fn build(config: &RefreshTokenConfig) -> Result<Option<Self>, Invalid> {
        let needs = |key: &str| {
            Invalid::new(key, "is given, but `fallback` does not use it")
                .hint("remove it, or write `fallback = \"password\"`")
        };
        Ok(match config.fallback {
            Some(FallbackGrant::Password) => {
                Some(Self::Password(Login::build(config.username.as_deref(), config.password.as_ref())?))
            }
            _ if config.username.is_some() => return Err(needs("username")),
            _ if config.password.is_some() => return Err(needs("password")),
            Some(FallbackGrant::ClientCredentials) => Some(Self::ClientCredentials),
            None => None,
        })
    }

    /// Asks for a token once.
    pub(super) async fn fetch(&self, grant: &mut Grant) -> Result<Fetched, FetchError> {
        match self {
            Self::ClientCredentials => grant.fetch_as("client_credentials", &[]).await,
            Self::Password(login) => grant.fetch_as("password", &login.form()).await,
        }
    }

    /// Whether the password has been replaced.
    pub(super) fn look(&mut self) -> bool {
        match self {
            Self::ClientCredentials => false,
            Self::Password(login) => login.look(),
        }
    }
}
