//! One issued value: opaque, checked once for what a header can carry, never printed.

use std::fmt;

use http::HeaderValue;
use zeroize::Zeroizing;

/// Number of a published access token of one credential: 1 for the first, one more for each that follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// An access token that fits into a header field: visible ASCII, not empty (RFC 6750 §2.1 is narrower, but providers
/// are not held to it).
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Zeroizing<String>);

/// The value has a byte that must not stand in a header field, or none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is empty or holds something other than visible ASCII characters")]
pub struct UnfitToken;

impl AccessToken {
    /// Checks a value that an issuer gave.
    pub fn new(value: impl Into<String>) -> Result<Self, UnfitToken> {
        let value = Zeroizing::new(value.into());
        let fit = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
        fit.then_some(Self(value)).ok_or(UnfitToken)
    }

    /// The value itself. Whoever calls this is responsible for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(****)")
    }
}

/// What stands around a token in a header field, such as `Bearer {token}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    prefix: String,
    suffix: String,
}

/// Where the token goes in a format.
const PLACE: &str = "{token}";

impl Default for Format {
    /// `Bearer {token}` (RFC 6750 §2.1).
    fn default() -> Self {
        Self { prefix: "Bearer ".into(), suffix: String::new() }
    }
}

impl Format {
    /// `Basic {token}` (RFC 7617 §2).
    pub fn basic() -> Self {
        Self { prefix: "Basic ".into(), suffix: String::new() }
    }
}

impl std::str::FromStr for Format {
    type Err = &'static str;

    fn from_str(format: &str) -> Result<Self, Self::Err> {
        let (prefix, suffix) =
            format.split_once(PLACE).ok_or("a format holds `{token}` where the token goes")?;
        if suffix.contains(PLACE) {
            return Err("a format holds `{token}` once");
        }
        let plain = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !plain(prefix) || !plain(suffix) || prefix.starts_with(' ') || suffix.ends_with(' ') {
            return Err("around `{token}`, a format holds visible ASCII characters and inner spaces only");
        }
        Ok(Self { prefix: prefix.into(), suffix: suffix.into() })
    }
}

impl Format {
    /// The finished header value, marked sensitive so that nothing prints it.
    pub fn render(&self, token: &AccessToken) -> HeaderValue {
        let mut bytes = Vec::with_capacity(self.prefix.len() + token.0.len() + self.suffix.len());
        bytes.extend_from_slice(self.prefix.as_bytes());
        bytes.extend_from_slice(token.0.as_bytes());
        bytes.extend_from_slice(self.suffix.as_bytes());
        let bytes = bytes::Bytes::from(bytes);
        // The first clone of `Bytes` allocates its reference count: here, not in the first request.
        drop(bytes.clone());
        let mut value =
            HeaderValue::from_maybe_shared(bytes).expect("format and token were checked to be visible ASCII");
        value.set_sensitive(true);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_does_not_fit_a_header_is_refused() {
        for value in ["", "a b", "a\r\nb", "a\0", "é", " a", "a\n"] {
            assert_eq!(AccessToken::new(value), Err(UnfitToken), "{value:?}");
        }
        assert!(AccessToken::new("eyJ.a-b_c~+/=").is_ok());
    }

    #[test]
    fn a_rendered_token_is_sensitive_and_never_printed() {
        let token = AccessToken::new("hunter2").unwrap();
        let value = Format::default().render(&token);
        assert_eq!(value, "Bearer hunter2");
        assert!(value.is_sensitive());
        assert!(!format!("{token:?} {value:?}").contains("hunter2"));
    }

    #[test]
    fn a_format_holds_the_place_of_the_token_once_and_nothing_that_a_header_cannot_carry() {
        assert!("Token {token}".parse::<Format>().is_ok());
        assert!("{token}".parse::<Format>().is_ok());
        for format in ["Bearer", "{token} {token}", "a\r\n{token}", "é {token}", " {token}", "{token} "] {
            assert!(format.parse::<Format>().is_err(), "{format:?}");
        }
    }
}
