//! The coarse clock of a worker. A limit that is seen up to one tick late protects just as well as an exact one.

use std::{cell::Cell, time::Duration};

use tokio::sync::Notify;

/// How long a request of a caller that has closed its side is still served. It may only have said that it sends nothing
/// more (RFC 9112 §9.6), or be gone: TCP does not tell which.
const LEFT: Duration = Duration::from_secs(5);

/// The longest tick: a limit is seen up to one tick late, and 10 s must not become 11.
const COARSEST: Duration = Duration::from_millis(500);

/// The coarse clock of a worker, and the limits that its connections have in common, all in ticks.
#[derive(Debug)]
pub(super) struct Ticks {
    now: Cell<u32>,
    tick: Duration,
    pub(super) head_limit: u32,
    pub(super) idle_limit: u32,
    pub(super) left_limit: u32,
    // Connections that have room for a request now, and who waits for one.
    pub(super) conversing: Cell<usize>,
    pub(super) begun: Notify,
}

impl Ticks {
    /// A clock fine enough for limits as short as `shortest`.
    pub(super) fn new(shortest: Duration, head: Duration, idle: Duration) -> Self {
        let tick = (shortest / 4).clamp(Duration::from_millis(50), COARSEST);
        let mut ticks = Self {
            now: Cell::new(0),
            tick,
            head_limit: 0,
            idle_limit: 0,
            left_limit: 0,
            conversing: Cell::new(0),
            begun: Notify::new(),
        };
        ticks.head_limit = ticks.of(head);
        ticks.idle_limit = ticks.of(idle);
        ticks.left_limit = ticks.of(LEFT);
        ticks
    }

    /// Waits until some connection has room for a request.
    pub(super) async fn conversing(&self) {
        while self.conversing.get() == 0 {
            self.begun.notified().await;
        }
    }

    /// How long a tick is.
    pub(super) fn tick(&self) -> Duration {
        self.tick
    }

    /// As many ticks as `limit` lasts, rounded up.
    pub(super) fn of(&self, limit: Duration) -> u32 {
        let ticks = limit.as_millis().div_ceil(self.tick.as_millis());
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// A tick has gone by.
    pub(super) fn advance(&self) {
        self.now.set(self.now.get().wrapping_add(1));
    }

    /// The number of the current tick.
    pub(super) fn now(&self) -> u32 {
        self.now.get()
    }

    /// Whether more than `limit` ticks have gone by since the tick `since`. A tick that had begun counts not at all, so
    /// a limit is never seen too early.
    pub(super) fn is_over(&self, since: u32, limit: u32) -> bool {
        self.now.get().wrapping_sub(since) > limit
    }
}
