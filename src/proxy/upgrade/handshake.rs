//! The handshake between two sides that may speak different HTTP: how the upstream is asked, and what the caller is told.
//!
//! - Over HTTP/1.1 a key is sent and answered (RFC 6455 §4). Over HTTP/2 there is none (RFC 8441 §5): where the caller has sent
//!   one attaché answers it, where the upstream needs one attaché sends its own.
//! - A caller of HTTP/2 is asked for over HTTP/2 where the upstream takes that, and over HTTP/1.1 otherwise. One of HTTP/1.1
//!   gets a connection of HTTP/1.1, which every server of WebSocket speaks, unless the route is `h2c`.

use std::rc::Rc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY},
};

use super::{Tunnel, ask};
use crate::proxy::{
    body::AnswerBody,
    caller::Caller,
    error::{Error, Reason},
    exchange, exchange_http2,
    inflow::Inflow,
    outgoing::Outgoing,
    route::{Injected, Route},
    trailers, unauthorized,
    upstream::{Connected, Held},
};

/// What a key is hashed with (RFC 6455 §1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Asks the upstream for a WebSocket, and returns its answer: with the status 101 it holds a [`Tunnel`], whatever HTTP the
/// upstream speaks. `stream` is what a caller of HTTP/2 sends.
pub(in crate::proxy) async fn exchange(
    caller: &Rc<Caller>,
    route: &Route,
    outgoing: &mut Outgoing<'_>,
    stream: Option<Inflow>,
    mut token: Injected,
) -> Result<Response<AnswerBody>, Error> {
    let upstream = &route.upstream;
    let own_connection = upstream.may_speak_http_1();
    let answer_to_caller = answer_to_key(outgoing.headers);
    let can_be_told = stream.is_some() || (answer_to_caller.is_some() && !own_connection);
    if upstream.may_speak_http_2()
        && can_be_told
        && let Some(answer) = exchange_http2::connect(caller, route, outgoing, &mut token).await?
    {
        return Ok(connected(route, answer, stream, answer_to_caller, outgoing.trailers, token));
    }
    match (stream, own_connection) {
        (None, true) => {
            ask(outgoing.headers);
            exchange::exchange(caller, route, outgoing, token).await
        }
        (Some(stream), true) => for_stream(caller, route, outgoing, stream, token).await,
        // A success would be taken for the tunnel.
        (Some(_), false) => Err(Reason::UpgradeFailed.into()),
        // Whoever does not understand `Upgrade` ignores it (RFC 9110 §7.8).
        (None, false) => {
            if outgoing.trailers {
                trailers::ask(outgoing.headers);
            }
            (outgoing.upgrade, outgoing.repeatable, outgoing.replayable) = (false, true, true);
            exchange::exchange(caller, route, outgoing, token).await
        }
    }
}

/// Asks over HTTP/1.1 for a caller of HTTP/2.
async fn for_stream(
    caller: &Rc<Caller>,
    route: &Route,
    outgoing: &mut Outgoing<'_>,
    stream: Inflow,
    token: Injected,
) -> Result<Response<AnswerBody>, Error> {
    ask(outgoing.headers);
    let mut key = [0; 16];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| Reason::Internal)?;
    let key = HeaderValue::try_from(BASE64_STANDARD.encode(key)).map_err(|_| Reason::Internal)?;
    outgoing.headers.insert(SEC_WEBSOCKET_KEY, key);
    let expected = answer_to_key(outgoing.headers);
    let mut response = exchange::exchange(caller, route, outgoing, token).await?;
    if let Some(mut tunnel) = response.body_mut().take_tunnel() {
        let accepted = only(response.headers(), SEC_WEBSOCKET_ACCEPT) == expected.as_ref();
        if !accepted {
            return Err(Reason::UpgradeFailed.into());
        }
        response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        // As a 200 it would have one (RFC 9110 §9.3.6).
        response.headers_mut().remove(CONTENT_LENGTH);
        tunnel.hears(stream);
        *response.body_mut() = AnswerBody::switched(tunnel);
    } else if response.status().is_success() {
        // It would be taken for the tunnel.
        return Err(Reason::UpgradeFailed.into());
    }
    Ok(response)
}

/// The answer to a request over HTTP/2, as one of HTTP/1.1.
fn connected(
    route: &Route,
    answer: Response<Connected>,
    stream: Option<Inflow>,
    answer_to_caller: Option<HeaderValue>,
    trailers: bool,
    token: Injected,
) -> Response<AnswerBody> {
    let (mut head, (recv, send, seat)) = answer.into_parts();
    head.version = Version::HTTP_11;
    head.headers.remove(SEC_WEBSOCKET_ACCEPT);
    if let Some(token) = &token {
        exchange::drop_echoes(&mut head.headers, token.token());
    }
    if head.status.is_success() {
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        // RFC 9110 §9.3.6: there is no body that it could be of.
        head.headers.remove(CONTENT_LENGTH);
        let mut tunnel = Tunnel::stream(Inflow::Http2(Box::new(recv)), send, seat);
        match stream {
            Some(stream) => tunnel.hears(stream),
            None => {
                if let Some(answer) = answer_to_caller {
                    head.headers.insert(SEC_WEBSOCKET_ACCEPT, answer);
                }
            }
        }
        return Response::from_parts(head, AnswerBody::switched(tunnel));
    }
    // There will be no tunnel. The stream is reset once its answer has been read: there are servers that take an end for more of
    // what they have refused.
    drop(send);
    let mut response = Response::from_parts(head, AnswerBody::stream(Box::new((recv, Held::of(seat)))));
    if response.status() == StatusCode::UNAUTHORIZED {
        // Not sent again: the next one has the new token.
        unauthorized::reject(route, &response, &token);
    }
    if trailers {
        response.body_mut().pass_trailers(token);
    }
    response.body_mut().finish_if_complete();
    response
}

/// What answers the key of a handshake, if there is exactly one and it is one (RFC 6455 §4.2.1 and §4.2.2).
fn answer_to_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = only(headers, SEC_WEBSOCKET_KEY)?.as_bytes();
    BASE64_STANDARD.decode(key).ok().filter(|bytes| bytes.len() == 16)?;
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, MAGIC].concat());
    HeaderValue::try_from(BASE64_STANDARD.encode(hash)).ok()
}

/// The only value of a field.
fn only(headers: &HeaderMap, name: http::HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_in_the_example_of_the_standard_and_nothing_else_is() {
        let mut headers = HeaderMap::new();
        assert_eq!(answer_to_key(&headers), None);
        for (key, answer) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
            ("dGhlIHNhbXBsZSBub25j", None),
            ("not base64", None),
            ("", None),
        ] {
            headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static(key));
            assert_eq!(answer_to_key(&headers), answer.map(HeaderValue::from_static), "{key}");
        }
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers.append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(answer_to_key(&headers), None);
    }
}
