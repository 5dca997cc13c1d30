//! The side of a credential that its refresher sees.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{Control, Phase, Published, Shared};
use crate::token::{
    access_token::{AccessToken, Generation},
    clock::{Clock, Moment},
};

/// By how much the ends of one and the same token may differ, because answers count in whole seconds.
const SAME_END: Duration = Duration::from_secs(2);

/// By both clocks: after a suspend or a step they differ, and what was told last is right.
fn is_same_end(one: Moment, other: Moment) -> bool {
    let near = |one: Moment, other: Moment| {
        one.monotonic <= other.monotonic + SAME_END && one.wall <= other.wall + SAME_END
    };
    near(one, other) && near(other, one)
}

/// What the refresher may do with its credential, and nobody else.
impl Shared {
    /// Makes `token` the current one; returns its number, and whether it is another one than before.
    ///
    /// Providers that keep a token until it ends, and files, give the same one again. It keeps its number, so that a
    /// request that was refused with it is not sent again with it.
    pub(in crate::token) fn publish(
        &self,
        token: AccessToken,
        usable_until: Moment,
        expires: Moment,
    ) -> (Generation, bool) {
        let mut control = self.control();
        let before = self.published.load_full();
        let new = before.is_none_or(|before| before.token != token);
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

    /// Begins with the token of `before`, as it is; returns when it ends. Nothing, when that is of no use any more or is being
    /// replaced because of a 401.
    pub(in crate::token) fn go_on_from(&self, before: &Self) -> Option<Moment> {
        let Published { generation, token, usable_until, expires, .. } = &*before.published.load_full()?;
        let last_rejection = before.control().last_rejection;
        if before.is_suspect() || usable_until.has_passed(self.clock.now()) {
            return None;
        }
        let mut control = self.control();
        (control.generation, control.last_rejection) = (*generation, last_rejection);
        let headers = control.formats.iter().map(|format| format.render(token)).collect();
        self.published.store(Some(Arc::new(Published {
            generation: *generation,
            token: token.clone(),
            headers,
            usable_until: *usable_until,
            expires: *expires,
        })));
        Some(*expires)
    }

    /// When the current token ends, if `token`, which is told to end at `told`, is the same. What the provider said last
    /// counts, also when that is sooner; but of two ends that differ by the rounding only, the later is the nearer one.
    pub(in crate::token) fn end_again(&self, token: &AccessToken, told: Moment) -> Option<Moment> {
        let published = self.published.load();
        let known = published.as_ref().filter(|published| published.token == *token)?.expires;
        Some(if is_same_end(told, known) { told.later(known) } else { told })
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
    use std::time::SystemTime;

    use tokio::time::{self, Instant};

    use super::*;
    use crate::token::{access_token::Format, credential::Credential};

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_token_ends_when_the_provider_said_last_give_or_take_the_rounding() {
        let (began, epoch) = (Instant::now(), SystemTime::now());
        let clock = Clock::with_wall(move || epoch + began.elapsed());
        let credential = Credential::new("orders", secs(5), clock.clone(), Format::default());
        let (shared, token) = (credential.shared(), AccessToken::new("the-same").unwrap());
        let told = |lifetime: Duration| {
            let now = clock.now();
            let expires = shared.end_again(&token, now.after(lifetime));
            let expires = expires.unwrap_or(now.after(lifetime));
            let published = shared.publish(token.clone(), expires, expires);
            assert_eq!(published.0, Generation(1));
            shared.validity().unwrap().1.left(now)
        };
        assert_eq!(told(secs(3600)), secs(3600));
        time::advance(secs(3400)).await;
        for (rounded, left) in [(199, 200), (200, 200), (201, 201), (199, 201)] {
            assert_eq!(told(secs(rounded)), secs(left));
        }
        assert_eq!(told(secs(10)), secs(10), "the provider has ended it sooner");
        time::advance(secs(10)).await;
        assert!(credential.current().is_none());
        assert_eq!(told(secs(60)), secs(60), "or lets it live longer");
        assert_eq!(shared.end_again(&AccessToken::new("another").unwrap(), clock.now()), None);
    }
}
