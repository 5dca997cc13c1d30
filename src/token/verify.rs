//! A token that is verified before it is used (`verify = true`): the signature by the issuer's keys, `iss`, `aud`, `exp`.
//!
//! 1. The header says which key and which algorithm; only those of a list are believed, and never one that needs no key
//!    or a shared one.
//! 2. The key comes from the issuer's own set, and says itself what it is for.
//! 3. The claims are compared with what was asked for, by the provider's clock where it is known.
//!
//! A token that fails is as good as none: the one before stays in use.

use std::time::SystemTime;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use super::{
    access_token::AccessToken, client_certificate::ClientCertificate, clock::Clock, endpoint::Endpoint,
    error::FetchError, http::Http, jwks::Keys, metadata::Wanted, oauth::OAuthConfig,
};
use crate::invalid::Invalid;

/// RFC 8725 §3.1: what is believed is on a list.
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// How far a token may begin to hold in the future, in seconds: clocks differ.
const LEEWAY: f64 = 60.0;

/// Verifies the tokens of one credential.
pub(super) struct Verifier {
    http: Http,
    /// By which the provider knows us, where it may demand to on the way to its keys, too.
    certificate: Option<ClientCertificate>,
    clock: Clock,
    keys: Keys,
    issuer: String,
    audiences: Vec<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    // RFC 7515 §4.1.11: what must be understood, and is not.
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Verifier {
    /// Nothing, when tokens are not to be verified.
    pub(super) fn build(config: &OAuthConfig, clock: Clock) -> Result<Option<Self>, Invalid> {
        if !config.verify {
            return match config.verify_audience {
                Some(_) => Err(Invalid::new("verify_audience", "is given, but tokens are not verified")
                    .hint("set `verify = true`, or remove it")),
                None => Ok(None),
            };
        }
        let Some(issuer) = config.issuer.clone() else {
            return Err(Invalid::new("verify", "needs `issuer`: its metadata names the keys")
                .hint("add `issuer`, beside `token_endpoint` if you like"));
        };
        let own = config.verify_audience.as_ref().or(config.audience.as_ref());
        let audiences = own.map_or_else(|| config.resource.clone(), |own| vec![own.clone()]);
        if audiences.is_empty() {
            return Err(Invalid::new("verify", "needs to know whom a token must be for")
                .hint("add `verify_audience` with the `aud` that the upstream wants"));
        }
        let endpoint = Endpoint::find_at(&issuer, Wanted::Keys, config.unsafe_plaintext, false)?;
        let certificate = ClientCertificate::of(config)?;
        let identity = certificate.as_ref().map(ClientCertificate::identity);
        let http = Http::new(config.http(identity), clock.clone())?;
        Ok(Some(Self { http, certificate, clock, keys: Keys::new(endpoint), issuer, audiences }))
    }

    /// Looks whether the client's certificate has been replaced. Blocking: reads files.
    pub(super) fn look(&mut self) {
        if let Some(certificate) = &mut self.certificate
            && certificate.look()
        {
            self.http.present(certificate.identity());
        }
    }

    /// Verifies a token; `skew` is by how many seconds the provider's clock is ahead of ours.
    pub(super) async fn verify(&mut self, token: &AccessToken, skew: Option<f64>) -> Result<(), FetchError> {
        let token = token.expose();
        let header = header(token)?;
        if header.crit.is_some() {
            return Err(FetchError::Unverified("it has a critical header that attaché does not know"));
        }
        let alg = ALGORITHMS.iter().find(|(name, _)| *name == header.alg);
        let (_, alg) = *alg.ok_or(FetchError::Unverified("it is not signed in a way that is believed"))?;
        let claims = self.signed(token, alg, header.kid.as_deref()).await?;
        let now = self.clock.now().wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.compare(&claims, now.as_secs_f64() + skew.unwrap_or_default())
    }

    /// The claims, once a key of the issuer has been found that signed them.
    async fn signed(
        &mut self,
        token: &str,
        alg: Algorithm,
        key_id: Option<&str>,
    ) -> Result<Claims, FetchError> {
        let mut known = false;
        for renew in [false, true] {
            let keys = self.keys.candidates(alg, key_id, renew, &mut self.http).await?;
            known |= !keys.is_empty();
            if let Some(claims) = keys.iter().find_map(|key| signed_by(token, alg, key)) {
                return serde_json::from_value(claims)
                    .map_err(|_| FetchError::Unverified("it lacks `iss`, `aud` or `exp`"));
            }
        }
        Err(FetchError::Unverified(match known {
            true => "its signature is not the issuer's",
            false => "the issuer's key set has no key that could have signed it",
        }))
    }

    fn compare(&self, claims: &Claims, now: f64) -> Result<(), FetchError> {
        let audiences = match &claims.aud {
            Audience::One(audience) => std::slice::from_ref(audience),
            Audience::Several(audiences) => audiences,
        };
        let wrong = match () {
            () if claims.iss != self.issuer => "its `iss` is another issuer",
            () if !audiences.iter().any(|audience| self.audiences.contains(audience)) => {
                "its `aud` is not whom it was asked for"
            }
            // RFC 7519 §4.1.4: on or after its `exp` it must not be accepted. What is no number never is later.
            () if claims.exp.is_nan() || claims.exp <= now => "its `exp` has passed",
            () if claims.nbf.is_some_and(|begin| begin > now + LEEWAY) => "its `nbf` has not come",
            () => return Ok(()),
        };
        Err(FetchError::Unverified(wrong))
    }
}

fn header(token: &str) -> Result<Header, FetchError> {
    let read = || {
        let mut parts = token.split('.');
        let (header, _, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header).ok()?).ok()
    };
    read().ok_or(FetchError::Unverified("it is not a signed JWT"))
}

/// The claims, if this key signed them; what they say is compared elsewhere, by our own clocks.
fn signed_by(token: &str, alg: Algorithm, key: &DecodingKey) -> Option<Value> {
    let mut validation = Validation::new(alg);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    jsonwebtoken::decode(token, key, &validation).ok().map(|token| token.claims)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_token_panics(token in "[!-~]{0,60}", parts in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}") {
            for token in [token, parts] {
                let _ = header(&token).map(|_| ());
                let key = DecodingKey::from_ed_der(&[7; 32]);
                prop_assert!(signed_by(&token, Algorithm::EdDSA, &key).is_none());
            }
        }
    }
}
