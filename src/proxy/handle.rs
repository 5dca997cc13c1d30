//! The road of a request, from its head to the head of its answer. The order matters; `tests/it/proxy` holds it.
//!
//! 1. `check`: plain, unambiguous HTTP.
//! 2. The guard: `Host`, `Origin`, the required header.
//! 3. `Via`: not one of our own.
//! 4. The route: host, then longest prefix.
//! 5. The path policy.
//! 6. The token: the current one, or a short wait for the one that is being fetched.
//! 7. Headers: off with what `Connection` names and the hop-by-hop set; one hop less in the `Max-Forwards` of OPTIONS, which is
//!    answered here when none is left; off with every spelling of the injected name; `Host` and `Via` on; the credential last
//!    (in `exchange`, once for each sending).
//! 8. `exchange`: to the upstream and back.
//! 9. The answer: its hop-by-hop headers off, everything else as it came.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version,
    header::{ALLOW, CONNECTION, CONTENT_LENGTH, HOST, VIA},
    request::Parts,
    uri::PathAndQuery,
};
use http_body::Body as _;

use super::{
    body::AnswerBody,
    caller::{Caller, InFlight},
    check,
    config::{CallerAuthorization, Replay},
    error::{self, Error, Reason},
    exchange, grpc, hop,
    http1::Facts,
    inflow::Inflow,
    outgoing::Outgoing,
    path,
    route::Route,
    seen::Seen,
    site::Site,
    trailers, upgrade,
    upload::Upload,
};
use crate::guard::Refusal;

/// Answers a request: with the upstream's answer, or with attaché's own.
/// What is left of the head afterwards is of no use but its memory.
pub(super) async fn handle(caller: &Rc<Caller>, parts: &mut Parts, body: Inflow) -> Response<AnswerBody> {
    let version = parts.version;
    if cfg!(test) && parts.headers.contains_key("x-test-panic") {
        panic!("a test asks what a bug costs");
    }
    // One site for the whole request, whatever a reload does meanwhile.
    let site = caller.site();
    let mut in_flight = InFlight::begin(caller, &site, parts);
    let mut metrics = &site.unrouted;
    let call = grpc::is_call(parts);
    let seen = Seen::of(&parts.headers);
    let routed = admit(caller, &site, parts, seen, &body);
    let outcome = match &routed {
        Err(reason) => Err(Error::from(*reason)),
        Ok(route) => {
            metrics = &route.metrics;
            in_flight.routed(route);
            forward(caller, &site, route, parts, seen, body).await
        }
    };
    let (mut response, reason) = match outcome {
        Ok(response) => (response, None),
        Err(error) => {
            metrics.own_answer(error.reason.word());
            if let Ok(route) = routed
                && error.reason.is_failure()
            {
                complain(caller, route, error.reason);
            }
            let answer = if call { grpc::answer(error) } else { error::answer(error) };
            (answer, Some(error.reason))
        }
    };
    // An error of a call has the status 200, and is counted as what it means.
    let status = reason.map_or(response.status(), Reason::status).as_u16();
    metrics.answered(status);
    if caller.is_http_1 && caller.worker.is_leaving() && status != StatusCode::SWITCHING_PROTOCOLS {
        // RFC 9112 §9.6: tells the caller to go elsewhere for its next request, before it would meet a closed port.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    caller.until_close.set(version == Version::HTTP_10 && response.body().size_hint().exact().is_none());
    in_flight.answered(&response, reason);
    response.body_mut().ends(in_flight);
    response
}

/// Tells the log, unless it has been told. Why there is no token is told by who asks for it.
fn complain(caller: &Caller, route: &Route, reason: Reason) {
    let ticks = &caller.worker.ticks;
    if reason != Reason::TokenUnavailable
        && route.complaints.is_due(reason, ticks.now(), ticks.of(exchange::COMPLAINTS))
    {
        let explanation = reason.explanation();
        let reason = reason.word();
        tracing::warn!(route = &*route.name, reason, "{explanation}");
    }
}

/// Steps 1 to 5: whether the request may go on, and on which route.
fn admit<'a>(
    caller: &Caller,
    site: &'a Site,
    parts: &Parts,
    seen: Seen,
    body: &Inflow,
) -> Result<&'a Arc<Route>, Reason> {
    let facts = if caller.is_http_1 { caller.facts.get() } else { Facts::of_http2(&parts.headers) };
    check::check(parts, facts, !body.is_end_stream())?;
    let host = site.guard.check(&parts.headers, parts.uri.authority()).map_err(|refusal| match refusal {
        Refusal::MalformedHost => Reason::MalformedHost,
        Refusal::ForeignHost => Reason::ForeignHost,
        Refusal::ForeignOrigin => Reason::ForeignOrigin,
        Refusal::RequiredHeader => Reason::RequiredHeaderMissing,
    })?;
    if seen.via && is_own_loop(&parts.headers, &site.identity.pseudonym) {
        return Err(Reason::LoopDetected);
    }
    let path = parts.uri.path();
    // HTTP/2 has an authority with every request; in HTTP/1 it says that the caller takes this for a proxy.
    let is_proxied = parts.version != Version::HTTP_2 && parts.uri.authority().is_some();
    let route = if is_proxied {
        if !site.guard.is_meant(parts.uri.authority()) {
            return Err(Reason::ForeignHost);
        }
        site.table.find_proxied(host, path)
    } else {
        site.table.find(host, path)
    };
    match route {
        Some(route) => {
            if route.has_prefix {
                path::check_within_prefix(path).map_err(|path::Refused| Reason::PathRefused)?;
            }
            Ok(route)
        }
        // A path that could be read as another one is refused rather than said not to exist.
        None if path::check_within_prefix(path).is_err() => Err(Reason::PathRefused),
        None => Err(Reason::NoRoute),
    }
}

