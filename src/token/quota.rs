//! `max_requests_per_hour`: which token requests have been sent, and when the next may be.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{clock::Moment, store::seconds};

const HOUR: Duration = Duration::from_secs(3600);

/// A limit, and what has been sent of it. Counted by the clock that cannot be set; what a store remembers, by the other.
#[derive(Debug)]
pub(super) struct Quota {
    max: u32,
    sent: Sent,
}

/// When token requests were sent, oldest first.
// A lock: written once an attempt, and read once more by the section that takes this one's place.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent(Arc<Mutex<VecDeque<tokio::time::Instant>>>);

impl Sent {
    fn lock(&self) -> MutexGuard<'_, VecDeque<tokio::time::Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A limit, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaStatus {
    /// `max_requests_per_hour`.
    pub max_per_hour: u32,
    /// How many token requests were sent within the last hour.
    pub sent: usize,
}

impl Quota {
    pub(super) fn new(max: u32) -> Self {
        Self { max, sent: Sent::default() }
    }

    /// How long until a token request may be sent; nothing when it may be now.
    pub(super) fn wait(&mut self, now: Moment) -> Option<Duration> {
        let mut log = self.sent.lock();
        while log.front().is_some_and(|sent| now.monotonic.duration_since(*sent) >= HOUR) {
            log.pop_front();
        }
        let over = (log.len() + 1).checked_sub(self.max as usize).filter(|over| *over > 0)?;
        let frees = *log.get(over - 1)? + HOUR;
        Some(frees.duration_since(now.monotonic))
    }

    /// A token request is sent now.
    pub(super) fn note(&mut self, now: Moment) {
        self.sent.lock().push_back(now.monotonic);
    }

    /// What a failure may not do sooner: once half of the limit is used, attempts are spread over the hour, so that an
    /// outage of minutes does not use up what is needed when it ends.
    pub(super) fn pace(&self) -> Duration {
        if self.sent.lock().len() as u64 * 2 < u64::from(self.max) { Duration::ZERO } else { HOUR / self.max }
    }

    /// For a store: when they were sent, in seconds since 1970.
    pub(super) fn history(&self, now: Moment) -> Vec<u64> {
        let wall = |sent: &tokio::time::Instant| {
            seconds(
                now.wall.checked_sub(now.monotonic.duration_since(*sent)).unwrap_or(SystemTime::UNIX_EPOCH),
            )
        };
        self.sent.lock().iter().map(wall).collect()
    }

    /// From a store. What it says of the future, or of a time before this machine was started, counts as now: rather a
    /// request too few.
    pub(super) fn remember(&mut self, history: &[u64], now: Moment) {
        let age = |sent: &u64| Duration::from_secs(seconds(now.wall).saturating_sub(*sent));
        let mut sent: Vec<_> = history
            .iter()
            .map(age)
            .filter(|age| *age < HOUR)
            .map(|age| now.monotonic.checked_sub(age).unwrap_or(now.monotonic))
            .collect();
        let mut log = self.sent.lock();
        sent.extend(log.iter());
        sent.sort();
        *log = sent.into();
    }

    /// What has been sent, for the section that takes this one's place.
    pub(super) fn sent(&self) -> Sent {
        self.sent.clone()
    }

    /// Goes on from what another one has sent. Copied: the other may go on by itself, under another name.
    pub(super) fn go_on_from(&mut self, sent: &Sent) {
        let sent = sent.lock().clone();
        *self.sent.lock() = sent;
    }

    /// For `/status`.
    pub(super) fn status(&self) -> QuotaStatus {
        QuotaStatus { max_per_hour: self.max, sent: self.sent.lock().len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Clock;

    #[test]
    fn no_more_are_sent_within_any_hour_and_a_restart_remembers_them() {
        let start = Clock::default().now().after(HOUR * 10);
        let mut quota = Quota::new(3);
        let at = |minutes: u64| start.after(Duration::from_secs(minutes * 60));
        for minute in [0, 10, 20] {
            assert_eq!(quota.wait(at(minute)), None);
            quota.note(at(minute));
        }
        assert_eq!(quota.wait(at(25)), Some(Duration::from_secs(35 * 60)));
        assert_eq!(quota.wait(at(59)), Some(Duration::from_secs(60)));
        assert_eq!(quota.wait(at(60)), None);
        let mut after = Quota::new(3);
        after.remember(&quota.history(at(60)), at(61));
        after.note(at(61));
        let left = after.wait(at(62)).unwrap();
        assert!((478..=480).contains(&left.as_secs()), "the one of minute 10 leaves at minute 70: {left:?}");
    }

    #[test]
    fn half_of_it_is_kept_for_the_rest_of_the_hour() {
        let now = Clock::default().now();
        let mut quota = Quota::new(4);
        quota.note(now);
        assert_eq!(quota.pace(), Duration::ZERO);
        quota.note(now);
        assert_eq!(quota.pace(), Duration::from_secs(900));
    }

    #[test]
    fn a_clock_that_was_set_back_costs_requests_and_never_gives_any() {
        let now = Clock::default().now();
        let mut quota = Quota::new(1);
        quota.remember(&[seconds(now.wall) + 7200], now);
        assert!(quota.wait(now).is_some());
    }
}
