//! What comes of an attempt: a token that is published, or a failure that is noted and told.

use std::time::Duration;

use tokio::time::Instant;

use super::{Refresher, SKEW_TOLD};
use crate::{
    chance::chance,
    telemetry::metrics::RefreshOutcome,
    token::{
        answer::Lifetime,
        clock::Moment,
        credential::Phase,
        error::{Class, FetchError},
        schedule::{self, Failed},
        source::Fetched,
        status::{Failure, LastError, Plan},
        supplier::Kept,
    },
};

impl Refresher {
    /// Goes on with the token of the section before; returns how long until the next is asked for, if it is still any good.
    pub(super) fn go_on(&mut self) -> Option<Duration> {
        let Plan { lifetime, next, failure } = self.progress.inherited.take()?;
        self.held(self.shared.clock())?;
        // The refresher before may be asking just now.
        let wait = next.saturating_duration_since(Instant::now()).max(schedule::LEAST_INTERVAL);
        match failure {
            None => self.succeeded(lifetime, wait),
            // The limit may have been changed just for this, and says itself how long to wait.
            Some(Failure { error: FetchError::Quota, .. }) => return None,
            // Nothing has become better by the change: the provider is not asked sooner, and people are told the same.
            Some(failure) => {
                let next = Instant::now() + wait;
                self.progress.failures = failure.count;
                self.progress.told = Some(failure.error.clone());
                self.journal.failed(failure, next);
                self.shared.enter(Phase::BackingOff(next));
            }
        }
        Some(wait)
    }

    /// Uses a token that the store held; returns how long until the next is asked for, if it is any good.
    pub(super) fn take_up(&mut self, kept: Kept, now: Moment) -> Option<Duration> {
        let left = kept.left()?;
        let Kept { token, lifetime, age } = kept;
        self.shared.publish(token, now.after(left), now.after(lifetime - age));
        self.names.published(now.after(lifetime - age).wall);
        tracing::info!(credential = &*self.name, left_s = left.as_secs(), "the token in the store is used");
        let wait = schedule::refresh_after(lifetime, chance()).saturating_sub(age);
        self.succeeded(lifetime, wait);
        Some(wait)
    }

    pub(super) fn succeeded(&mut self, lifetime: Duration, wait: Duration) {
        self.progress.failures = 0;
        self.progress.told = None;
        self.progress.hurried = false;
        if std::mem::take(&mut self.progress.renewed) {
            tracing::info!(credential = &*self.name, "the new secret is in use");
        }
        self.journal.succeeded(lifetime, Instant::now() + wait);
        self.shared.enter(Phase::Resting);
    }

    /// Makes what was fetched the current token; returns its lifetime.
    pub(super) fn publish(&mut self, fetched: Fetched, begun: Moment) -> Result<Duration, FetchError> {
        let Fetched { issued, narrowed, skew } = fetched;
        let lifetime = match issued.lifetime {
            Lifetime::Known(lifetime) => lifetime,
            Lifetime::Unknown => self.default_lifetime,
        };
        // Counted from before the request was sent: the provider began to count later, never earlier.
        let told = begun.after(lifetime);
        // Of the token that is held it is news. Its margin is of what it has left: a provider that gives it again will give
        // no other one before its end, and a longer margin would be time without a token.
        let again = self.shared.end_again(&issued.token, told);
        let expires = again.unwrap_or(told);
        let left = expires.left(begun);
        // Only what is told can be rounded up.
        let margin = match issued.lifetime {
            Lifetime::Known(_) if again.is_some() => schedule::margin_again(left),
            _ => schedule::margin(left),
        };
        let usable_until = begun.after(left.saturating_sub(margin));
        if usable_until.has_passed(self.shared.clock().now()) && again.is_none() {
            return Err(FetchError::Malformed("the token had expired when it came"));
        }
        if let Some(skew) = skew {
            self.names.clock_skew(skew);
            let told = skew.abs() >= SKEW_TOLD;
            if told && !self.progress.skew_told {
                tracing::warn!(
                    credential = &*self.name,
                    skew_seconds = skew,
                    "the provider's clock differs from ours"
                );
            }
            self.progress.skew_told = told;
        }
        let (generation, new) = self.shared.publish(issued.token, usable_until, expires);
        self.names.published(expires.wall);
        let (name, generation, lifetime_s) = (&*self.name, generation.0, lifetime.as_secs());
        if new {
            tracing::info!(credential = name, generation, lifetime_s, "token refreshed");
        } else {
            tracing::debug!(credential = name, generation, lifetime_s, "the same token came again");
            if self.held(self.shared.clock()).is_none() {
                return Err(FetchError::Stale);
            }
        }
        if narrowed && !self.progress.narrowed_told {
            tracing::warn!(credential = &*self.name, "the provider granted less scope than was asked for");
        }
        self.progress.narrowed_told = narrowed;
        Ok(lifetime)
    }

