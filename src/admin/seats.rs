//! The places of connections to the admin port. When all are taken, the connection that has been silent longest makes room for
//! the next one: somebody who only connects must not keep probes out.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, Instant},
};

/// Every request is answered within milliseconds. One that has stood still for so long is a head that does not end, or an answer
/// that nobody reads.
const STUCK: Duration = Duration::from_secs(1);

/// How long a connection may take to notice that it must go, before the next one has to.
const PAUSE: Duration = Duration::from_millis(50);

/// All the places.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    // In the order in which they were taken.
    taken: Vec<Weak<Seat>>,
}

/// The place of one connection, given back when it is dropped.
pub(super) struct Seat {
    // A lock: the connection's task changes it with every read and write, and the listener looks at it only when all are taken.
    state: Mutex<State>,
    _permit: OwnedSemaphorePermit,
}

struct State {
    since: Instant,
    is_asking: bool,
    must_go: bool,
    waker: Option<Waker>,
}

impl Seats {
    pub(super) fn new(max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(max)), taken: Vec::new() }
    }

    /// A place, after somebody has made room if there is none. Of those who do something now nobody has to.
    pub(super) async fn take(&mut self) -> Arc<Seat> {
        loop {
            if let Some(seat) = self.try_take() {
                return seat;
            }
            self.make_room();
            if let Ok(Ok(permit)) = time::timeout(PAUSE, Arc::clone(&self.free).acquire_owned()).await {
                return self.seat(permit);
            }
        }
    }

    /// A place, if there is one.
    pub(super) fn try_take(&mut self) -> Option<Arc<Seat>> {
        Arc::clone(&self.free).try_acquire_owned().ok().map(|permit| self.seat(permit))
    }

    fn seat(&mut self, permit: OwnedSemaphorePermit) -> Arc<Seat> {
        let state = State { since: Instant::now(), is_asking: false, must_go: false, waker: None };
        let seat = Arc::new(Seat { state: Mutex::new(state), _permit: permit });
        self.taken.retain(|seat| seat.strong_count() > 0);
        self.taken.push(Arc::downgrade(&seat));
        seat
    }

    /// Whoever asks for nothing goes first, and of those the one that has been silent longest.
    fn make_room(&self) {
        let seats: Vec<_> = self.taken.iter().filter_map(Weak::upgrade).collect();
        let longest = seats
            .iter()
            .filter_map(|seat| {
                let State { since, is_asking, must_go, .. } = *seat.state();
                (!must_go && (!is_asking || since.elapsed() >= STUCK)).then_some((is_asking, since, seat))
            })
            .min_by_key(|(is_asking, since, _)| (*is_asking, *since));
        if let Some((_, _, seat)) = longest {
            seat.go();
        }
    }
}

impl Seat {
    /// Something came from the caller: it asks for something.
    pub(super) fn read(&self) {
        self.moved(true);
    }

    /// Something went to the caller: as far as anybody knows, it has what it asked for.
    pub(super) fn written(&self) {
        self.moved(false);
    }

    /// The caller does not take what is there for it.
    pub(super) fn is_not_read(&self) {
        self.state().is_asking = true;
    }

    /// Whether it must make room; whoever asks is woken when it must.
    pub(super) fn poll_must_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.must_go {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn moved(&self, is_asking: bool) {
        let mut state = self.state();
        // A question that comes byte by byte is no newer for it.
        if !(is_asking && state.is_asking) {
            state.since = Instant::now();
        }
        state.is_asking = is_asking;
    }

    fn go(&self) {
        let mut state = self.state();
        state.must_go = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::mpsc};

    use super::*;

    /// Gives its place back when it must, as a connection does, and says so.
    fn sit(seat: Arc<Seat>, name: &'static str, gone: &mpsc::Sender<&'static str>) {
        let gone = gone.clone();
        tokio::spawn(async move {
            poll_fn(|cx| seat.poll_must_go(cx)).await;
            gone.send(name).unwrap();
        });
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_asks_for_nothing_longest_makes_room_and_then_the_one_that_is_stuck() {
        let (sender, gone) = mpsc::channel();
        let mut seats = Seats::new(3);
        let mut take = async |name| {
            let seat = seats.take().await;
            sit(Arc::clone(&seat), name, &sender);
            Arc::downgrade(&seat)
        };
        let stuck = take("stuck").await;
        stuck.upgrade().unwrap().read();
        time::advance(Duration::from_millis(10)).await;
        let answered = take("answered").await;
        let _silent = take("silent").await;
        time::advance(Duration::from_millis(10)).await;
        answered.upgrade().unwrap().read();
        answered.upgrade().unwrap().written();
        take("fourth").await.upgrade().unwrap().read();
        assert_eq!(gone.try_iter().collect::<Vec<_>>(), ["silent"]);
        take("fifth").await.upgrade().unwrap().read();
        assert_eq!(gone.try_iter().collect::<Vec<_>>(), ["answered"]);
        // Now all ask for something: the next one waits until that has taken too long.
        let start = Instant::now();
        take("sixth").await;
        assert_eq!(gone.try_iter().collect::<Vec<_>>(), ["stuck"]);
        assert!(start.elapsed() >= STUCK - Duration::from_millis(20), "{:?}", start.elapsed());
    }
}
