//! The refusals of the admin port, as `application/problem+json` (RFC 9457) with fixed text: no byte of a request comes
//! back.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// Why the admin port refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    MalformedHost,
    ForeignHost,
    ForeignOrigin,
    MethodNotAllowed,
    NotFound,
}

impl Problem {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::MalformedHost => (
                StatusCode::BAD_REQUEST,
                "malformed_host",
                "the request needs exactly one well-formed Host header",
            ),
            Self::ForeignHost => (
                StatusCode::MISDIRECTED_REQUEST,
                "foreign_host",
                "the request is for a host that this port does not answer to; see admin.allowed_hosts",
            ),
            Self::ForeignOrigin => {
                (StatusCode::FORBIDDEN, "foreign_origin", "requests of web pages are refused on this port")
            }
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this port is read-only: GET and HEAD")
            }
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                "there are /livez, /startupz, /readyz, /healthz, /metrics and /status",
            ),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, reason, detail) = self.parts();
        let title = status.canonical_reason().unwrap_or("Error");
        let code = status.as_u16();
        let body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{code},\"reason\":\"{reason}\",\
             \"detail\":\"{detail}\"}}\n"
        );
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        let headers = response.headers_mut();
        if self == Self::MethodNotAllowed {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        // What follows a request that should not have come may not be what it seems.
        if self != Self::NotFound {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