    /// Notes a failure; returns how long until the next attempt, which is `least` at least.
    pub(super) fn failed(&mut self, error: FetchError, took: Duration, least: Duration) -> Duration {
        let told = (&error).into();
        self.failed_so(error, told, took, least)
    }

    /// The same with what is to be told of it.
    pub(super) fn failed_so(
        &mut self,
        error: FetchError,
        told: LastError,
        took: Duration,
        least: Duration,
    ) -> Duration {
        if error.leaves_another_way() {
            self.progress.failures = 0;
        }
        self.progress.failures = self.progress.failures.saturating_add(1);
        self.progress.hurried &= error.retry_after().is_some();
        let class = error.class();
        self.names.refreshed(
            match class {
                Class::Transient => RefreshOutcome::Transient,
                Class::Client | Class::Spent => RefreshOutcome::Rejected,
                Class::Local if error == FetchError::Quota => RefreshOutcome::Quota,
                Class::Local => RefreshOutcome::Local,
            },
            took,
        );
        let held = self.held(self.shared.clock());
        let class = if error.leaves_another_way() { Class::Transient } else { class };
        let failed = Failed { count: self.progress.failures, class, retry_after: error.retry_after(), held };
        let near_end = self.near_end(&error).filter(|soon| *soon >= least);
        let wait = near_end.unwrap_or_else(|| schedule::retry_after(failed, chance()).max(least));
        let new_secret = std::mem::take(&mut self.progress.renewed);
        if self.progress.told.as_ref() != Some(&error) || new_secret {
            tracing::warn!(
                credential = &*self.name,
                reason = error.word(),
                %error,
                next_attempt_s = wait.as_secs_f32(),
                token_held = held.is_some(),
                new_secret,
                "{}",
                match (new_secret, held) {
                    (true, Some(_)) => "no token with the new secret; the one that came with the old secret stays in use",
                    (true, None) => "no token with the new secret",
                    (false, _) => "no new token",
                }
            );
            self.progress.told = Some(error.clone());
        }
        let next = Instant::now() + wait;
        self.progress.paced = Some(Instant::now() + least);
        self.journal.failed(Failure { error, told, count: self.progress.failures }, next);
        // Before the phase: whoever is woken by it must find the old token usable again.
        self.shared.stand_by();
        // What is asked for in a second is worth waiting for.
        self.shared.enter(near_end.map_or(Phase::BackingOff(next), |_| Phase::Fetching));
        // And after it: a 401 between the two still thought that a replacement was on its way.
        self.shared.stand_by();
        wait
    }

    /// How long until the next attempt, after a token that came again in its last second.
    fn near_end(&self, error: &FetchError) -> Option<Duration> {
        let (FetchError::Stale, Some((_, expires))) = (error, self.shared.validity()) else { return None };
        schedule::retry_near_end(self.progress.failures, expires.left(self.shared.clock().now()))
    }
}
