//! What every request counts: how many a route has answered, how long they took, how many are under way.
//!
//! All of a route lies together, in three or four lines of a processor's cache. The library has a place for each counter, with its
//! description, and several for a histogram: with a thousand routes in use that was more than the cache holds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus::{
    core::{Collector, Desc},
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

/// From a fast cache hit to a long poll, in microseconds.
const BUCKETS: [u64; 12] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000,
    60_000_000,
];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The nanoseconds of a tick, in which durations are added up: with ten thousand requests under way the sum begins anew after
/// five years.
const TICK: u64 = 100;

/// The counters of one route.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    under_way: AtomicI64,
    answered: [AtomicU64; CLASSES.len()],
    ticks: AtomicU64,
    /// Durations up to each of the bounds, and longer ones.
    durations: [AtomicU64; BUCKETS.len() + 1],
}

impl Traffic {
    pub(super) fn begin(&self) {
        self.under_way.fetch_add(1, Relaxed);
    }

    pub(super) fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.answered[class].fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self, took: Duration) {
        self.under_way.fetch_sub(1, Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let within = |bound: &u64| nanoseconds <= bound * 1000;
        let bucket = BUCKETS.iter().position(within).unwrap_or(BUCKETS.len());
        self.durations[bucket].fetch_add(1, Relaxed);
        self.ticks.fetch_add(nanoseconds / TICK, Relaxed);
    }

    fn histogram(&self) -> Histogram {
        let mut all = 0;
        let mut up_to = |duration: &AtomicU64| {
            all += duration.load(Relaxed);
            all
        };
        let bucket = |(bound, duration): (&u64, &AtomicU64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / 1e6);
            bucket.set_cumulative_count(up_to(duration));
            bucket
        };
        let buckets = BUCKETS.iter().zip(&self.durations).map(bucket).collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(up_to(&self.durations[BUCKETS.len()]));
        histogram.set_sample_sum(self.ticks.load(Relaxed) as f64 * TICK as f64 / 1e9);
        histogram
    }
}

/// The counters of all routes. They outlive a reload that replaces or removes the route, as counters do.
#[derive(Clone)]
pub(super) struct Traffics(Arc<Inner>);

struct Inner {
    requests: Desc,
    duration: Desc,
    in_flight: Desc,
    // Taken when a route is built and when somebody looks, never for a request.
    routes: Mutex<BTreeMap<Box<str>, Arc<Traffic>>>,
}

impl Traffics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        };
        Ok(Self(Arc::new(Inner {
            requests: desc(
                "attache_requests_total",
                "Requests answered, by class of status code.",
                &["route", "code"],
            )?,
            duration: desc(
                "attache_request_duration_seconds",
                "Time from the head of a request to the end of its answer.",
                &["route"],
            )?,
            in_flight: desc("attache_requests_in_flight", "Requests being served now.", &["route"])?,
            routes: Mutex::default(),
        })))
    }

    /// The counters of one route.
    pub(super) fn route(&self, route: &str) -> Arc<Traffic> {
        let mut routes = self.0.routes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(route.into()).or_default())
    }
}

impl Collector for Traffics {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.requests, &self.0.duration, &self.0.in_flight]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (mut requests, mut duration, mut in_flight) = (Vec::new(), Vec::new(), Vec::new());
        let routes = self.0.routes.lock().unwrap_or_else(PoisonError::into_inner);
        for (route, traffic) in routes.iter() {
            for (class, answered) in CLASSES.iter().zip(&traffic.answered) {
                let mut counter = Counter::default();
                counter.set_value(answered.load(Relaxed) as f64);
                let mut metric = Metric::from_label(vec![label("code", class), label("route", route)]);
                metric.set_counter(counter);
                requests.push(metric);
            }
            let mut metric = Metric::from_label(vec![label("route", route)]);
            metric.set_histogram(traffic.histogram());
            duration.push(metric);
            let mut gauge = Gauge::default();
            gauge.set_value(traffic.under_way.load(Relaxed) as f64);
            let mut metric = Metric::from_label(vec![label("route", route)]);
            metric.set_gauge(gauge);
            in_flight.push(metric);
        }
        vec![
            family(&self.0.requests, MetricType::COUNTER, requests),
            family(&self.0.duration, MetricType::HISTOGRAM, duration),
            family(&self.0.in_flight, MetricType::GAUGE, in_flight),
        ]
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn family(desc: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn a_duration_counts_in_its_bucket_and_in_all_larger_ones() {
        let traffic = Traffic::default();
        for milliseconds in [0, 1, 2, 60_000, 60_001] {
            traffic.begin();
            traffic.end(Duration::from_millis(milliseconds));
        }
        let histogram = traffic.histogram();
        let buckets: Vec<u64> = histogram.get_bucket().iter().map(Bucket::cumulative_count).collect();
        assert_eq!(buckets, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert_eq!(histogram.get_sample_count(), 5);
        assert!((histogram.get_sample_sum() - 120.004).abs() < 1e-9);
    }

    #[test]
    fn a_route_has_every_series_from_the_start_and_one_set_of_counters() {
        let metrics = Metrics::new();
        let (one, again) = (metrics.route("orders"), metrics.route("orders"));
        let timer = one.begin();
        one.answered(204);
        again.answered(200);
        again.answered(999);
        let text = String::from_utf8(metrics.render()).unwrap();
        for line in [
            "# TYPE attache_requests_total counter",
            "attache_requests_total{code=\"2xx\",route=\"orders\"} 2",
            "attache_requests_total{code=\"5xx\",route=\"orders\"} 1",
            "attache_requests_total{code=\"1xx\",route=\"orders\"} 0",
            "# TYPE attache_requests_in_flight gauge",
            "attache_requests_in_flight{route=\"orders\"} 1",
            "# TYPE attache_request_duration_seconds histogram",
            "attache_request_duration_seconds_bucket{route=\"orders\",le=\"0.0025\"} 0",
            "attache_request_duration_seconds_bucket{route=\"orders\",le=\"+Inf\"} 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        drop(timer);
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains("attache_request_duration_seconds_count{route=\"orders\"} 1"), "{text}");
        assert!(text.contains("attache_requests_in_flight{route=\"orders\"} 0"), "{text}");
    }
}
