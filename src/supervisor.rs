//! What the supervisor of the process is told, if it asked to be: systemd's `Type=notify` and watchdog, see sd_notify(3).
//!
//! 1. A supervisor that wants to know names a datagram socket in `NOTIFY_SOCKET`, and in `WATCHDOG_USEC` how long it
//!    waits for a sign of life.
//! 2. `READY=1` once the ports are served, `STOPPING=1` when the end begins.
//! 3. `WATCHDOG=1` in between, from the control plane itself: a control plane that hangs gives no sign, and the
//!    supervisor ends the process.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use tokio::time::{self, MissedTickBehavior};

use crate::shutdown::{Shutdown, Stage};

/// Somebody who wants to know how the process is.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixDatagram,
    // How long it waits for a sign of life, if it does.
    patience: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names. One that cannot be reached is no reason not to start.
    pub fn of_environment() -> Option<Self> {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
        let patience =
            env::var_os("WATCHDOG_USEC").filter(|_| is_meant(env::var_os("WATCHDOG_PID").as_deref()));
        Self::new(&address, patience.as_deref())
            .inspect_err(|error| tracing::warn!(%error, "the supervisor's socket cannot be used"))
            .ok()
    }

    fn new(address: &OsStr, patience: Option<&OsStr>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A name that begins with @ lies in Linux's abstract namespace, where that byte is a zero.
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        socket.connect_addr(&address)?;
        // A supervisor that does not read must not hold up the control plane.
        socket.set_nonblocking(true)?;
        let micros = patience.and_then(OsStr::to_str).and_then(|micros| micros.parse().ok());
        Ok(Self { socket, patience: micros.filter(|micros| *micros > 0).map(Duration::from_micros) })
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.socket.send(state.as_bytes()) {
            tracing::debug!(%error, state, "the supervisor could not be told");
        }
    }

    /// Tells it that the process is ready, gives signs of life, and tells it when the end begins.
    pub async fn keep_informed(self, mut shutdown: Shutdown) {
        self.tell("READY=1");
        tokio::select! {
            () = self.give_signs_of_life() => {}
            () = shutdown.reached(Stage::Leaving) => {}
        }
        self.tell("STOPPING=1");
        // Draining may take longer than its patience.
        self.give_signs_of_life().await;
    }

    async fn give_signs_of_life(&self) {
        let Some(patience) = self.patience else { return std::future::pending().await };
        // Twice as often as it asks for, as sd_watchdog_enabled(3) advises.
        let mut ticks = time::interval((patience / 2).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell("WATCHDOG=1");
        }
    }
}

/// Whether the watchdog means this process, and not the one that started it.
fn is_meant(process: Option<&OsStr>) -> bool {
    process.is_none_or(|process| process.to_str() == Some(&std::process::id().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        assert!(is_meant(None));
        assert!(is_meant(Some(OsStr::new(&std::process::id().to_string()))));
        assert!(!is_meant(Some(OsStr::new("1"))) && !is_meant(Some(OsStr::new("no number"))));
    }

    #[test]
    fn a_watchdog_without_a_usable_time_is_none() {
        let name = format!("attache-test-{}", std::process::id());
        let _bound = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let patience = |micros: &str| {
            Supervisor::new(OsStr::new(&format!("@{name}")), Some(OsStr::new(micros))).unwrap().patience
        };
        assert_eq!(patience("250000"), Some(Duration::from_millis(250)));
        assert_eq!((patience("0"), patience("soon")), (None, None));
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_an_error_and_nothing_worse() {
        assert!(Supervisor::new(OsStr::new("/no/such/socket"), None).is_err());
        assert!(Supervisor::new(OsStr::new(""), None).is_err());
    }
}
