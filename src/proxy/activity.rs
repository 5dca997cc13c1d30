//! Time limits without a timer a request: every connection notes what it is doing and since which tick, and one sweep
//! per worker looks at all of them.
//!
//! Arming and re-arming a timer for each request costs more than the rest of attaché's own work (4 % of the whole). A
//! limit that is seen up to one [`tick`](Ticks) late protects just as well.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    task::{Context, Waker},
};

use super::{
    presence::{Look, Presence},
    ticks::Ticks,
};

/// What a caller's connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing: between requests, or before the first.
    Idle,
    /// The head of a request is arriving.
    Head,
    /// A request is being served; a limit other than zero says how long its upstream may take to begin an answer.
    Busy { limit: u32 },
}

/// The activity of one caller's connection.
#[derive(Debug)]
pub(super) struct Activity {
    ticks: Rc<Ticks>,
    state: Cell<State>,
    since: Cell<u32>,
    verdict: Cell<Option<Verdict>>,
    draining: Cell<bool>,
    // Whether there is something to take out, and whether nothing happened since it was looked at.
    conversing: Cell<bool>,
    quiet: Cell<bool>,
    // Whether everything that was to be written is.
    flushed: Cell<bool>,
    // Something waits to be written, and the caller takes nothing.
    stalled: Cell<bool>,
    // Since when the caller's side is closed.
    left: Cell<Option<u32>>,
    // Looked at while a request is served: nothing is read then, and nobody would see its caller go away.
    socket: RefCell<Option<Weak<dyn Look>>>,
    kept_alive: Cell<bool>,
    // The task of the connection, to be woken when the sweep has decided something.
    task: RefCell<Option<Waker>>,
}

/// What the sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The connection was idle, or its head incomplete, for too long: close it.
    Close,
    /// The upstream has not begun its answer in time.
    Overdue,
    /// The connection has been quiet for a while: take its room for a request.
    Park,
}

impl Activity {
    pub(super) fn new(ticks: Rc<Ticks>) -> Self {
        Self {
            since: Cell::new(ticks.now()),
            ticks,
            state: Cell::new(State::Idle),
            verdict: Cell::new(None),
            draining: Cell::new(false),
            conversing: Cell::new(false),
            quiet: Cell::new(false),
            flushed: Cell::new(true),
            stalled: Cell::new(false),
            left: Cell::new(None),
            socket: RefCell::new(None),
            kept_alive: Cell::new(false),
            task: RefCell::new(None),
        }
    }

    /// The socket to look at.
    pub(super) fn watches(&self, socket: Weak<dyn Look>) {
        *self.socket.borrow_mut() = Some(socket);
    }

    /// Bytes came from the caller.
    pub(super) fn received(&self, within_head: bool) {
        if self.state.get() == State::Idle && within_head {
            self.enter(State::Head);
        }
    }

    /// The head that was arriving is whole, and no request came of it.
    pub(super) fn head_ended(&self) {
        if self.state.get() == State::Head {
            self.enter(State::Idle);
        }
    }

    /// Everything is written.
    pub(super) fn flushed(&self) {
        self.flushed.set(true);
    }

    /// The caller has closed its side.
    pub(super) fn left(&self) {
        if self.left.get().is_none() {
            self.left.set(Some(self.ticks.now()));
        }
    }

    /// Bytes went to the caller: a slow reader is not an idle one.
    pub(super) fn sent(&self) {
        self.still_served();
        if self.stalled.replace(false) || self.state.get() == State::Idle {
            self.since.set(self.ticks.now());
        }
    }

    /// The caller takes nothing of what is to be written.
    pub(super) fn stalls(&self) {
        if !self.stalled.replace(true) {
            self.since.set(self.ticks.now());
        }
    }

    /// Whoever takes bytes is not gone: its answer may take longer than the moment that one who left is given.
    fn still_served(&self) {
        if self.left.get().is_some() {
            self.left.set(Some(self.ticks.now()));
        }
    }

    /// A request is being served.
    pub(super) fn serving(&self) {
        self.enter(State::Busy { limit: 0 });
    }

