//! The resource owner password credentials grant (RFC 6749 §4.3): legacy, for the service accounts of providers that offer
//! nothing else. RFC 9700 §2.4 says not to use it, and so does the log at every start.

use serde::Deserialize;

use super::Fetched;
use crate::{
    invalid::Invalid,
    secret::SecretRef,
    token::{
        client_auth::kept, clock::Clock, error::FetchError, grant::Grant, kept_secret::KeptSecret,
        oauth::OAuthConfig,
    },
};

/// The keys of a credential of type `password`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PasswordConfig {
    /// What the provider knows this service by, if it asks for more than the user.
    pub client_id: Option<String>,
    /// The user that the token speaks for; required.
    pub username: String,
    /// The user's password; required.
    pub password: SecretRef,
    /// The keys of every token endpoint.
    #[serde(flatten)]
    pub oauth: OAuthConfig,
}

/// A password grant that is ready to be asked for.
pub(in crate::token) struct Password {
    grant: Grant,
    login: Login,
}

/// A user's name and password.
#[derive(Debug)]
pub(super) struct Login {
    username: String,
    password: KeptSecret,
}

impl Login {
    pub(super) fn build(username: Option<&str>, password: Option<&SecretRef>) -> Result<Self, Invalid> {
        let username = username.filter(|username| !username.is_empty()).ok_or_else(|| {
            Invalid::new("username", "is missing or empty")
                .hint("name the user that the token is to speak for")
        })?;
        Ok(Self { username: username.to_owned(), password: kept("password", password)? })
    }

    pub(super) fn form(&self) -> [(&str, &str); 2] {
        [("username", &self.username), ("password", self.password.value().expose())]
    }

    pub(super) fn look(&mut self) -> bool {
        self.password.look()
    }
}

impl Password {
    /// Checks the section; the password must be there now.
    pub(in crate::token) fn build(config: &PasswordConfig, clock: Clock) -> Result<Self, Invalid> {
        Ok(Self {
            grant: Grant::build(&config.oauth, config.client_id.as_deref(), "password", clock)?,
            login: Login::build(Some(&config.username), Some(&config.password))?,
        })
    }

    /// Asks for a token once. A refresh token that comes with it is not used: the password gives a new one at any time.
    pub(in crate::token) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        self.grant.fetch(&self.login.form()).await
    }

    /// The grant that it asks for.
    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether a secret has been replaced.
    pub(in crate::token) fn look(&mut self) -> bool {
        self.login.look() | self.grant.look()
    }
}
