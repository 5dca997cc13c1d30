//! The one place where an error becomes an answer.
//!
//! Each variant of [`Reason`] is one cause for which attaché itself answers. Its word stands in the answer, in the log
//! and in the metric label; the compiler asks for its status and everything else when a variant is added. The text is
//! fixed: no byte of a request comes back in it.

mod answer;

use http::StatusCode;

pub(super) use self::answer::{ALLOWED, Error, answer, body, tell_proxy_status};

/// Why attaché itself answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "`explanation` says it, for callers too")]
pub enum Reason {
    MalformedRequest,
    HeadTooLarge,
    AmbiguousFraming,
    MalformedTarget,
    MalformedHost,
    ForeignHost,
    ForeignOrigin,
    RequiredHeaderMissing,
    PeerRefused,
    CallerAuthorization,
    MethodNotAllowed,
    PathRefused,
    NoRoute,
    LoopDetected,
    TokenUnavailable,
    UpstreamUnresolved,
    UpstreamUnreachable,
    ProxyUnreachable,
    ProxyAuthentication,
    ProxyRefused,
    ProxyInvalid,
    UpstreamTls,
    UpstreamConnectTimeout,
    UpstreamTimeout,
    UpstreamClosed,
    UpstreamInvalid,
    UpgradeFailed,
    UpstreamBusy,
    TooManyConnections,
    CallerAborted,
    Internal,
}

impl Reason {
    /// Every reason, for documents and tests.
    pub const ALL: [Self; 31] = [
        Self::MalformedRequest,
        Self::HeadTooLarge,
        Self::AmbiguousFraming,
        Self::MalformedTarget,
        Self::MalformedHost,
        Self::ForeignHost,
        Self::ForeignOrigin,
        Self::RequiredHeaderMissing,
        Self::PeerRefused,
        Self::CallerAuthorization,
        Self::MethodNotAllowed,
        Self::PathRefused,
        Self::NoRoute,
        Self::LoopDetected,
        Self::TokenUnavailable,
        Self::UpstreamUnresolved,
        Self::UpstreamUnreachable,
        Self::ProxyUnreachable,
        Self::ProxyAuthentication,
        Self::ProxyRefused,
        Self::ProxyInvalid,
        Self::UpstreamTls,
        Self::UpstreamConnectTimeout,
        Self::UpstreamTimeout,
        Self::UpstreamClosed,
        Self::UpstreamInvalid,
        Self::UpgradeFailed,
        Self::UpstreamBusy,
        Self::TooManyConnections,
        Self::CallerAborted,
        Self::Internal,
    ];

