//! A request to an upstream that may speak HTTP/2: on which connection, and when it may be sent once more.
//!
//! - Nothing was sent, or the upstream says that it has not looked at it (GOAWAY, REFUSED_STREAM; RFC 9113 §8.7): on
//!   another connection, whatever the method, if what was sent of the body is held.
//! - A kept connection ended before the answer began: once, on a fresh one, if the method is idempotent and the body is held
//!   (RFC 9110 §9.2.2). Not on another kept one, which may end by the same restart. Not when the upstream reset the stream: it has
//!   seen the request.

use http::{
    HeaderMap, Request, Response, Uri, Version,
    header::HOST,
    uri::{self, Authority, Scheme},
};

use super::{
    caller::Caller,
    error::{Error, Reason},
    exchange::{self, Arrival},
    http1::Facts,
    outgoing::Outgoing,
    route::{Injected, Route},
    upgrade,
    upstream::{self, Connected, Connection, Fields, Seat, Sharing, StreamError, Wanted},
};
use crate::{telemetry::metrics::UpstreamConnection, token::Current};

/// How often one request is sent at most.
const MAX_SENDINGS: usize = 3;

/// Where a request has got to.
pub(super) enum Sent {
    /// There is the head of an answer.
    Answered(Response<Arrival>),
    /// To a connection of its own: the upstream speaks HTTP/1.1.
    Http1(Connection),
}

/// Sends a request until there is the head of an answer.
pub(super) async fn send(
    caller: &Caller,
    route: &Route,
    outgoing: &Outgoing<'_>,
    token: &mut Injected,
) -> Result<Sent, Error> {
    let mut wanted = Wanted::Any;
    for sending in 0..MAX_SENDINGS {
        if sending > 0 {
            route.metrics.retry();
            route.renew(token).await?;
        }
        let seat = match seat(caller, route, wanted, token).await? {
            Sharing::Seat(seat) => seat,
            Sharing::Own(connection) => return Ok(Sent::Http1(connection)),
        };
        if let Some((upload, _)) = &outgoing.upload {
            // What the upstream has not looked at may be sent again whatever the method.
            upload.hold();
        }
        let kept = seat.is_used();
        caller.activity.awaiting(outgoing.time_limit(caller, route));
        let request = head(outgoing, route)?;
        let fields = fields(outgoing, outgoing.headers, route, token);
        let early = |answer| caller.early.has_come(answer, token);
        let sent = seat.send(request, fields, outgoing.body(), &caller.activity, &early).await;
        caller.activity.serving();
        match sent {
            // The library lets lines pass that say the same length twice.
            Ok(response) if Facts::of_http2(response.headers()).is_ambiguous() => {
                return Err(Reason::UpstreamInvalid.into());
            }
            Ok(response) => return Ok(Sent::Answered(response.map(Arrival::Http2))),
            Err(StreamError::Unsent) => {}
            Err(_) if outgoing.has_failed() => return Err(Reason::CallerAborted.into()),
            Err(StreamError::Unprocessed) if outgoing.body_is_held() => {}
            Err(StreamError::Closed) if kept && wanted == Wanted::Any && outgoing.is_held() => {
                wanted = Wanted::Fresh;
            }
            Err(error) => return Err(error.reason().into()),
        }
    }
    Err(Reason::UpstreamClosed.into())
}

