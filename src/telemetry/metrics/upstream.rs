//! What happens to an upstream as a whole, whichever routes lead to it. The label is its host and port, as configured.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::register;

pub(super) struct Families {
    connections: IntGaugeVec,
    waiting: IntGaugeVec,
    tls_reloads: IntCounterVec,
    certificate: [GaugeVec; 2],
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        let gauge = |name, help| register(registry, IntGaugeVec::new(Opts::new(name, help), &["upstream"]));
        Self {
            connections: gauge(
                "attache_upstream_connections_open",
                "Connections to the upstream that are open or being opened now.",
            ),
            waiting: gauge(
                "attache_upstream_requests_waiting",
                "Requests that wait because max_connections to the upstream are in use.",
            ),
            certificate: [
                (
                    "attache_upstream_client_certificate_start_timestamp_seconds",
                    "From when the client certificate for the upstream is valid, in seconds since 1970.",
                ),
                (
                    "attache_upstream_client_certificate_end_timestamp_seconds",
                    "Until when the client certificate for the upstream, and those that lead to its authority, are valid, in seconds since 1970.",
                ),
            ]
            .map(|(name, help)| register(registry, GaugeVec::new(Opts::new(name, help), &["upstream"]))),
            tls_reloads: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "attache_upstream_tls_reloads_total",
                        "Changes of the TLS files of an upstream, by outcome: replaced, or rejected because they are bad.",
                    ),
                    &["upstream", "outcome"],
                ),
            ),
        }
    }

    pub(super) fn handles(&self, upstream: &str) -> UpstreamMetrics {
        UpstreamMetrics {
            connections: self.connections.with_label_values(&[upstream]),
            waiting: self.waiting.with_label_values(&[upstream]),
            replaced: self.tls_reloads.with_label_values(&[upstream, "replaced"]),
            rejected: self.tls_reloads.with_label_values(&[upstream, "rejected"]),
            certificate: self.certificate.clone(),
            name: upstream.into(),
        }
    }
}

/// The handles of one upstream.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    connections: IntGauge,
    waiting: IntGauge,
    replaced: IntCounter,
    rejected: IntCounter,
    // Only an upstream with a client certificate has series for it.
    certificate: [GaugeVec; 2],
    name: Box<str>,
}

impl UpstreamMetrics {
    /// A connection is being opened.
    pub fn opened(&self) {
        self.connections.inc();
    }

    /// A connection is closed, or was not opened after all.
    pub fn closed(&self) {
        self.connections.dec();
    }

    /// A request has joined the queue.
    pub fn waiting(&self) {
        self.waiting.inc();
    }

    /// A request has left the queue.
    pub fn no_longer_waiting(&self) {
        self.waiting.dec();
    }

    /// Its TLS files have changed, and are in use.
    pub fn tls_replaced(&self) {
        self.replaced.inc();
    }

    /// Its TLS files have changed, and cannot be used.
    pub fn tls_rejected(&self) {
        self.rejected.inc();
    }

    /// From when until when the client certificate for it is valid.
    pub fn client_certificate(&self, begins: SystemTime, ends: SystemTime) {
        for (gauges, at) in self.certificate.iter().zip([begins, ends]) {
            let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            gauges.with_label_values(&[&*self.name]).set(seconds);
        }
    }

    /// There is none any more.
    pub fn forget_client_certificate(&self) {
        for gauges in &self.certificate {
            // Fails only when there is nothing to remove.
            let _ = gauges.remove_label_values(&[&*self.name]);
        }
    }
}
