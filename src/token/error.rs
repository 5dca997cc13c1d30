//! Why there is no token, and what that means for the next attempt.

mod cure;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::store::StoreError;
use crate::secret::SecretError;

/// The least and the most that a `Retry-After` is believed.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Why an attempt to get a token failed. Nothing in it comes from the provider but an OAuth error code of plain letters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum FetchError {
    #[error("the secret cannot be read: {0}")]
    Secret(SecretError),
    #[error("an assertion cannot be signed")]
    Signing,
    #[error("the provider cannot be reached")]
    Unreachable,
    #[error("the provider's TLS could not be trusted or did not complete")]
    Tls,
    #[error("the provider refused the client's certificate, or the lack of one, during TLS")]
    CertificateRefused,
    #[error("the provider did not answer in time")]
    Timeout,
    #[error("the provider's answer broke off")]
    Broken,
    #[error("the provider's answer is larger than 256 KiB")]
    TooLarge,
    #[error("the provider's answer is compressed (`Content-Encoding`), which it was asked not to be")]
    Compressed,
    #[error("the provider redirects token requests, which are never followed")]
    Redirected,
    #[error("the provider answered with status {status}")]
    Status { status: u16, retry_after: Option<Duration> },
    #[error("the provider refused: {code}")]
    OAuth { code: ErrorCode, status: u16, retry_after: Option<Duration> },
    #[error("the provider's answer is not a token: {0}")]
    Malformed(&'static str),
    #[error("the token cannot be verified: {0}")]
    Unverified(&'static str),
    #[error("the answer about the token is not usable: {0}")]
    Introspection(&'static str),
    #[error("the provider's metadata is not usable: {0}")]
    Metadata(&'static str),
    #[error("there is no token for the installation: {0}")]
    Installation(&'static str),
    #[error("the helper program {0}")]
    Helper(&'static str),
    #[error("the token has expired, and no other one has come")]
    Stale,
    #[error("the provider does not accept the refresh token any more")]
    RefreshRefused { fallback: bool },
    #[error("two answers to the same refresh token were lost: whether it is spent is not known")]
    RefreshInDoubt { fallback: bool },
    #[error("the store cannot be used: {0}")]
    Store(StoreError),
    #[error("as many token requests as `max_requests_per_hour` allows have been sent within the last hour")]
    Quota,
    #[error("a secret file or the store does not answer")]
    Blocked,
    #[error("the token request met a bug in attaché")]
    Panicked,
}

/// How a failure is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A later try can help.
    Transient,
    /// The client, its secret or its scope is at fault: only the operator can help, but it is tried again all the same.
    Client,
    /// What is presented is used up: trying again soon cannot help, but later all the same.
    Spent,
    /// Our own side: nothing was sent.
    Local,
}

impl FetchError {
    /// How it is handled.
    pub fn class(&self) -> Class {
        match self {
            Self::Secret(_)
            | Self::Signing
            | Self::Helper(_)
            | Self::Store(_)
            | Self::Quota
            | Self::Blocked => Class::Local,
            Self::RefreshRefused { .. } | Self::RefreshInDoubt { .. } => Class::Spent,
            Self::OAuth { code, .. } if code.is_client_fault() => Class::Client,
            Self::CertificateRefused | Self::Installation(_) => Class::Client,
            // RFC 6749 §5.2: 401 is a client that failed to authenticate, with or without a body that says so.
            Self::Status { status: 401, .. } => Class::Client,
            _ => Class::Transient,
        }
    }

    /// When the provider wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } | Self::OAuth { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the next attempt goes another way, so that there is no reason to wait for it.
    pub fn leaves_another_way(&self) -> bool {
        matches!(self, Self::RefreshRefused { fallback: true } | Self::RefreshInDoubt { fallback: true })
    }

    /// A fixed word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Secret(_) => "secret",
            Self::Signing => "signing",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::CertificateRefused => "client_certificate",
            Self::Timeout => "timeout",
            Self::Broken => "broken_answer",
            Self::TooLarge => "answer_too_large",
            Self::Redirected => "redirected",
            Self::Status { .. } => "status",
            Self::OAuth { .. } => "oauth_error",
            Self::Malformed(_) | Self::Compressed => "malformed_answer",
            Self::Metadata(_) => "metadata",
            Self::Unverified(_) => "unverified_token",
            Self::Introspection(_) => "introspection",
            Self::Installation(_) => "installation",
            Self::Helper(_) => "helper",
            Self::Stale => "stale_token",
            Self::RefreshRefused { .. } => "refresh_token_refused",
            Self::RefreshInDoubt { .. } => "refresh_token_in_doubt",
            Self::Store(_) => "store",
            Self::Quota => "quota",
            Self::Blocked => "blocked",
            Self::Panicked => "internal",
        }
    }
}

/// An OAuth `error` code (RFC 6749 §5.2), cut to what a code looks like: it is the one thing a provider says that is
/// printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorCode(String);

impl ErrorCode {
    /// Takes a code if it looks like one.
    pub fn new(code: &str) -> Option<Self> {
        let plain = |byte: u8| {
            // No registered code has a digit, and most secrets have.
            byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-' | b'.')
        };
        (!code.is_empty() && code.len() <= 64 && code.bytes().all(plain)).then(|| Self(code.into()))
    }

    /// The code itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The code as the standard has it, where a provider has one of its own for the same.
    pub fn meaning(&self) -> &str {
        match self.as_str() {
            // GitHub's (its documentation of OAuth apps: "Troubleshooting OAuth app access token request errors").
            "bad_refresh_token" => "invalid_grant",
            "incorrect_client_credentials" => "invalid_client",
            code => code,
        }
    }

    fn is_client_fault(&self) -> bool {
        // RFC 6749 §5.2, RFC 8707 §2: what the request said was wrong, and will be wrong again.
        matches!(
            self.meaning(),
            "invalid_client"
                | "invalid_grant"
                | "invalid_request"
                | "invalid_scope"
                | "invalid_target"
                | "unauthorized_client"
                | "unsupported_grant_type"
                | "access_denied"
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a `Retry-After` (RFC 9110 §10.2.3), which is seconds or a date; `now` is by the clock of whoever sent it, where
/// that is known.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wanted = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // More digits than a number holds still mean: late.
        Err(_) if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => RETRY_AFTER.1,
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wanted.clamp(RETRY_AFTER.0, RETRY_AFTER.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_within_bounds() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, seconds) in [
            ("20", Some(20)),
            ("0", Some(1)),
            ("99999", Some(600)),
            ("99999999999999999999999", Some(600)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(1)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn a_providers_own_word_is_printed_as_it_came_and_handled_as_the_standards() {
        let error = |code: &str| {
            let code = ErrorCode::new(code).unwrap();
            FetchError::OAuth { code, status: 200, retry_after: None }
        };
        for (own, standard) in
            [("bad_refresh_token", "invalid_grant"), ("incorrect_client_credentials", "invalid_client")]
        {
            assert_eq!(error(own).class(), Class::Client);
            assert_eq!(error(own).cure(), error(standard).cure());
            assert!(error(own).to_string().contains(own));
        }
        assert_eq!(error("slow_down").class(), Class::Transient);
    }

    #[test]
    fn only_what_looks_like_a_code_is_printed() {
        assert!(ErrorCode::new("invalid_client").is_some());
        for code in ["", "Bearer eyJ", "a\nb", "secret=Hunter2", "c0ffee", &"a".repeat(65)] {
            assert!(ErrorCode::new(code).is_none(), "{code}");
        }
    }
}
