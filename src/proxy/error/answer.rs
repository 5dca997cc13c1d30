//! The answer that an error becomes.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};

use super::Reason;
use crate::proxy::{body::AnswerBody, caller::Replayed};

/// A reason, and when a later try can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Error {
    pub(in crate::proxy) reason: Reason,
    pub(in crate::proxy) retry_after: Option<Duration>,
    /// The request had been sent once more with a new token.
    pub(in crate::proxy) replayed: bool,
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self { reason, retry_after: None, replayed: false }
    }
}

/// The methods that an `Allow` names. Others that are not refused are forwarded, too.
pub(in crate::proxy) const ALLOWED: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// What stands in the answer.
pub(in crate::proxy) fn body(reason: Reason) -> String {
    let (status, word) = (reason.status(), reason.word());
    let title = status.canonical_reason().unwrap_or("Error");
    format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"reason\":\"{word}\",\"detail\":\"{}\"}}\n",
        status.as_u16(),
        reason.explanation(),
    )
}

/// The answer for an error: `application/problem+json` (RFC 9457) with the reason's word.
pub(in crate::proxy) fn answer(error: Error) -> Response<AnswerBody> {
    let reason = error.reason;
    let mut response = Response::new(AnswerBody::own(Bytes::from(body(reason))));
    *response.status_mut() = reason.status();
    if error.replayed {
        response.extensions_mut().insert(Replayed);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    tell_proxy_status(headers, reason);
    if let Some(after) = error.retry_after {
        // Whole seconds (RFC 9110 §10.2.3), never zero.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if reason == Reason::MethodNotAllowed {
        headers.insert(ALLOW, ALLOWED);
    }
    if reason.closes() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// `Proxy-Status` (RFC 9209).
pub(in crate::proxy) fn tell_proxy_status(headers: &mut HeaderMap, reason: Reason) {
    let proxy_status = format!("attache; error={}; details=\"{}\"", reason.proxy_status(), reason.word());
    if let Ok(value) = HeaderValue::try_from(proxy_status) {
        headers.insert("proxy-status", value);
    }
}

impl Reason {
    /// The error type of the `Proxy-Status` header (RFC 9209 §2.3).
    fn proxy_status(self) -> &'static str {
        match self {
            Self::MalformedRequest
            | Self::HeadTooLarge
            | Self::AmbiguousFraming
            | Self::MalformedTarget
            | Self::MalformedHost
            | Self::CallerAborted => "http_request_error",
            Self::ForeignHost
            | Self::ForeignOrigin
            | Self::RequiredHeaderMissing
            | Self::PeerRefused
            | Self::CallerAuthorization
            | Self::MethodNotAllowed
            | Self::PathRefused => "http_request_denied",
            Self::NoRoute => "destination_not_found",
            Self::LoopDetected => "proxy_loop_detected",
            Self::TokenUnavailable => "proxy_internal_response",
            Self::UpstreamUnresolved => "dns_error",
            Self::UpstreamUnreachable => "connection_refused",
            Self::ProxyUnreachable => "connection_refused",
            Self::ProxyAuthentication => "proxy_configuration_error",
            Self::ProxyRefused => "destination_unavailable",
            Self::ProxyInvalid => "http_protocol_error",
            Self::UpstreamTls => "tls_protocol_error",
            Self::UpstreamConnectTimeout => "connection_timeout",
            Self::UpstreamTimeout => "http_response_timeout",
            Self::UpstreamClosed => "connection_terminated",
            Self::UpstreamInvalid => "http_protocol_error",
            Self::UpgradeFailed => "http_upgrade_failed",
            Self::UpstreamBusy | Self::TooManyConnections => "connection_limit_reached",
            Self::Internal => "proxy_internal_error",
        }
    }

    /// Whether the connection must not be used again: what follows such a request may not be what it seems.
    pub(in crate::proxy) fn closes(self) -> bool {
        !matches!(
            self,
            Self::NoRoute
                | Self::TokenUnavailable
                | Self::UpstreamUnresolved
                | Self::UpstreamUnreachable
                | Self::ProxyUnreachable
                | Self::ProxyAuthentication
                | Self::ProxyRefused
                | Self::ProxyInvalid
                | Self::UpstreamTls
                | Self::UpstreamConnectTimeout
                | Self::UpstreamTimeout
                | Self::UpstreamClosed
                | Self::UpstreamInvalid
                | Self::UpgradeFailed
                | Self::UpstreamBusy
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_whole_seconds_rounded_up() {
        for (after, seconds) in [(0, "1"), (400, "1"), (1000, "1"), (1001, "2")] {
            let error =
                Error { retry_after: Some(Duration::from_millis(after)), ..Reason::TokenUnavailable.into() };
            assert_eq!(answer(error).headers()[RETRY_AFTER], seconds);
        }
    }
}