fn is_own_loop(headers: &HeaderMap, pseudonym: &str) -> bool {
    headers
        .get_all(VIA)
        .iter()
        .any(|line| memchr::memmem::find(line.as_bytes(), pseudonym.as_bytes()).is_some())
}

/// Steps 6 to 9.
async fn forward(
    caller: &Rc<Caller>,
    site: &Site,
    route: &Arc<Route>,
    parts: &mut Parts,
    seen: Seen,
    body: Inflow,
) -> Result<Response<AnswerBody>, Error> {
    if route.caller_authorization == CallerAuthorization::Reject && route.injection.is_in(&parts.headers) {
        return Err(Reason::CallerAuthorization.into());
    }
    let target = target(route, parts)?;
    let upgrade = seen.upgrade && upgrade::is_wanted(parts, !body.is_end_stream());
    let call = grpc::is_call(parts);
    let asks_for_trailers = seen.te && trailers::are_asked_for(parts);
    let takes_trailers = asks_for_trailers || parts.version == Version::HTTP_2;
    let headers = &mut parts.headers;
    hop::strip_request(headers, seen);
    if parts.method == Method::OPTIONS && !hop::count_down(headers)? {
        return Ok(options());
    }
    let keeps = route.keeps(headers)?;
    let token = if keeps { None } else { route.token().await? };
    if let Some(name) = &site.required_header {
        headers.remove(name);
    }
    if !keeps {
        route.injection.remove_spellings(headers);
    }
    for (header, value) in &route.headers {
        header.remove_spellings(headers);
        header.set(headers, value);
    }
    // `Connection` may have named it.
    if !(route.preserve_host && headers.contains_key(HOST)) {
        headers.insert(HOST, route.upstream.authority.clone());
    }
    headers.append(VIA, site.identity.via(parts.version).clone());
    if asks_for_trailers && !upgrade {
        trailers::ask(headers);
    }
    let repeatable = is_idempotent(&parts.method) && !upgrade;
    let replayable = repeatable || (route.replay == Replay::All && !upgrade);
    let mut stream = None;
    let upload = if upgrade {
        stream = (parts.version == Version::HTTP_2).then_some(body);
        None
    } else if body.is_end_stream() {
        // RFC 9110 §8.6: where a body is expected, its absence is said; servers answer 411 otherwise.
        if seen.content_length || matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        None
    } else {
        let length = body.size_hint().exact();
        let trailers = call.then(|| Arc::clone(route));
        Some((Upload::new(body, replayable, Rc::clone(&caller.activity), trailers), length))
    };
    let mut outgoing = Outgoing {
        method: &parts.method,
        target,
        headers,
        upload,
        repeatable,
        replayable,
        upgrade,
        call,
        trailers: takes_trailers,
    };
    let mut response = if upgrade {
        // Boxed, so that others carry no room for it.
        Box::pin(upgrade::exchange(caller, route, &mut outgoing, stream, token)).await?
    } else {
        exchange::exchange(caller, route, &mut outgoing, token).await?
    };
    hop::strip_answer(response.headers_mut(), takes_trailers);
    if let Some(local) = &route.local {
        local.rewrite(response.headers_mut());
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        upgrade::ask(response.headers_mut());
    }
    Ok(response)
}

/// The answer to OPTIONS from whoever is its last hop (RFC 9110 §9.3.7).
fn options() -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::own(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, error::ALLOWED);
    response
}

/// What is asked of the upstream: the bytes that were matched, with the front that the route changes.
fn target(route: &Route, parts: &Parts) -> Result<PathAndQuery, Error> {
    let target = parts.uri.path_and_query().ok_or(Reason::MalformedTarget)?;
    if route.rewrite.is_identity() {
        return Ok(target.clone());
    }
    Ok(route.rewrite.apply(target).map_err(|path::Refused| Reason::MalformedTarget)?)
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<'a, F>(_: fn(&'a Rc<Caller>, &'a mut Parts, Inflow) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_keeps_little_room_for_its_next_request() {
        // A connection keeps the place of the future as long as it is not quiet.
        assert!(room(handle) <= 3400, "{} bytes: box what is rare", room(handle));
    }
}
