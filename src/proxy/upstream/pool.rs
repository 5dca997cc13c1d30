//! The connections that a worker keeps between requests, and the requests that wait for one.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Connection,
    limit::Waiting,
    queue::{FOR_ALL, Queue, WHATEVER},
};
use crate::proxy::ticks::Ticks;

/// How long a connection is kept unused. Servers commonly close theirs after 60 s or more; 20 s is the most that keeps
/// the risk of meeting one that is closing small.
pub(super) const MAX_IDLE: Duration = Duration::from_secs(15);

/// How old a connection may become, so that changes of DNS are followed.
pub(super) const MAX_AGE: Duration = Duration::from_secs(45);

/// Of the connections that requests on several workers wait for, every so manieth goes to the one that waits longest,
/// wherever that is.
const SHARED: u8 = 4;

/// The pools of all upstreams, by slot. The last connection used is the first one taken: the others can grow old.
#[derive(Debug)]
pub(in crate::proxy) struct Pool {
    slots: RefCell<Vec<Slot>>,
    ticks: Rc<Ticks>,
    max_idle: u32,
    max_age: u32,
    turn: Cell<u8>,
}

#[derive(Debug, Default)]
struct Slot {
    idle: Vec<Idle>,
    waiters: Queue<Connection>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: u32,
}

impl Pool {
    pub(in crate::proxy) fn new(ticks: Rc<Ticks>) -> Self {
        let (max_idle, max_age) = (ticks.of(MAX_IDLE), ticks.of(MAX_AGE));
        Self { slots: RefCell::default(), ticks, max_idle, max_age, turn: Cell::new(0) }
    }

    /// A connection that is alive as far as anyone can tell.
    pub(in crate::proxy) fn take(&self, slot: usize) -> Option<Connection> {
        let mut slots = self.slots.borrow_mut();
        let idle = &mut slots.get_mut(slot)?.idle;
        while let Some(Idle { mut connection, .. }) = idle.pop() {
            if connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// The next connection that this worker gets back.
    pub(super) fn wait(&self, slot: usize, place: &Rc<Waiting>) -> oneshot::Receiver<Connection> {
        of(&mut self.slots.borrow_mut(), slot).waiters.join(place, WHATEVER)
    }

    /// Keeps a connection for the next request, or gives it to one that waits.
    pub(in crate::proxy) fn put(&self, slot: usize, mut connection: Connection) {
        connection.rests();
        let now = self.ticks.now();
        if now.wrapping_sub(connection.born()) >= self.max_age {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let slot = of(&mut slots, slot);
        match connection.waiting() {
            0 => slot.idle.push(Idle { connection, since: now }),
            waiting => self.hand_over(slot, connection, waiting),
        }
    }

    /// Gives a connection to a request that waits on this worker, or closes it, which makes room for the one that waits
    /// longest on any worker: what one worker keeps, another cannot use.
    fn hand_over(&self, slot: &mut Slot, connection: Connection, waiting: usize) {
        let here = slot.waiters.waiting(FOR_ALL);
        let elsewhere = waiting.saturating_sub(here);
        if elsewhere > 0 {
            self.turn.set((self.turn.get() + 1) % SHARED);
        }
        if (elsewhere == 0 || (here >= elsewhere && self.turn.get() != 0))
            && let Some(waiter) = slot.waiters.pop(FOR_ALL)
        {
            // A request that goes away at this moment closes the connection.
            let _ = waiter.send(connection);
        }
    }

    /// Drops what has been unused for too long, is too old, or was closed by the upstream.
    pub(in crate::proxy) fn sweep(&self) {
        let now = self.ticks.now();
        for slot in self.slots.borrow_mut().iter_mut() {
            slot.idle.retain_mut(|idle| {
                now.wrapping_sub(idle.since) < self.max_idle
                    && now.wrapping_sub(idle.connection.born()) < self.max_age
                    && idle.connection.is_usable()
            });
        }
    }

    /// Requests wait for connections somewhere: drops as many as they are of those that are unused here.
    pub(in crate::proxy) fn relieve(&self) {
        for slot in self.slots.borrow_mut().iter_mut() {
            let waiting = slot.idle.first().map_or(0, |idle| idle.connection.waiting());
            // The oldest ones.
            slot.idle.drain(..waiting.min(slot.idle.len()));
        }
    }

    /// Drops all of them.
    pub(in crate::proxy) fn clear(&self) {
        for slot in self.slots.borrow_mut().iter_mut() {
            slot.idle.clear();
        }
    }
}

fn of(slots: &mut Vec<Slot>, slot: usize) -> &mut Slot {
    if slots.len() <= slot {
        slots.resize_with(slot + 1, Slot::default);
    }
    &mut slots[slot]
}
