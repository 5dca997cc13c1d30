//! What happens to an upstream as a whole, whichever routes lead to it. The label is its host and port, as configured.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::register;

pub(super) struct Families {
    connections: IntGaugeVec,
    waiting: IntGaugeVec,
    tls_reloads: IntCounterVec,
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
}
