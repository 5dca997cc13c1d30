//! What the operator writes of a provider: the keys of every credential that comes from a token endpoint.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::{
    assertion::AssertionAudience,
    client_auth::ClientAuthMethod,
    http::{HttpConfig, check_proxied},
    signer::SigningAlg,
};
use crate::{duration::Span, invalid::Invalid, secret::SecretRef};

/// The keys of every credential that comes from a token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OAuthConfig {
    /// The provider's issuer identifier; its metadata names the token endpoint.
    pub issuer: Option<String>,
    /// The token endpoint itself, instead of `issuer`.
    pub token_endpoint: Option<String>,
    /// How the client authenticates.
    #[serde(default)]
    pub client_auth: ClientAuthMethod,
    /// The client's secret; required by the methods that begin with `client_secret`.
    pub client_secret: Option<SecretRef>,
    /// The client's private key, in PEM or as a JWK; required by `private_key_jwt`.
    pub private_key: Option<SecretRef>,
    /// The `kid` of the key, if the provider wants one.
    pub key_id: Option<String>,
    /// How assertions are signed, where the key leaves a choice.
    pub signing_alg: Option<SigningAlg>,
    /// A PEM file with the client's certificate, and the intermediate ones behind it; required by `tls_client_auth` and
    /// `self_signed_tls_client_auth`. With `private_key_jwt`: the key's certificate, whose thumbprint assertions carry.
    pub client_certificate: Option<PathBuf>,
    /// The private key of `client_certificate` in PEM; required by `tls_client_auth` and `self_signed_tls_client_auth`.
    pub client_private_key: Option<SecretRef>,
    /// The file with the assertion that something else signs; required by `client_assertion`.
    pub client_assertion: Option<SecretRef>,
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
    /// Use a token only after verifying it with the issuer's keys: its signature, `iss`, `aud` and `exp`. It must be a JWT.
    #[serde(default)]
    pub verify: bool,
    /// Whom a verified token must be for; left out, it is `audience`, or one of `resource`.
    pub verify_audience: Option<String>,
    /// How often the provider is asked whether the token is still good (RFC 7662); one that is not is replaced at once.
    pub introspect: Option<Span>,
    /// The introspection endpoint, instead of the one that the issuer's metadata names.
    pub introspection_endpoint: Option<String>,
    /// A PEM file with an authority for the provider's certificate, beside those of the machine.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy for token requests.
    pub http_proxy: Option<String>,
    /// Allow a provider that is not loopback without TLS.
    #[serde(default)]
    pub unsafe_plaintext: bool,
    /// For servers that are behind the standards.
    #[serde(default)]
    pub compat: CompatConfig,
}

impl OAuthConfig {
    /// How the provider is reached, with this certificate of the client.
    pub(super) fn http(&self, identity: Option<Arc<CertifiedKey>>) -> HttpConfig {
        HttpConfig {
            ca_file: self.ca_file.clone(),
            proxy: self.http_proxy.clone(),
            identity,
            ..HttpConfig::default()
        }
    }

    /// Whether the proxy on the way, if there is one, reads what is secret.
    pub(super) fn check_proxy(&self) -> Result<(), Invalid> {
        let provider = [&self.issuer, &self.token_endpoint, &self.introspection_endpoint];
        let proxy = self.http_proxy.as_deref().filter(|_| !self.unsafe_plaintext);
        check_proxied(proxy, &provider.map(|url| url.as_deref()))
    }
}

/// A section `[credentials.NAME.compat]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct CompatConfig {
    /// Whom assertions name as their audience.
    pub audience: AssertionAudience,
}
