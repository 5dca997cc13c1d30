//! The side of a credential that its refresher sees.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use super::{Control, Phase, Published, Shared};
use crate::token::{
    access_token::{AccessToken, Generation},
    clock::{Clock, Moment},
};

/// By how much the ends of one and the same token may differ, because answers count in whole seconds.
const SAME_END: Duration = Duration::from_secs(2);

fn is_same_end(one: SystemTime, other: SystemTime) -> bool {
    one <= other + SAME_END && other <= one + SAME_END
}

/// What the refresher may do with its credential, and nobody else.
impl Shared {
    /// Makes `token` the current one; returns its number, and whether it is another one than before.
    ///
    /// Providers that keep a token until it ends, and files, give the same one again. It keeps its number, so that a
    /// request that was refused with it is not sent again with it, and its margin, unless it now ends at another time:
    /// what the provider said last of its end counts, also when that is sooner.
    pub(in crate::token) fn publish(
        &self,
        token: AccessToken,
        usable_until: Moment,
        expires: Moment,
    ) -> (Generation, bool) {
        let mut control = self.control();
        let before = self.published.load_full();
        let same = before.as_ref().filter(|before| before.token == token);
        let usable_until = match same {
            Some(same) if is_same_end(expires.wall, same.expires.wall) => same.usable_until,
            _ => usable_until,
        };
        let new = same.is_none();
        control.generation.0 += u64::from(new);
        let generation = control.generation;
        let headers = control.formats.iter().map(|format| format.render(&token)).collect();
        // A suspect stays one: a reader that still sees the old token must not find it good again. The new one has
        // another number.
        self.published.store(Some(Arc::new(Published { generation, token, headers, usable_until, expires })));
        if !new {
            self.suspect.store(0, Ordering::Release);
        }
        (generation, new)
    }

    /// Whether this is the current token.
    pub(in crate::token) fn holds(&self, token: &AccessToken) -> bool {
        self.published.load().as_ref().is_some_and(|published| published.token == *token)
    }

    /// Tells what the refresher is doing, and wakes the requests that wait.
    pub(in crate::token) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// The replacement of a refused token did not come: the old one is used again while it lasts.
    pub(in crate::token) fn stand_by(&self) {
        self.suspect.store(0, Ordering::Release);
    }

    /// Whether a 401 asks for a replacement of the current token.
    pub(in crate::token) fn is_suspect(&self) -> bool {
        let current = self.generation();
        current != Generation(0) && self.suspect.load(Ordering::Acquire) == current.0
    }

    /// Until when the current token is usable, and when it expires.
    pub(in crate::token) fn validity(&self) -> Option<(Moment, Moment)> {
        self.published.load().as_ref().map(|published| (published.usable_until, published.expires))
    }

    /// Waits until a request or a change asks the refresher to look again. Remembers one call made meanwhile.
    pub(in crate::token) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(in crate::token) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn generation(&self) -> Generation {
        self.control().generation
    }

    pub(super) fn control(&self) -> std::sync::MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{self, Instant};

    use super::*;
    use crate::token::{access_token::Format, credential::Credential, schedule::margin};

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_token_keeps_its_margin_until_it_ends_at_another_time() {
        let (began, epoch) = (Instant::now(), SystemTime::now());
        let clock = Clock::with_wall(move || epoch + began.elapsed());
        let credential = Credential::new("orders", secs(5), clock.clone(), Format::default());
        let publish = |lifetime: Duration| {
            let (now, token) = (clock.now(), AccessToken::new("the-same").unwrap());
            let published = credential.shared().publish(
                token,
                now.after(lifetime - margin(lifetime)),
                now.after(lifetime),
            );
            assert_eq!(published.0, Generation(1));
            credential.shared().validity().unwrap().0.left(now)
        };
        assert_eq!(publish(secs(3600)), secs(3570));
        time::advance(secs(3400)).await;
        for rounded in [199, 200, 201] {
            assert_eq!(publish(secs(rounded)), secs(170), "the margin of an hour, not of what is left");
        }
        assert_eq!(publish(secs(10)), secs(9), "the provider has ended it sooner");
        time::advance(secs(9)).await;
        assert!(credential.current().is_none());
        assert_eq!(publish(secs(60)), secs(54), "or lets it live longer");
    }
}
