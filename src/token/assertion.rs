//! Assertions that attaché signs (RFC 7523 §3): for one provider, for a minute, each used once.

use std::{collections::BTreeMap, time::SystemTime};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    error::FetchError,
    kept_secret::KeptSecret,
    signer::{Signer, SigningAlg},
};
use crate::{invalid::Invalid, tls::Validity};

/// How long an assertion lives, in seconds.
const LIFE: u64 = 60;

/// Whom assertions name as their audience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AssertionAudience {
    /// The issuer, as one string.
    #[default]
    Issuer,
    /// The URL of the token endpoint, for servers that know nothing better.
    TokenEndpoint,
}

/// To whom an assertion is addressed, and when.
pub(super) struct Addressed<'a> {
    pub(super) audience: &'a str,
    pub(super) now: SystemTime,
}

/// A key that may be replaced at any time: the last good one stays in use until there is a better one.
#[derive(Debug)]
pub(super) struct AssertionKey {
    secret: KeptSecret,
    // Public, but replaced like a secret, and together with it.
    certificate: Option<KeptSecret>,
    signer: Signer,
    alg: Option<SigningAlg>,
    key_id: Option<String>,
    parse: Parse,
}

/// Reads the secret and the certificate.
type Parse = fn(&str, Option<SigningAlg>, Option<&str>) -> Result<Signer, &'static str>;

impl AssertionKey {
    /// A private key in PEM or as a JWK, with the certificate whose thumbprint its assertions carry, if there is one.
    pub(super) fn private(
        key: &'static str,
        secret: KeptSecret,
        certificate: Option<KeptSecret>,
        alg: Option<SigningAlg>,
        key_id: Option<String>,
    ) -> Result<Self, Invalid> {
        Self::build(secret, certificate, alg, key_id, Signer::from_key).map_err(|why| {
            Invalid::new(key, format!("cannot be used: {why}"))
                .hint("`openssl pkey -in key.pem -noout` says whether it is a private key")
        })
    }

    /// The client's secret.
    pub(super) fn shared(
        secret: KeptSecret,
        alg: Option<SigningAlg>,
        key_id: Option<String>,
    ) -> Result<Self, Invalid> {
        Self::build(secret, None, alg, key_id, |secret, alg, _| Signer::from_secret(secret, alg))
            .map_err(|why| Invalid::new("signing_alg", why).hint("use HS256, HS384 or HS512"))
    }

    fn build(
        secret: KeptSecret,
        certificate: Option<KeptSecret>,
        alg: Option<SigningAlg>,
        key_id: Option<String>,
        parse: Parse,
    ) -> Result<Self, &'static str> {
        let pem = certificate.as_ref().map(|certificate| certificate.value().expose());
        let signer = parse(secret.value().expose(), alg, pem)?;
        Ok(Self { secret, certificate, signer, alg, key_id, parse })
    }

    /// A new assertion.
    pub(super) fn sign(
        &self,
        issuer: &str,
        subject: &str,
        addressed: &Addressed<'_>,
        further: &BTreeMap<String, String>,
    ) -> Result<Zeroizing<String>, FetchError> {
        let now = addressed.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| FetchError::Signing)?;
        let mut claims = json!({
            "iss": issuer,
            "sub": subject,
            "aud": addressed.audience,
            "jti": BASE64_URL_SAFE_NO_PAD.encode(id),
            "iat": now,
            "exp": now + LIFE,
        });
        for (name, value) in further {
            claims[name] = value.as_str().into();
        }
        self.sign_claims(&claims)
    }

    /// These claims and no others, for who wants it otherwise than RFC 7523.
    pub(super) fn sign_claims(&self, claims: &serde_json::Value) -> Result<Zeroizing<String>, FetchError> {
        let jwt = self.signer.sign(self.key_id.as_deref(), claims).ok_or(FetchError::Signing)?;
        Ok(Zeroizing::new(jwt))
    }

    /// From when until when the key's certificate is valid, where there is one.
    pub(super) fn validity(&self) -> Option<Validity> {
        Validity::of_pem(self.certificate.as_ref()?.value().expose().as_bytes())
    }

    /// Whether there is a new good key.
    pub(super) fn look(&mut self) -> bool {
        let changed = self.certificate.as_mut().is_some_and(KeptSecret::look);
        if !(self.secret.look() | changed) {
            return false;
        }
        let pem = self.certificate.as_ref().map(|certificate| certificate.value().expose());
        match (self.parse)(self.secret.value().expose(), self.alg, pem) {
            Ok(signer) => {
                self.signer = signer;
                true
            }
            Err(why) => {
                tracing::warn!(why, "a new signing key cannot be used; the last good one stays in use");
                false
            }
        }
    }
}
