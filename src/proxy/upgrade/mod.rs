//! WebSocket (RFC 6455): the one upgrade that is forwarded, and the tunnel that it leads to. Either side may speak HTTP/1.1
//! or HTTP/2 (RFC 8441).
//!
//! 1. [`is_wanted`]: a GET over HTTP/1.1 without a body that asks for `websocket`, or what a CONNECT over HTTP/2 with that
//!    `:protocol` has become ([`as_http_1_has_it`]). Of every other request the `Upgrade` field is dropped, as of any hop.
//! 2. `handshake` asks the upstream, over a stream or a connection of its own, and translates where the two sides differ.
//! 3. [`is_granted`]: over HTTP/1.1, only a 101 that names `websocket` makes a tunnel; any other answer is an ordinary one.
//! 4. A [`Tunnel`] holds the upstream's side until the caller's is free; then it copies bytes, both ways, beginning with those
//!    that arrived behind the heads. `carry` is that where at least one side is a stream.

mod carry;
mod handshake;
mod tunnel;

use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderValue, Method, Request, Version,
    header::{CONNECTION, SEC_WEBSOCKET_KEY, UPGRADE},
    request::Parts,
};

pub(super) use self::{handshake::exchange, tunnel::Tunnel};
use super::hop;

const WEBSOCKET: &str = "websocket";

/// Whether a request over HTTP/2 asks for a tunnel that may be granted (RFC 8441 §4). `:protocol` is compared byte for byte:
/// the names of the registry are.
pub(super) fn is_asked_for_by_connect(parts: &Parts) -> bool {
    parts.method == Method::CONNECT
        && parts.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// The same request as it is over HTTP/1.1 (RFC 8441 §5), so that it meets the same rules. The protocol stays beside it: no
/// other request over HTTP/2 has one.
pub(super) fn as_http_1_has_it(parts: &mut Parts) {
    parts.method = Method::GET;
    ask(&mut parts.headers);
}

/// Makes a request one that asks for a tunnel over HTTP/2 (RFC 8441 §4), where there are no keys (§5).
pub(super) fn ask_by_connect(request: &mut Request<()>, headers: &mut HeaderMap) {
    headers.remove(SEC_WEBSOCKET_KEY);
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static(WEBSOCKET));
}

/// Whether a request asks for what may be granted: in every other form a tunnel would carry what nobody has looked at.
pub(super) fn is_wanted(parts: &Parts, has_body: bool) -> bool {
    let may = match parts.version {
        Version::HTTP_11 => !has_body,
        // What looks like its body is the tunnel.
        Version::HTTP_2 => parts.extensions.get::<Protocol>().is_some(),
        _ => false,
    };
    may && parts.method == Method::GET
        && names_websocket(&parts.headers)
        && hop::lists(&parts.headers, &CONNECTION, b"upgrade")
}

/// Whether the upstream has switched to what was asked for.
pub(super) fn is_granted(answer: &HeaderMap) -> bool {
    names_websocket(answer)
}

/// Whether `Upgrade` names `websocket` and nothing else: of a choice it would not be plain what was made.
fn names_websocket(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(UPGRADE).iter();
    let first = lines.next().is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()));
    first && lines.next().is_none()
}

/// Asks for the upgrade, or tells of it.
pub(super) fn ask(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}
