//! What a token endpoint answers (RFC 6749 §5), read from bytes that anyone may have written.

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{
    access_token::AccessToken,
    error::{ErrorCode, FetchError},
};
use crate::secret::Secret;

/// No lifetime is believed to be longer; a token that lives for years is refreshed once in a while all the same.
pub const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86400);

/// A token as it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The token.
    pub token: AccessToken,
    /// What the answer says about its lifetime.
    pub lifetime: Lifetime,
    /// What was granted, when the answer tells (RFC 6749 §5.1: it may stay silent when it is what was asked for).
    pub scope: Option<BTreeSet<String>>,
    /// The refresh token that came with it.
    pub refresh: Option<IssuedRefresh>,
}

/// A refresh token as it was issued (RFC 6749 §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedRefresh {
    /// The token. It goes into a form, so that it may hold anything but nothing.
    pub token: Secret,
    /// How long it lives, as some providers tell.
    pub lifetime: Option<Duration>,
}

/// What an answer says about a token's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// So long.
    Known(Duration),
    /// Nothing, or nothing that makes sense.
    Unknown,
}

#[derive(Deserialize)]
struct Success<'a> {
    #[serde(borrow)]
    access_token: Option<&'a RawValue>,
    #[serde(borrow)]
    token_type: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_in: Option<&'a RawValue>,
    #[serde(borrow)]
    scope: Option<&'a RawValue>,
    #[serde(borrow)]
    refresh_token: Option<&'a RawValue>,
    // No standard has the name: Keycloak and others say the first, GitHub, Microsoft and others the second.
    #[serde(borrow)]
    refresh_expires_in: Option<&'a RawValue>,
    #[serde(borrow)]
    refresh_token_expires_in: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    error: Option<String>,
    #[serde(borrow)]
    access_token: Option<&'a RawValue>,
}

/// Reads a 2xx answer.
pub fn success(body: &[u8]) -> Result<Issued, FetchError> {
    let answer: Success<'_> =
        serde_json::from_slice(body).map_err(|_| FetchError::Malformed("it is not a JSON object"))?;
    let token = text(answer.access_token).ok_or(FetchError::Malformed("`access_token` is missing"))?;
    let token = AccessToken::new(token.as_str())
        .map_err(|_| FetchError::Malformed("`access_token` does not fit into a header"))?;
    // RFC 6749 §5.1 requires `token_type`; it has no case. Providers that leave it out mean Bearer.
    if let Some(kind) = answer.token_type {
        let kind = text(Some(kind)).ok_or(FetchError::Malformed("`token_type` is not text"))?;
        if !kind.eq_ignore_ascii_case("bearer") {
            return Err(FetchError::Malformed("`token_type` is not Bearer"));
        }
    }
    let refresh = issued_refresh(&answer);
    let scope = text(answer.scope).map(|scope| scope.split_ascii_whitespace().map(str::to_owned).collect());
    Ok(Issued { token, lifetime: lifetime(answer.expires_in), scope, refresh })
}

/// The refresh token of a 2xx answer, also when its access token is of no use: the one before it may be spent.
pub fn refresh_besides(body: &[u8]) -> Option<IssuedRefresh> {
    issued_refresh(&serde_json::from_slice(body).ok()?)
}

fn issued_refresh(answer: &Success<'_>) -> Option<IssuedRefresh> {
    let token = text(answer.refresh_token).filter(|token| !token.is_empty())?;
    let lifetime = match lifetime(answer.refresh_token_expires_in.or(answer.refresh_expires_in)) {
        // Keycloak's 0 means: no end of its own.
        Lifetime::Known(lifetime) => Some(lifetime).filter(|lifetime| !lifetime.is_zero()),
        Lifetime::Unknown => None,
    };
    Some(IssuedRefresh { token: Secret::new(token.as_str()), lifetime })
}

/// The OAuth error code of any other answer.
pub fn error_code(body: &[u8]) -> Option<ErrorCode> {
    let failure: Failure<'_> = serde_json::from_slice(body).ok()?;
    ErrorCode::new(&failure.error?)
}

/// The OAuth error code of a 2xx answer without a token: RFC 6749 §5.2 wants 400, GitHub and others say 200.
pub fn refused(body: &[u8]) -> Option<ErrorCode> {
    let failure: Failure<'_> = serde_json::from_slice(body).ok()?;
    failure.access_token.is_none().then_some(ErrorCode::new(&failure.error?)?)
}

fn text(value: Option<&RawValue>) -> Option<Zeroizing<String>> {
    serde_json::from_str(value?.get()).ok().map(Zeroizing::new)
}

