//! From a port to a worker: bind, accept, hand over, and answer those who are too many.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time;

use super::{
    error::Reason,
    pipe,
    refuse::Refusals,
    site::{Live, Site},
    worker::Outbox,
};
use crate::{
    listen::{Detached, Listen, Socket, SocketFile, Stream},
    shutdown::{Shutdown, Stage},
    telemetry::metrics::ConnectionMetrics,
};

/// How long to wait when the process has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// File descriptors that everything else needs: logs, signals, probes, token requests, secret files. Measured: 17 and 6 a
/// worker while nothing happens, one of them a listener.
const RESERVED: usize = 24;
const PER_WORKER: usize = 6;

/// A port that is bound, and what its requests meet.
pub(super) struct Bound {
    socket: Socket,
    pub(super) live: Live,
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: Detached,
    pub(super) live: Live,
    pub(super) place: Place,
}

impl Bound {
    /// Binds what a site listens on, unless a supervisor has done so already.
    pub(super) fn bind(site: Site, is_shared: bool) -> io::Result<Self> {
        let socket = Socket::bind(&site.listen, &site.unix, is_shared)?;
        Ok(Self { socket, live: Arc::new(ArcSwap::from_pointee(site)) })
    }

    /// The file of its Unix socket.
    pub(super) fn file(&self) -> Option<Arc<SocketFile>> {
        self.socket.file()
    }

    /// Where it is bound; tells the port when the configuration says 0.
    pub(super) fn address(&self) -> io::Result<Listen> {
        self.socket.local()
    }
}

/// For how many connections there are file descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    callers: usize,
    /// Of one listener at once.
    refused: usize,
}

impl Room {
    /// Shares `files` out. A quarter is for connections to upstreams, because most callers' connections are idle; where
    /// there are few, one for each caller, so that who is accepted is served.
    pub(super) fn new(files: usize, workers: usize, listeners: usize) -> Self {
        let refused = ((files / 16).clamp(2, 64) / listeners.max(1)).max(1);
        let each = PER_WORKER + 2 * pipe::most(files);
        let others = RESERVED + each * workers + (1 + refused) * listeners;
        let rest = files.saturating_sub(others);
        Self { callers: (rest - (files / 4).min(rest.div_ceil(2))).max(2), refused }
    }
}

/// How many connections there may be at once, over all workers.
#[derive(Debug)]
pub(super) struct Gate {
    max: usize,
    open: AtomicUsize,
    // Callers that are being refused: each holds a descriptor too.
    max_refused: usize,
    metrics: ConnectionMetrics,
}

/// A place among the connections; dropping it makes room.
#[derive(Debug)]
pub(super) struct Place(Arc<Gate>);

impl Gate {
    /// As many as configured, unless the process may not open as many files.
    pub(super) fn new(max_connections: usize, room: Room, metrics: ConnectionMetrics) -> Arc<Self> {
        let max = max_connections.min(room.callers);
        if max < max_connections {
            tracing::info!(max, "fewer connections than max_connections: the limit of open files is low");
        }
        Arc::new(Self { max, open: AtomicUsize::new(0), max_refused: room.refused, metrics })
    }

    fn enter(self: &Arc<Self>) -> Option<Place> {
        let entered = self
            .open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < self.max).then_some(open + 1));
        if entered.is_err() {
            self.metrics.refused();
            return None;
        }
        self.metrics.opened();
        Some(Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.closed();
    }
}

/// Accepts until the process drains, and then what was waiting already.
pub(super) async fn accept(bound: Bound, outboxes: Vec<Outbox>, gate: Arc<Gate>, mut shutdown: Shutdown) {
    let Bound { socket, live } = bound;
    let door = Door { refusals: Refusals::new(gate.max_refused), live, outboxes, gate };
    let listener = match socket.listener() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot wait for connections"),
    };
    // Said once, however often it is tried.
    let mut exhausted = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.reached(Stage::Draining) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                exhausted = false;
                door.receive(stream).await;
            }
            // A caller that went away before it was accepted is nobody's fault.
            Err(error) if is_about_one_caller(&error) => {}
            Err(error) => {
                if !exhausted {
                    tracing::warn!(%error, "cannot accept connections; trying again until it works");
                }
                exhausted = true;
                time::sleep(EXHAUSTED).await;
            }
        }
    }
    listener.hide();
    // Asked of the kernel itself: the runtime would say that nothing is there before it has looked.
    let Ok(backlog) = listener.backlog() else { return };
    loop {
        match backlog.accept() {
            Ok(stream) => door.receive(stream).await,
            Err(error) if is_about_one_caller(&error) => {}
            Err(_) => break,
        }
    }
}

fn is_about_one_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// What a connection meets once it is accepted.
struct Door {
    live: Live,
    outboxes: Vec<Outbox>,
    gate: Arc<Gate>,
    refusals: Refusals,
}

impl Door {
    /// Hands a connection over to a worker, or says why not.
    async fn receive(&self, stream: Stream) {
        if let Err((stream, reason)) = self.hand_over(stream) {
            self.refusals.refuse(stream, &self.live.load_full(), reason).await;
        }
    }

    fn hand_over(&self, stream: Stream) -> Result<(), (Stream, Reason)> {
        // By TCP nobody knows who it is, and nothing is asked.
        let uid = match stream.peer_uid() {
            Ok(uid) => uid,
            Err(_) => return Err((stream, Reason::PeerRefused)),
        };
        if uid.is_some() && !self.live.load().unix.allow(uid) {
            return Err((stream, Reason::PeerRefused));
        }
        let Some(place) = self.gate.enter() else { return Err((stream, Reason::TooManyConnections)) };
        // Out of this runtime: the socket may belong to another worker's.
        let Ok(stream) = stream.detach() else { return Ok(()) };
        let accepted = Accepted { stream, live: Arc::clone(&self.live), place };
        // The least loaded: a few long connections must not end up on one worker.
        if let Some(outbox) = self.outboxes.iter().min_by_key(|outbox| outbox.load.load(Ordering::Relaxed)) {
            outbox.load.fetch_add(1, Ordering::AcqRel);
            if outbox.accepted.send(accepted).is_err() {
                outbox.load.fetch_sub(1, Ordering::AcqRel);
            }
        }
        Ok(())
    }
}

/// How many files the process may open, after asking for as many as it can get.
pub(super) fn open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A limit that cannot be raised is the limit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_are_shared_so_that_each_caller_can_have_an_upstream() {
        for (files, workers, listeners, callers, refused) in [
            (64, 1, 1, 14, 4),
            (64, 2, 1, 11, 4),
            (64, 4, 1, 5, 4),
            (64, 2, 4, 10, 1),
            (16, 2, 1, 2, 2),
            (1024, 2, 1, 635, 64),
            (20_000, 2, 1, 14_867, 64),
        ] {
            let room = Room::new(files, workers, listeners);
            assert_eq!(room, Room { callers, refused }, "{files} {workers} {listeners}");
            let each = PER_WORKER + 2 * pipe::most(files);
            let others = RESERVED + each * workers + listeners * (1 + refused);
            assert!(files < 64 || others + callers + callers.min(files / 4) <= files);
        }
    }
}
