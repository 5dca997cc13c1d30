//! A place on an HTTP/2 connection, for an upstream that may speak it.
//!
//! 1. On a connection that has room.
//! 2. Else one request opens another, and those that come meanwhile wait for it: only then it is known what the upstream
//!    speaks. With `max_connections` in use, a request queues: for the right to open one, and for a place that another request of
//!    its worker gives up. It keeps its turn while it opens one: those behind it do not take that from it.
//! 3. What has met a connection that ended is given a place on one that was opened after that, whoever opened it, and on no other.
//! 4. If it turns out to speak HTTP/1.1, each has a connection of its own from then on.

use std::{
    io,
    rc::{Rc, Weak},
    sync::Arc,
};

use futures_util::{FutureExt as _, future::OptionFuture};
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use super::{
    Connection, Pool, Shared, Upstream,
    acquire::{self, Wanted},
    connect::{self, ConnectError, Failed, Offer},
    http2::Multiplexed,
    limit::{Permit, Waiting},
    queue::WHATEVER,
    seat::Seat,
    terms::Terms,
};

/// Connections that end before anything can be sent on them, for one request.
const MAX_CLOSED: usize = 3;

/// What a request is sent on.
pub(in crate::proxy) enum Sharing {
    /// A stream.
    Seat(Seat),
    /// A connection of its own, for HTTP/1.1.
    Own(Connection),
}

/// What is there to be used at once.
pub(in crate::proxy) fn at_hand(upstream: &Upstream, pool: &Pool, shared: &Shared) -> Option<Sharing> {
    let slot = upstream.slot;
    shared.seat(slot, WHATEVER).map(Sharing::Seat).or_else(|| pool.take(slot).map(Sharing::Own))
}

/// Finds a place, or makes one, which takes time.
pub(in crate::proxy) async fn share(
    upstream: &Arc<Upstream>,
    pool: &Rc<Pool>,
    shared: &Rc<Shared>,
    wanted: Wanted,
) -> Result<Sharing, Failed> {
    let slot = upstream.slot;
    let after = match wanted {
        Wanted::Any => WHATEVER,
        // Who asks for that has just met one that ended.
        Wanted::Fresh => shared.newest(),
    };
    let mut queued = None;
    let mut closed = 0;
    while closed <= MAX_CLOSED {
        if let Some(seat) = shared.seat(slot, after) {
            return Ok(Sharing::Seat(seat));
        }
        if wanted == Wanted::Any
            && let Some(connection) = pool.take(slot)
        {
            return Ok(Sharing::Own(connection));
        }
        if shared.speaks_http_1(slot) {
            let acquired = acquire::acquire(upstream, pool, wanted, shared.ticks().now()).await;
            if let Some(own) = own(shared, slot, acquired) {
                return own;
            }
            closed += 1;
            continue;
        }
        let attempt = if let Some(dial) = shared.dialing(slot) {
            dial
        } else if let Some(permit) = upstream.limit.try_permit() {
            dial(upstream, pool, shared, permit)
        } else {
            let queued = match &mut queued {
                Some(queued) => queued,
                None => queued.insert(Queued::join(upstream, shared, after)?),
            };
            match queued.turn(upstream).await? {
                Turn::Place(seat) => return Ok(Sharing::Seat(seat)),
                // That has turned out while it waited.
                Turn::Permit(permit) if shared.speaks_http_1(slot) => {
                    let connected = connect::connect(upstream, permit, shared.ticks().now()).await;
                    if let Some(own) = own(shared, slot, connected) {
                        return own;
                    }
                    closed += 1;
                    continue;
                }
                Turn::Permit(permit) => {
                    shared.dialing(slot).unwrap_or_else(|| dial(upstream, pool, shared, permit))
                }
            }
        };
        let given = OptionFuture::from(queued.as_mut().map(|queued| &mut queued.given));
        let opened = tokio::select! {
            biased;
            Some(Ok(seat)) = given => return Ok(Sharing::Seat(seat)),
            opened = attempt => opened?.upgrade(),
        };
        // If it is alive, others were faster, and there was no room for this one.
        let opened = opened.filter(|connection| connection.is_usable());
        closed += usize::from(opened.is_none());
    }
    let closed = io::Error::new(io::ErrorKind::ConnectionAborted, "it closes as soon as it is open");
    Err(ConnectError::Unreachable(closed).into())
}

