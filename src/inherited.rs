//! Ports that are bound already when the process starts: socket activation, see sd_listen_fds(3).
//!
//! 1. A supervisor binds the port and hands it over in `LISTEN_FDS`. It keeps the port open while attaché restarts, so
//!    that connections wait instead of being refused.
//! 2. Whoever binds an address asks [`take`] first: a socket of just this address is used instead. Nothing needs to be
//!    configured, and the same configuration works without a supervisor.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{LazyLock, Mutex, PoisonError},
};

use listenfd::ListenFd;

// Handing over is an affair of the process: there is one set of descriptors, and each is taken once.
static SOCKETS: LazyLock<Mutex<Vec<TcpListener>>> = LazyLock::new(|| Mutex::new(handed_over()));

/// The socket of this address, if one was handed over and has not been taken.
pub fn take(address: SocketAddr) -> Option<TcpListener> {
    // A panic while the lock was held leaves a list that is still good.
    let mut sockets = SOCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    let at = sockets.iter().position(|socket| socket.local_addr().is_ok_and(|bound| bound == address))?;
    tracing::info!(%address, "using the socket that was handed over");
    Some(sockets.swap_remove(at))
}

/// Tells of sockets that nobody took: callers that connect there would wait for ever.
pub fn warn_of_the_rest() {
    for socket in SOCKETS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        if let Ok(address) = socket.local_addr() {
            tracing::warn!(%address, "a socket was handed over that no `listen` names; it is closed");
        }
    }
}

fn handed_over() -> Vec<TcpListener> {
    let mut passed = ListenFd::from_env();
    let count = passed.len();
    let take = |at| match passed.take_tcp_listener(at) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "a descriptor was handed over that is no listening TCP socket");
            None
        }
    };
    (0..count).filter_map(take).collect()
}
