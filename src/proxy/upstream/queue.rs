//! The requests of one worker that wait for what another one gives up, first come, first served.

use std::{
    collections::VecDeque,
    rc::{Rc, Weak},
};

use tokio::sync::oneshot;

use super::limit::Waiting;

/// Of a request that takes whatever comes: what there is to take is numbered from 1, the newest thing last.
pub(super) const WHATEVER: u64 = 0;

/// The number of what every request takes.
pub(super) const FOR_ALL: u64 = u64::MAX;

/// Requests that wait for the same thing, each with its place among all that wait for the upstream.
#[derive(Debug)]
pub(super) struct Queue<T>(VecDeque<Waiter<T>>);

#[derive(Debug)]
struct Waiter<T> {
    sender: oneshot::Sender<T>,
    place: Weak<Waiting>,
    // It takes only what came into being after the thing of this number.
    after: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Queue<T> {
    /// The end of the queue, for what came into being after the thing of a number.
    pub(super) fn join(&mut self, place: &Rc<Waiting>, after: u64) -> oneshot::Receiver<T> {
        // Where nothing is ever given up, nobody else lets go of those that have gone away.
        self.prune();
        let (sender, receiver) = oneshot::channel();
        self.0.push_back(Waiter { sender, place: Rc::downgrade(place), after });
        receiver
    }

    /// Whether nobody is in it.
    pub(super) fn is_empty(&mut self) -> bool {
        self.prune();
        self.0.is_empty()
    }

    /// How many wait that would take the thing of this number. Who makes one itself is in the queue, and does not wait.
    pub(super) fn waiting(&mut self, number: u64) -> usize {
        self.prune();
        let waits = |place: &Weak<Waiting>| place.upgrade().is_some_and(|place| place.counts());
        self.0.iter().filter(|waiter| waiter.after < number && waits(&waiter.place)).count()
    }

    /// The first one of those that would take the thing of this number. It no longer counts among those that wait, although its own
    /// task finds that out later: who gives up the next thing in the meantime would take it for one that waits elsewhere.
    pub(super) fn pop(&mut self, number: u64) -> Option<oneshot::Sender<T>> {
        let turn = self.0.iter().position(|waiter| waiter.after < number)?;
        let Waiter { sender, place, .. } = self.0.remove(turn)?;
        if let Some(place) = place.upgrade() {
            place.served();
        }
        Some(sender)
    }

    fn prune(&mut self) {
        self.0.retain(|waiter| !waiter.sender.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::sync::Notify;

    use super::*;
    use crate::{proxy::upstream::Limit, telemetry::metrics::Metrics};

    fn limit(max_waiting: usize) -> Arc<Limit> {
        let metrics = Metrics::new().upstream("localhost:1");
        Limit::new(1, max_waiting, Duration::from_secs(1), Arc::new(Notify::new()), metrics)
    }

    #[test]
    fn who_is_given_something_waits_no_longer_even_before_its_task_knows() {
        let limit = limit(2);
        let permit = limit.try_permit().unwrap();
        let (one, two) = (Rc::new(limit.queue().unwrap()), Rc::new(limit.queue().unwrap()));
        let mut queue = Queue::default();
        let (mut first, mut second) = (queue.join(&one, WHATEVER), queue.join(&two, WHATEVER));
        assert_eq!((permit.waiting(), queue.waiting(FOR_ALL)), (2, 2));
        queue.pop(FOR_ALL).unwrap().send('a').unwrap();
        assert_eq!((permit.waiting(), queue.waiting(FOR_ALL)), (1, 1));
        queue.pop(FOR_ALL).unwrap().send('b').unwrap();
        assert_eq!((permit.waiting(), queue.waiting(FOR_ALL)), (0, 0));
        assert_eq!((first.try_recv(), second.try_recv()), (Ok('a'), Ok('b')));
        // What the first was given is of no use.
        one.goes_on();
        assert_eq!(permit.waiting(), 1);
        // Who makes one itself does not wait, and keeps its turn.
        let mut first = queue.join(&one, WHATEVER);
        one.served();
        assert_eq!((permit.waiting(), queue.waiting(FOR_ALL), queue.is_empty()), (0, 0, false));
        queue.pop(FOR_ALL).unwrap().send('c').unwrap();
        assert_eq!((first.try_recv(), queue.is_empty()), (Ok('c'), true));
        drop((one, two));
        assert_eq!(permit.waiting(), 0);
    }

    #[test]
    fn who_wants_something_newer_lets_those_behind_go_first_and_keeps_its_turn() {
        let limit = limit(3);
        let places = [(); 3].map(|()| Rc::new(limit.queue().unwrap()));
        let mut queue = Queue::default();
        let mut given = [0, 1, 2].map(|nth| queue.join(&places[nth], [1, WHATEVER, 1][nth]));
        assert_eq!((queue.waiting(1), queue.waiting(2)), (1, 3));
        queue.pop(1).unwrap().send("old").unwrap();
        assert!(queue.pop(1).is_none());
        queue.pop(2).unwrap().send("new").unwrap();
        assert_eq!(given.each_mut().map(|given| given.try_recv().ok()), [Some("new"), Some("old"), None]);
    }

    #[test]
    fn those_that_have_gone_away_are_not_kept_although_nothing_is_given_up() {
        let limit = limit(1);
        let mut queue = Queue::<()>::default();
        for _ in 0..1000 {
            let place = Rc::new(limit.queue().unwrap());
            drop(queue.join(&place, WHATEVER));
        }
        assert!(queue.0.len() <= 1, "{} are kept", queue.0.len());
    }
}
