//! The provider's clock, as far as the `Date` of its answers tells (RFC 9110 §6.6.1).

use std::time::{Duration, SystemTime};

/// A difference that is believed, in seconds. More is no clock that anybody goes by.
const BELIEVED: f64 = 86_400.0;

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

#[cfg(test)]
mod tests {
    use super::*;

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
