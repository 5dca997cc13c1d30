//! Serves the requests of a connection, one after the other.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
};

use http::{HeaderMap, Method, Request, Uri, Version, header::CONNECTION, request::Parts};

use super::{
    Incoming, Wire, body_length,
    head::{Malformed, Said},
    reply::{self, Manner, Told},
    wire::NoRequest,
};
use crate::proxy::{
    caller::Caller,
    error::{self, Reason},
    handle::handle,
    hop,
    inflow::Inflow,
    serve::survive,
    upgrade::Tunnel,
};

/// Why a connection carries no further request.
pub(in crate::proxy) enum Ended {
    /// The caller has ended or broken off, or must see at once that its answer did.
    Gone,
    /// Everything is said.
    Over,
    /// It is a tunnel from here on.
    Switched(Box<Tunnel>),
}

/// Serves requests until there are no more.
pub(in crate::proxy) async fn converse(caller: &Rc<Caller>, wire: &Rc<Wire>) -> Ended {
    let max = caller.worker.max_header_bytes;
    // One place for the heads of all requests: moving them costs more than reading them.
    let (mut parts, ()) = Request::new(()).into_parts();
    loop {
        let said = match poll_fn(|cx| wire.poll_head(max, &mut parts, cx)).await {
            Ok(said) => said,
            Err(NoRequest::Malformed(malformed)) => return refuse(caller, wire, malformed).await,
            Err(NoRequest::Closed) => return Ended::Gone,
        };
        let manner = manner(&parts, said);
        let body = Incoming::new(wire, wire.begin(&parts.headers, body_length::of_request(said)));
        caller.facts.set(said.facts);
        let response = {
            let handling = pin!(handle(caller, &mut parts, Inflow::Http1(body)));
            let mut handling = pin!(survive(caller, handling));
            poll_fn(|cx| {
                let polled = handling.as_mut().poll(cx);
                for early in caller.early.take() {
                    reply::tell_early(wire, early, manner, cx);
                }
                polled
            })
            .await
        };
        // What is left of the head would keep the buffer that it came in, and an answer may take long.
        clear(&mut parts.headers);
        parts.uri = Uri::default();
        match reply::reply(caller, wire, response, manner).await {
            Told::Kept => {}
            Told::Over => return Ended::Over,
            Told::Broken => return Ended::Gone,
            Told::Switched(tunnel) => return Ended::Switched(tunnel),
        }
    }
}

/// Makes room for other fields, in the same place if that is not larger than most need.
pub(super) fn clear(headers: &mut HeaderMap) {
    if headers.capacity() > ROOMY {
        *headers = HeaderMap::new();
    } else {
        headers.clear();
    }
}

/// As many fields as a place is kept for.
const ROOMY: usize = 32;

/// What the request says about how it is answered.
fn manner(parts: &Parts, said: Said) -> Manner {
    let (version, headers) = (parts.version, &parts.headers);
    // RFC 9112 §9.3.
    let is_new = version == Version::HTTP_11;
    let keep = if said.connection {
        !hop::lists(headers, &CONNECTION, b"close")
            && (is_new || hop::lists(headers, &CONNECTION, b"keep-alive"))
    } else {
        is_new
    };
    // Where a request ends that is refused for its framing is not known.
    let keep = keep && !said.facts.is_ambiguous() && !body_length::has_odd_coding(headers, said.facts);
    Manner { version, is_head: parts.method == Method::HEAD, keep }
}

/// Answers what is not a request.
async fn refuse(caller: &Caller, wire: &Wire, malformed: Malformed) -> Ended {
    let reason = match malformed {
        Malformed::Head => Reason::MalformedRequest,
        Malformed::Target => Reason::MalformedTarget,
        Malformed::TooLarge => Reason::HeadTooLarge,
    };
    caller.site().refuses(reason);
    let manner = Manner { version: Version::HTTP_11, is_head: false, keep: false };
    match reply::reply(caller, wire, error::answer(reason.into()), manner).await {
        Told::Broken => Ended::Gone,
        Told::Kept | Told::Over | Told::Switched(_) => Ended::Over,
    }
}
