//! Every metric family, in one place.
//!
//! 1. A [`Metrics`] belongs to one instance of attaché, never to the process, so that tests can run several.
//! 2. Whoever counts asks once for its handles ([`Metrics::route`], [`Metrics::credential`]): labels are resolved when
//!    a route or a credential is built, never per request.
//! 3. Labels come only from configured names and from fixed sets.
//! 4. [`Metrics::render`] writes the Prometheus text format.

mod credential;
mod own;
mod process;
mod route;
mod traffic;
mod upstream;

use std::sync::Arc;

use prometheus::{Encoder as _, Registry, TextEncoder};

pub use self::{
    credential::{CredentialMetrics, IntrospectionOutcome, RefreshOutcome},
    own::OwnAnswers,
    process::{ConnectionMetrics, ReloadOutcome, SpanMetrics},
    route::{RejectionOutcome, ReplayOutcome, RouteMetrics, Timer, UpstreamConnection},
    upstream::UpstreamMetrics,
};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All metrics of one instance. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    registry: Registry,
    routes: route::Families,
    upstreams: upstream::Families,
    credentials: credential::Families,
    process: process::Families,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every family.
    pub fn new() -> Self {
        let registry = Registry::new();
        Self(Arc::new(Families {
            routes: route::Families::register(&registry),
            upstreams: upstream::Families::register(&registry),
            credentials: credential::Families::register(&registry),
            process: process::Families::register(&registry),
            registry,
        }))
    }

    /// The handles of one route.
    pub fn route(&self, route: &str) -> RouteMetrics {
        self.0.routes.handles(route)
    }

    /// The handles of one upstream, named by its host and port.
    pub fn upstream(&self, upstream: &str) -> UpstreamMetrics {
        self.0.upstreams.handles(upstream)
    }

    /// How many requests attaché itself has answered, by route and reason: since the start, and lately.
    pub fn own_answers(&self) -> Vec<OwnAnswers> {
        self.0.routes.own_answers()
    }

    /// The handles of one credential.
    pub fn credential(&self, credential: &str) -> CredentialMetrics {
        self.0.credentials.handles(credential)
    }

    /// Shows nothing of this credential any more: a reload took it away. Its counters stay, as counters do.
    pub fn forget_credential(&self, credential: &str) {
        self.0.credentials.forget(credential);
    }

    /// The handles of a listener's connections.
    pub fn connections(&self) -> ConnectionMetrics {
        self.0.process.connections()
    }

    /// Counts the lines that this log loses.
    pub fn watch_log(&self, log: &super::logging::Log) {
        log.count_losses(self.0.process.log_lines_lost());
    }

    /// The handles of the spans.
    pub fn spans(&self) -> SpanMetrics {
        self.0.process.spans()
    }

    /// Counts a load of the configuration.
    pub fn reload(&self, outcome: ReloadOutcome) {
        self.0.process.reload(outcome);
    }

    /// Shows that these keys, which weaken a promise, are in use, and no others.
    pub fn unsafe_settings(&self, keys: &[String]) {
        self.0.process.unsafe_settings(keys);
    }

    /// All families in the Prometheus text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        // Encoding fails only when writing fails or a family is empty, and a `Vec` takes every write.
        if let Err(error) = TextEncoder::new().encode(&self.0.registry.gather(), &mut text) {
            tracing::warn!(%error, "metrics could not be rendered");
        }
        text
    }
}

/// Registers `collector` and returns it. All names are constants of this folder, so a clash is a bug that the first
/// test finds.
fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: Result<C, prometheus::Error>,
) -> C {
    let collector = collector.expect("metric names and labels are valid constants");
    registry.register(Box::new(collector.clone())).expect("metric names are distinct");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_answers_are_told_by_route_and_reason() {
        let metrics = Metrics::new();
        let route = metrics.route("orders");
        route.own_answer("token_unavailable");
        route.own_answer("token_unavailable");
        let told = metrics.own_answers();
        assert_eq!((&*told[0].route, told[0].reason, told[0].count), ("orders", "token_unavailable", 2));
        let series = "attache_own_answers_total{reason=\"token_unavailable\",route=\"orders\"} 2";
        assert!(String::from_utf8(metrics.render()).unwrap().contains(series));
    }

    #[test]
    fn the_first_rejected_reload_is_an_increase() {
        let metrics = Metrics::new();
        let rejected = |count| format!("attache_config_reloads_total{{outcome=\"rejected\"}} {count}");
        assert!(String::from_utf8(metrics.render()).unwrap().contains(&rejected(0)));
        metrics.reload(ReloadOutcome::Rejected);
        assert!(String::from_utf8(metrics.render()).unwrap().contains(&rejected(1)));
    }

    #[test]
    fn only_a_token_request_that_was_sent_took_time() {
        use RefreshOutcome::{Local, Quota, Rejected, Success, Transient};
        let took = std::time::Duration::from_millis(20);
        for (outcome, count) in [(Success, 1), (Transient, 1), (Rejected, 1), (Local, 0), (Quota, 0)] {
            let metrics = Metrics::new();
            metrics.credential("a").refreshed(outcome, took);
            let series =
                format!("attache_token_refresh_duration_seconds_count{{credential=\"a\"}} {count}\n");
            let text = String::from_utf8(metrics.render()).unwrap();
            assert!(text.contains(&series), "{outcome:?}");
        }
    }

    #[test]
    fn instances_do_not_share_their_counts() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.credential("a").refreshed(RefreshOutcome::Success, std::time::Duration::from_millis(20));
        let count = "attache_token_refreshes_total{credential=\"a\",outcome=\"success\"} 1";
        assert!(String::from_utf8(one.render()).unwrap().contains(count));
        assert!(!String::from_utf8(other.render()).unwrap().contains(count));
    }
}
