//! Who is woken when a connection to an upstream has something to do.
//!
//! hyper's two halves of a connection tell each other what happened by waking whoever polls them: a request is queued, the
//! answer is here, more of its body is wanted. Here one task polls both halves, and each of these wakes would make it run
//! once more for nothing: two of four runs a request, and a third of what a request costs outside the kernel. A [`Bell`] is
//! what both halves wake instead. It is held while they are polled, and passes on only what rings when nobody looks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// How often the halves are polled again because one of them rang for the other. What still rings then is left to the task's
/// next run: tokio's budget of a task may be used up, and rings until then.
const ROUNDS: usize = 4;

/// The waker of one connection.
#[derive(Debug)]
pub(super) struct Bell {
    clapper: Arc<Clapper>,
    waker: Waker,
}

#[derive(Debug)]
struct Clapper {
    task: AtomicWaker,
    held: AtomicBool,
    rung: AtomicBool,
}

impl Wake for Clapper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.held.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl Bell {
    /// Held: nobody waits yet.
    pub(super) fn new() -> Self {
        let (held, rung) = (AtomicBool::new(true), AtomicBool::new(false));
        let clapper = Arc::new(Clapper { task: AtomicWaker::new(), held, rung });
        Self { waker: Waker::from(Arc::clone(&clapper)), clapper }
    }

    /// Looks at the connection without waiting for it. It stays held: nobody needs to know what happens to a connection that
    /// nobody uses.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Context<'_>) -> T) -> T {
        self.clapper.held.store(true, Ordering::Relaxed);
        look(&mut Context::from_waker(&self.waker))
    }

    /// Polls the connection until there is something, or nothing moves any more. Only then the task waits for the bell.
    pub(super) fn poll<T>(
        &self,
        cx: &Context<'_>,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Clapper { task, held, rung } = &*self.clapper;
        held.store(true, Ordering::Relaxed);
        for _ in 0..ROUNDS {
            rung.store(false, Ordering::Relaxed);
            if let Poll::Ready(ready) = step(&mut Context::from_waker(&self.waker)) {
                return Poll::Ready(ready);
            }
            if !rung.load(Ordering::Relaxed) {
                break;
            }
        }
        task.register(cx.waker());
        held.store(false, Ordering::SeqCst);
        // From here on it rings through. What rang before, and nobody has seen, must not be lost.
        if rung.load(Ordering::SeqCst) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::atomic::AtomicUsize};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn one_half_that_rings_for_the_other_is_heard_without_waking_the_task() {
        let (woken, waker) = task();
        let (bell, rounds) = (Bell::new(), Cell::new(0));
        let polled = bell.poll(&Context::from_waker(&waker), |cx| {
            rounds.set(rounds.get() + 1);
            if rounds.get() < 3 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(rounds.get())
        });
        assert_eq!((polled, woken.0.load(Ordering::Relaxed)), (Poll::Ready(3), 0));
    }

    #[test]
    fn the_task_is_woken_by_what_happens_while_it_waits_and_only_then() {
        let (woken, waker) = task();
        let bell = Bell::new();
        let inner = Cell::new(None);
        let keep = |cx: &mut Context<'_>| inner.set(Some(cx.waker().clone()));
        bell.look(keep);
        let inner = inner.take().unwrap();
        inner.wake_by_ref();
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "nobody waits");
        assert!(bell.poll(&Context::from_waker(&waker), |_| Poll::<()>::Pending).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        inner.wake_by_ref();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        bell.look(|_| ());
        inner.wake_by_ref();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "nobody waits any more");
    }

    #[test]
    fn what_rings_without_end_is_left_to_the_next_run_of_the_task() {
        let (woken, waker) = task();
        let (bell, rounds) = (Bell::new(), Cell::new(0));
        let polled = bell.poll(&Context::from_waker(&waker), |cx| {
            rounds.set(rounds.get() + 1);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((rounds.get(), woken.0.load(Ordering::Relaxed)), (ROUNDS, 1));
    }
}
