//! Where access tokens come from: one file per kind of source, one enum that lists them.

mod basic;
mod client_credentials;
mod exec;
mod exec_output;
mod file;
mod github_app;
mod jwt_bearer;
mod metadata;
mod metadata_answer;
mod password;
mod refresh_token;
#[cfg(test)]
pub(super) mod scripted;
mod token_exchange;

use serde::{Deserialize, Serialize};

use self::{
    basic::Basic, client_credentials::ClientCredentials, exec::Exec, file::FileSource, github_app::GithubApp,
    jwt_bearer::JwtBearer, metadata::Metadata, password::Password, refresh_token::RefreshToken,
    token_exchange::TokenExchange,
};
pub use self::{
    basic::BasicConfig,
    client_credentials::ClientCredentialsConfig,
    exec::ExecConfig,
    exec_output::Output,
    file::{Expiry, FileConfig},
    github_app::GithubAppConfig,
    jwt_bearer::JwtBearerConfig,
    metadata::{MetadataConfig, Server},
    password::PasswordConfig,
    refresh_token::{FallbackGrant, RefreshTokenConfig},
    token_exchange::TokenExchangeConfig,
};
use super::{
    access_token::Format, answer::Issued, clock::Clock, error::FetchError, grant::Grant, oauth::OAuthConfig,
    store::Store,
};
use crate::invalid::Invalid;

/// The values of `credentials.NAME.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceType {
    /// A user name and a password for HTTP Basic.
    Basic,
    /// RFC 6749 §4.4.
    ClientCredentials,
    /// A helper program that prints a token.
    Exec,
    /// A token that something else writes.
    File,
    /// An installation of a GitHub App.
    GithubApp,
    /// RFC 7523 §2.1.
    JwtBearer,
    /// A cloud's metadata server.
    Metadata,
    /// RFC 6749 §4.3.
    Password,
    /// RFC 6749 §6.
    RefreshToken,
    /// RFC 8693.
    TokenExchange,
}

/// The keys of a credential that belong to its `type`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// A user name and a password for HTTP Basic (RFC 7617).
    Basic(BasicConfig),
    /// RFC 6749 §4.4.
    ClientCredentials(Box<ClientCredentialsConfig>),
    /// A helper program that prints a token.
    Exec(ExecConfig),
    /// A token or an API key that something else writes into a file.
    File(FileConfig),
    /// An installation of a GitHub App.
    GithubApp(Box<GithubAppConfig>),
    /// RFC 7523 §2.1.
    JwtBearer(Box<JwtBearerConfig>),
    /// A cloud's metadata server.
    Metadata(Box<MetadataConfig>),
    /// RFC 6749 §4.3: legacy.
    Password(Box<PasswordConfig>),
    /// RFC 6749 §6.
    RefreshToken(Box<RefreshTokenConfig>),
    /// RFC 8693.
    TokenExchange(Box<TokenExchangeConfig>),
}

impl SourceConfig {
    /// The value of `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Basic(_) => "basic",
            Self::GithubApp(_) => "github_app",
            Self::ClientCredentials(_) => "client_credentials",
            Self::Exec(_) => "exec",
            Self::File(_) => "file",
            Self::JwtBearer(_) => "jwt_bearer",
            Self::Metadata(_) => "metadata",
            Self::Password(_) => "password",
            Self::RefreshToken(_) => "refresh_token",
            Self::TokenExchange(_) => "token_exchange",
        }
    }
}

impl SourceConfig {
    /// The keys of a token endpoint, and the client's id, where there is one.
    pub(super) fn oauth(&self) -> Option<(&OAuthConfig, Option<&str>)> {
        match self {
            Self::ClientCredentials(config) => Some((&config.oauth, Some(&config.client_id))),
            Self::JwtBearer(config) => Some((&config.oauth, config.client_id.as_deref())),
            Self::TokenExchange(config) => Some((&config.oauth, config.client_id.as_deref())),
            Self::Password(config) => Some((&config.oauth, config.client_id.as_deref())),
            Self::RefreshToken(config) => Some((&config.oauth, Some(&config.client_id))),
            Self::Basic(_) | Self::Exec(_) | Self::File(_) | Self::GithubApp(_) | Self::Metadata(_) => None,
        }
    }

    /// How its token stands in a header, unless a route says otherwise.
    pub(super) fn usual_format(&self) -> Format {
        match self {
            Self::Basic(_) => Format::basic(),
            _ => Format::default(),
        }
    }
}