    /// The upstream is expected to begin its answer within so many ticks; 0 means whenever it wants.
    pub(super) fn awaiting(&self, limit: u32) {
        self.enter(State::Busy { limit });
    }

    /// Something moved while the upstream's answer is awaited: its time begins anew.
    pub(super) fn progressed(&self) {
        self.still_served();
        self.since.set(self.ticks.now());
    }

    pub(super) fn should_park(&self) -> bool {
        self.verdict.get() == Some(Verdict::Park) && self.state.get() == State::Idle && self.flushed.get()
    }

    /// It has what a request needs, or not.
    pub(super) fn conversing(&self, is: bool) {
        let (was, count) = (self.conversing.replace(is), &self.ticks.conversing);
        match (was, is) {
            (false, true) => {
                count.set(count.get() + 1);
                if count.get() == 1 {
                    self.ticks.begun.notify_one();
                }
            }
            (true, false) => count.set(count.get() - 1),
            _ => {}
        }
        if self.verdict.get() == Some(Verdict::Park) {
            self.verdict.set(None);
        }
    }

    /// The answer is complete, but perhaps not written yet.
    pub(super) fn idle(&self) {
        self.flushed.set(false);
        self.enter(State::Idle);
    }

    /// Whether the upstream has let the limit of [`Activity::awaiting`] pass.
    pub(super) fn is_overdue(&self) -> bool {
        self.verdict.get() == Some(Verdict::Overdue)
    }

    /// Whether the connection must be closed.
    pub(super) fn must_close(&self) -> bool {
        self.verdict.get() == Some(Verdict::Close)
    }

    /// Whether the process is on its way out.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Remembers the task that drives the connection.
    pub(super) fn driven_by(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    fn enter(&self, state: State) {
        self.state.set(state);
        self.stalled.set(false);
        self.since.set(self.ticks.now());
        self.quiet.set(false);
        if matches!(self.verdict.get(), Some(Verdict::Overdue | Verdict::Park)) {
            self.verdict.set(None);
        }
    }

    /// Looks whether the caller is there while something takes longer than a tick.
    fn look(&self) {
        let busy = matches!(self.state.get(), State::Busy { .. });
        if !busy || !self.ticks.is_over(self.since.get(), 0) {
            return;
        }
        let Some(socket) = self.socket.borrow().as_ref().and_then(Weak::upgrade) else { return };
        if !self.kept_alive.replace(true) {
            socket.keep_alive();
        }
        match socket.presence() {
            Presence::There => {}
            Presence::Silent => self.left(),
            Presence::Gone => self.verdict.set(Some(Verdict::Close)),
        }
    }

    /// The process is on its way out.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.wake();
    }

    /// Looks whether a limit has passed.
    pub(super) fn sweep(&self) {
        self.look();
        if self.must_close() {
            return self.wake();
        }
        if self.left.get().is_some_and(|since| self.ticks.is_over(since, self.ticks.left_limit)) {
            self.verdict.set(Some(Verdict::Close));
            return self.wake();
        }
        let (limit, verdict) = match self.state.get() {
            State::Idle => (self.ticks.idle_limit, Verdict::Close),
            State::Head => (self.ticks.head_limit, Verdict::Close),
            // A caller that takes nothing for so long has an upstream's connection for nothing.
            State::Busy { limit: 0 } if self.stalled.get() => (self.ticks.idle_limit, Verdict::Close),
            State::Busy { limit: 0 } => return,
            State::Busy { limit } => (limit, Verdict::Overdue),
        };
        if self.ticks.is_over(self.since.get(), limit) {
            self.verdict.set(Some(verdict));
            self.wake();
        }
    }

    /// Looks whether nothing has happened since it was looked at the last time.
    pub(super) fn settle(&self) {
        if !self.conversing.get() || self.state.get() != State::Idle || !self.flushed.get() {
            return;
        }
        if self.quiet.replace(true) && self.verdict.get().is_none() {
            self.verdict.set(Some(Verdict::Park));
            self.wake();
        }
    }

    /// Lets the task of the connection look again.
    pub(super) fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.conversing(false);
    }
}

#[cfg(test)]
mod tests;
