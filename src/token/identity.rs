//! Who a token speaks for, and who says so: for `attache whoami`.
//!
//! 1. The userinfo endpoint (OpenID Connect Core 1.0 §5.3), when the scope holds `openid`.
//! 2. Else the introspection endpoint (RFC 7662), when there is one.
//! 3. Else the token's own claims, when it is a JWT. Nobody has vouched for them, unless `verify` is on.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::header::{ACCEPT, AUTHORIZATION};
use serde_json::{Map, Value};

use super::{
    access_token::{AccessToken, Format},
    client_certificate::ClientCertificate,
    clock::Clock,
    config::CredentialConfig,
    endpoint::Endpoint,
    error::FetchError,
    http::{Answer, Http},
    introspection::Introspection,
    metadata::Wanted,
    oauth::OAuthConfig,
};
use crate::invalid::Invalid;

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The provider's userinfo endpoint.
    Userinfo,
    /// The provider's introspection endpoint.
    Introspection,
    /// The token itself, whose signature has been verified.
    VerifiedClaims,
    /// The token itself. Anyone may have written it.
    UnverifiedClaims,
}

impl Authority {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Userinfo => "the provider's userinfo endpoint",
            Self::Introspection => "the provider's introspection endpoint",
            Self::VerifiedClaims => "the token's own claims",
            Self::UnverifiedClaims => "the token's own claims, not verified",
        }
    }

    /// Whether somebody other than the token itself vouches for it.
    pub fn is_verified(self) -> bool {
        self != Self::UnverifiedClaims
    }
}

/// Who a token speaks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Who says it.
    pub authority: Authority,
    /// What is said. It never holds the token.
    pub claims: Map<String, Value>,
}

/// Finds out who a token of this credential speaks for; nothing, when nobody can say. Beside it, which ways failed.
pub async fn identify(
    config: &CredentialConfig,
    token: &AccessToken,
    clock: Clock,
) -> Result<(Option<Identity>, Vec<(Authority, FetchError)>), Invalid> {
    let mut failed = Vec::new();
    let found = |authority, mut claims: Map<String, Value>| {
        claims.values_mut().for_each(|value| hide(value, token.expose()));
        Some(Identity { authority, claims })
    };
    let mut own = Authority::UnverifiedClaims;
    if let Some((oauth, client_id)) = config.source.oauth() {
        if oauth.verify {
            own = Authority::VerifiedClaims;
        }
        if let (Some(issuer), true) = (&oauth.issuer, asks_for_openid(oauth)) {
            match userinfo(oauth, issuer, token, clock.clone()).await? {
                Ok(claims) => return Ok((found(Authority::Userinfo, claims), failed)),
                Err(error) => failed.push((Authority::Userinfo, error)),
            }
        }
        if oauth.issuer.is_some() || oauth.introspection_endpoint.is_some() {
            let mut introspection = Introspection::build(oauth, client_id, clock)?;
            match introspection.ask(token).await {
                Ok(claims) => return Ok((found(Authority::Introspection, claims), failed)),
                Err(error) => failed.push((Authority::Introspection, error)),
            }
        }
    }
    Ok((claims(token).and_then(|claims| found(own, claims)), failed))
}

fn asks_for_openid(oauth: &OAuthConfig) -> bool {
    let scope = oauth.scope.as_deref().unwrap_or_default();
    scope.split_ascii_whitespace().any(|scope| scope == "openid")
}

async fn userinfo(
    oauth: &OAuthConfig,
    issuer: &str,
    token: &AccessToken,
    clock: Clock,
) -> Result<Result<Map<String, Value>, FetchError>, Invalid> {
    let certificate = ClientCertificate::of(oauth)?;
    let identity = certificate.as_ref().map(ClientCertificate::identity);
    let mut http = Http::new(oauth.http(identity), clock)?;
    // RFC 8705 §5: also this endpoint may be another one for who shows a certificate, to which the token is bound.
    let mutual_tls = certificate.is_some();
    let mut endpoint = Endpoint::find_at(issuer, Wanted::Userinfo, oauth.unsafe_plaintext, mutual_tls)?;
    let ask = async {
        let url = endpoint.find(&mut http).await?;
        let header = Format::default().render(token);
        let request = |client: &reqwest::Client| {
            client.get(url).header(AUTHORIZATION, header).header(ACCEPT, "application/json")
        };
        match http.send(request).await? {
            // Some providers sign it (OpenID Connect Core 1.0 §5.3.2); it came over TLS from them, which is enough.
            Answer { status: 200, body, .. } => serde_json::from_slice(&body)
                .ok()
                .or_else(|| payload(std::str::from_utf8(&body).ok()?))
                .ok_or(FetchError::Introspection("userinfo is neither JSON nor a JWT")),
            Answer { status, retry_after, .. } => Err(FetchError::Status { status, retry_after }),
        }
    };
    Ok(ask.await)
}

fn claims(token: &AccessToken) -> Option<Map<String, Value>> {
    payload(token.expose())
}

fn payload(jwt: &str) -> Option<Map<String, Value>> {
    let mut parts = jwt.trim().split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// An answer that gives the token back must not show it.
fn hide(value: &mut Value, token: &str) {
    match value {
        Value::String(text) if text.contains(token) => *text = "****".to_owned(),
        Value::Array(values) => values.iter_mut().for_each(|value| hide(value, token)),
        Value::Object(members) => members.values_mut().for_each(|value| hide(value, token)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_an_answer_is_hidden_at_any_depth() {
        let mut value = serde_json::json!({ "a": ["x", { "b": "Bearer hunter2" }], "c": 7 });
        hide(&mut value, "hunter2");
        assert_eq!(value, serde_json::json!({ "a": ["x", { "b": "****" }], "c": 7 }));
    }
}
