//! How spans are placed, kept and dropped.

use http::{HeaderValue, Method};

use super::*;

const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn recorder(ratio: f64, queued: usize) -> (Tracer, Receiver<Record>, Metrics) {
    let metrics = Metrics::new();
    let (queue, records) = sync_channel(queued);
    let recorder = Recorder {
        queue,
        queued: AtomicUsize::new(0),
        wake: tokio::sync::Notify::new(),
        ratio,
        query: false,
        metrics: metrics.spans(),
    };
    (Tracer(Some(Arc::new(recorder))), records, metrics)
}

fn headers(traceparent: Option<&'static str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.extend(traceparent.map(|value| (TRACEPARENT, HeaderValue::from_static(value))));
    headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
    headers
}

fn request() -> RequestSpan {
    RequestSpan {
        method: Method::GET,
        path: "/".into(),
        query: None,
        route: None,
        status: 200,
        reason: None,
        replayed: false,
        call_status: None,
    }
}

#[test]
fn when_off_nothing_is_touched() {
    let mut sent = headers(Some("nonsense"));
    assert!(Tracer::default().request(&mut sent).is_none());
    assert_eq!(sent, headers(Some("nonsense")));
}

#[test]
fn when_off_or_not_sampled_nothing_is_allocated() {
    let (off, mut sent) = (Tracer::default(), headers(Some(GOOD)));
    let counted = allocation_counter::measure(|| assert!(off.request(&mut sent).is_none()));
    assert_eq!(counted.count_total, 0);
    // So does one that is on and takes nothing.
    let (none, _records, _) = recorder(0.0, 1);
    let mut untold = headers(None);
    let counted = allocation_counter::measure(|| assert!(none.request(&mut untold).is_none()));
    assert_eq!(counted.count_total, 0);
    let (on, _records, _) = recorder(1.0, 1);
    let counted = allocation_counter::measure(|| assert!(on.request(&mut sent).is_some()));
    assert!(counted.count_total > 0, "the counter counts");
}

#[test]
fn a_sampled_caller_is_followed_and_its_state_is_told_on() {
    let (tracer, records, _) = recorder(0.0, 1);
    let mut sent = headers(Some(GOOD));
    let span = tracer.request(&mut sent).unwrap();
    let told = sent[TRACEPARENT].to_str().unwrap().to_owned();
    assert!(told.starts_with(&GOOD[..36]) && told.ends_with("-01") && told != GOOD, "{told}");
    assert_eq!(sent[TRACESTATE], "vendor=1");
    span.end(request());
    let record = records.recv().unwrap();
    assert_eq!(record.context.traceparent(), told);
    assert_eq!(record.context.parent, Some([0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]));
}

#[test]
fn a_caller_that_is_not_sampled_is_passed_on_as_it_came() {
    let (tracer, _records, _) = recorder(1.0, 1);
    let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let mut sent = headers(Some(unsampled));
    assert!(tracer.request(&mut sent).is_none());
    assert_eq!(sent, headers(Some(unsampled)));
}

#[test]
fn a_trace_begins_where_there_is_none_or_none_that_can_be_read() {
    let (tracer, _records, _) = recorder(1.0, 1);
    for traceparent in [None, Some("00-zz"), Some("")] {
        let mut sent = headers(traceparent);
        let span = tracer.request(&mut sent).unwrap();
        assert_eq!(span.context.parent, None);
        assert_eq!(sent[TRACEPARENT], span.context.traceparent());
        assert!(!sent.contains_key(TRACESTATE));
    }
}

#[test]
fn as_many_traces_begin_as_the_ratio_says() {
    for ratio in [0.0, 0.25, 1.0] {
        let (tracer, _records, _) = recorder(ratio, 1);
        let begun = (0..2000).filter(|_| tracer.request(&mut headers(None)).is_some()).count();
        // Six standard deviations.
        assert!((begun as f64 - 2000.0 * ratio).abs() < 120.0, "{begun} of 2000 at {ratio}");
    }
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (tracer, records, metrics) = recorder(1.0, 2);
    for _ in 0..5 {
        tracer.request(&mut headers(None)).unwrap().end(request());
    }
    assert_eq!(records.try_iter().count(), 2);
    let shown = String::from_utf8(metrics.render()).unwrap();
    assert!(shown.contains("attache_trace_spans_total{outcome=\"dropped\"} 3"), "{shown}");
}

#[test]
fn a_query_is_told_only_where_the_operator_wants_it() {
    let (tracer, _records, _) = recorder(1.0, 1);
    let mut span = tracer.request(&mut headers(None)).unwrap();
    let uri: Uri = "/a?token=x".parse().unwrap();
    assert_eq!(span.target(&uri), ("/a".into(), None));
    drop(tracer);
    Arc::get_mut(&mut span.recorder).unwrap().query = true;
    assert_eq!(span.target(&uri), ("/a".into(), Some("token=x".into())));
}
