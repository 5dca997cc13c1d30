//! What a request must be before anything else is asked of it: plain, unambiguous HTTP (RFC 9112 §2 to §6).

use http::{Method, Version, header::HOST, request::Parts};

use super::{
    error::Reason,
    http1::{self, Facts},
};

/// Refuses what two readers could read differently, and the methods that are never forwarded.
///
/// Of HTTP/2, the library has refused by then what is malformed (RFC 9113 §8.1.1): connection-specific fields, a `TE` that is
/// not `trailers`, pseudo-header fields that are missing, repeated or late, a body of another length than was told. A `#` and what
/// follows it in `:path` it has cut off; what is left meets every rule.
pub(super) fn check(parts: &Parts, facts: Facts, has_body: bool) -> Result<(), Reason> {
    if is_refused(&parts.method) {
        return Err(Reason::MethodNotAllowed);
    }
    if facts.is_ambiguous() || http1::has_odd_coding(&parts.headers, facts) {
        return Err(Reason::AmbiguousFraming);
    }
    // It must be about HTTP, when it says what it is about (absolute-form, or `:scheme`).
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Reason::MalformedTarget);
    }
    if parts.version == Version::HTTP_2 {
        check_pseudo_headers(parts)?;
    }
    // HTTP/1.0 has no chunks, and gateways disagree on the bodies of its requests.
    if parts.version == Version::HTTP_10 && (has_body || facts.encodings > 0) {
        return Err(Reason::AmbiguousFraming);
    }
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if facts.fragment || !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Reason::MalformedTarget);
    }
    Ok(())
}

/// RFC 9113 §8.3.1: a `Host` that differs from `:authority` makes a request malformed.
fn check_pseudo_headers(parts: &Parts) -> Result<(), Reason> {
    if let (Some(authority), Some(host)) = (parts.uri.authority(), parts.headers.get(HOST))
        && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Err(Reason::MalformedHost);
    }
    Ok(())
}

/// `CONNECT` makes a tunnel, `TRACE` and `TRACK` show the token (RFC 9110 §9.3.6, §9.3.8). Methods have a case, but not
/// to every server.
fn is_refused(method: &Method) -> bool {
    match *method {
        Method::GET
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::HEAD
        | Method::PATCH
        | Method::OPTIONS => false,
        _ => ["CONNECT", "TRACE", "TRACK"].iter().any(|name| method.as_str().eq_ignore_ascii_case(name)),
    }
}
