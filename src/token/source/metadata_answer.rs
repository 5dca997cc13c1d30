//! What metadata servers answer: JSON with a token somewhere in it, or the bare token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::token::{
    access_token::AccessToken,
    answer::{Issued, Lifetime, MAX_LIFETIME},
    error::FetchError,
};

/// Where in an answer things are.
#[derive(Debug)]
pub(super) struct Fields {
    /// The names on the way to the token; none when the answer is the token.
    token: Vec<String>,
    lifetime: Vec<String>,
}

impl Fields {
    pub(super) fn of(token: &str, lifetime: &str) -> Self {
        let path = |text: &str| text.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self { token: path(token), lifetime: path(lifetime) }
    }

    /// As RFC 6749 §5.1 names them.
    pub(super) fn access_token() -> Self {
        Self::of("access_token", "expires_in")
    }

    /// The answer is the token.
    pub(super) fn bare() -> Self {
        Self::of("", "")
    }
}

pub(super) fn read(fields: &Fields, body: &[u8], now: SystemTime) -> Result<Issued, FetchError> {
    let unfit = |_| FetchError::Malformed("the token does not fit into a header");
    let issued = |token, lifetime| Issued { token, lifetime, scope: None, refresh: None };
    if fields.token.is_empty() {
        let text = std::str::from_utf8(body).map_err(|_| FetchError::Malformed("it is not text"))?;
        return Ok(issued(AccessToken::new(text.trim()).map_err(unfit)?, Lifetime::Unknown));
    }
    let answer: Value =
        serde_json::from_slice(body).map_err(|_| FetchError::Malformed("it is not a JSON object"))?;
    let token = find(&answer, &fields.token)
        .and_then(Value::as_str)
        .ok_or(FetchError::Malformed("the field of the token is missing"))?;
    let kind = answer.get("token_type").and_then(Value::as_str);
    if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(FetchError::Malformed("`token_type` is not Bearer"));
    }
    let token = AccessToken::new(token).map_err(unfit)?;
    // App Service tells when it ends instead of how long it lives.
    let ends = || number(answer.get("expires_on")?).map(|ends| left(ends, now));
    let lifetime = find(&answer, &fields.lifetime).and_then(number).map(Duration::from_secs).or_else(ends);
    Ok(issued(
        token,
        lifetime.map_or(Lifetime::Unknown, |lifetime| Lifetime::Known(lifetime.min(MAX_LIFETIME))),
    ))
}

fn find<'a>(answer: &'a Value, path: &[String]) -> Option<&'a Value> {
    (!path.is_empty()).then_some(())?;
    path.iter().try_fold(answer, |value, name| value.get(name))
}

/// Seconds, as a number or as digits in a string; a fraction is floored, what is negative is an expired token.
fn number(value: &Value) -> Option<u64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            text.parse().ok()?
        }
        _ => return None,
    };
    // `as` saturates: what is negative becomes 0, what is beyond 2^64 the largest number.
    number.is_finite().then_some(number as u64)
}

fn left(ends: u64, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(ends).saturating_sub(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetime(body: &str) -> Lifetime {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        read(&Fields::access_token(), body.as_bytes(), now).unwrap().lifetime
    }

    #[test]
    fn a_lifetime_is_told_in_seconds_or_by_its_end() {
        let known = |seconds| Lifetime::Known(Duration::from_secs(seconds));
        for (fields, expected) in [
            ("\"expires_in\":3599", known(3599)),
            ("\"expires_in\":\"86399\"", known(86399)),
            ("\"expires_on\":\"1060\"", known(60)),
            ("\"expires_on\":999", known(0)),
            ("\"expires_in\":\"60\",\"expires_on\":\"9\"", known(60)),
            ("\"expires_in\":-1", known(0)),
            ("\"expires_in\":1e300", Lifetime::Known(MAX_LIFETIME)),
            ("\"expires_in\":null", Lifetime::Unknown),
            ("\"expires_on\":\"10/14/2026 00:00:00\"", Lifetime::Unknown),
            ("\"x\":1", Lifetime::Unknown),
        ] {
            assert_eq!(lifetime(&format!("{{\"access_token\":\"t\",{fields}}}")), expected, "{fields}");
        }
    }

    #[test]
    fn a_token_is_found_inside_fields_or_is_the_answer() {
        let read = |token: &str, body: &str| {
            read(&Fields::of(token, "auth.ttl"), body.as_bytes(), UNIX_EPOCH)
                .map(|issued| (issued.token.expose().to_owned(), issued.lifetime))
        };
        let deep = "{\"auth\":{\"client_token\":\"t\",\"ttl\":60}}";
        assert_eq!(
            read("auth.client_token", deep),
            Ok(("t".into(), Lifetime::Known(Duration::from_secs(60))))
        );
        assert_eq!(read("", " bare\n"), Ok(("bare".into(), Lifetime::Unknown)));
        for (token, body) in [
            ("auth", deep),
            ("auth.client_token.x", deep),
            ("a", ""),
            ("a", "[]"),
            ("a", "{\"a\":7}"),
            ("a", "{\"a\":\"x y\"}"),
            ("a", "{\"a\":\"x\",\"token_type\":\"mac\"}"),
            ("", "a b"),
            ("", ""),
        ] {
            assert!(matches!(read(token, body), Err(FetchError::Malformed(_))), "{token} {body}");
        }
        assert!(super::read(&Fields::bare(), b"\xff", UNIX_EPOCH).is_err());
    }
}
