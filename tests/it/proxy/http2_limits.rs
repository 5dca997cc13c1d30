//! Limits where HTTP/2 is spoken: streams that wait for a full connection, and callers that are too many.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use h2::{Reason, server::Builder};
use http::HeaderValue;
use tokio::{sync::Semaphore, time::Instant};

use crate::support::{
    Caller, FakeServer, Http2Caller, Http2Server, PATIENCE, Sidecar, block, credential, echo, frame,
    http2_request, provider, until,
};

/// An upstream that takes one stream at a time, and holds it until it is let go.
fn one_at_a_time() -> (Http2Server, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, most, held) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let mut settings = Builder::new();
    settings.max_concurrent_streams(1);
    let (closed, counted, held) = (Arc::clone(&gate), Arc::clone(&most), Arc::new(held));
    let upstream = Http2Server::with(settings, None, move |mut asked| {
        let (gate, most, held) = (Arc::clone(&closed), Arc::clone(&counted), Arc::clone(&held));
        async move {
            most.fetch_max(held.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
            if asked.head.uri.path() == "/wait" {
                gate.acquire().await.unwrap().forget();
            }
            held.fetch_sub(1, Ordering::AcqRel);
            asked.answer(200, asked.head.uri.path().to_owned().as_bytes());
        }
    });
    (upstream, gate, most)
}

fn waiting(sidecar: &Sidecar, upstream: &Http2Server, count: f64) {
    let series =
        format!("attache_upstream_requests_waiting{{upstream=\"localhost:{}\"}}", upstream.address.port());
    let begun = Instant::now();
    while (sidecar.metric(&series) - count).abs() > 0.5 {
        assert!(begun.elapsed() < PATIENCE, "{} wait and not {count}", sidecar.metric(&series));
        std::thread::yield_now();
    }
}

#[test]
fn a_stream_that_waits_too_long_or_finds_the_queue_full_gets_503() {
    let (provider, (upstream, gate, _)) = (provider(), one_at_a_time());
    let lines = "protocol = \"h2c\"\nmax_connections = 1\nmax_waiting = 2\nwait_timeout = \"500ms\"";
    let sidecar = Sidecar::to(&upstream.url(), &provider, lines);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    assert_eq!(caller.get("/").status, 200);
    let served = caller.begin(http2_request("GET", "/wait"), None);
    upstream.wait_for(2);
    let late: Vec<_> = (0..2).map(|_| caller.begin(http2_request("GET", "/wait"), None)).collect();
    waiting(&sidecar, &upstream, 2.0);
    let full = caller.get("/");
    let late: Vec<_> = late.into_iter().map(|exchange| caller.rest(exchange)).collect();
    for answer in late.into_iter().chain([full]) {
        assert_eq!((answer.status, answer.reason().as_deref()), (503, Some("upstream_busy")));
        assert_eq!(answer.field("retry-after"), Some("1"));
    }
    let series = "attache_own_answers_total{reason=\"upstream_busy\",route=\"main\"}";
    assert!((sidecar.metric(series) - 3.0).abs() < f64::EPSILON);
    waiting(&sidecar, &upstream, 0.0);
    gate.add_permits(1);
    assert_eq!(caller.rest(served).status, 200);
    assert_eq!((upstream.requests(), upstream.connections()), (2, 1));
    // A place that nobody waits for is there for the next one.
    assert_eq!(caller.get("/").status, 200);
}

#[test]
fn streams_that_wait_get_their_place_in_turn_and_those_that_leave_give_up_theirs() {
    let (provider, (upstream, gate, most)) = (provider(), one_at_a_time());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "protocol = \"h2c\"\nmax_connections = 1");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    assert_eq!(caller.get("/").status, 200);
    let first = caller.begin(http2_request("GET", "/wait"), None);
    upstream.wait_for(2);
    let mut queue = Vec::new();
    for number in 1..=30 {
        queue.push(caller.begin(http2_request("GET", &format!("/{number}")), None));
        waiting(&sidecar, &upstream, f64::from(number));
    }
    // Every third leaves.
    let mut number = 0;
    queue.retain(|_| {
        number += 1;
        number % 3 != 0
    });
    waiting(&sidecar, &upstream, 20.0);
    gate.add_permits(1);
    assert_eq!(caller.rest(first).status, 200);
    let told: Vec<_> = queue.into_iter().map(|exchange| caller.rest(exchange).text()).collect();
    let expected: Vec<_> =
        (1..=30).filter(|number| number % 3 != 0).map(|number| format!("/{number}")).collect();
    assert_eq!(told, expected);
    assert_eq!((upstream.requests(), upstream.connections()), (22, 1));
    assert_eq!(most.load(Ordering::Acquire), 1);
}

