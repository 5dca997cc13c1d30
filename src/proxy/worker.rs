//! A worker: one thread, one runtime, its share of the connections, its own pool.
//!
//! Nothing of a request is shared between workers, so nothing on its road is locked. The worker's loop takes
//! connections from its inbox, lets its coarse clock tick, and follows the process to its end.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::{Notify, mpsc},
    time,
};

use super::{
    alarm::Alarm,
    http2,
    listener::{self, Accepted, Bound, Gate},
    pipe::Pipes,
    registry::Registry,
    serve,
    ticks::Ticks,
    upstream::{Pool, Shared},
};
use crate::shutdown::{Shutdown, Stage};

/// How long a connection is quiet at least before its room for a request is given back, which is most of what it costs.
const QUIET: Duration = Duration::from_millis(100);

/// How long a quiet connection is left open once the process drains: a request that is on its way just now still finds
/// it open, and its answer tells the caller to go elsewhere.
const GRACE: Duration = Duration::from_millis(500);

/// What the connections of one worker have in common.
pub(super) struct Worker {
    pub(super) ticks: Rc<Ticks>,
    pub(super) pool: Rc<Pool>,
    pub(super) shared: Rc<Shared>,
    pub(super) registry: Registry,
    pub(super) max_header_bytes: usize,
    pub(super) http2: h2::server::Builder,
    /// The fields of an earlier answer, without them: a place for those of the next.
    pub(super) spare: RefCell<HeaderMap>,
    pub(super) pipes: Rc<Pipes>,
    stage: Cell<Stage>,
}

/// The limits of all workers.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) shortest: Duration,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) max_header_bytes: usize,
    /// That the process may open.
    pub(super) files: usize,
    /// Told when requests wait for connections to an upstream.
    pub(super) pressure: Arc<Notify>,
}

/// Where a worker gets its connections from.
pub(super) struct Inbox {
    pub(super) accepted: mpsc::UnboundedReceiver<Accepted>,
    pub(super) load: Arc<AtomicUsize>,
}

/// The other end of an inbox.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    pub(super) accepted: mpsc::UnboundedSender<Accepted>,
    // Connections handed over and not ended: read by whoever accepts, written by both sides.
    pub(super) load: Arc<AtomicUsize>,
}

/// An empty inbox.
pub(super) fn inbox() -> (Outbox, Inbox) {
    // Unbounded: the gate bounds how many connections there are at all.
    let (sender, receiver) = mpsc::unbounded_channel();
    let load = Arc::new(AtomicUsize::new(0));
    (Outbox { accepted: sender, load: Arc::clone(&load) }, Inbox { accepted: receiver, load })
}

/// What the worker that accepts also needs.
pub(super) struct Acceptor {
    pub(super) bound: Vec<Bound>,
    pub(super) outboxes: Vec<Outbox>,
    pub(super) gate: Arc<Gate>,
}

impl Worker {
    fn new(limits: &Limits) -> Rc<Self> {
        let ticks = Rc::new(Ticks::new(limits.shortest, limits.header_timeout, limits.idle_timeout));
        Rc::new(Self {
            pool: Rc::new(Pool::new(Rc::clone(&ticks))),
            shared: Rc::new(Shared::new(Rc::clone(&ticks))),
            ticks,
            registry: Registry::default(),
            max_header_bytes: limits.max_header_bytes,
            http2: http2::builder(limits.max_header_bytes),
            spare: RefCell::default(),
            pipes: Pipes::new(limits.files),
            stage: Cell::new(Stage::Running),
        })
    }

    /// Whether callers should go elsewhere for their next request.
    pub(super) fn is_leaving(&self) -> bool {
        self.stage.get() > Stage::Running
    }
}

/// The runtime of a worker. Made on the worker's own thread.
pub(super) fn runtime() -> io::Result<LocalRuntime> {
    // Threads for what blocks, which is little: names that are resolved, passwords that are read.
    Builder::new_current_thread().enable_all().max_blocking_threads(8).build_local(LocalOptions::default())
}

/// Runs a worker until the process ends. The calling thread is the worker's own.
pub(super) fn run(
    runtime: LocalRuntime,
    limits: &Limits,
    inbox: Inbox,
    acceptor: Option<Acceptor>,
    shutdown: Shutdown,
) {
    let worker = Worker::new(limits);
    runtime.block_on(work(worker, inbox, acceptor, &limits.pressure, shutdown));
    // Not dropped: that would wait for the lookup of a name that nobody answers.
    runtime.shutdown_background();
}

async fn work(
    worker: Rc<Worker>,
    mut inbox: Inbox,
    acceptor: Option<Acceptor>,
    pressure: &Notify,
    mut shutdown: Shutdown,
) {
    if let Some(Acceptor { bound, outboxes, gate }) = acceptor {
        for bound in bound {
            tokio::task::spawn_local(listener::accept(
                bound,
                outboxes.clone(),
                Arc::clone(&gate),
                shutdown.clone(),
            ));
        }
    }
    tokio::task::spawn_local(settle(Rc::clone(&worker)));
    let mut tick = Alarm::after(worker.ticks.tick());
    let mut next = Stage::Leaving;
    let mut grace_over = None;
    let mut inbox_open = true;
    // Kept from one turn to the next: what is told in between is not missed.
    let mut pressed = pin!(pressure.notified());
    loop {
        let grace = async {
            match grace_over {
                Some(at) => time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = inbox.accepted.recv(), if inbox_open => match accepted {
                Some(accepted) => {
                    let load = Load(Arc::clone(&inbox.load));
                    tokio::task::spawn_local(serve::serve(Rc::clone(&worker), accepted, load));
                }
                // Nobody accepts any more.
                None => inbox_open = false,
            },
            () = tick.rings() => {
                tick.set();
                worker.ticks.advance();
                worker.registry.sweep();
                worker.pool.sweep();
                worker.shared.sweep();
                worker.pipes.sweep();
            }
            () = &mut pressed => {
                pressed.set(pressure.notified());
                worker.pool.relieve();
                worker.shared.relieve();
            }
            () = shutdown.reached(next), if worker.stage.get() < Stage::Now => {
                let stage = shutdown.stage();
                // A dropped trigger counts as the end.
                let stage = if stage < next { Stage::Now } else { stage };
                worker.stage.set(stage);
                match stage {
                    Stage::Running | Stage::Leaving => next = Stage::Draining,
                    Stage::Draining => {
                        next = Stage::Now;
                        worker.pool.clear();
                        worker.shared.clear();
                        grace_over = Some(time::Instant::now() + GRACE);
                    }
                    Stage::Now => return,
                }
            }
            () = grace => {
                grace_over = None;
                worker.registry.drain();
            }
        }
        // `inbox_open` ends when the listeners have handed over what was waiting to be accepted.
        if worker.stage.get() >= Stage::Draining && !inbox_open && inbox.load.load(Ordering::Acquire) == 0 {
            return;
        }
        if worker.stage.get() >= Stage::Draining && grace_over.is_none() {
            // Also tells the connections that were accepted last.
            worker.registry.drain();
        }
    }
}

/// Takes the room for a request from connections that have been quiet for one to two of these. Sooner means less memory: what
/// thousands of connections need at the same time is not given back by the allocator afterwards.
async fn settle(worker: Rc<Worker>) {
    let mut quiet = Alarm::after(QUIET);
    loop {
        worker.ticks.conversing().await;
        quiet.set();
        quiet.rings().await;
        worker.registry.settle();
    }
}

/// One connection in the load of a worker.
pub(super) struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}
