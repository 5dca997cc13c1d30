//! The one type in which the two roads touch: a named token that a request reads and a background task keeps fresh.
//!
//! A request calls [`Credential::current`], which is a pointer load and two comparisons. Only when there is no usable
//! token does it call [`Credential::wait`], which never fetches: it waits for the refresher, for a limited time.

mod shared;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};

use super::{
    access_token::{AccessToken, Format, Generation},
    clock::{Clock, Moment},
};

/// Least time between two refreshes that answers 401 can cause.
pub const REJECTION_INTERVAL: Duration = Duration::from_secs(30);

/// A handle to a credential, for one header format. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Credential {
    shared: Arc<Shared>,
    slot: usize,
}

/// A usable token as a request sees it. It stays what it is, even when a newer token is published meanwhile.
#[derive(Clone, Debug)]
pub struct Current {
    published: Arc<Published>,
    slot: usize,
}

/// There is no usable token, and waiting longer is not worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// How long until a later try can help.
    pub retry_after: Duration,
}

/// What became of a 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The refused token is being replaced.
    Refreshing,
    /// The refused token had been replaced already, or is being replaced because of another 401.
    Superseded,
    /// A 401 caused a refresh less than [`REJECTION_INTERVAL`] ago.
    Suppressed,
}

/// What the refresher of a credential is doing. Its changes wake the requests that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A token request is under way or about to be sent.
    Fetching,
    /// The token is good; the next request is planned.
    Resting,
    /// The last token request failed; the next is sent at this time.
    BackingOff(Instant),
    /// The refresher has ended with the process.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Shared {
    name: Arc<str>,
    token_wait: Duration,
    clock: Clock,
    // Read by every request on every worker, written once a refresh: a pointer swap keeps readers wait-free.
    published: ArcSwapOption<Published>,
    // The generation that an upstream refused and that is being replaced; 0 for none.
    suspect: AtomicU64,
    // A watch, because a request wants the latest phase and every change after it, never a queue of them.
    phase: watch::Sender<Phase>,
    // Held by the control plane only, when a route is built, a token published or a 401 handled.
    control: Mutex<Control>,
    // Tells the refresher to look again at once.
    wake: Notify,
}

#[derive(Debug)]
struct Control {
    formats: Vec<Format>,
    generation: Generation,
    last_rejection: Option<Instant>,
}

#[derive(Debug)]
struct Published {
    generation: Generation,
    token: AccessToken,
    // One finished value for each format in `Control::formats`.
    headers: Vec<HeaderValue>,
    usable_until: Moment,
    expires: Moment,
}