#[test]
fn a_connection_that_nobody_waits_for_elsewhere_is_kept_however_many_take_turns_on_it() {
    let (provider, (upstream, gate, _)) = (provider(), one_at_a_time());
    let lines = format!(
        "{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\nprotocol = \"h2c\"\nmax_connections = 1\n",
        credential(&provider),
        upstream.url()
    );
    let sidecar = Sidecar::with_workers("1", &lines);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    assert_eq!(caller.get("/").status, 200);
    let mut exchanges = vec![caller.begin(http2_request("GET", "/wait"), None)];
    upstream.wait_for(2);
    exchanges.extend((0..90).map(|_| caller.begin(http2_request("GET", "/"), None)));
    waiting(&sidecar, &upstream, 90.0);
    gate.add_permits(1);
    for exchange in exchanges {
        assert_eq!(caller.rest(exchange).status, 200);
    }
    assert_eq!((upstream.requests(), upstream.connections()), (92, 1));
}

#[test]
fn a_caller_of_http_2_above_the_limit_is_told_so_in_http_2() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = limited(&provider, &upstream);
    let mut kept = Caller::connect(sidecar.proxy);
    kept.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(kept.answer().status, 200);
    // A caller that is late with its first bytes, on a busy machine, is answered as one of HTTP/1.1.
    let mut refused = 1.0;
    let mut ended = Http2Caller::connect(sidecar.proxy).ended().unwrap_err();
    while !ended.is_go_away() || !ended.is_remote() {
        assert!(refused < 100.0, "{ended}");
        refused += 1.0;
        ended = Http2Caller::connect(sidecar.proxy).ended().unwrap_err();
    }
    assert_eq!(ended.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert!(ended.to_string().contains("too_many_connections"), "{ended}");
    // One that says nothing is answered as one of HTTP/1.1, and soon.
    let mut silent = Caller::connect(sidecar.proxy);
    assert_eq!(silent.answer().status, 503);
    assert!(silent.is_closed());
    let series = "attache_own_answers_total{reason=\"too_many_connections\",route=\"(none)\"}";
    assert!((sidecar.metric(series) - 1.0 - refused).abs() < f64::EPSILON);
    drop(kept);
    let begun = Instant::now();
    loop {
        let answer = Http2Caller::connect(sidecar.proxy);
        if answer.was_served() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(upstream.received().len(), 2);
}

fn limited(provider: &FakeServer, upstream: &FakeServer) -> Sidecar {
    Sidecar::run(&format!(
        "[proxy]\nmax_connections = 1\n{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        credential(provider),
        upstream.url()
    ))
}

#[test]
fn requests_that_begin_together_get_the_connections_that_they_need() {
    let (provider, (upstream, gate, _)) = (provider(), one_at_a_time());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "protocol = \"h2c\"");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let exchanges: Vec<_> = (0..12).map(|_| caller.begin(http2_request("GET", "/wait"), None)).collect();
    upstream.wait_for(12);
    assert_eq!(upstream.connections(), 12);
    gate.add_permits(12);
    for exchange in exchanges {
        assert_eq!(caller.rest(exchange).status, 200);
    }
}

/// An upstream that speaks HTTP/2 and reads nothing as long as its lock is held. Then it answers what asks for it in its head.
struct Mute {
    url: String,
    accepted: Arc<AtomicUsize>,
    silence: Arc<Mutex<()>>,
}

impl Mute {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (accepted, silence) = <(Arc<AtomicUsize>, Arc<Mutex<()>>)>::default();
        let (counted, kept) = (Arc::clone(&accepted), Arc::clone(&silence));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, silence) = (stream.unwrap(), Arc::clone(&kept));
                counted.fetch_add(1, Ordering::AcqRel);
                thread::spawn(move || serve_mutely(stream, &silence));
            }
        });
        Self { url, accepted, silence }
    }
}

