//! How many connections there may be to one upstream, over all workers, and who waits for one.
//!
//! 1. A connection is opened with a [`Permit`], and gives it back when it is closed. That is the only time that workers
//!    meet: a request on a kept connection only reads whether anyone waits.
//! 2. With all permits taken, a request queues: for a permit, and for a connection that its own worker gets back (`pool`).
//! 3. The first one to wait tells every worker, which closes what it keeps unused.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};

use crate::telemetry::metrics::UpstreamMetrics;

/// The limit of one upstream.
#[derive(Debug)]
pub(in crate::proxy) struct Limit {
    // First come, first served, whichever worker they are on. Its lock is taken when connections open and close.
    permits: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
    patience: Duration,
    // Wakes the workers of this instance.
    pressure: Arc<Notify>,
    metrics: UpstreamMetrics,
}

/// The right to one connection.
#[derive(Debug)]
pub(in crate::proxy) struct Permit(Arc<Limit>);

/// A request in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(in crate::proxy) struct Waiting {
    limit: Arc<Limit>,
    // Until it is given what it waits for.
    counts: Cell<bool>,
}

impl Limit {
    pub(super) fn new(
        max: usize,
        max_waiting: usize,
        patience: Duration,
        pressure: Arc<Notify>,
        metrics: UpstreamMetrics,
    ) -> Arc<Self> {
        let permits = Semaphore::new(max.min(Semaphore::MAX_PERMITS));
        Arc::new(Self { permits, waiting: AtomicUsize::new(0), max_waiting, patience, pressure, metrics })
    }

    /// A permit, if there is one and nobody has waited for it.
    pub(super) fn try_permit(self: &Arc<Self>) -> Option<Permit> {
        let permit = self.permits.try_acquire().ok()?;
        permit.forget();
        Some(self.granted())
    }

    /// The next permit.
    pub(in crate::proxy) async fn permit(self: &Arc<Self>) -> Permit {
        // It is never closed.
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
        self.granted()
    }

    fn granted(self: &Arc<Self>) -> Permit {
        self.metrics.opened();
        Permit(Arc::clone(self))
    }

    /// A place in the queue, unless it is full.
    pub(super) fn queue(self: &Arc<Self>) -> Option<Waiting> {
        let room = |waiting: usize| (waiting < self.max_waiting).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        self.waited_for();
        Some(Waiting { limit: Arc::clone(self), counts: Cell::new(true) })
    }

    fn waited_for(&self) {
        self.metrics.waiting();
        self.pressure.notify_waiters();
    }

    /// How many requests wait for a connection, on all workers.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// How long a request stays in the queue.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }
}

impl Permit {
    /// How many requests wait for a connection, on all workers.
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting()
    }

    /// The limit that it counts against.
    pub(super) fn limit(&self) -> &Arc<Limit> {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.metrics.closed();
        self.0.permits.add_permits(1);
    }
}

impl Waiting {
    /// It has been given what it waits for, and will find that out.
    pub(super) fn served(&self) {
        if self.counts.replace(false) {
            self.limit.waiting.fetch_sub(1, Ordering::AcqRel);
            self.limit.metrics.no_longer_waiting();
        }
    }

    /// Whether it counts among those that wait.
    pub(super) fn counts(&self) -> bool {
        self.counts.get()
    }

    /// What it was given is of no use. It had its place, so it is not turned away now.
    pub(super) fn goes_on(&self) {
        if !self.counts.replace(true) {
            self.limit.waiting.fetch_add(1, Ordering::AcqRel);
            self.limit.waited_for();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.served();
    }
}
