//! The provider's clock, as far as the `Date` of its answers tells (RFC 9110 §6.6.1).

use std::time::{Duration, SystemTime};

use super::error::{Class, FetchError};

/// A difference that is believed, in seconds. More is no clock that anybody goes by.
const BELIEVED: f64 = 86_400.0;

/// A difference that may be why an assertion is refused, in seconds. Less is the way of the answer, and whole seconds.
const MATTERS: f64 = 5.0;

/// The provider's clock less ours, in seconds.
pub(super) fn between(theirs: SystemTime, ours: SystemTime) -> f64 {
    match theirs.duration_since(ours) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    }
}

/// What the provider's clock shows when ours shows `ours`; the same where the difference is not known, or is not believed.
pub(super) fn theirs(ours: SystemTime, skew: Option<f64>) -> SystemTime {
    let skew = skew.filter(|skew| skew.abs() < BELIEVED).unwrap_or_default();
    let difference = Duration::from_secs_f64(skew.abs());
    let shifted = if skew < 0.0 { ours.checked_sub(difference) } else { ours.checked_add(difference) };
    shifted.unwrap_or(ours)
}

/// By whose clock assertions are signed: their `iat` and `exp` are compared with the provider's.
///
/// By ours, until the provider refuses one and its clock differs; then by the provider's, until it refuses one of those too. It is never
/// given up to try the other one: a `Date` may come from something in front of the provider, and a refusal have another cause.
#[derive(Debug, Default)]
pub(super) struct SigningClock {
    /// What the last answer showed, of whatever kind, if it matters.
    skew: Option<f64>,
    by_theirs: bool,
    /// The last assertion was.
    refused: bool,
    /// One warning for refusals in a row.
    told: bool,
}

impl SigningClock {
    /// The time that an assertion says it is signed at, when our clock shows `ours`.
    pub(super) fn now(&self, ours: SystemTime) -> SystemTime {
        theirs(ours, self.skew.filter(|_| self.by_theirs))
    }

    /// Learns from the answer to an assertion.
    pub(super) fn learn(&mut self, provider: Option<&str>, failure: Option<&FetchError>, skew: Option<f64>) {
        if let Some(skew) = skew {
            self.skew = Some(skew).filter(|skew| (MATTERS..BELIEVED).contains(&skew.abs()));
        }
        match failure {
            None => (self.told, self.refused) = (false, false),
            Some(error) if is_refusal(error) => {
                self.refused = true;
                self.by_theirs = !self.by_theirs && self.skew.is_some();
                if self.by_theirs && !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(
                        provider,
                        skew_seconds = self.skew,
                        "an assertion is refused, and the provider's clock differs from ours: the next is signed by its clock"
                    );
                }
            }
            Some(_) => {}
        }
    }

    /// There is another key: what was refused before says nothing about the clocks.
    pub(super) fn renewed(&mut self) {
        if self.refused {
            self.by_theirs = self.skew.is_some();
        }
    }
}

/// Whether an assertion may be what is refused: servers use several words and codes for it.
fn is_refusal(error: &FetchError) -> bool {
    error.class() == Class::Client || matches!(error, FetchError::Status { status: 400 | 403, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assertions_go_by_the_providers_clock_once_it_refuses_those_by_ours_and_back() {
        let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let refused = FetchError::Status { status: 401, retry_after: None };
        let down = FetchError::Status { status: 503, retry_after: None };
        let mut clock = SigningClock::default();
        let mut after = |failure: Option<&FetchError>, skew: Option<f64>| {
            clock.learn(None, failure, skew);
            between(clock.now(ours), ours).round() as i64
        };
        assert_eq!(after(None, Some(300.0)), 0, "whoever is content stays as it is");
        assert_eq!(after(Some(&down), Some(300.0)), 0, "nor does one that is down say anything");
        assert_eq!(after(Some(&refused), Some(4.0)), 0, "that cannot be why");
        assert_eq!(after(Some(&refused), Some(1e6)), 0, "nor is that a clock");
        assert_eq!(after(Some(&refused), Some(-300.0)), -300);
        assert_eq!(after(None, Some(-310.0)), -310, "the last answer counts");
        assert_eq!(after(Some(&down), None), -310);
        assert_eq!(after(Some(&refused), Some(-310.0)), 0, "it was not that");
        assert_eq!(after(Some(&refused), None), -310, "nor that");
        assert_eq!(after(None, Some(1.0)), 0, "somebody has set the clock");
        let mut clock = SigningClock::default();
        clock.learn(None, None, Some(200.0));
        clock.renewed();
        assert_eq!(clock.now(ours), ours, "nothing was refused");
        for _ in 0..2 {
            clock.learn(None, Some(&refused), Some(200.0));
        }
        clock.renewed();
        assert_eq!(between(clock.now(ours), ours).round() as i64, 200);
    }

    #[test]
    fn the_providers_clock_is_ours_and_the_difference_unless_that_is_absurd() {
        let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |skew| between(theirs(ours, skew), ours);
        for (skew, ahead) in [
            (None, 0.0),
            (Some(0.0), 0.0),
            (Some(600.0), 600.0),
            (Some(-600.5), -600.5),
            (Some(86_399.0), 86_399.0),
            (Some(86_400.0), 0.0),
            (Some(-1e9), 0.0),
            (Some(f64::NAN), 0.0),
            (Some(f64::INFINITY), 0.0),
        ] {
            assert!((at(skew) - ahead).abs() < 1e-6, "{skew:?}");
        }
    }
}
