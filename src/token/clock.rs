//! The two clocks that can expire a token.
//!
//! The monotonic clock cannot be set but stops while the machine sleeps; the wall clock goes on but can be set. A token
//! is expired when either of them says so, so that neither a step nor a suspend lets an expired one out.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// Reads both clocks. The wall clock can be replaced in tests; the monotonic one is tokio's, which tests can pause.
#[derive(Clone, Default)]
pub struct Clock(Wall);

#[derive(Clone, Default)]
enum Wall {
    #[default]
    System,
    Given(Arc<dyn Fn() -> SystemTime + Send + Sync>),
}

impl Clock {
    /// A clock whose wall time comes from `wall`.
    pub fn with_wall(wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Wall::Given(Arc::new(wall)))
    }

    /// The moment now, by both clocks.
    pub fn now(&self) -> Moment {
        let wall = match &self.0 {
            Wall::System => SystemTime::now(),
            Wall::Given(wall) => wall(),
        };
        Moment { monotonic: Instant::now(), wall }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A point in time by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the clock that cannot be set.
    pub monotonic: Instant,
    /// By the clock that others speak.
    pub wall: SystemTime,
}

impl Moment {
    /// This moment and `span` more, by both clocks.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self { monotonic: self.monotonic + span, wall: self.wall + span }
    }

    /// The later of the two, by each clock.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        Self { monotonic: self.monotonic.max(other.monotonic), wall: self.wall.max(other.wall) }
    }

    /// Whether either clock has reached this moment at `now`.
    pub fn has_passed(&self, now: Moment) -> bool {
        now.monotonic >= self.monotonic || now.wall >= self.wall
    }

    /// Time until the first of the clocks reaches this moment; zero when one has.
    pub fn left(&self, now: Moment) -> Duration {
        let monotonic = self.monotonic.saturating_duration_since(now.monotonic);
        monotonic.min(self.wall.duration_since(now.wall).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_clock_can_expire_a_moment() {
        let start = Clock::default().now();
        let end = start.after(Duration::from_secs(60));
        let minute = Duration::from_secs(60);
        assert!(!end.has_passed(start));
        assert!(end.has_passed(Moment { monotonic: start.monotonic + minute, wall: start.wall - minute }));
        assert!(end.has_passed(Moment { monotonic: start.monotonic, wall: start.wall + minute }));
        assert_eq!(
            end.left(Moment { monotonic: start.monotonic, wall: start.wall + minute / 2 }),
            minute / 2
        );
    }
}
