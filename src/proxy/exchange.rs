//! To the upstream and back: which connection, and when a request may be sent once more.
//!
//! - Nothing was sent: a fresh connection, whatever the method.
//! - A kept connection closed before it answered: once more on a fresh one, if the method is idempotent (RFC 9110
//!   §9.2.2) and the body is held.
//! - The upstream said 401: the token is rejected, and if a new one comes, the request is sent once more with it, if
//!   the method is idempotent or the route says `replay = "all"`, and the body is held.
//! - A request for an upgrade: never.

use std::{rc::Rc, time::Duration};

use http::{Extensions, HeaderMap, Response, StatusCode};

use super::{
    body::AnswerBody,
    caller::{Caller, Replayed},
    error::{Error, Reason},
    exchange_http2::{self, Sent},
    grpc,
    http1::Phrase,
    outgoing::Outgoing,
    route::{Injected, Route},
    unauthorized, upgrade,
    upstream::{self, Arrived, ConnectError, Connection, Failed, Lease, SendError, Wanted},
};
use crate::{
    telemetry::metrics::UpstreamConnection,
    token::{AccessToken, Current},
};

/// A route tells the log about one reason at most this often.
pub(super) const COMPLAINTS: Duration = Duration::from_secs(30);

/// The head of an answer has arrived; its body comes on this.
pub(super) enum Arrival {
    /// A connection of its own.
    Http1(Connection),
    /// A stream.
    Http2(Arrived),
}

/// Sends a request, and returns the answer with its body still to come.
pub(super) async fn exchange(
    caller: &Rc<Caller>,
    route: &Route,
    outgoing: &mut Outgoing<'_>,
    mut token: Injected,
) -> Result<Response<AnswerBody>, Error> {
    let mut replay = None;
    loop {
        let sent = send(caller, route, outgoing, &mut token).await;
        let mut response = sent.map_err(|error| Error { replayed: replay.is_some(), ..error })?;
        let refused = response.status() == StatusCode::UNAUTHORIZED
            || (outgoing.call && grpc::refuses_token(response.headers()));
        if refused {
            let coming = unauthorized::reject(route, &response, &token);
            if coming && replay.is_none() {
                let replacement = unauthorized::replacement(route, &token, || outgoing.is_replayable());
                if let Some(replacement) = Box::pin(replacement).await {
                    // The connection goes with the refused answer.
                    token = Some(replacement);
                    replay = Some(unauthorized::Replaying::begin(route));
                    continue;
                }
            }
        }
        if let Some((upload, _)) = &outgoing.upload {
            upload.release();
        }
        if let Some(replay) = replay {
            replay.answered(refused);
            response.extensions_mut().insert(Replayed);
        }
        return Ok(answer(caller, route, response, outgoing.trailers, token));
    }
}

/// Sends a request on a kept connection or a fresh one, until there is the head of an answer.
async fn send(
    caller: &Caller,
    route: &Route,
    outgoing: &mut Outgoing<'_>,
    token: &mut Injected,
) -> Result<Response<Arrival>, Error> {
    let pool = &caller.worker.pool;
    let limit = outgoing.time_limit(caller, route);
    let kept = if outgoing.upgrade {
        None
    } else if route.upstream.may_speak_http_2() {
        match exchange_http2::send(caller, route, outgoing, token).await? {
            Sent::Answered(response) => return Ok(response),
            Sent::Http1(connection) => Some(connection),
        }
    } else {
        pool.take(route.upstream.slot)
    };
    let mut connection = match kept {
        Some(connection) => connection,
        None => {
            let wanted = if outgoing.upgrade { Wanted::Fresh } else { Wanted::Any };
            Box::pin(acquire(caller, route, wanted, token)).await?
        }
    };
    // The credential goes on last of all.
    route.inject(outgoing.headers, token);
    loop {
        let retriable = connection.is_used();
        outgoing.is_about_to_begin();
        caller.activity.awaiting(limit);
        let sent = connection.send(outgoing, caller, &|answer| caller.early.has_come(answer, token)).await;
        caller.activity.serving();
        match sent {
            Ok(response)
                if response.status() == StatusCode::SWITCHING_PROTOCOLS
                    && !(outgoing.upgrade && upgrade::is_granted(response.headers())) =>
            {
                return Err(Reason::UpstreamInvalid.into());
            }
            // What servers say on a connection that has been quiet for too long, before they close it (RFC 9110 §15.5.9).
            Ok(response)
                if response.status() == StatusCode::REQUEST_TIMEOUT
                    && retriable
                    && connection.is_last()
                    && outgoing.is_held() => {}
            Ok(response) => return Ok(response.map(|()| Arrival::Http1(connection))),
            Err(_) if outgoing.has_failed() => return Err(Reason::CallerAborted.into()),
            Err(SendError::Unsent) if retriable && outgoing.body_is_held() => {}
            Err(SendError::Closed) if retriable && outgoing.is_held() => {}
            Err(SendError::Unsent | SendError::Closed | SendError::Broken) => {
                return Err(Reason::UpstreamClosed.into());
            }
            Err(SendError::Invalid) => return Err(Reason::UpstreamInvalid.into()),
            Err(SendError::Timeout) => return Err(Reason::UpstreamTimeout.into()),
        }
        route.metrics.retry();
        // First, because it counts among those that there may be.
        drop(connection);
        let earlier = token.as_ref().map(Current::generation);
        connection = Box::pin(acquire(caller, route, Wanted::Fresh, token)).await?;
        if token.as_ref().map(Current::generation) != earlier {
            route.inject(outgoing.headers, token);
        }
    }
}

