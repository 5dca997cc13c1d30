//! One request on a stream of a caller's connection, from its head to the last byte of its answer.

use std::{
    cell::Cell,
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::SystemTime,
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, DATE, EXPECT, HOST, UPGRADE},
    request::Parts,
};
use http_body::Body as _;

use super::{connection::Turn, pump::Pump, refused};
use crate::proxy::{
    body::AnswerBody, error::Reason, grpc, handle::handle, inflow::Inflow, serve::survive, upgrade,
};

/// Answers a request. The caller's reset drops whatever is under way for it, towards the upstream too.
pub(super) async fn answer(turn: Turn, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (mut parts, recv) = request.into_parts();
    let mut body = Inflow::http2(recv, &parts.headers);
    let (is_head, is_call) = (parts.method == Method::HEAD, grpc::is_call(&parts));
    let wanted = expects_continue(&parts.headers).then(|| Rc::new(Cell::new(false)));
    if let Some(wanted) = &wanted {
        body.tell_when_wanted(Rc::clone(wanted));
    }
    as_http_1_has_it(&mut parts);
    let caller = turn.caller();
    let response = {
        let handling = pin!(handle(caller, &mut parts, body));
        let mut handling = pin!(survive(caller, handling));
        poll_fn(|cx| {
            caller.activity.driven_by(cx);
            let polled = handling.as_mut().poll(cx);
            for early in caller.early.take() {
                let _ = respond.send_informational(early);
            }
            if let Poll::Ready(response) = polled {
                return Poll::Ready(Some(response));
            }
            if wanted.as_ref().is_some_and(|wanted| wanted.take()) {
                let mut head = Response::new(());
                *head.status_mut() = StatusCode::CONTINUE;
                // A stream that is gone is seen on the next line.
                let _ = respond.send_informational(head);
            }
            respond.poll_reset(cx).map(|reset| {
                // The library's word for a body that is malformed: nobody else learns of it.
                if reset.is_ok_and(|code| code == h2::Reason::PROTOCOL_ERROR) {
                    refused::count(caller, Reason::CallerAborted);
                }
                None
            })
        })
        .await
    };
    let Some(mut response) = response else { return };
    if let Some(tunnel) = response.body_mut().take_tunnel() {
        let (mut head, _nothing) = into_http_2(response, is_call);
        *head.status_mut() = StatusCode::OK;
        let Ok(stream) = respond.send_response(head, false) else { return };
        // If it breaks off, both sides have been told. Boxed, so that other streams carry no room for it.
        let _ = Box::pin(tunnel.run_on_stream(stream)).await;
        return;
    }
    let (head, body) = into_http_2(response, is_call);
    let has_none = matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let bodiless = is_head || has_none || body.is_end_stream();
    let Ok(stream) = respond.send_response(head, bodiless) else { return };
    if !bodiless {
        let mut pump = Pump::new(body, stream);
        let activity = &turn.caller().activity;
        // Whatever breaks it off, the caller has been told by a reset, or has told us.
        poll_fn(|cx| {
            activity.driven_by(cx);
            if activity.must_close() {
                // It has taken nothing for `idle_timeout`, and has a place at the upstream for nothing.
                pump.reset(h2::Reason::CANCEL);
                return Poll::Ready(());
            }
            let polled = pump.poll(cx);
            if pump.has_sent() {
                activity.sent();
            }
            if polled.is_pending() && pump.is_blocked() {
                activity.stalls();
            }
            polled.map(drop)
        })
        .await;
    }
}

/// Whether the caller waits with its body until it is asked for it (RFC 9110 §10.1.1).
fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// What the rest of the road reads: a `Host` (RFC 9113 §8.3.1), one `Cookie` instead of its crumbs (§8.2.3), and an upgrade
/// instead of a CONNECT for WebSocket.
fn as_http_1_has_it(parts: &mut Parts) {
    if upgrade::is_asked_for_by_connect(parts) {
        upgrade::as_http_1_has_it(parts);
    }
    if let Some(authority) = parts.uri.authority()
        && !parts.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    let mut crumbs = parts.headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let mut joined = [first.as_bytes(), b"; ", second.as_bytes()].concat();
        for crumb in crumbs {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(crumb.as_bytes());
        }
        // Its parts were values, so the whole is one.
        if let Ok(cookie) = HeaderValue::from_bytes(&joined) {
            parts.headers.insert(COOKIE, cookie);
        }
    }
}

/// The head as HTTP/2 has it, and with what every answer of ours has: `Date` (RFC 9110 §6.6.1), except to calls, whose
/// caller would read it as the server's metadata.
fn into_http_2(response: Response<AnswerBody>, is_call: bool) -> (Response<()>, AnswerBody) {
    let (mut head, body) = response.into_parts();
    head.version = Version::HTTP_2;
    // RFC 9113 §8.2.2. attaché's own answers say `close` to callers of HTTP/1, and a 101 what it switches to.
    head.headers.remove(CONNECTION);
    head.headers.remove(UPGRADE);
    if !is_call
        && !head.headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        head.headers.insert(DATE, date);
    }
    if head.status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6.
        head.headers.remove(CONTENT_LENGTH);
    } else if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    (Response::from_parts(head, ()), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_of_a_cookie_are_joined_and_a_host_is_made_of_the_authority() {
        let request = Request::builder()
            .uri("http://localhost:7080/a")
            .header(COOKIE, "a=b")
            .header(COOKIE, "c=d")
            .header(COOKIE, "e=f");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        as_http_1_has_it(&mut parts);
        assert_eq!(parts.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=b; c=d; e=f"]);
        assert_eq!(parts.headers[HOST], "localhost:7080");
    }
}
