//! attaché's own answers: how many since the start, and how many of them lately.
//!
//! Counting takes no lock: a flood of requests that attaché refuses must not make the others wait for it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::{IntCounter, IntCounterVec};
use tokio::time::Instant;

/// How long an answer counts as recent: so many whole minutes, and the one that runs.
pub(super) const MINUTES: usize = 15;

/// How many requests attaché itself has answered on one route for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAnswers {
    /// The route, or `(none)`.
    pub route: Box<str>,
    /// The fixed word.
    pub reason: &'static str,
    /// Since the start.
    pub count: u64,
    /// Of these in each of the last 15 minutes, the oldest first, and in the minute that runs.
    pub by_minute: [u32; MINUTES + 1],
}

impl OwnAnswers {
    /// How many in the last 15 minutes and the one that runs.
    pub fn recent(&self) -> u64 {
        self.by_minute.iter().copied().map(u64::from).sum()
    }
}

/// The reasons of every route. They outlive a reload that replaces or removes the route, as counters do.
pub(super) struct Own {
    total: IntCounterVec,
    begun: Instant,
    // Taken when a route is built and when somebody looks, never for a request.
    routes: Mutex<BTreeMap<Box<str>, Arc<Reasons>>>,
}

impl Own {
    pub(super) fn new(total: IntCounterVec) -> Self {
        Self { total, begun: Instant::now(), routes: Mutex::default() }
    }

    /// The handle of one route.
    pub(super) fn route(&self, route: &str) -> OwnHandle {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = Arc::clone(routes.entry(route.into()).or_default());
        OwnHandle { route: route.into(), total: self.total.clone(), begun: self.begun, reasons }
    }

    /// All that has been counted, by route and reason.
    pub(super) fn seen(&self) -> Vec<OwnAnswers> {
        let minute = minute(self.begun.elapsed());
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = Vec::new();
        for (route, reasons) in routes.iter() {
            let mut next = reasons.0.get();
            while let Some(at) = next {
                let by_minute = at.window.look(minute);
                let (route, count) = (route.clone(), at.total.get());
                seen.push(OwnAnswers { route, reason: at.reason, count, by_minute });
                next = at.next.0.get();
            }
        }
        seen.sort_by(|a, b| (&a.route, a.reason).cmp(&(&b.route, b.reason)));
        seen
    }
}

/// Counts what attaché itself answers on one route.
#[derive(Clone, Debug)]
pub(super) struct OwnHandle {
    route: Box<str>,
    total: IntCounterVec,
    begun: Instant,
    reasons: Arc<Reasons>,
}

impl OwnHandle {
    pub(super) fn count(&self, reason: &'static str) {
        let counted = self.reasons.of(reason, || self.total.with_label_values(&[&*self.route, reason]));
        counted.total.inc();
        counted.window.count(minute(self.begun.elapsed()));
    }
}

/// The reasons that a route has had, in the order in which they came: a list that only grows, and that most routes keep
/// empty. There are a few dozen reasons, so a walk along it is short.
#[derive(Debug, Default)]
struct Reasons(OnceLock<Box<Counted>>);

#[derive(Debug)]
struct Counted {
    reason: &'static str,
    total: IntCounter,
    window: Window,
    next: Reasons,
}

impl Reasons {
    fn of(&self, reason: &'static str, total: impl Fn() -> IntCounter) -> &Counted {
        let mut at = self;
        loop {
            let counted = at.0.get_or_init(|| {
                Box::new(Counted { reason, total: total(), window: Window::default(), next: Self::default() })
            });
            if counted.reason == reason {
                return counted;
            }
            at = &counted.next;
        }
    }
}

/// A ring with a place for each minute: the number of the minute, and what was counted in it.
#[derive(Debug, Default)]
struct Window([AtomicU64; MINUTES + 1]);

impl Window {
    fn count(&self, minute: u32) {
        let place = &self.0[minute as usize % self.0.len()];
        // Whoever comes first in a new minute forgets the one that stood there.
        let _ = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |was| {
            let (then, count) = unpack(was);
            Some(pack(minute, if then == minute { count.saturating_add(1) } else { 1 }))
        });
    }

    fn look(&self, minute: u32) -> [u32; MINUTES + 1] {
        let mut found = [0; MINUTES + 1];
        for place in &self.0 {
            let (then, count) = unpack(place.load(Ordering::Relaxed));
            let place = minute.checked_sub(then).and_then(|ago| MINUTES.checked_sub(ago as usize));
            // One that lies further back is no longer recent; one that begins just now is next time.
            if let Some(place) = place {
                found[place] += count;
            }
        }
        found
    }
}

/// The number of a minute. They run out after 8,000 years.
fn minute(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_secs() / 60).unwrap_or(u32::MAX)
}

fn pack(minute: u32, count: u32) -> u64 {
    u64::from(minute) << 32 | u64::from(count)
}

fn unpack(both: u64) -> (u32, u32) {
    ((both >> 32) as u32, both as u32)
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    fn own() -> Own {
        Own::new(IntCounterVec::new(Opts::new("own", "test"), &["route", "reason"]).unwrap())
    }

    fn shown(own: &Own) -> Vec<(String, &'static str, u64, u64)> {
        let seen = own.seen();
        seen.iter().map(|seen| (seen.route.to_string(), seen.reason, seen.count, seen.recent())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_recent_is_forgotten_minute_by_minute_and_what_was_counted_stays() {
        let own = own();
        let route = own.route("orders");
        route.count("no_route");
        tokio::time::advance(Duration::from_secs(14 * 60)).await;
        route.count("no_route");
        route.count("no_route");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(own.seen()[0].by_minute, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(shown(&own), [("orders".into(), "no_route", 3, 2)]);
        // The place of the forgotten minute is taken by a new one.
        route.count("no_route");
        assert_eq!(own.seen()[0].by_minute, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(shown(&own), [("orders".into(), "no_route", 4, 0)]);
    }

    #[test]
    fn reasons_of_a_route_are_kept_apart_and_a_rebuilt_route_counts_on() {
        let own = own();
        let route = own.route("orders");
        route.count("token_unavailable");
        route.count("caller_aborted");
        own.route("billing").count("no_route");
        own.route("orders").count("token_unavailable");
        let wanted = [
            ("billing".into(), "no_route", 1, 1),
            ("orders".into(), "caller_aborted", 1, 1),
            ("orders".into(), "token_unavailable", 2, 2),
        ];
        assert_eq!(shown(&own), wanted);
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing() {
        let own = own();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let route = own.route("orders");
                scope.spawn(move || {
                    for reason in ["a", "b", "c", "d"].into_iter().cycle().take(4000) {
                        route.count(reason);
                    }
                });
            }
        });
        let seen = own.seen();
        assert_eq!(
            seen.iter().map(|seen| (seen.reason, seen.count)).collect::<Vec<_>>(),
            [("a", 4000), ("b", 4000), ("c", 4000), ("d", 4000)]
        );
        assert!(seen.iter().all(|seen| seen.recent() == 4000));
    }
}