/// Another connection. Always boxed, because it is rare and large: every request would carry room for it, and every idle
/// connection keep it. It takes time, in which a token can end: what is sent on it is the token of then.
async fn acquire(
    caller: &Caller,
    route: &Route,
    wanted: Wanted,
    token: &mut Injected,
) -> Result<Connection, Error> {
    let (pool, now) = (&caller.worker.pool, caller.worker.ticks.now());
    match upstream::acquire(&route.upstream, pool, wanted, now).await {
        Ok(mut connection) => {
            if connection.count_once() {
                route.metrics.upstream_connection(UpstreamConnection::Opened);
            }
            route.renew(token).await?;
            Ok(connection)
        }
        Err(error) => Err(not_connected(caller, route, &error.into())),
    }
}

/// Why there is no connection, told to the log, the metrics and the caller.
pub(super) fn not_connected(caller: &Caller, route: &Route, failed: &Failed) -> Error {
    let error = failed.error();
    if matches!(error, ConnectError::Busy) {
        // When one comes free is not known; soon, more likely than not.
        return Error { retry_after: Some(Duration::from_secs(1)), ..Reason::UpstreamBusy.into() };
    }
    if failed.count_once() {
        route.metrics.upstream_connection(UpstreamConnection::Failed);
    }
    let reason = error.reason();
    let ticks = &caller.worker.ticks;
    if route.complaints.is_due(reason, ticks.now(), ticks.of(COMPLAINTS)) {
        let reason = reason.word();
        tracing::warn!(route = &*route.name, reason, %error, "cannot connect to the upstream");
    }
    reason.into()
}

/// Ties the answer to its connection, and takes out what an upstream must not show.
fn answer(
    caller: &Caller,
    route: &Route,
    response: Response<Arrival>,
    trailers: bool,
    token: Injected,
) -> Response<AnswerBody> {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let mut response = response.map(|arrival| match arrival {
        Arrival::Http1(connection) if switches => AnswerBody::switched(connection.into_tunnel()),
        Arrival::Http1(connection) => {
            let lease = Lease::new(connection, route.upstream.slot, Rc::clone(&caller.worker.pool));
            AnswerBody::upstream(lease)
        }
        Arrival::Http2(arrived) => AnswerBody::stream(arrived),
    });
    if let Some(token) = &token {
        drop_echoes(response.headers_mut(), token.token());
        drop_phrase(response.extensions_mut(), token.token());
    }
    if trailers {
        response.body_mut().pass_trailers(token);
    }
    // An answer without a body gives its connection back now; nobody will poll it.
    response.body_mut().finish_if_complete();
    response
}

/// Drops a reason phrase that contains the live token.
pub(super) fn drop_phrase(extensions: &mut Extensions, token: &AccessToken) {
    let token = token.expose().as_bytes();
    if extensions.get::<Phrase>().is_some_and(|phrase| memchr::memmem::find(&phrase.0, token).is_some()) {
        extensions.remove::<Phrase>();
    }
}

/// Drops the headers that contain the live token: an upstream that shows what it received must not show that.
pub(super) fn drop_echoes(headers: &mut HeaderMap, token: &AccessToken) {
    let token = token.expose().as_bytes();
    // A header shorter than the token cannot contain it, and most are.
    let holds = |value: &http::HeaderValue| {
        value.len() >= token.len() && memchr::memmem::find(value.as_bytes(), token).is_some()
    };
    if !headers.values().any(holds) {
        return;
    }
    let names: Vec<_> =
        headers.iter().filter(|(_, value)| holds(value)).map(|(name, _)| name.clone()).collect();
    for name in &names {
        headers.remove(name);
    }
}
