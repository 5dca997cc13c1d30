//! gRPC calls, as far as they differ from other requests: what an error is, and how long an answer may take to begin.
//!
//! - attaché's own answers come as a status of the call instead of one of HTTP, with the same fixed text.
//! - `response_timeout` is not for them: the answer to a stream may begin when its first message does, and the deadline
//!   of a call is its caller's (`grpc-timeout`, which passes on).
//! - An upstream refuses a token with the status 16; the next call then has a new one.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE},
    request::Parts,
};

use super::{
    body::AnswerBody,
    error::{self, Error},
};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The names of the statuses, by their codes (gRPC's document "Status codes and their use in gRPC").
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The status of a call whose token was refused.
const UNAUTHENTICATED: &[u8] = b"16";

/// Whether a request is a call.
pub(super) fn is_call(parts: &Parts) -> bool {
    parts.method == Method::POST
        && parts
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the answer to a call says that its token was refused.
pub(super) fn refuses_token(answer: &HeaderMap) -> bool {
    answer.get(STATUS).is_some_and(|status| status.as_bytes() == UNAUTHENTICATED)
}

/// The name of the status that ends a call, by its head or its trailers.
pub(super) fn status(fields: &HeaderMap) -> Option<&'static str> {
    let code = fields.get(STATUS)?.to_str().ok().and_then(|code| code.parse::<usize>().ok());
    // A code that nobody knows is as good as unknown.
    Some(code.and_then(|code| NAMES.get(code).copied()).unwrap_or(NAMES[2]))
}

/// attaché's own answer to a call: a head that is also the trailers (`Trailers-Only`).
pub(super) fn answer(error: Error) -> Response<AnswerBody> {
    let reason = error.reason;
    let mut response = Response::new(AnswerBody::own(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, HeaderValue::from(code(reason.status())));
    let message = escaped(&format!("attache: {}: {}", reason.word(), reason.explanation()));
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(MESSAGE, message);
    }
    error::tell_proxy_status(headers, reason);
    if reason.closes() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(after) = error.retry_after {
        // What the client's own retries wait for (gRPC proposal A6).
        headers
            .insert(PUSHBACK, HeaderValue::from(u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1)));
    }
    response
}

/// What a status of HTTP means to gRPC (its document "HTTP to gRPC Status Code Mapping").
fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `Status-Message`: what is not printable ASCII stands as its bytes, after a percent sign.
fn escaped(message: &str) -> String {
    let mut escaped = String::new();
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::proxy::Reason;

    #[test]
    fn a_call_is_a_post_of_the_content_types_of_grpc() {
        for (method, kind, expected) in [
            ("POST", "application/grpc", true),
            ("POST", "application/grpc+proto", true),
            ("POST", "application/grpc-web", true),
            ("GET", "application/grpc", false),
            ("POST", "application/json", false),
        ] {
            let request = Request::builder().method(method).header(CONTENT_TYPE, kind).body(()).unwrap();
            assert_eq!(is_call(&request.into_parts().0), expected, "{method} {kind}");
        }
    }

    #[test]
    fn every_reason_is_an_error_of_a_call_with_a_message_of_printable_ascii() {
        for reason in Reason::ALL {
            let response = answer(reason.into());
            assert_eq!(response.status(), 200);
            assert_ne!(response.headers()[STATUS], "0");
            assert!(response.headers()[MESSAGE].to_str().unwrap().starts_with("attache: "));
        }
        assert_eq!(escaped("attaché: 5 %"), "attach%C3%A9: 5 %25");
        assert_eq!(answer(Reason::TokenUnavailable.into()).headers()[STATUS], "14");
        assert_eq!(answer(Reason::NoRoute.into()).headers()[STATUS], "12");
        assert_eq!(answer(Reason::ForeignOrigin.into()).headers()[STATUS], "7");
    }
}
