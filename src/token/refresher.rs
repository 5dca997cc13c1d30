//! The task that keeps one credential fresh. It is dumb: when to do what is decided in `schedule`.

use std::{sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use super::{
    answer::Lifetime,
    clock::{Clock, Moment},
    credential::{Phase, Shared},
    error::{Class, FetchError},
    schedule::{self, Failed, LEAST_INTERVAL},
    source::{Fetched, Source},
    status::Journal,
    verify::Verifier,
};
use crate::{
    readiness::Latch,
    telemetry::{
        metrics::{CredentialMetrics, RefreshOutcome},
        traces::{TokenSpan, Tracer},
    },
};

/// How often the files that a source depends on are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// For one attempt, discovery and token request together.
const ATTEMPT: Duration = Duration::from_secs(10);

/// A skew of the provider's clock that is worth a line in the log, in seconds.
const SKEW_TOLD: f64 = 30.0;

/// One credential's refresher.
pub(super) struct Refresher {
    pub(super) name: Arc<str>,
    pub(super) source: Source,
    pub(super) verifier: Option<Verifier>,
    pub(super) shared: Arc<Shared>,
    pub(super) default_lifetime: Duration,
    pub(super) latch: Latch,
    pub(super) metrics: CredentialMetrics,
    pub(super) traces: Tracer,
    pub(super) journal: Arc<Journal>,
    /// When the last token request was sent.
    pub(super) last: Option<Instant>,
    pub(super) failures: u32,
    /// The kind of failure that was told last: one warning a change.
    pub(super) told: Option<FetchError>,
    pub(super) skew_told: bool,
    pub(super) narrowed_told: bool,
}

impl Refresher {
    /// Fetches, waits, fetches again; never ends by itself.
    pub(super) async fn run(&mut self) {
        loop {
            let wait = self.attempt().await;
            self.rest(Instant::now() + wait).await;
        }
    }

    /// One attempt; returns how long until the next.
    async fn attempt(&mut self) -> Duration {
        // Whatever woke us: never more than one request a second.
        if let Some(last) = self.last {
            time::sleep_until(last + LEAST_INTERVAL).await;
        }
        // While the provider fails, callers are told so at once instead of waiting for one more failure.
        if self.failures == 0 {
            self.shared.enter(Phase::Fetching);
        }
        let begun = self.shared.clock().now();
        self.last = Some(begun.monotonic);
        let fetched = match time::timeout(ATTEMPT, self.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::Timeout),
        };
        let took = begun.monotonic.elapsed();
        let outcome = fetched.and_then(|fetched| self.publish(fetched, begun));
        let reason = outcome.as_ref().err().map(FetchError::word);
        self.traces.token_request(begun.wall, took, TokenSpan { credential: Arc::clone(&self.name), reason });
        match outcome {
            Ok(lifetime) => {
                self.metrics.refreshed(RefreshOutcome::Success, took);
                self.failures = 0;
                self.told = None;
                let planned = schedule::refresh_after(lifetime, rand::chance());
                let wait = planned.saturating_sub(took);
                self.journal.succeeded(Instant::now() + wait);
                self.shared.enter(Phase::Resting);
                wait
            }
            Err(error) => self.failed(error, took),
        }
    }

    /// Asks, and verifies what came. The source has kept by then what it must keep, whatever becomes of the token.
    async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let fetched = self.source.fetch().await?;
        if let Some(verifier) = &mut self.verifier {
            verifier.verify(&fetched.issued.token, fetched.skew).await?;
        }
        Ok(fetched)
    }

    /// Makes what was fetched the current token; returns its lifetime.
    fn publish(&mut self, fetched: Fetched, begun: Moment) -> Result<Duration, FetchError> {
        let Fetched { issued, narrowed, skew } = fetched;
        let lifetime = match issued.lifetime {
            Lifetime::Known(lifetime) => lifetime,
            Lifetime::Unknown => self.default_lifetime,
        };
        // Counted from before the request was sent: the provider began to count later, never earlier.
        let usable_until = begun.after(lifetime - schedule::margin(lifetime));
        let expires = begun.after(lifetime);
        if usable_until.has_passed(self.shared.clock().now()) {
            return Err(FetchError::Malformed("the token had expired when it came"));
        }
        if let Some(skew) = skew {
            self.metrics.clock_skew(skew);
            let told = skew.abs() >= SKEW_TOLD;
            if told && !self.skew_told {
                tracing::warn!(
                    credential = &*self.name,
                    skew_seconds = skew,
                    "the provider's clock differs from ours"
                );
            }
            self.skew_told = told;
        }
        let (generation, new) = self.shared.publish(issued.token, usable_until, expires);
        self.metrics.published(expires.wall);
        let (name, generation, lifetime_s) = (&*self.name, generation.0, lifetime.as_secs());
        if new {
            tracing::info!(credential = name, generation, lifetime_s, "token refreshed");
        } else {
            tracing::debug!(credential = name, generation, lifetime_s, "the same token came again");
            if self.held(self.shared.clock()).is_none() {
                return Err(FetchError::Stale);
            }
        }
        if narrowed && !self.narrowed_told {
            tracing::warn!(credential = &*self.name, "the provider granted less scope than was asked for");
        }
        self.narrowed_told = narrowed;
        self.latch.open();
        Ok(lifetime)
    }

    /// Notes a failure; returns how long until the next attempt.
    fn failed(&mut self, error: FetchError, took: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let class = error.class();
        self.metrics.refreshed(
            match class {
                Class::Transient => RefreshOutcome::Transient,
                Class::Client => RefreshOutcome::Rejected,
                Class::Local => RefreshOutcome::Local,
            },
            took,
        );
        let held = self.held(self.shared.clock());
        let failed = Failed { count: self.failures, class, retry_after: error.retry_after(), held };
        let wait = schedule::retry_after(failed, rand::chance());
        if self.told.as_ref() != Some(&error) {
            tracing::warn!(
                credential = &*self.name,
                reason = error.word(),
                %error,
                next_attempt_s = wait.as_secs_f32(),
                token_held = held.is_some(),
                "no new token"
            );
            self.told = Some(error.clone());
        }
        let next = Instant::now() + wait;
        self.journal.failed(&error, next);
        // Before the phase: whoever is woken by it must find the old token usable again.
        self.shared.stand_by();
        self.shared.enter(Phase::BackingOff(next));
        wait
    }

    /// How long the current token can still be used.
    fn held(&self, clock: &Clock) -> Option<Duration> {
        let (usable_until, _) = self.shared.validity()?;
        Some(usable_until.left(clock.now())).filter(|left| !left.is_zero())
    }

    /// Waits for the planned time, or for a reason to ask sooner: a 401, a token that a clock has expired, a new secret.
    async fn rest(&mut self, mut until: Instant) {
        loop {
            let woken = {
                tokio::select! {
                    () = time::sleep_until(until) => return,
                    () = self.shared.woken() => true,
                    () = time::sleep(LOOK) => false,
                }
            };
            if woken {
                // Backing off is not cut short by callers, only by the operator.
                let wanted = self.shared.is_suspect() || self.held(self.shared.clock()).is_none();
                if wanted && self.failures == 0 {
                    return;
                }
            } else if self.source.look() {
                tracing::info!(credential = &*self.name, "a secret has been replaced");
                return;
            }
            // A token that only the wall clock has ended was counted on when the back-off was planned.
            let planned_with_token = self
                .told
                .as_ref()
                .is_some_and(|error| error.class() == Class::Transient && error.retry_after().is_none());
            if planned_with_token && self.held(self.shared.clock()).is_none() {
                until = until.min(Instant::now() + schedule::CAP_NONE);
            }
        }
    }
}

pub(super) mod rand {
    /// A number from 0 to 1 that nobody can plan with.
    pub(in crate::token) fn chance() -> f64 {
        let mut bytes = [0; 4];
        // Without randomness sidecars refresh together, which is bearable.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    }
}
