//! The HTTP/2 connections of a worker.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};

use futures_util::{
    FutureExt as _,
    future::{LocalBoxFuture, Shared as Joint},
};
use tokio::sync::oneshot;

use super::{
    connect::Failed,
    http2::Multiplexed,
    limit::Waiting,
    pool::{MAX_AGE, MAX_IDLE},
    queue::{Queue, WHATEVER},
    seat::Seat,
};
use crate::proxy::ticks::Ticks;

/// An attempt to open a connection, for whose outcome several requests wait: the connection, if it is one that they share.
pub(super) type Dial = Joint<LocalBoxFuture<'static, Result<Weak<Multiplexed>, Failed>>>;

/// The HTTP/2 connections of all upstreams, by slot, kept as long as those of HTTP/1.1 (`pool`).
#[derive(Debug)]
pub(in crate::proxy) struct Shared {
    slots: RefCell<Vec<Slot>>,
    ticks: Rc<Ticks>,
    max_idle: u32,
    max_age: u32,
    // Numbers the connections in the order in which they were opened.
    openings: Cell<u64>,
    // Counts the places that were given up while requests waited elsewhere.
    turn: Cell<u32>,
}

/// While requests wait elsewhere, every so many places that are given up here, a connection is.
const SHARED: u32 = 64;

#[derive(Debug, Default)]
struct Slot {
    // The newest one last.
    connections: Vec<Rc<Multiplexed>>,
    waiters: Queue<Seat>,
    dial: Option<Dial>,
    // When the upstream was last seen to speak HTTP/1.1 only.
    http_1: Option<u32>,
}

impl Shared {
    pub(in crate::proxy) fn new(ticks: Rc<Ticks>) -> Self {
        let (max_idle, max_age) = (ticks.of(MAX_IDLE), ticks.of(MAX_AGE));
        Self {
            slots: RefCell::default(),
            ticks,
            max_idle,
            max_age,
            openings: Cell::new(WHATEVER),
            turn: Cell::new(0),
        }
    }

    pub(super) fn ticks(&self) -> &Rc<Ticks> {
        &self.ticks
    }

    /// The number of a connection that has been opened now.
    pub(super) fn opened(&self) -> u64 {
        self.openings.set(self.openings.get() + 1);
        self.openings.get()
    }

    /// The number of the connection that was opened last.
    pub(super) fn newest(&self) -> u64 {
        self.openings.get()
    }

