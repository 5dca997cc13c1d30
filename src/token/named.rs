//! The names under which one refresher is known: sections that ask for the same token in the same way share it.
//!
//! What is true of the token is told under every name. Token requests are counted under the first, so that a sum over the
//! names is what the provider saw.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::status::SupplyStatus;
use crate::{
    readiness::Latch,
    telemetry::metrics::{CredentialMetrics, RefreshOutcome},
};

/// One name, with what belongs to it.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) latch: Latch,
    pub(super) metrics: CredentialMetrics,
}

// A lock: taken once an attempt, and when a configuration is built.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    named: Vec<Named>,
    /// When the token expires, for names that come later.
    expires: Option<SystemTime>,
}

impl Names {
    /// From now on also known as this.
    pub(super) fn add(&self, named: Named) {
        let mut state = self.state();
        if let Some(expires) = state.expires {
            named.latch.open();
            named.metrics.published(expires);
        }
        state.named.push(named);
    }

    /// Whatever had its names before is not there any more.
    pub(super) fn begin_anew(&self) {
        self.each(CredentialMetrics::begin_anew);
    }

    /// Known as these only.
    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.state().named.retain(|named| keep(&named.name));
    }

    /// Whether it is known as this.
    pub(super) fn contain(&self, name: &str) -> bool {
        self.state().named.iter().any(|named| named.name == name)
    }

    /// A token was published that expires then.
    pub(super) fn published(&self, expires: SystemTime) {
        let mut state = self.state();
        state.expires = Some(expires);
        for named in &state.named {
            named.metrics.published(expires);
            named.latch.open();
        }
    }

    /// A token request ended.
    pub(super) fn refreshed(&self, outcome: RefreshOutcome, took: Duration) {
        if let Some(first) = self.state().named.first() {
            first.metrics.refreshed(outcome, took);
        }
    }

    /// The provider's clock less ours, in seconds.
    pub(super) fn clock_skew(&self, seconds: f64) {
        self.each(|metrics| metrics.clock_skew(seconds));
    }

    /// What there is beside the token.
    pub(super) fn supplied(&self, status: &SupplyStatus) {
        self.each(|metrics| {
            if let Some(certificate) = status.client_certificate {
                metrics.client_certificate(certificate.begins_at, certificate.ends_at);
            }
            if let Some(store) = status.store {
                metrics.store_failing(store != "ok");
            }
            if let Some(family) = &status.refresh_token {
                let usable = family.state != super::family::FamilyState::Refused;
                metrics.refresh_token_family(usable, family.began_at, family.ends_at);
            }
        });
    }

    fn each(&self, tell: impl Fn(&CredentialMetrics)) {
        self.state().named.iter().for_each(|named| tell(&named.metrics));
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
