//! How the OAuth client authenticates at the token endpoint: exactly one way a request (RFC 6749 §2.3).

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use form_urlencoded::Serializer;
use reqwest::header::HeaderValue;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    assertion::{Addressed, AssertionKey},
    client_certificate::{ClientCertificate, kept_certificate},
    error::FetchError,
    kept_secret::KeptSecret,
    oauth::OAuthConfig,
};
use crate::{invalid::Invalid, secret::SecretRef, tls::Validity};

/// How the OAuth client authenticates at the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMethod {
    /// HTTP Basic with id and secret form-urlencoded (RFC 6749 §2.3.1).
    #[default]
    ClientSecretBasic,
    /// HTTP Basic with id and secret as they are, for servers that do not decode them.
    ClientSecretBasicRaw,
    /// `client_id` and `client_secret` in the body (RFC 6749 §2.3.1).
    ClientSecretPost,
    /// An assertion signed with the client's secret (OpenID Connect Core 1.0 §9).
    ClientSecretJwt,
    /// An assertion signed with the client's private key (RFC 7523 §2.2).
    PrivateKeyJwt,
    /// A certificate that an authority has issued (RFC 8705 §2.1).
    TlsClientAuth,
    /// A certificate that the provider knows by itself (RFC 8705 §2.2).
    SelfSignedTlsClientAuth,
    /// An assertion that something else signs and keeps in a file, as workload identity federation does.
    ClientAssertion,
    /// A public client: `client_id` in the body, no secret.
    None,
}

impl ClientAuthMethod {
    /// Whether the client shows a certificate during TLS.
    pub fn is_mutual_tls(self) -> bool {
        matches!(self, Self::TlsClientAuth | Self::SelfSignedTlsClientAuth)
    }

    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretBasicRaw => "client_secret_basic_raw",
            Self::ClientSecretPost => "client_secret_post",
            Self::ClientSecretJwt => "client_secret_jwt",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
            Self::ClientAssertion => "client_assertion",
            Self::None => "none",
        }
    }

    /// As a provider's metadata writes it (the registry of RFC 8414 §7.1.2).
    pub(super) fn registered(self) -> &'static str {
        match self {
            Self::ClientSecretBasicRaw => "client_secret_basic",
            // Whoever signs it, the provider sees a signed assertion.
            Self::ClientAssertion => "private_key_jwt",
            method => method.name(),
        }
    }
}

/// RFC 7523 §2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An authentication method with what it needs.
#[derive(Debug)]
pub(super) enum ClientAuth {
    Basic { secret: KeptSecret, raw: bool },
    Post { secret: KeptSecret },
    Signed { key: Box<AssertionKey> },
    Tls { certificate: Box<ClientCertificate> },
    Assertion { file: KeptSecret },
    None,
}

impl ClientAuth {
    /// Checks that the method has what it needs, and nothing that it would ignore.
    pub(super) fn build(config: &OAuthConfig, client_id: Option<&str>) -> Result<Self, Invalid> {
        use ClientAuthMethod as Method;
        let method = config.client_auth;
        let secret = matches!(
            method,
            Method::ClientSecretBasic
                | Method::ClientSecretBasicRaw
                | Method::ClientSecretPost
                | Method::ClientSecretJwt
        );
        let (mutual, private) = (method.is_mutual_tls(), method == Method::PrivateKeyJwt);
        let signed = matches!(method, Method::PrivateKeyJwt | Method::ClientSecretJwt);
        for (key, given, used) in [
            ("client_secret", config.client_secret.is_some(), secret),
            ("private_key", config.private_key.is_some(), private),
            ("key_id", config.key_id.is_some(), signed),
            ("signing_alg", config.signing_alg.is_some(), signed),
            ("client_assertion", config.client_assertion.is_some(), method == Method::ClientAssertion),
            ("client_certificate", config.client_certificate.is_some(), mutual || private),
            ("client_private_key", config.client_private_key.is_some(), mutual),
        ] {
            if given && !used {
                return Err(Invalid::new(key, "is given, but `client_auth` does not use it")
                    .hint("remove it, or choose the `client_auth` that needs it"));
            }
        }
        if method != Method::None && client_id.is_none() {
            return Err(Invalid::new("client_id", "is missing, and `client_auth` needs it")
                .hint("add `client_id`, or set `client_auth = \"none\"`"));
        }
        Ok(match method {
            Method::ClientSecretBasic => {
                Self::Basic { secret: kept("client_secret", config.client_secret.as_ref())?, raw: false }
            }
            Method::ClientSecretBasicRaw => {
                if client_id.is_some_and(|id| id.contains(':')) {
                    return Err(Invalid::new(
                        "client_id",
                        "holds a `:`, which Basic without encoding cannot carry",
                    )
                    .hint("use `client_secret_basic` or `client_secret_post`"));
                }
                Self::Basic { secret: kept("client_secret", config.client_secret.as_ref())?, raw: true }
            }
            Method::ClientSecretPost => {
                Self::Post { secret: kept("client_secret", config.client_secret.as_ref())? }
            }
            Method::ClientSecretJwt => {
                let secret = kept("client_secret", config.client_secret.as_ref())?;
                Self::Signed {
                    key: Box::new(AssertionKey::shared(secret, config.signing_alg, config.key_id.clone())?),
                }
            }
            Method::PrivateKeyJwt => {
                let key = kept("private_key", config.private_key.as_ref())?;
                let path = config.client_certificate.as_deref();
                let certificate = path.map(|path| kept_certificate(Some(path))).transpose()?;
                Self::Signed {
                    key: Box::new(AssertionKey::private(
                        "private_key",
                        key,
                        certificate,
                        config.signing_alg,
                        config.key_id.clone(),
                    )?),
                }
            }
            Method::TlsClientAuth | Method::SelfSignedTlsClientAuth => Self::Tls {
                certificate: Box::new(ClientCertificate::build(
                    config.client_certificate.as_deref(),
                    config.client_private_key.as_ref(),
                )?),
            },
            Method::ClientAssertion => {
                Self::Assertion { file: kept("client_assertion", config.client_assertion.as_ref())? }
            }
            Method::None => Self::None,
        })
    }

