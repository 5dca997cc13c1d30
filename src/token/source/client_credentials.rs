//! The client credentials grant (RFC 6749 §4.4).

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::secret::SecretRef;

/// The keys of a credential of type `client_credentials`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ClientCredentialsConfig {
    /// The provider's issuer identifier; its metadata names the token endpoint.
    pub issuer: Option<String>,
    /// The token endpoint itself, instead of `issuer`.
    pub token_endpoint: Option<String>,
    /// What the provider knows this service by.
    pub client_id: String,
    /// How the client authenticates.
    #[serde(default)]
    pub client_auth: ClientAuthMethod,
    /// The client's secret; required except with `none`.
    pub client_secret: Option<SecretRef>,
    /// What is asked for, separated by spaces (RFC 6749 §3.3).
    pub scope: Option<String>,
    /// Whom the token is for, as Auth0 and others want it.
    pub audience: Option<String>,
    /// Whom the token is for (RFC 8707).
    #[serde(default)]
    pub resource: Vec<String>,
    /// Further parameters of the token request.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// A PEM file with an authority for the provider's certificate, beside those of the machine.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy for token requests.
    pub http_proxy: Option<String>,
    /// Allow a provider that is not loopback without TLS.
    #[serde(default)]
    pub unsafe_plaintext: bool,
}

/// How the OAuth client authenticates at the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMethod {
    /// HTTP Basic with id and secret form-urlencoded (RFC 6749 §2.3.1).
    #[default]
    ClientSecretBasic,
    /// HTTP Basic with id and secret as they are, for servers that do not decode them.
    ClientSecretBasicRaw,
    /// `client_id` and `client_secret` in the body (RFC 6749 §2.3.1).
    ClientSecretPost,
    /// A public client: `client_id` in the body, no secret.
    None,
}
