//! When a token is usable, when the next one is asked for, how long to back off: pure functions of what is known, with
//! all the numbers of the token road. `chance` is always a random number from 0 to 1.

use std::time::Duration;

use super::error::Class;

/// Least time between any two token requests.
pub const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// Least time between two planned token requests, where the lifetime allows.
const LEAST_PLANNED: Duration = Duration::from_secs(10);

/// The longest back-off while a valid token is held, while none is, and when the client is at fault.
const CAP_HELD: Duration = Duration::from_secs(60);
pub(super) const CAP_NONE: Duration = Duration::from_secs(10);
const CAP_CLIENT: Duration = Duration::from_secs(300);

/// So much later than a `Retry-After` says at most: a quarter of it, at most this.
const RETRY_SPREAD: Duration = Duration::from_secs(5);

/// A provider counts from when it made the token, we from before we asked for it: so much later it has ended there, too.
const JUST_AFTER: Duration = Duration::from_millis(250);

/// A `Retry-After` up to this is honoured even when the token ends before.
const SHORT_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How long before its end a token of this lifetime is no longer used.
///
/// At least a second, where the lifetime allows: `exp` of a JWT is in whole seconds and mostly rounded down (RFC 7519 §2,
/// RFC 9068 §2.2), so that the upstream may see its end up to a second before `expires_in` says.
pub fn margin(lifetime: Duration) -> Duration {
    let whole_seconds = Duration::from_secs(1).min(lifetime / 5);
    Duration::from_secs(30).min(lifetime / 10).max(whole_seconds)
}

/// The same of a token that came again: what is told of its end is of what it has left, in whole seconds that may have been
/// rounded up, so that less than a second is never enough.
pub fn margin_again(left: Duration) -> Duration {
    margin(left).max(Duration::from_secs(1))
}

/// How long after the token request was sent the next one is planned: ahead of the end by a quarter of the lifetime, at
/// most five minutes; jittered only earlier, so that sidecars that started together do not stay together.
pub fn refresh_after(lifetime: Duration, chance: f64) -> Duration {
    let ahead = Duration::from_secs(300).min(lifetime / 4);
    let jitter = Duration::from_secs(60).min(lifetime / 10).mul_f64(chance);
    let latest = lifetime - ahead;
    (latest.saturating_sub(jitter)).max(LEAST_PLANNED.min(latest)).max(LEAST_INTERVAL)
}

/// What is known after a failure.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// How many attempts have failed in a row, this one included.
    pub count: u32,
    /// How the failure is handled.
    pub class: Class,
    /// When the provider wants to be asked again.
    pub retry_after: Option<Duration>,
    /// How long the token that is held can still be used; nothing when there is none.
    pub held: Option<Duration>,
}

/// How long after a failure the next attempt is made.
///
/// One second, doubling, up to a cap; never later than the end of the token that is held, so that whoever recovers in
/// time is noticed in time. A `Retry-After` comes first: up to a minute it is honoured to the letter, beyond that not
/// longer than the token lasts.
pub fn retry_after(failed: Failed, chance: f64) -> Duration {
    let cap = match (failed.class, failed.held) {
        (Class::Client | Class::Spent, _) => CAP_CLIENT,
        (_, Some(_)) => CAP_HELD,
        (_, None) => CAP_NONE,
    };
    let doubled = match failed.class {
        Class::Spent => cap,
        _ => Duration::from_secs(1).saturating_mul(1 << failed.count.saturating_sub(1).min(16)).min(cap),
    };
    // A tenth either way, so that the average is what the cap says.
    let own = doubled.mul_f64(0.9 + chance / 5.0);
    let own = failed.held.map_or(own, |held| own.min(held));
    let delay = match failed.retry_after {
        None => own,
        Some(asked) => {
            let spread = asked + RETRY_SPREAD.min(asked / 4).mul_f64(chance);
            let bound =
                failed.held.map_or(spread, |held| spread.min(held.max(SHORT_RETRY_AFTER + RETRY_SPREAD)));
            // A provider that always says "in a second" is not asked every second for ever.
            if asked >= CAP_NONE { bound } else { bound.max(own) }
        }
    };
    delay.max(LEAST_INTERVAL)
}