    /// Adds what goes into the body; returns what goes into `Authorization`. Signs a new assertion each time.
    pub(super) fn apply(
        &self,
        client_id: Option<&str>,
        addressed: &Addressed<'_>,
        form: &mut Serializer<'_, String>,
    ) -> Result<Option<HeaderValue>, FetchError> {
        let id = client_id.unwrap_or_default();
        if let Self::Basic { secret, raw } = self {
            return Ok(Some(basic(id, secret.value().expose(), *raw)));
        }
        if client_id.is_some() {
            form.append_pair("client_id", id);
        }
        let mut assertion = |jwt: &str| {
            form.append_pair("client_assertion_type", JWT_BEARER).append_pair("client_assertion", jwt);
        };
        match self {
            Self::Post { secret } => drop(form.append_pair("client_secret", secret.value().expose())),
            Self::Signed { key } => assertion(&key.sign(id, id, addressed, &BTreeMap::new())?),
            Self::Assertion { file } => assertion(file.value().expose()),
            // RFC 8705 §2: the `client_id` in the body, the rest during TLS.
            Self::Basic { .. } | Self::Tls { .. } | Self::None => {}
        }
        Ok(None)
    }

    /// Whether it signs assertions.
    pub(super) fn signs(&self) -> bool {
        matches!(self, Self::Signed { .. })
    }

    /// What is shown during TLS.
    pub(super) fn identity(&self) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::Tls { certificate } => Some(certificate.identity()),
            _ => None,
        }
    }

    /// From when until when the client's certificate is valid, where there is one.
    pub(super) fn certificate(&self) -> Option<Validity> {
        match self {
            Self::Tls { certificate } => certificate.validity(),
            Self::Signed { key } => key.validity(),
            Self::Basic { .. } | Self::Post { .. } | Self::Assertion { .. } | Self::None => None,
        }
    }

    /// Whether a secret has been replaced.
    pub(super) fn look(&mut self) -> bool {
        match self {
            Self::Basic { secret, .. } | Self::Post { secret } => secret.look(),
            Self::Signed { key } => key.look(),
            Self::Tls { certificate } => certificate.look(),
            Self::Assertion { file } => file.look(),
            Self::None => false,
        }
    }
}

/// The secret under this key, which must be there.
pub(super) fn kept(key: &'static str, reference: Option<&SecretRef>) -> Result<KeptSecret, Invalid> {
    let reference = reference.ok_or_else(|| {
        Invalid::new(key, "is missing")
            .hint(format!("write `{key} = {{ file = \"/run/secrets/name\" }}` or `{{ env = \"NAME\" }}`"))
    })?;
    KeptSecret::build(reference).map_err(|invalid| invalid.under(key))
}

/// RFC 6749 §2.3.1: id and secret are form-urlencoded before they are joined; `raw` is for servers that do not decode.
fn basic(id: &str, secret: &str, raw: bool) -> HeaderValue {
    let encode = |text: &str| {
        let encoded = form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        Zeroizing::new(if raw { text.to_owned() } else { encoded })
    };
    let pair = Zeroizing::new(format!("{}:{}", *encode(id), *encode(secret)));
    let value = format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes()));
    let mut value = HeaderValue::try_from(value).expect("Base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_and_secret_are_encoded_before_basic() {
        let decode = |value: HeaderValue| {
            let text = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
            String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
        };
        let (id, secret) = ("a b+%:&", "=?\"~/é");
        assert_eq!(decode(basic(id, secret, false)), "a+b%2B%25%3A%26:%3D%3F%22%7E%2F%C3%A9");
        assert_eq!(decode(basic("id", secret, true)), "id:=?\"~/é");
        assert!(basic(id, secret, false).is_sensitive());
    }
}
