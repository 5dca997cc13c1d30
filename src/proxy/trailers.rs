//! Trailers (RFC 9110 §6.5): what may cross attaché as one.
//!
//! - Of an answer, all that do not frame, route or authenticate, if the caller takes trailers: every caller of HTTP/2, and
//!   one of HTTP/1.1 that says so (§10.1.4). Towards the latter, those only that the upstream announced in `Trailer`.
//! - Of a request, the same of gRPC calls to HTTP/2 upstreams, less every spelling of what attaché sets. Of other requests
//!   none: nothing needs them, and servers exist that read them as header fields.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{CONNECTION, TE},
    request::Parts,
};

use super::{exchange::drop_echoes, hop, route::Route};
use crate::token::AccessToken;

/// Never trailers (RFC 9110 §6.5.1): what frames a message, routes it, concerns one hop, authenticates, or says how to
/// read the content.
const NEVER: [&str; 22] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "location",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "www-authenticate",
];

/// Whether the caller says that it takes trailers. Over HTTP/1.1, `TE` concerns one hop and is named in `Connection`.
pub(super) fn are_asked_for(parts: &Parts) -> bool {
    hop::lists(&parts.headers, &TE, b"trailers")
        && (parts.version == Version::HTTP_2 || hop::lists(&parts.headers, &CONNECTION, b"te"))
}

/// Asks the upstream for trailers. Over HTTP/2 there is no `Connection`, and `TE` alone stays.
pub(super) fn ask(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("te"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// Leaves of an answer's trailers what may pass.
pub(super) fn clean_answer(trailers: &mut HeaderMap, token: Option<&AccessToken>) {
    remove(trailers, |name| NEVER.contains(&name.as_str()));
    if let Some(token) = token {
        drop_echoes(trailers, token);
    }
}

/// Leaves of a call's trailers what may pass.
pub(super) fn clean_request(trailers: &mut HeaderMap, route: &Route) {
    let is_set = |name: &HeaderName| {
        route.injection.is_spelling(name) || route.headers.iter().any(|(header, _)| header.is_spelling(name))
    };
    remove(trailers, |name| NEVER.contains(&name.as_str()) || is_set(name));
}

fn remove(trailers: &mut HeaderMap, is_forbidden: impl Fn(&HeaderName) -> bool) {
    let forbidden: Vec<HeaderName> = trailers.keys().filter(|name| is_forbidden(name)).cloned().collect();
    for name in &forbidden {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frames_routes_authenticates_or_shows_the_token_is_no_trailer() {
        let mut trailers = HeaderMap::new();
        for name in NEVER.into_iter().chain(["grpc-status", "server-timing"]) {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("0"));
        }
        trailers.append("x-echo", HeaderValue::from_static("Bearer token-1!"));
        clean_answer(&mut trailers, Some(&AccessToken::new("token-1").unwrap()));
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "server-timing"]);
    }
}
