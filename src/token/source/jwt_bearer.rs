//! A signed assertion as the grant (RFC 7523 §2.1): from a file that something else writes, or signed here.

use std::collections::BTreeMap;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::Fetched;
use crate::{
    invalid::Invalid,
    secret::SecretRef,
    token::{
        assertion::{Addressed, AssertionKey},
        client_auth::kept,
        clock::Clock,
        error::FetchError,
        grant::Grant,
        kept_secret::KeptSecret,
        oauth::OAuthConfig,
        signer::SigningAlg,
    },
};

/// The keys of a credential of type `jwt_bearer`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JwtBearerConfig {
    /// What the provider knows this service by, if it knows it by more than the assertion.
    pub client_id: Option<String>,
    /// The file with the assertion; this or `assertion_key` is required.
    pub assertion: Option<SecretRef>,
    /// A private key in PEM or as a JWK that signs a new assertion for each token request.
    pub assertion_key: Option<SecretRef>,
    /// The `kid` of that key.
    pub assertion_key_id: Option<String>,
    /// How it signs, where the key leaves a choice.
    pub assertion_alg: Option<SigningAlg>,
    /// The `iss` of the assertion; required with `assertion_key`.
    pub assertion_issuer: Option<String>,
    /// The `sub` of the assertion; left out, it is `assertion_issuer`.
    pub assertion_subject: Option<String>,
    /// The `aud` of the assertion; left out, it is `issuer`.
    pub assertion_audience: Option<String>,
    /// Further claims of the assertion.
    #[serde(default)]
    pub assertion_claims: BTreeMap<String, String>,
    /// The keys of every token endpoint.
    #[serde(flatten)]
    pub oauth: OAuthConfig,
}

/// RFC 7523 §2.1.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Claims that attaché sets itself.
const RESERVED: [&str; 6] = ["iss", "sub", "aud", "jti", "iat", "exp"];

/// An assertion grant that is ready to be asked for.
pub(in crate::token) struct JwtBearer {
    grant: Grant,
    assertion: Assertion,
}

enum Assertion {
    Written(KeptSecret),
    Signed(Box<Signed>),
}

struct Signed {
    key: AssertionKey,
    issuer: String,
    subject: String,
    audience: String,
    claims: BTreeMap<String, String>,
}

impl JwtBearer {
    /// Checks the section; the assertion or the key must be there now.
    pub(in crate::token) fn build(config: &JwtBearerConfig, clock: Clock) -> Result<Self, Invalid> {
        let assertion = match (&config.assertion, &config.assertion_key) {
            (Some(file), None) => Assertion::Written(kept("assertion", Some(file))?),
            (None, Some(key)) => Assertion::Signed(Box::new(signed(config, key)?)),
            (Some(_), Some(_)) => {
                return Err(Invalid::new("assertion_key", "is given, and `assertion` too")
                    .hint("an assertion either stands in a file or is signed with a key"));
            }
            (None, None) => {
                return Err(Invalid::new("assertion", "is missing, and `assertion_key` too")
                    .hint("name the file with the `assertion`, or the `assertion_key` to sign one with"));
            }
        };
        let grant = Grant::build(&config.oauth, config.client_id.as_deref(), GRANT, clock)?;
        Ok(Self { grant, assertion })
    }

    /// Asks for a token once.
    pub(in crate::token) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let assertion = match &self.assertion {
            Assertion::Written(file) => Zeroizing::new(file.value().expose().to_owned()),
            Assertion::Signed(signed) => {
                let addressed = Addressed { audience: &signed.audience, now: self.grant.signing_time() };
                signed.key.sign(&signed.issuer, &signed.subject, &addressed, &signed.claims)?
            }
        };
        self.grant.fetch(&[("assertion", &assertion)]).await
    }

    /// The grant that it asks for.
    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether something has been replaced.
    pub(in crate::token) fn look(&mut self) -> bool {
        let assertion = match &mut self.assertion {
            Assertion::Written(file) => file.look(),
            Assertion::Signed(signed) => signed.key.look(),
        };
        assertion | self.grant.look()
    }
}

fn signed(config: &JwtBearerConfig, key: &SecretRef) -> Result<Signed, Invalid> {
    let needed = |key: &'static str, hint: &str| Invalid::new(key, "is missing").hint(hint);
    if let Some(name) = config.assertion_claims.keys().find(|name| RESERVED.contains(&name.as_str())) {
        let key = format!("assertion_claims.{name}");
        return Err(Invalid::new(key, "is a claim that attaché sets itself"));
    }
    let issuer = config.assertion_issuer.clone().ok_or_else(|| {
        needed("assertion_issuer", "name whom the assertion comes from, such as the service account")
    })?;
    let audience =
        config.assertion_audience.as_ref().or(config.oauth.issuer.as_ref()).cloned().ok_or_else(|| {
            needed(
                "assertion_audience",
                "name whom the assertion is for, often the URL of the token endpoint",
            )
        })?;
    let kept = kept("assertion_key", Some(key))?;
    let key = AssertionKey::private(
        "assertion_key",
        kept,
        None,
        config.assertion_alg,
        config.assertion_key_id.clone(),
    )?;
    let subject = config.assertion_subject.clone().unwrap_or_else(|| issuer.clone());
    Ok(Signed { key, issuer, subject, audience, claims: config.assertion_claims.clone() })
}