/// `expires_in` as providers write it: a number, or digits in a string; a fraction is floored. What is no time at all
/// (zero, negative) is an expired token; what makes no sense is unknown.
fn lifetime(value: Option<&RawValue>) -> Lifetime {
    let Some(raw) = value.map(RawValue::get) else { return Lifetime::Unknown };
    let unquoted: Option<String> = serde_json::from_str(raw).ok();
    let number = unquoted.as_deref().unwrap_or(raw).trim();
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E');
    if number.is_empty() || !number.bytes().all(plain) {
        return Lifetime::Unknown;
    }
    // Infinity is what 1e400 becomes; it is longer than any lifetime.
    match number.parse::<f64>() {
        Ok(seconds) if seconds >= MAX_LIFETIME.as_secs_f64() => Lifetime::Known(MAX_LIFETIME),
        Ok(seconds) if seconds >= 0.0 => Lifetime::Known(Duration::from_secs_f64(seconds.floor())),
        Ok(_) => Lifetime::Known(Duration::ZERO),
        Err(_) => Lifetime::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(extra: &str) -> Result<Issued, FetchError> {
        success(format!("{{\"access_token\":\"t\",\"token_type\":\"bEaReR\"{extra}}}").as_bytes())
    }

    #[test]
    fn f7_every_expires_in_is_a_finite_lifetime_or_unknown() {
        let known = |seconds| Lifetime::Known(Duration::from_secs(seconds));
        for (value, expected) in [
            ("3600", known(3600)),
            ("\"3600\"", known(3600)),
            ("3599.5", known(3599)),
            ("0", known(0)),
            ("-1", known(0)),
            ("1e400", Lifetime::Known(MAX_LIFETIME)),
            ("9223372036854775808", Lifetime::Known(MAX_LIFETIME)),
            ("null", Lifetime::Unknown),
            ("[]", Lifetime::Unknown),
            ("\"soon\"", Lifetime::Unknown),
            ("\"\"", Lifetime::Unknown),
            ("\"inf\"", Lifetime::Unknown),
            ("true", Lifetime::Unknown),
        ] {
            assert_eq!(with(&format!(",\"expires_in\":{value}")).unwrap().lifetime, expected, "{value}");
        }
        assert_eq!(with("").unwrap().lifetime, Lifetime::Unknown);
    }

    #[test]
    fn what_is_not_a_bearer_token_is_refused() {
        for body in [
            "",
            "<html>",
            "[]",
            "null",
            "{}",
            "{\"access_token\":\"\"}",
            "{\"access_token\":7}",
            "{\"access_token\":\"a b\"}",
            "{\"access_token\":\"a\\r\\nb\"}",
            "{\"access_token\":\"\\u0000\"}",
            "{\"access_token\":\"é\"}",
            "{\"access_token\":\"t\",\"token_type\":\"mac\"}",
            "{\"access_token\":\"t\",\"token_type\":\"N_A\"}",
            "{\"access_token\":\"t\",\"token_type\":3}",
            "{\"access_token\":\"t\",\"tok",
        ] {
            assert!(success(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_refresh_token_comes_with_the_life_that_some_providers_tell() {
        let refresh = |extra: &str| with(extra).unwrap().refresh.map(|refresh| refresh.lifetime);
        let token = ",\"refresh_token\":\"r\"";
        assert_eq!(refresh(""), None);
        assert_eq!(refresh(",\"refresh_token\":\"\""), None);
        assert_eq!(refresh(",\"refresh_token\":7"), None);
        assert_eq!(refresh(token), Some(None));
        assert_eq!(refresh(&format!("{token},\"refresh_expires_in\":0")), Some(None));
        let minute = Some(Some(Duration::from_secs(60)));
        assert_eq!(refresh(&format!("{token},\"refresh_expires_in\":60")), minute);
        assert_eq!(refresh(&format!("{token},\"refresh_token_expires_in\":\"60\"")), minute);
    }

    #[test]
    fn an_error_with_status_200_is_one_when_there_is_no_token_beside_it() {
        let code = |body: &str| refused(body.as_bytes()).map(|code| code.as_str().to_owned());
        assert_eq!(
            code("{\"error\":\"invalid_client\",\"error_description\":\"x\"}").unwrap(),
            "invalid_client"
        );
        assert_eq!(code("{\"access_token\":null,\"error\":\"invalid_scope\"}").unwrap(), "invalid_scope");
        for body in [
            "{}",
            "[]",
            "",
            "{\"error\":null}",
            "{\"error\":7}",
            "{\"error\":\"Hunter2\"}",
            "{\"error\":\"invalid_client\"",
            "{\"error\":\"invalid_client\",\"access_token\":\"t\"}",
        ] {
            assert_eq!(code(body), None, "{body}");
        }
    }

    #[test]
    fn scope_is_a_set() {
        let granted = with(",\"scope\":\"b a  b\"").unwrap().scope.unwrap();
        assert_eq!(granted, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    }

    proptest! {
        #[test]
        fn no_answer_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (success(&body), error_code(&body), refused(&body));
        }

        #[test]
        fn no_expires_in_panics(value in "[-+0-9.eE]{0,30}") {
            let _ = with(&format!(",\"expires_in\":\"{value}\""));
        }
    }
}
