//! How far a token request came, by its outcome.

use super::*;
use crate::token::{access_token::AccessToken, answer::Issued, error::ErrorCode, metadata::Metadata};

fn oauth(more: &str) -> OAuthConfig {
    serde_json::from_str(&format!("{{\"issuer\":\"https://a\"{more}}}")).unwrap()
}

fn listed(names: &str) -> Option<Vec<ClientAuthMethod>> {
    let text = format!("{{\"issuer\":\"https://a\",\"token_endpoint_auth_methods_supported\":{names}}}");
    Metadata::read(text.as_bytes(), "https://a").unwrap().methods()
}

fn refusal(error: &FetchError, names: &str) -> (&'static str, Trouble) {
    let mut walk = Walk::default();
    walk.refused(&oauth(""), error, listed(names).as_deref());
    let (step, trouble) = walk.failed().unwrap();
    (step, trouble.clone())
}

fn code(code: &str) -> FetchError {
    FetchError::OAuth { code: ErrorCode::new(code).unwrap(), status: 400, retry_after: None }
}

#[test]
fn the_failing_step_is_the_one_that_the_provider_complains_of() {
    for (error, step) in [
        (code("invalid_client"), "client authentication"),
        (FetchError::Status { status: 401, retry_after: None }, "client authentication"),
        (FetchError::Status { status: 403, retry_after: None }, "client authentication"),
        (FetchError::Status { status: 500, retry_after: None }, "grant"),
        (FetchError::CertificateRefused, "client authentication"),
        (FetchError::Signing, "client authentication"),
        (code("unauthorized_client"), "grant"),
        (code("invalid_grant"), "grant"),
        (code("unsupported_grant_type"), "grant"),
        (FetchError::Malformed("x"), "grant"),
        (code("invalid_scope"), "granted scope"),
        (code("invalid_target"), "granted scope"),
    ] {
        assert_eq!(refusal(&error, "[]").0, step, "{error}");
    }
}

#[test]
fn a_refused_client_is_told_which_methods_the_provider_lists() {
    let (_, trouble) = refusal(&code("invalid_client"), "[\"private_key_jwt\"]");
    assert_eq!(
        trouble.message,
        "invalid_client with client_secret_basic; the provider's metadata lists only private_key_jwt"
    );
    assert!(trouble.hint.contains("client_auth"));
    let (_, trouble) = refusal(&code("invalid_client"), "[\"client_secret_basic\"]");
    assert_eq!(trouble.message, "invalid_client with client_secret_basic");
}

#[test]
fn a_scope_that_was_not_granted_is_named_and_nothing_of_the_provider_is() {
    let mut walk = Walk::default();
    let scope = ["orders.read", "hunter2"].map(str::to_owned).into();
    let issued = Issued {
        token: AccessToken::new("t").unwrap(),
        lifetime: Lifetime::Unknown,
        scope: Some(scope),
        refresh: None,
    };
    let fetched = Fetched { issued, narrowed: true, skew: None };
    walk.granted(&oauth(",\"scope\":\"orders.read orders.write\""), fetched, None);
    let (step, trouble) = walk.failed().unwrap();
    assert_eq!(step, "granted scope");
    assert_eq!(trouble.message, "the provider did not grant `orders.write`");
}