    /// A place on a connection that has room and was opened after the one of this number.
    pub(super) fn seat(&self, slot: usize, after: u64) -> Option<Seat> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(slot)?;
        self.let_go_of_ended(slot);
        // The first one that has room: the others can grow old.
        let has_room = |connection: &&Rc<Multiplexed>| connection.number() > after && connection.has_room();
        slot.connections.iter().find(has_room).map(Multiplexed::seat)
    }

    fn let_go_of_ended(&self, slot: &mut Slot) {
        let now = self.ticks.now();
        slot.connections.retain(|connection| {
            now.wrapping_sub(connection.born()) < self.max_age && connection.is_usable()
        });
    }

    /// The next place that comes free on one of this worker's connections, on those that were opened after the one of this number.
    pub(super) fn wait(&self, slot: usize, place: &Rc<Waiting>, after: u64) -> oneshot::Receiver<Seat> {
        of(&mut self.slots.borrow_mut(), slot).waiters.join(place, after)
    }

    /// There is room: gives it to those that wait.
    pub(super) fn hand_over(&self, slot: usize) {
        loop {
            let turn = {
                let mut slots = self.slots.borrow_mut();
                let Some(slot) = slots.get_mut(slot) else { return };
                if slot.waiters.is_empty() {
                    return;
                }
                self.let_go_of_ended(slot);
                let Slot { connections, waiters, .. } = slot;
                let mut with_room = connections.iter().filter(|connection| connection.has_room());
                // One that is not given a place keeps its turn.
                with_room.find_map(|connection| {
                    let waiter = waiters.pop(connection.number())?;
                    Some((connection.seat(), waiter))
                })
            };
            let Some((seat, waiter)) = turn else { return };
            // Of a request that goes away at this moment, the place comes back here.
            let _ = waiter.send(seat);
        }
    }

    /// A place on a connection has been given up: to those that wait here, and if others wait, with all of the connection. What is
    /// kept here another worker cannot use, nor a request that wants a connection of its own.
    pub(super) fn left(&self, slot: usize, connection: &Multiplexed) {
        self.hand_over(slot);
        let waiting = connection.waiting();
        if waiting == 0 {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(slot) else { return };
        // Who wants a newer connection than there is cannot be served here either.
        let newest = slot.connections.last().map_or(WHATEVER, |connection| connection.number());
        if waiting > slot.waiters.waiting(newest) {
            self.turn.set((self.turn.get() + 1) % SHARED);
            // One that is never quiet carries no further requests, and ends with those that it has.
            if connection.quiet_since().is_some() || self.turn.get() == 0 {
                slot.connections.retain(|other| !std::ptr::eq(&raw const **other, connection));
            }
        }
    }

    /// Whether the upstream was lately seen to speak HTTP/1.1 only.
    pub(in crate::proxy) fn speaks_http_1(&self, slot: usize) -> bool {
        let slots = self.slots.borrow();
        let since = slots.get(slot).and_then(|slot| slot.http_1);
        since.is_some_and(|since| self.ticks.now().wrapping_sub(since) < self.max_age)
    }

    /// It may speak something else by now.
    pub(super) fn forget_http_1(&self, slot: usize) {
        of(&mut self.slots.borrow_mut(), slot).http_1 = None;
    }

    /// Takes note of a connection, or of an upstream that did not want HTTP/2.
    pub(super) fn learn(&self, slot: usize, connection: Option<Rc<Multiplexed>>) {
        {
            let mut slots = self.slots.borrow_mut();
            let slot = of(&mut slots, slot);
            slot.http_1 = connection.is_none().then(|| self.ticks.now());
            slot.connections.extend(connection);
        }
        self.hand_over(slot);
    }

    /// The attempt under way.
    pub(super) fn dialing(&self, slot: usize) -> Option<Dial> {
        let slots = self.slots.borrow();
        // One that is over stays until the next one, or until the sweep.
        slots.get(slot)?.dial.clone().filter(|dial| dial.peek().is_none())
    }

    /// Takes note of a new attempt.
    pub(super) fn dial(
        &self,
        slot: usize,
        attempt: LocalBoxFuture<'static, Result<Weak<Multiplexed>, Failed>>,
    ) -> Dial {
        let dial = attempt.shared();
        of(&mut self.slots.borrow_mut(), slot).dial = Some(dial.clone());
        dial
    }

    /// Lets go of what is quiet for too long, too old or closed. Requests that are under way go on to their end.
    pub(in crate::proxy) fn sweep(&self) {
        let now = self.ticks.now();
        for slot in self.slots.borrow_mut().iter_mut() {
            slot.connections.retain(|connection| {
                let quiet = connection.quiet_since().map_or(0, |since| now.wrapping_sub(since));
                quiet < self.max_idle
                    && now.wrapping_sub(connection.born()) < self.max_age
                    && connection.is_usable()
            });
            slot.dial = slot.dial.take().filter(|dial| dial.peek().is_none());
        }
    }

    /// Requests wait for connections somewhere: lets go of those that are unused here.
    pub(in crate::proxy) fn relieve(&self) {
        for slot in self.slots.borrow_mut().iter_mut() {
            slot.connections
                .retain(|connection| connection.quiet_since().is_none() || connection.waiting() == 0);
        }
    }

    /// Lets go of all of them.
    pub(in crate::proxy) fn clear(&self) {
        for slot in self.slots.borrow_mut().iter_mut() {
            slot.connections.clear();
        }
    }
}

fn of(slots: &mut Vec<Slot>, slot: usize) -> &mut Slot {
    if slots.len() <= slot {
        slots.resize_with(slot + 1, Slot::default);
    }
    &mut slots[slot]
}