fn serve_mutely(mut stream: TcpStream, silence: &Mutex<()>) {
    stream.write_all(&[frame(4, 0, 0, b""), frame(4, 1, 0, b"")].concat()).unwrap();
    drop(silence.lock().unwrap());
    stream.read_exact(&mut [0; 24]).unwrap();
    let (mut head, mut payload) = ([0; 9], Vec::new());
    while stream.read_exact(&mut head).is_ok() {
        let [a, b, c, kind, _, id @ ..] = head;
        payload.resize(u32::from_be_bytes([0, a, b, c]) as usize, 0);
        stream.read_exact(&mut payload).unwrap();
        if kind == 1 && payload.windows(9).any(|bytes| bytes == b"answer-me") {
            let answer = frame(1, 5, u32::from_be_bytes(id), &block(&[(":status", "200")]));
            stream.write_all(&answer).unwrap();
        }
    }
}

/// Begins requests with long heads and gives them up, until one is the last.
fn fill(sidecar: &Sidecar, is_last: impl Fn() -> bool) {
    let (long, others) = ("x".repeat(60_000), sidecar.in_flight());
    let mut caller = Http2Caller::connect(sidecar.proxy);
    for given_up in 1..5_000 {
        if given_up % 16 == 0 {
            caller = Http2Caller::connect(sidecar.proxy);
        }
        let mut request = http2_request("GET", "/");
        request.headers_mut().insert("x", HeaderValue::from_str(&long).unwrap());
        let exchange = caller.begin(request, None);
        until(|| sidecar.in_flight() > others + 0.5);
        let is_last = is_last();
        drop(exchange);
        until(|| sidecar.in_flight() < others + 0.5);
        if is_last {
            return;
        }
    }
    panic!("there is no end to what a connection takes");
}

#[test]
fn heads_that_an_upstream_does_not_read_are_limited_also_those_of_requests_that_were_given_up() {
    let (provider, upstream) = (provider(), Mute::start());
    let silent = upstream.silence.lock().unwrap();
    let sidecar = Sidecar::to(&upstream.url, &provider, "protocol = \"h2c\"");
    sidecar.ready();
    // The kernel takes some of them, and then the connection of one of the two workers is full.
    fill(&sidecar, || upstream.accepted.load(Ordering::Acquire) >= 3);
    // Others are served.
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET / HTTP/1.1\r\nHost: localhost\r\nanswer-me: now\r\n\r\n");
    drop(silent);
    assert_eq!(caller.answer().status, 200);
}

#[test]
fn requests_that_wait_for_heads_to_be_written_go_on_when_they_are() {
    let (provider, upstream) = (provider(), Mute::start());
    let silent = upstream.silence.lock().unwrap();
    let lines = format!(
        "{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\nprotocol = \"h2c\"\n\
         max_connections = 1\nwait_timeout = \"20s\"\n",
        credential(&provider),
        upstream.url
    );
    // Another one would have no connection.
    let sidecar = Sidecar::with_workers("1", &lines);
    sidecar.ready();
    let series = format!(
        "attache_upstream_requests_waiting{{upstream=\"{}\"}}",
        upstream.url.trim_start_matches("http://")
    );
    let waits = || sidecar.metric(&series) > 0.5;
    let begin = |name| {
        let mut caller = Http2Caller::connect(sidecar.proxy);
        let mut request = http2_request("GET", "/");
        request.headers_mut().insert(name, HeaderValue::from_static("now"));
        let exchange = caller.begin(request, None);
        (caller, exchange)
    };
    // One that goes on: a connection that nothing is under way on would make room for another one, and one that ends would tell
    // the others.
    let _held = begin("not-me");
    until(|| sidecar.in_flight() > 0.5);
    let begun = Instant::now();
    let (caller, exchange) = loop {
        assert!(begun.elapsed() < PATIENCE, "the kernel takes whatever is written");
        until(|| sidecar.in_flight() < 1.5);
        fill(&sidecar, waits);
        let asking = begin("answer-me");
        until(|| sidecar.in_flight() > 1.5);
        // Unless the kernel has taken some more meanwhile.
        if waits() {
            break asking;
        }
    };
    drop(silent);
    assert_eq!(caller.rest(exchange).status, 200);
}
