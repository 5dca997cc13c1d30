//! The connections that a worker keeps between requests.

use std::{cell::RefCell, rc::Rc, task::Context, time::Duration};

use super::Connection;
use crate::proxy::activity::Ticks;

/// How long a connection is kept unused. Servers commonly close theirs after 60 s or more; 20 s is the most that keeps
/// the risk of meeting one that is closing small.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// How old a connection may become, so that changes of DNS are followed.
const MAX_AGE: Duration = Duration::from_secs(45);

/// The pools of all upstreams, by slot. The last connection used is the first one taken: the others can grow old.
#[derive(Debug)]
pub(in crate::proxy) struct Pool {
    slots: RefCell<Vec<Vec<Idle>>>,
    ticks: Rc<Ticks>,
    max_idle: u32,
    max_age: u32,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: u32,
}

impl Pool {
    pub(in crate::proxy) fn new(ticks: Rc<Ticks>) -> Self {
        let (max_idle, max_age) = (ticks.of(MAX_IDLE), ticks.of(MAX_AGE));
        Self { slots: RefCell::default(), ticks, max_idle, max_age }
    }

    /// A connection that is alive as far as anyone can tell.
    pub(in crate::proxy) fn take(&self, slot: usize, cx: &mut Context<'_>) -> Option<Connection> {
        let mut slots = self.slots.borrow_mut();
        let idle = slots.get_mut(slot)?;
        while let Some(Idle { mut connection, .. }) = idle.pop() {
            if connection.is_usable(cx) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(in crate::proxy) fn put(&self, slot: usize, connection: Connection) {
        let now = self.ticks.now();
        if now.wrapping_sub(connection.born()) >= self.max_age {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        if slots.len() <= slot {
            slots.resize_with(slot + 1, Vec::new);
        }
        slots[slot].push(Idle { connection, since: now });
    }

    /// Drops what has been unused for too long, is too old, or was closed by the upstream.
    pub(in crate::proxy) fn sweep(&self, cx: &mut Context<'_>) {
        let now = self.ticks.now();
        for idle in self.slots.borrow_mut().iter_mut() {
            idle.retain_mut(|idle| {
                now.wrapping_sub(idle.since) < self.max_idle
                    && now.wrapping_sub(idle.connection.born()) < self.max_age
                    && idle.connection.is_usable(cx)
            });
        }
    }

    /// Drops all of them.
    pub(in crate::proxy) fn clear(&self) {
        self.slots.borrow_mut().clear();
    }
}
