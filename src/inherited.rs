//! Sockets that are bound already when the process starts: socket activation, see sd_listen_fds(3).
//!
//! 1. A supervisor binds the socket and hands it over in `LISTEN_FDS`. It keeps the socket open while attaché restarts,
//!    so that connections wait instead of being refused.
//! 2. Whoever binds an address asks [`take`] first: a socket of just this address, or of just this path, is used
//!    instead. Nothing needs to be configured, and the same configuration works without a supervisor.

use std::sync::{LazyLock, Mutex, PoisonError};

use listenfd::ListenFd;

use crate::listen::{Kind, Listen};

// Handing over is an affair of the process: there is one set of descriptors, and each is taken once.
static SOCKETS: LazyLock<Mutex<Vec<Kind>>> = LazyLock::new(|| Mutex::new(handed_over()));

/// The socket of this address, if one was handed over and has not been taken.
pub(crate) fn take(listen: &Listen) -> Option<Kind> {
    // A panic while the lock was held leaves a list that is still good.
    let mut sockets = SOCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    let at = sockets.iter().position(|socket| socket.local().is_ok_and(|bound| bound == *listen))?;
    tracing::info!(address = %listen, "using the socket that was handed over");
    Some(sockets.swap_remove(at))
}

/// Tells of sockets that nobody took: callers that connect there would wait for ever.
pub fn warn_of_the_rest() {
    for socket in SOCKETS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        if let Ok(address) = socket.local() {
            tracing::warn!(%address, "a socket was handed over that no `listen` names; it is closed");
        }
    }
}

fn handed_over() -> Vec<Kind> {
    let mut passed = ListenFd::from_env();
    let count = passed.len();
    // A descriptor that is not of the first kind stays for the second.
    let take = |at| match passed.take_tcp_listener(at) {
        Ok(socket) => socket.map(Kind::Tcp),
        Err(_) => match passed.take_unix_listener(at) {
            Ok(socket) => socket.map(Kind::Unix),
            Err(error) => {
                tracing::warn!(%error, "a descriptor was handed over that is no listening socket");
                None
            }
        },
    };
    (0..count).filter_map(take).collect()
}