    /// The fixed word for it: in the answer, the log line and the metric label.
    pub fn word(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformed_request",
            Self::HeadTooLarge => "head_too_large",
            Self::AmbiguousFraming => "ambiguous_framing",
            Self::MalformedTarget => "malformed_target",
            Self::MalformedHost => "malformed_host",
            Self::ForeignHost => "foreign_host",
            Self::ForeignOrigin => "foreign_origin",
            Self::RequiredHeaderMissing => "required_header_missing",
            Self::PeerRefused => "peer_refused",
            Self::CallerAuthorization => "caller_authorization",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PathRefused => "path_refused",
            Self::NoRoute => "no_route",
            Self::LoopDetected => "loop_detected",
            Self::TokenUnavailable => "token_unavailable",
            Self::UpstreamUnresolved => "upstream_unresolved",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::ProxyUnreachable => "proxy_unreachable",
            Self::ProxyAuthentication => "proxy_authentication",
            Self::ProxyRefused => "proxy_refused",
            Self::ProxyInvalid => "proxy_invalid",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamConnectTimeout => "upstream_connect_timeout",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::UpgradeFailed => "upgrade_failed",
            Self::UpstreamBusy => "upstream_busy",
            Self::TooManyConnections => "too_many_connections",
            Self::CallerAborted => "caller_aborted",
            Self::Internal => "internal",
        }
    }

    /// The status code. Never 401: a caller would throw its own credentials away for our failure.
    pub fn status(self) -> StatusCode {
        match self {
            Self::MalformedRequest
            | Self::AmbiguousFraming
            | Self::MalformedTarget
            | Self::MalformedHost
            | Self::PathRefused
            | Self::CallerAborted => StatusCode::BAD_REQUEST,
            Self::ForeignOrigin
            | Self::RequiredHeaderMissing
            | Self::PeerRefused
            | Self::CallerAuthorization => StatusCode::FORBIDDEN,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            // RFC 9110 §15.5.20: we are not configured to answer for this authority.
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            // RFC 5842 §7.2.
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
            Self::TokenUnavailable | Self::UpstreamBusy | Self::TooManyConnections => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamUnresolved
            | Self::UpstreamUnreachable
            | Self::ProxyUnreachable
            | Self::ProxyAuthentication
            | Self::ProxyRefused
            | Self::ProxyInvalid
            | Self::UpstreamTls
            | Self::UpstreamClosed
            | Self::UpstreamInvalid
            | Self::UpgradeFailed => StatusCode::BAD_GATEWAY,
            Self::UpstreamConnectTimeout | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What happened, for whoever reads the answer.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::MalformedRequest => "the request is not well-formed HTTP",
            Self::HeadTooLarge => "the head of the request is larger than is read; see max_header_bytes",
            Self::AmbiguousFraming => "the length of the request can be read in more than one way",
            Self::MalformedTarget => "the request target is not one that can be forwarded as it is",
            Self::MalformedHost => "the request needs exactly one well-formed Host header",
            Self::ForeignHost => {
                "the request is for a host that this attaché does not answer to; see allowed_hosts"
            }
            Self::ForeignOrigin => "requests of web pages are refused; see allowed_origins",
            Self::RequiredHeaderMissing => {
                "the header that callers must send is missing; see required_header"
            }
            Self::PeerRefused => "the user who connects is not one of allowed_uids",
            Self::CallerAuthorization => {
                "the request brings a credential of its own; see caller_authorization"
            }
            Self::MethodNotAllowed => "CONNECT, TRACE and TRACK are never forwarded",
            Self::PathRefused => "the path could be read as leaving the route it matches",
            Self::NoRoute => "no route matches this host and path",
            Self::LoopDetected => "the request has passed through this attaché before",
            Self::TokenUnavailable => {
                "there is no usable access token; the identity provider is being asked again"
            }
            Self::UpstreamUnresolved => "the name of the upstream could not be resolved",
            Self::UpstreamUnreachable => "the upstream does not accept connections",
            Self::ProxyUnreachable => "the HTTP proxy on the way to the upstream does not answer",
            Self::ProxyAuthentication => {
                "the HTTP proxy on the way to the upstream wants a name and a password, or others"
            }
            Self::ProxyRefused => "the HTTP proxy on the way to the upstream does not connect to it",
            Self::ProxyInvalid => "what the HTTP proxy on the way to the upstream answers is not HTTP",
            Self::UpstreamTls => "the upstream's TLS could not be trusted or did not complete",
            Self::UpstreamConnectTimeout => "connecting to the upstream took longer than connect_timeout",
            Self::UpstreamTimeout => "the upstream did not begin its answer within response_timeout",
            Self::UpstreamClosed => "the upstream closed the connection before it answered",
            Self::UpstreamInvalid => "the upstream's answer is not unambiguous HTTP",
            Self::UpgradeFailed => "the upstream did not switch to WebSocket, and did not say why",
            Self::UpstreamBusy => {
                "all connections that there may be to the upstream are in use; see the route's max_connections"
            }
            Self::TooManyConnections => "too many connections are open; see max_connections",
            Self::CallerAborted => "the body of the request ended early or was malformed",
            Self::Internal => "attaché failed while handling this request",
        }
    }

    /// Whether the upstream or the provider is to blame: worth a warning in the log.
    pub(super) fn is_failure(self) -> bool {
        self.status().is_server_error() && self != Self::LoopDetected
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own_and_none_is_401_or_a_success() {
        let words: HashSet<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.status().as_u16() >= 400 && reason.status() != StatusCode::UNAUTHORIZED);
            assert!(reason.word().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert!(!reason.explanation().contains(['"', '\\']), "it stands in JSON as it is");
        }
    }
}
