//! What happens to a credential: token requests, their outcome, the life of its token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::register;

/// From a provider in the same cluster to the time limit of a token request, in seconds.
const BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

pub(super) struct Families {
    expiry: GaugeVec,
    refreshes: IntCounterVec,
    duration: HistogramVec,
    ready: IntGaugeVec,
    clock_skew: GaugeVec,
    introspections: IntCounterVec,
    store_failing: IntGaugeVec,
    family_usable: IntGaugeVec,
    family_began: GaugeVec,
    family_ends: GaugeVec,
    certificate_begins: GaugeVec,
    certificate_ends: GaugeVec,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            expiry: register(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "attache_token_expiry_timestamp_seconds",
                        "When the current access token expires, in seconds since 1970; 0 before the first.",
                    ),
                    &["credential"],
                ),
            ),
            refreshes: register(
                registry,
                IntCounterVec::new(
                    Opts::new("attache_token_refreshes_total", "Token requests, by outcome."),
                    &["credential", "outcome"],
                ),
            ),
            duration: register(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "attache_token_refresh_duration_seconds",
                        "Time a token request took.",
                    )
                    .buckets(BUCKETS.to_vec()),
                    &["credential"],
                ),
            ),
            ready: register(
                registry,
                IntGaugeVec::new(
                    Opts::new("attache_credential_ready", "1 once the credential has had its first token."),
                    &["credential"],
                ),
            ),
            clock_skew: gauges(
                registry,
                "attache_provider_clock_skew_seconds",
                "The identity provider's clock less ours, from the `Date` of its last answer.",
            ),
            store_failing: int_gauges(
                registry,
                "attache_token_store_failing",
                "1 while the credential's store cannot be opened, or what is new is not on the disk.",
            ),
            family_usable: int_gauges(
                registry,
                "attache_refresh_token_usable",
                "0 once the provider does not accept the refresh token any more.",
            ),
            family_began: gauges(
                registry,
                "attache_refresh_token_family_start_timestamp_seconds",
                "When the family of refresh tokens began, in seconds since 1970.",
            ),
            family_ends: gauges(
                registry,
                "attache_refresh_token_family_end_timestamp_seconds",
                "When the family of refresh tokens ends, in seconds since 1970; 0 as long as that is not known.",
            ),
            certificate_begins: gauges(
                registry,
                "attache_client_certificate_start_timestamp_seconds",
                "From when the client's certificate is valid, in seconds since 1970.",
            ),
            certificate_ends: gauges(
                registry,
                "attache_client_certificate_end_timestamp_seconds",
                "Until when the client's certificate, and those that lead to its authority, are valid, in seconds since 1970.",
            ),
            introspections: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "attache_token_introspections_total",
                        "Questions to the provider whether a token is still good, by outcome.",
                    ),
                    &["credential", "outcome"],
                ),
            ),
        }
    }

    pub(super) fn handles(&self, credential: &str) -> CredentialMetrics {
        CredentialMetrics {
            expiry: self.expiry.with_label_values(&[credential]),
            refreshes: RefreshOutcome::ALL
                .map(|outcome| self.refreshes.with_label_values(&[credential, outcome.word()])),
            duration: self.duration.with_label_values(&[credential]),
            ready: self.ready.with_label_values(&[credential]),
            clock_skew: self.clock_skew.with_label_values(&[credential]),
            introspections: IntrospectionOutcome::ALL
                .map(|outcome| self.introspections.with_label_values(&[credential, outcome.word()])),
            store_failing: self.store_failing.clone(),
            family_usable: self.family_usable.clone(),
            family_began: self.family_began.clone(),
            family_ends: self.family_ends.clone(),
            certificate_begins: self.certificate_begins.clone(),
            certificate_ends: self.certificate_ends.clone(),
            name: credential.into(),
        }
    }
}

impl Families {
    /// The credential is not there any more: what is left of it would alert for ever.
    pub(super) fn forget(&self, credential: &str) {
        self.handles(credential).forget_extras();
        // Fails only when there is nothing to remove.
        let _ = self.expiry.remove_label_values(&[credential]);
        let _ = self.ready.remove_label_values(&[credential]);
        let _ = self.clock_skew.remove_label_values(&[credential]);
    }
}

fn gauges(registry: &Registry, name: &str, help: &str) -> GaugeVec {
    register(registry, GaugeVec::new(Opts::new(name, help), &["credential"]))
}