/// How long after a token that came again, and is of no use any more, the next attempt is made when the token ends within
/// a second, in `left`, or has just ended. Nothing, when that is not so, or `count` attempts in a row did not help.
///
/// Providers that repeat a token until it ends (RFC 6749 §5.1 allows it) give another one when it has.
pub fn retry_near_end(count: u32, left: Duration) -> Option<Duration> {
    (count <= 3 && left <= LEAST_INTERVAL).then(|| (left + JUST_AFTER).max(LEAST_INTERVAL))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: Failed = Failed { count: 1, class: Class::Transient, retry_after: None, held: None };

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_hour_is_refreshed_five_minutes_ahead_and_at_most_a_minute_earlier() {
        assert_eq!(refresh_after(secs(3600), 0.0), secs(3300));
        assert_eq!(refresh_after(secs(3600), 1.0), secs(3240));
        assert_eq!(margin(secs(3600)), secs(30));
    }

    #[test]
    fn the_margin_covers_an_end_in_whole_seconds_where_the_lifetime_allows() {
        assert_eq!(margin(secs(5)), secs(1));
        assert_eq!(margin(secs(2)), Duration::from_millis(400));
    }

    #[test]
    fn short_lifetimes_scale_and_planned_requests_keep_their_distance() {
        assert_eq!(margin(secs(60)), secs(6));
        assert_eq!(refresh_after(secs(60), 0.0), secs(45));
        assert_eq!(refresh_after(secs(60), 1.0), secs(39));
        // 10 s between planned requests where that is not later than the refresh has to be.
        assert_eq!(refresh_after(secs(14), 1.0), secs(10));
        assert_eq!(refresh_after(secs(8), 0.0), secs(6));
        assert_eq!(refresh_after(secs(1), 1.0), secs(1));
    }

    #[test]
    fn back_off_doubles_to_a_cap_that_depends_on_what_is_held() {
        let delays = |held, class| {
            let at =
                |count| retry_after(Failed { count, held, class, ..NONE }, 0.5).as_secs_f64().round() as u64;
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(at)
        };
        assert_eq!(delays(None, Class::Transient), [1, 2, 4, 8, 10, 10, 10, 10, 10, 10]);
        assert_eq!(delays(Some(secs(3600)), Class::Transient), [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert_eq!(delays(None, Class::Client), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(delays(None, Class::Spent), [300; 10]);
        assert_eq!(delays(Some(secs(60)), Class::Spent), [60; 10], "once more when the token ends");
    }

    #[test]
    fn f3_at_most_75_attempts_in_ten_minutes_even_when_chance_is_against_it() {
        let (mut elapsed, mut attempts) = (Duration::ZERO, 0);
        while elapsed < secs(600) {
            attempts += 1;
            elapsed += retry_after(Failed { count: attempts, ..NONE }, 0.0);
        }
        assert!(attempts <= 75, "{attempts}");
    }

    #[test]
    fn f5_a_retry_after_of_20_s_is_honoured_within_5_s_even_when_the_token_ends_before() {
        for held in [None, Some(secs(15)), Some(secs(3600))] {
            for count in [1, 9] {
                for chance in [0.0, 0.5, 1.0] {
                    let failed = Failed { count, held, retry_after: Some(secs(20)), ..NONE };
                    let delay = retry_after(failed, chance);
                    assert!((secs(20)..=secs(25)).contains(&delay), "{delay:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_next_attempt_is_within_its_bounds(
            count in 0u32..100, client: bool, asked in proptest::option::of(1u64..=600),
            held in proptest::option::of(0u64..100_000), chance in 0.0..=1.0,
        ) {
            let class = if client { Class::Client } else { Class::Transient };
            let failed = Failed { count, class, retry_after: asked.map(secs), held: held.map(secs) };
            let delay = retry_after(failed, chance);
            prop_assert!(delay >= LEAST_INTERVAL);
            prop_assert!(delay <= secs(600) + RETRY_SPREAD);
            if let (Some(held), None) = (held, asked) {
                prop_assert!(delay <= secs(held).max(LEAST_INTERVAL));
            }
        }

        #[test]
        fn a_refresh_is_planned_before_the_token_becomes_unusable(lifetime in 2u64..10_000_000, chance in 0.0..=1.0) {
            let lifetime = secs(lifetime);
            let at = refresh_after(lifetime, chance);
            prop_assert!(at >= LEAST_INTERVAL);
            prop_assert!(at <= lifetime - margin(lifetime));
        }
    }
}