impl Credential {
    /// A credential without a token, for its usual format, whose refresher is yet to be started.
    pub(super) fn new(name: &str, token_wait: Duration, clock: Clock, usual: Format) -> Self {
        let control = Control { formats: vec![usual], generation: Generation(0), last_rejection: None };
        let shared = Shared {
            name: name.into(),
            token_wait,
            clock,
            published: ArcSwapOption::empty(),
            suspect: AtomicU64::new(0),
            phase: watch::Sender::new(Phase::Fetching),
            control: Mutex::new(control),
            wake: Notify::new(),
        };
        Self { shared: Arc::new(shared), slot: 0 }
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The same credential, rendered in another format. Called when a route is built. The handle that the manager gives
    /// has the usual one.
    #[must_use]
    pub fn with_format(&self, format: &Format) -> Self {
        let mut control = self.shared.control();
        let slot = control.formats.iter().position(|known| known == format).unwrap_or_else(|| {
            control.formats.push(format.clone());
            // A token that is already published gets the new format too.
            if let Some(published) = self.shared.published.load_full() {
                let mut headers = published.headers.clone();
                headers.push(format.render(&published.token));
                self.shared.published.store(Some(Arc::new(Published {
                    generation: published.generation,
                    token: published.token.clone(),
                    headers,
                    usable_until: published.usable_until,
                    expires: published.expires,
                })));
            }
            control.formats.len() - 1
        });
        Self { shared: Arc::clone(&self.shared), slot }
    }

    /// The token now, when it is usable by both clocks and not being replaced because of a 401.
    pub fn current(&self) -> Option<Current> {
        let published = self.shared.published.load();
        let published = published.as_ref()?;
        let usable = !published.usable_until.has_passed(self.shared.clock.now())
            && published.generation.0 != self.shared.suspect.load(Ordering::Acquire);
        usable.then(|| Current { published: Arc::clone(published), slot: self.slot })
    }

    /// Waits for the fetch under way, at most `token_wait`. While the refresher backs off there is nothing to wait for.
    pub async fn wait(&self) -> Result<Current, Unavailable> {
        let deadline = Instant::now() + self.shared.token_wait;
        let mut phase = self.shared.phase.subscribe();
        loop {
            // Seen before the token is looked at, so that a change in between is not missed.
            let seen = *phase.borrow_and_update();
            if let Some(current) = self.current() {
                return Ok(current);
            }
            match seen {
                Phase::Fetching => {}
                // The clocks have expired a token that its refresher believes in: after a suspend or a clock step.
                Phase::Resting => self.shared.wake.notify_one(),
                Phase::BackingOff(until) => {
                    return self.unexpired(until.saturating_duration_since(Instant::now()));
                }
                Phase::Stopped => return self.unexpired(Duration::from_secs(1)),
            }
            if time::timeout_at(deadline, phase.changed()).await.is_err() {
                return self.unexpired(Duration::from_secs(1));
            }
        }
    }

    /// A token that is being replaced because of a 401 is better than none once its replacement does not come: it is
    /// the upstream that refused it, and its answer tells the caller more than ours would.
    fn unexpired(&self, retry_after: Duration) -> Result<Current, Unavailable> {
        let published = self.shared.published.load_full();
        match published {
            Some(published) if !published.usable_until.has_passed(self.shared.clock.now()) => {
                Ok(Current { published, slot: self.slot })
            }
            _ => Err(Unavailable { retry_after: retry_after.max(Duration::from_secs(1)) }),
        }
    }

    /// An upstream refused the token of this generation with 401. Replaces it, unless that has been done already or
    /// was done for another 401 less than [`REJECTION_INTERVAL`] ago.
    pub fn reject(&self, generation: Generation) -> Rejection {
        let mut control = self.shared.control();
        if generation != control.generation {
            return Rejection::Superseded;
        }
        if self.shared.suspect.load(Ordering::Acquire) == generation.0 {
            return Rejection::Superseded;
        }
        // While the provider fails, a replacement is being tried for anyway, at the pace that backoff allows.
        if matches!(*self.shared.phase.borrow(), Phase::BackingOff(_) | Phase::Stopped) {
            return Rejection::Suppressed;
        }
        let now = Instant::now();
        if control.last_rejection.is_some_and(|last| now.duration_since(last) < REJECTION_INTERVAL) {
            return Rejection::Suppressed;
        }
        control.last_rejection = Some(now);
        self.shared.suspect.store(generation.0, Ordering::Release);
        // Whoever comes next waits for the replacement instead of failing with the same 401.
        self.shared.phase.send_replace(Phase::Fetching);
        self.shared.wake.notify_one();
        Rejection::Refreshing
    }

    /// When the current token expires, if there is one.
    pub fn expires(&self) -> Option<Moment> {
        self.shared.published.load().as_ref().map(|published| published.expires)
    }

    /// The number of the current token; 0 before the first.
    pub fn generation(&self) -> Generation {
        self.shared.generation()
    }

    /// What the refresher is doing.
    pub fn phase(&self) -> Phase {
        *self.shared.phase.borrow()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Current {
    /// The finished, sensitive header value: cloning it is a reference count.
    pub fn header(&self) -> &HeaderValue {
        &self.published.headers[self.slot]
    }

    /// The number of this token.
    pub fn generation(&self) -> Generation {
        self.published.generation
    }

    /// The bare token, to be recognised where it must not appear.
    pub fn token(&self) -> &AccessToken {
        &self.published.token
    }
}