fn int_gauges(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), &["credential"]))
}

/// How a token request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// A token came.
    Success,
    /// The provider failed in a way that a later try can cure.
    Transient,
    /// The provider refused us: the client, its secret or its scope is at fault.
    Rejected,
    /// No request was sent, because our own side is at fault (a secret that cannot be read).
    Local,
    /// No request was sent, because `max_requests_per_hour` have been.
    Quota,
}

impl RefreshOutcome {
    const ALL: [Self; 5] = [Self::Success, Self::Transient, Self::Rejected, Self::Local, Self::Quota];

    /// Whether there was a request whose time counts.
    fn was_sent(self) -> bool {
        !matches!(self, Self::Local | Self::Quota)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Transient => "transient",
            Self::Rejected => "rejected",
            Self::Local => "local",
            Self::Quota => "quota",
        }
    }
}

/// How a question to the provider about a token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntrospectionOutcome {
    /// The token is good.
    Active,
    /// It is not.
    Inactive,
    /// There was no answer, or none that makes sense.
    Failed,
}

impl IntrospectionOutcome {
    const ALL: [Self; 3] = [Self::Active, Self::Inactive, Self::Failed];

    fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
        }
    }
}

/// The handles of one credential.
#[derive(Clone, Debug)]
pub struct CredentialMetrics {
    expiry: Gauge,
    refreshes: [IntCounter; 5],
    duration: Histogram,
    ready: IntGauge,
    clock_skew: Gauge,
    introspections: [IntCounter; 3],
    // Only a credential that has such a thing has a series for it.
    store_failing: IntGaugeVec,
    family_usable: IntGaugeVec,
    family_began: GaugeVec,
    family_ends: GaugeVec,
    certificate_begins: GaugeVec,
    certificate_ends: GaugeVec,
    name: Box<str>,
}

impl CredentialMetrics {
    /// Another credential has this name now: shows nothing of the one before. Counters go on.
    pub fn begin_anew(&self) {
        for gauge in [&self.expiry, &self.clock_skew] {
            gauge.set(0.0);
        }
        self.ready.set(0);
        self.forget_extras();
    }

    fn forget_extras(&self) {
        let name = &[&*self.name];
        // Fails only when there is nothing to remove.
        for gauges in [&self.store_failing, &self.family_usable] {
            let _ = gauges.remove_label_values(name);
        }
        let certificate = [&self.certificate_begins, &self.certificate_ends];
        for gauges in [&self.family_began, &self.family_ends].into_iter().chain(certificate) {
            let _ = gauges.remove_label_values(name);
        }
    }

    /// The provider was asked about a token.
    pub fn introspected(&self, outcome: IntrospectionOutcome) {
        self.introspections[outcome as usize].inc();
    }

    /// A token request ended, or was not sent.
    pub fn refreshed(&self, outcome: RefreshOutcome, took: Duration) {
        self.refreshes[outcome as usize].inc();
        if outcome.was_sent() {
            self.duration.observe(took.as_secs_f64());
        }
    }

    /// A token was published that expires then.
    pub fn published(&self, expires: SystemTime) {
        self.expiry.set(expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.ready.set(1);
    }

    /// The provider's clock is ahead of ours by so many seconds (negative: behind).
    pub fn clock_skew(&self, seconds: f64) {
        self.clock_skew.set(seconds);
    }

    /// Whether the store fails.
    pub fn store_failing(&self, failing: bool) {
        self.store_failing.with_label_values(&[&*self.name]).set(i64::from(failing));
    }

    /// From when until when the client's certificate is valid, in seconds since 1970.
    pub fn client_certificate(&self, begins: u64, ends: u64) {
        self.certificate_begins.with_label_values(&[&*self.name]).set(begins as f64);
        self.certificate_ends.with_label_values(&[&*self.name]).set(ends as f64);
    }

    /// Whether the refresh token can be used; when its family began, and when it ends if that is known, in seconds since
    /// 1970.
    pub fn refresh_token_family(&self, usable: bool, began: u64, ends: Option<u64>) {
        let name = &[&*self.name];
        self.family_usable.with_label_values(name).set(i64::from(usable));
        self.family_began.with_label_values(name).set(began as f64);
        self.family_ends.with_label_values(name).set(ends.unwrap_or_default() as f64);
    }
}
