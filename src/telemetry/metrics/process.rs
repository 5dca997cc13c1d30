//! What happens to the process: caller connections, configuration, build, and what the kernel knows of it.

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, process_collector::ProcessCollector,
};

use super::register;

pub(super) struct Families {
    connections: IntGauge,
    connections_total: IntCounter,
    connections_refused: IntCounter,
    log_lines_lost: IntCounter,
    reloads: [IntCounter; 2],
    last_reload_successful: IntGauge,
    unsafe_settings: IntGaugeVec,
    spans: SpanMetrics,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        let build = register(
            registry,
            IntGaugeVec::new(
                Opts::new("attache_build_info", "Always 1; the version is in the label."),
                &["version"],
            ),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let reloads = register(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "attache_config_reloads_total",
                    "Loads of the configuration after the first, by outcome.",
                ),
                &["outcome"],
            ),
        );
        // There from the start: Prometheus takes no notice of an increase from nothing to one.
        let reloads = ["success", "rejected"].map(|outcome| reloads.with_label_values(&[outcome]));
        let last_reload_successful = register(
            registry,
            IntGauge::new(
                "attache_config_last_reload_successful",
                "1 if the configuration in force is what was written last, 0 if that cannot be used.",
            ),
        );
        // What the process started with was good.
        last_reload_successful.set(1);
        // A process that may not read its own /proc shows no process metrics; nothing else depends on them.
        if let Err(error) = registry.register(Box::new(ProcessCollector::for_self())) {
            tracing::debug!(%error, "no process metrics");
        }
        Self {
            connections: register(
                registry,
                IntGauge::new("attache_caller_connections", "Connections of callers that are open now."),
            ),
            connections_total: register(
                registry,
                IntCounter::new(
                    "attache_caller_connections_total",
                    "Connections of callers that were accepted.",
                ),
            ),
            connections_refused: register(
                registry,
                IntCounter::new(
                    "attache_caller_connections_refused_total",
                    "Connections of callers that were refused because there were too many.",
                ),
            ),
            log_lines_lost: register(
                registry,
                IntCounter::new(
                    "attache_log_lines_lost_total",
                    "Lines of the log that were lost because they could not be written fast enough.",
                ),
            ),
            reloads,
            last_reload_successful,
            unsafe_settings: register(
                registry,
                IntGaugeVec::new(
                    Opts::new("attache_unsafe_settings", "1 for each key in use that weakens a promise."),
                    &["key"],
                ),
            ),
            spans: SpanMetrics::register(registry),
        }
    }

    pub(super) fn connections(&self) -> ConnectionMetrics {
        ConnectionMetrics {
            open: self.connections.clone(),
            total: self.connections_total.clone(),
            refused: self.connections_refused.clone(),
        }
    }

    pub(super) fn spans(&self) -> SpanMetrics {
        self.spans.clone()
    }

    pub(super) fn log_lines_lost(&self) -> IntCounter {
        self.log_lines_lost.clone()
    }

    pub(super) fn reload(&self, outcome: ReloadOutcome) {
        self.reloads[outcome as usize].inc();
        self.last_reload_successful.set((outcome == ReloadOutcome::Success).into());
    }

    pub(super) fn unsafe_settings(&self, keys: &[String]) {
        self.unsafe_settings.reset();
        for key in keys {
            self.unsafe_settings.with_label_values(&[key]).set(1);
        }
    }
}

/// How a load of the configuration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The new configuration is in force.
    Success,
    /// It was invalid; the old one stays.
    Rejected,
}

/// The handles of the spans.
#[derive(Clone, Debug)]
pub struct SpanMetrics {
    exported: IntCounter,
    dropped: IntCounter,
    failed: IntCounter,
}

impl SpanMetrics {
    fn register(registry: &Registry) -> Self {
        let help = "Spans that ended, by whether the collector took them.";
        let family = register(
            registry,
            IntCounterVec::new(Opts::new("attache_trace_spans_total", help), &["outcome"]),
        );
        let [exported, dropped, failed] =
            ["exported", "dropped", "failed"].map(|outcome| family.with_label_values(&[outcome]));
        Self { exported, dropped, failed }
    }

    /// The collector took them.
    pub fn exported(&self, spans: u64) {
        self.exported.inc_by(spans);
    }

    /// There was no room to keep them until they could be sent.
    pub fn dropped(&self, spans: u64) {
        self.dropped.inc_by(spans);
    }

    /// The collector did not take them.
    pub fn failed(&self, spans: u64) {
        self.failed.inc_by(spans);
    }
}

/// The handles of the callers' connections.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    open: IntGauge,
    total: IntCounter,
    refused: IntCounter,
}

impl ConnectionMetrics {
    /// A connection was accepted.
    pub fn opened(&self) {
        self.open.inc();
        self.total.inc();
    }

    /// A connection has ended.
    pub fn closed(&self) {
        self.open.dec();
    }

    /// A connection was refused because there were too many.
    pub fn refused(&self) {
        self.refused.inc();
    }
}
