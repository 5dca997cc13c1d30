//! The requests of one worker that wait for what another one gives up, first come, first served.

use std::{
    collections::VecDeque,
    rc::{Rc, Weak},
};

use tokio::sync::oneshot;

use super::limit::Waiting;

/// Requests that wait for the same thing, each with its place among all that wait for the upstream.
#[derive(Debug)]
pub(super) struct Queue<T>(VecDeque<(oneshot::Sender<T>, Weak<Waiting>)>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Queue<T> {
    /// The end of the queue.
    pub(super) fn join(&mut self, place: &Rc<Waiting>) -> oneshot::Receiver<T> {
        // Where nothing is ever given up, nobody else lets go of those that have gone away.
        self.prune();
        let (sender, receiver) = oneshot::channel();
        self.0.push_back((sender, Rc::downgrade(place)));
        receiver
    }

    /// How many wait.
    pub(super) fn waiting(&mut self) -> usize {
        self.prune();
        self.0.len()
    }

    /// The one whose turn it is. It no longer counts among those that wait, although its own task finds that out later: who gives
    /// up the next thing in the meantime would take it for one that waits elsewhere.
    pub(super) fn pop(&mut self) -> Option<oneshot::Sender<T>> {
        let (waiter, place) = self.0.pop_front()?;
        if let Some(place) = place.upgrade() {
            place.served();
        }
        Some(waiter)
    }

    fn prune(&mut self) {
        self.0.retain(|(waiter, _)| !waiter.is_closed());
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
        let (mut first, mut second) = (queue.join(&one), queue.join(&two));
        assert_eq!((permit.waiting(), queue.waiting()), (2, 2));
        queue.pop().unwrap().send('a').unwrap();
        assert_eq!((permit.waiting(), queue.waiting()), (1, 1));
        queue.pop().unwrap().send('b').unwrap();
        assert_eq!((permit.waiting(), queue.waiting()), (0, 0));
        assert_eq!((first.try_recv(), second.try_recv()), (Ok('a'), Ok('b')));
        // What the first was given is of no use.
        one.goes_on();
        assert_eq!(permit.waiting(), 1);
        drop((one, two));
        assert_eq!(permit.waiting(), 0);
    }

    #[test]
    fn those_that_have_gone_away_are_not_kept_although_nothing_is_given_up() {
        let limit = limit(1);
        let mut queue = Queue::<()>::default();
        for _ in 0..1000 {
            let place = Rc::new(limit.queue().unwrap());
            drop(queue.join(&place));
        }
        assert!(queue.0.len() <= 1, "{} are kept", queue.0.len());
    }
}
