//! From a port to a worker: bind, accept, hand over, and answer those who are too many.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time,
};

use super::{
    error,
    site::{Live, Site},
    worker::Outbox,
};
use crate::{
    inherited,
    shutdown::{Shutdown, Stage},
    telemetry::metrics::ConnectionMetrics,
};

/// How long to wait when the process has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// How long a caller that was refused may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// File descriptors that connections leave to everything else: logs, probes, token requests, secret files.
const RESERVED: usize = 32;

/// A port that is bound, and what its requests meet.
pub(super) struct Bound {
    listener: std::net::TcpListener,
    pub(super) live: Live,
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) live: Live,
    pub(super) place: Place,
}

impl Bound {
    /// Binds the address of a site, unless a supervisor has done so already.
    pub(super) fn bind(site: Site) -> io::Result<Self> {
        if let Some(listener) = inherited::take(site.address) {
            listener.set_nonblocking(true)?;
            return Ok(Self { listener, live: Arc::new(ArcSwap::from_pointee(site)) });
        }
        let domain = socket2::Domain::for_address(site.address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        // After a restart, connections of the old process may still be in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&site.address.into())?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        Ok(Self { listener: socket.into(), live: Arc::new(ArcSwap::from_pointee(site)) })
    }

    /// Where it is bound; tells the port when the configuration says 0.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
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
    /// As many as configured, unless the process may not open as many files: a quarter of them is for connections to
    /// upstreams, because most callers' connections are idle.
    pub(super) fn new(max_connections: usize, files: usize, metrics: ConnectionMetrics) -> Arc<Self> {
        let possible = files.saturating_sub(RESERVED + files / 4).max(2);
        let max = max_connections.min(possible);
        if max < max_connections {
            tracing::info!(
                max,
                files,
                "fewer connections than max_connections: the limit of open files is low"
            );
        }
        Arc::new(Self { max, open: AtomicUsize::new(0), max_refused: (files / 8).clamp(2, 64), metrics })
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
    let Bound { listener, live } = bound;
    let refused = Rc::new(());
    let hand_over = |stream: TcpStream| {
        if let Some(place) = gate.enter() {
            // Out of this runtime: the socket may belong to another worker's.
            let Ok(stream) = stream.into_std() else { return };
            let accepted = Accepted { stream, live: Arc::clone(&live), place };
            // The least loaded: a few long connections must not end up on one worker.
            if let Some(outbox) = outboxes.iter().min_by_key(|outbox| outbox.load.load(Ordering::Relaxed)) {
                outbox.load.fetch_add(1, Ordering::AcqRel);
                if outbox.accepted.send(accepted).is_err() {
                    outbox.load.fetch_sub(1, Ordering::AcqRel);
                }
            }
        } else if Rc::strong_count(&refused) <= gate.max_refused {
            tokio::task::spawn_local(refuse(stream, Rc::clone(&refused)));
        }
    };
    let listener = match TcpListener::from_std(listener) {
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
            Ok((stream, _)) => {
                exhausted = false;
                hand_over(stream);
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
    // Asked of the kernel itself: the runtime would say that nothing is there before it has looked.
    let Ok(listener) = listener.into_std() else { return };
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                    hand_over(stream);
                }
            }
            Err(error) if is_about_one_caller(&error) => {}
            Err(_) => break,
        }
    }
}

fn is_about_one_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Tells a caller that there are too many, and waits a moment until it has read that.
async fn refuse(mut stream: TcpStream, _counted: Rc<()>) {
    let answer = async {
        stream.write_all(error::TOO_MANY_CONNECTIONS).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection, and the answer with it.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever is too slow for this does not get its answer.
    let _ = time::timeout(LINGER, answer).await;
}

/// How many files the process may open, after asking for as many as it can get.
pub(super) fn open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A limit that cannot be raised is the limit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

/// Takes a socket into the runtime of the calling worker.
pub(super) fn adopt(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(stream)?;
    // Small answers must not wait for the acknowledgement of earlier ones.
    stream.set_nodelay(true)?;
    Ok(stream)
}