/// What came of asking for a connection over HTTP/1.1 alone; nothing if the upstream may have turned to HTTP/2 alone: it refuses such
/// an offer with an alert (RFC 7301 §3.2).
fn own(
    shared: &Shared,
    slot: usize,
    connected: Result<Connection, ConnectError>,
) -> Option<Result<Sharing, Failed>> {
    if let Err(ConnectError::Tls(_)) = connected {
        shared.forget_http_1(slot);
        return None;
    }
    Some(connected.map(Sharing::Own).map_err(Failed::from))
}

/// What a request has waited for.
enum Turn {
    Place(Seat),
    Permit(Permit),
}

/// A request in the queue, the same one in which those are that want connections of their own. It stays there until it has a place
/// on a connection: its turn and its time limit are those with which it came.
struct Queued {
    place: Rc<Waiting>,
    // The other end is kept for as long as this is.
    given: oneshot::Receiver<Seat>,
    until: Instant,
}

impl Queued {
    fn join(upstream: &Upstream, shared: &Shared, after: u64) -> Result<Self, ConnectError> {
        let place = Rc::new(upstream.limit.queue().ok_or(ConnectError::Busy)?);
        let given = shared.wait(upstream.slot, &place, after);
        Ok(Self { place, given, until: Instant::now() + upstream.limit.patience() })
    }

    async fn turn(&mut self, upstream: &Upstream) -> Result<Turn, ConnectError> {
        // What it was given before was of no use, if it was given something.
        self.place.goes_on();
        let turn = tokio::select! {
            biased;
            Ok(seat) = &mut self.given => Turn::Place(seat),
            permit = upstream.limit.permit() => Turn::Permit(permit),
            () = time::sleep_until(self.until) => return Err(ConnectError::Busy),
        };
        self.place.served();
        Ok(turn)
    }
}

/// Opens a connection for whoever waits. In a task of its own: the request that began it may go away.
fn dial(
    upstream: &Arc<Upstream>,
    pool: &Rc<Pool>,
    shared: &Rc<Shared>,
    permit: Permit,
) -> super::shared::Dial {
    let (slot, opened) =
        (upstream.slot, open(Arc::clone(upstream), Rc::clone(pool), Rc::clone(shared), permit));
    let opened = tokio::task::spawn_local(opened).map(|joined| {
        let gone = |_| ConnectError::Unreachable(io::Error::other("the attempt was given up"));
        joined.map_err(gone).flatten().map_err(Failed::from)
    });
    let attempt = shared.dial(slot, opened.boxed_local());
    // Somebody sees its end, or it would be under way for ever when all that wait for it have gone away.
    let seen = attempt.clone();
    tokio::task::spawn_local(async move {
        if let Ok(opened) = seen.await {
            // Those that wait for it go first.
            tokio::task::yield_now().await;
            if let Some(connection) = opened.upgrade() {
                connection.rests();
            }
        }
    });
    attempt
}

async fn open(
    upstream: Arc<Upstream>,
    pool: Rc<Pool>,
    shared: Rc<Shared>,
    permit: Permit,
) -> Result<Weak<Multiplexed>, ConnectError> {
    let connect::Established { stream, edition, http2 } = connect::establish(&upstream, Offer::Any).await?;
    let ticks = shared.ticks();
    let terms = Terms { permit, edition, born: ticks.now() };
    if http2 {
        let opening = Multiplexed::open(stream, &upstream, &shared, terms);
        let connection = time::timeout(upstream.connect_timeout, opening).await;
        let not_http2 =
            |error: h2::Error| ConnectError::NotHttp2(error.reason().unwrap_or(h2::Reason::PROTOCOL_ERROR));
        let connection = connection.map_err(|_| ConnectError::Timeout)?.map_err(not_http2)?;
        let opened = Rc::downgrade(&connection);
        shared.learn(upstream.slot, Some(connection));
        Ok(opened)
    } else {
        shared.learn(upstream.slot, None);
        pool.put(upstream.slot, Connection::new(stream, &upstream, terms));
        Ok(Weak::new())
    }
}
