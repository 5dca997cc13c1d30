//! A connection for a request when none is kept: a new one, or with `max_connections` in use the first that comes free.

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
        None if wanted == Wanted::Fresh => wait(upstream).await?,
        None => {
            let _waiting = upstream.limit.queue().ok_or(ConnectError::Busy)?;
            let patience = time::sleep(upstream.limit.patience());
            let returned = pool.wait(upstream.slot);
            tokio::select! {
                permit = upstream.limit.permit() => permit,
                // The pool keeps the other end for as long as this waits.
                Ok(mut connection) = returned => {
                    if connection.is_usable() {
                        return Ok(connection);
                    }
                    // It ended on its way here, and what it stood for is free.
                    drop(connection);
                    wait(upstream).await?
                }
                () = patience => return Err(ConnectError::Busy),
            }
        }
    };
    connect::connect(upstream, permit, now).await
}

/// Waits for the right to open a connection.
async fn wait(upstream: &Upstream) -> Result<Permit, ConnectError> {
    let _waiting = upstream.limit.queue().ok_or(ConnectError::Busy)?;
    time::timeout(upstream.limit.patience(), upstream.limit.permit()).await.map_err(|_| ConnectError::Busy)
}
