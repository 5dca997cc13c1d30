//! A connection for a request when none is kept: a new one, or with `max_connections` in use the first that comes free.

use std::{pin::pin, rc::Rc};

use futures_util::future::OptionFuture;
use tokio::time;

use super::{
    Connection, Permit, Pool, Upstream,
    connect::{self, ConnectError},
};

/// What a request may be sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Wanted {
    /// Any connection.
    Any,
    /// One that has not been used: for what must not meet a connection that is closing, or does not give it back.
    Fresh,
}

/// Opens a connection, or waits for one.
pub(in crate::proxy) async fn acquire(
    upstream: &Upstream,
    pool: &Pool,
    wanted: Wanted,
    now: u32,
) -> Result<Connection, ConnectError> {
    let permit = match upstream.limit.try_permit() {
        Some(permit) => permit,
        None => match wait(upstream, pool, wanted).await? {
            Turn::Kept(connection) => return Ok(connection),
            Turn::Permit(permit) => permit,
        },
    };
    connect::connect(upstream, permit, now).await
}

/// What a request has waited for.
enum Turn {
    Kept(Connection),
    Permit(Permit),
}

/// Waits for the right to open a connection, or for one that comes back: in one place of the queue, for as long as the route says.
async fn wait(upstream: &Upstream, pool: &Pool, wanted: Wanted) -> Result<Turn, ConnectError> {
    let place = Rc::new(upstream.limit.queue().ok_or(ConnectError::Busy)?);
    let mut patience = pin!(time::sleep(upstream.limit.patience()));
    let mut permit = pin!(upstream.limit.permit());
    loop {
        // The pool keeps the other end for as long as this waits.
        let returned = (wanted == Wanted::Any).then(|| pool.wait(upstream.slot, &place));
        tokio::select! {
            permit = &mut permit => return Ok(Turn::Permit(permit)),
            // One that ended on its way here makes room for another.
            Some(Ok(mut connection)) = OptionFuture::from(returned) => {
                if connection.is_usable() {
                    return Ok(Turn::Kept(connection));
                }
                place.goes_on();
            }
            () = &mut patience => return Err(ConnectError::Busy),
        }
    }
}