/// Asks for a WebSocket on a stream (RFC 8441 §5), until there is the head of an answer; nothing when the upstream takes no such
/// requests. It is sent again only if the upstream says that it has not looked at it.
pub(super) async fn connect(
    caller: &Caller,
    route: &Route,
    outgoing: &Outgoing<'_>,
    token: &mut Injected,
) -> Result<Option<Response<Connected>>, Error> {
    for sending in 0..MAX_SENDINGS {
        if sending > 0 {
            route.metrics.retry();
            route.renew(token).await?;
        }
        let Some(seat) = connecting_seat(caller, route, token).await? else { return Ok(None) };
        let (mut request, mut headers) = (head(outgoing, route)?, outgoing.headers.clone());
        upgrade::ask_by_connect(&mut request, &mut headers);
        caller.activity.awaiting(outgoing.time_limit(caller, route));
        let fields = fields(outgoing, &headers, route, token);
        let early = |answer| caller.early.has_come(answer, token);
        let sent = seat.connect(request, fields, &caller.activity, &early).await;
        caller.activity.serving();
        match sent {
            Ok(response) => return Ok(Some(response)),
            Err(StreamError::Unsent | StreamError::Unprocessed) => {}
            Err(error) => return Err(error.reason().into()),
        }
    }
    Err(Reason::UpstreamClosed.into())
}

/// A place from which a tunnel can be asked for.
async fn connecting_seat(
    caller: &Caller,
    route: &Route,
    token: &mut Injected,
) -> Result<Option<Seat>, Error> {
    let (worker, slot) = (&caller.worker, route.upstream.slot);
    if worker.shared.speaks_http_1(slot) {
        return Ok(None);
    }
    Ok(match seat(caller, route, Wanted::Any, token).await? {
        Sharing::Seat(seat) => Some(seat).filter(Seat::may_connect),
        Sharing::Own(connection) => {
            worker.pool.put(slot, connection);
            None
        }
    })
}

impl StreamError {
    /// What the caller is told of it, if the request is not sent again.
    fn reason(self) -> Reason {
        match self {
            Self::Unsent | Self::Unprocessed | Self::Closed | Self::Broken => Reason::UpstreamClosed,
            Self::Invalid => Reason::UpstreamInvalid,
            Self::Timeout => Reason::UpstreamTimeout,
        }
    }
}

async fn seat(
    caller: &Caller,
    route: &Route,
    wanted: Wanted,
    token: &mut Injected,
) -> Result<Sharing, Error> {
    let worker = &caller.worker;
    let at_hand = match wanted {
        Wanted::Any => upstream::at_hand(&route.upstream, &worker.pool, &worker.shared),
        Wanted::Fresh => None,
    };
    let mut sharing = match at_hand {
        Some(sharing) => sharing,
        None => {
            // Boxed, so that others carry no room for it.
            let finding = Box::pin(upstream::share(&route.upstream, &worker.pool, &worker.shared, wanted));
            let found = finding.await.map_err(|failed| exchange::not_connected(caller, route, &failed))?;
            route.renew(token).await?;
            found
        }
    };
    let is_new = match &mut sharing {
        Sharing::Seat(seat) => seat.count_once(),
        Sharing::Own(connection) => connection.count_once(),
    };
    if is_new {
        route.metrics.upstream_connection(UpstreamConnection::Opened);
    }
    Ok(sharing)
}

/// The head as HTTP/2 has it (RFC 9113 §8.3.1), but for its [`fields`].
fn head(outgoing: &Outgoing<'_>, route: &Route) -> Result<Request<()>, Reason> {
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = outgoing.method.clone();
    let host = outgoing.headers.get(HOST).ok_or(Reason::MalformedHost)?;
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if route.upstream.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(if *host == route.upstream.authority {
        route.upstream.uri_authority.clone()
    } else {
        Authority::try_from(host.as_bytes()).map_err(|_| Reason::MalformedHost)?
    });
    parts.path_and_query = Some(outgoing.target.clone());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Reason::MalformedTarget)?;
    Ok(request)
}

fn fields<'a>(
    outgoing: &Outgoing<'_>,
    headers: &'a HeaderMap,
    route: &'a Route,
    token: &'a Injected,
) -> Fields<'a> {
    Fields {
        headers,
        length: outgoing.upload.as_ref().and_then(|(_, length)| *length),
        injected: route.injected(),
        credential: token.as_ref().map(Current::header),
    }
}