/// A source that is ready to be asked.
pub(super) enum Source {
    Basic(Box<Basic>),
    GithubApp(Box<GithubApp>),
    ClientCredentials(Box<ClientCredentials>),
    Exec(Box<Exec>),
    JwtBearer(Box<JwtBearer>),
    Metadata(Box<Metadata>),
    Password(Box<Password>),
    RefreshToken(Box<RefreshToken>),
    TokenExchange(Box<TokenExchange>),
    File(Box<FileSource>),
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

/// What an attempt brought.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) issued: Issued,
    /// Less was granted than asked for.
    pub(super) narrowed: bool,
    /// The provider's clock less ours, in seconds.
    pub(super) skew: Option<f64>,
}

impl Source {
    /// Checks the section.
    pub(super) fn build(config: &SourceConfig, clock: &Clock) -> Result<Self, Invalid> {
        Ok(match config {
            SourceConfig::Basic(config) => Self::Basic(Box::new(Basic::build(config)?)),
            SourceConfig::GithubApp(config) => {
                Self::GithubApp(Box::new(GithubApp::build(config, clock.clone())?))
            }
            SourceConfig::ClientCredentials(config) => {
                Self::ClientCredentials(Box::new(ClientCredentials::build(config, clock.clone())?))
            }
            SourceConfig::Exec(config) => Self::Exec(Box::new(Exec::build(config, clock.clone())?)),
            SourceConfig::JwtBearer(config) => {
                Self::JwtBearer(Box::new(JwtBearer::build(config, clock.clone())?))
            }
            SourceConfig::Metadata(config) => {
                Self::Metadata(Box::new(Metadata::build(config, clock.clone())?))
            }
            SourceConfig::Password(config) => {
                Self::Password(Box::new(Password::build(config, clock.clone())?))
            }
            SourceConfig::RefreshToken(config) => {
                Self::RefreshToken(Box::new(RefreshToken::build(config, clock.clone())?))
            }
            SourceConfig::TokenExchange(config) => {
                Self::TokenExchange(Box::new(TokenExchange::build(config, clock.clone())?))
            }
            SourceConfig::File(config) => Self::File(Box::new(FileSource::build(config, clock.clone())?)),
        })
    }

    /// Asks for a token once. Each call is one token request at most.
    pub(super) async fn fetch(&mut self, store: Option<&mut Store>) -> Result<Fetched, FetchError> {
        match self {
            Self::Basic(source) => source.fetch(),
            Self::GithubApp(source) => source.fetch().await,
            Self::ClientCredentials(source) => source.fetch().await,
            Self::Exec(source) => source.fetch().await,
            Self::JwtBearer(source) => source.fetch().await,
            Self::Metadata(source) => source.fetch().await,
            Self::Password(source) => source.fetch().await,
            Self::RefreshToken(source) => source.fetch(store).await,
            Self::TokenExchange(source) => source.fetch().await,
            Self::File(source) => source.fetch(),
            #[cfg(test)]
            Self::Scripted(source) => source.fetch().await,
        }
    }

    /// The grant that is asked for at a token endpoint, where it is one.
    pub(super) fn grant(&self) -> Option<&Grant> {
        match self {
            Self::ClientCredentials(source) => Some(source.grant()),
            Self::JwtBearer(source) => Some(source.grant()),
            Self::Password(source) => Some(source.grant()),
            Self::RefreshToken(source) => Some(source.grant()),
            Self::TokenExchange(source) => Some(source.grant()),
            Self::Basic(_) | Self::Exec(_) | Self::File(_) | Self::GithubApp(_) | Self::Metadata(_) => None,
            #[cfg(test)]
            Self::Scripted(_) => None,
        }
    }

    /// Whether something it depends on has been replaced, so that it is worth asking at once.
    pub(super) fn look(&mut self) -> bool {
        match self {
            Self::Basic(source) => source.look(),
            Self::GithubApp(source) => source.look(),
            Self::ClientCredentials(source) => source.look(),
            Self::Exec(source) => source.look(),
            Self::JwtBearer(source) => source.look(),
            Self::Metadata(source) => source.look(),
            Self::Password(source) => source.look(),
            Self::RefreshToken(source) => source.look(),
            Self::TokenExchange(source) => source.look(),
            Self::File(source) => source.look(),
            #[cfg(test)]
            Self::Scripted(source) => source.look(),
        }
    }
}
