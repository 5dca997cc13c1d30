//! `max_connections` to an upstream, over all workers, and the queue in front of it.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{sync::Semaphore, time::Instant};

use crate::support::{
    Asked, Caller, FakeServer, Http2Server, PATIENCE, Reply, Sidecar, credential, get, provider,
};

const ASK: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Holds answers until it is opened, and counts how many are held at once.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    held: AtomicUsize,
    most: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        let held = self.held.fetch_add(1, Ordering::AcqRel) + 1;
        self.most.fetch_max(held, Ordering::AcqRel);
        let open = self.open.lock().unwrap();
        let waited = self.opened.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap();
        assert!(!waited.1.timed_out(), "the gate is not opened");
        self.held.fetch_sub(1, Ordering::AcqRel);
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

fn upstream(gate: &Arc<Gate>) -> FakeServer {
    let gate = Arc::clone(gate);
    FakeServer::start(move |_| {
        gate.pass();
        Reply::text(200, "passed")
    })
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::yield_now();
    }
}

#[test]
fn there_are_never_more_connections_than_max_connections_and_the_rest_wait_their_turn() {
    let (gate, provider) = (Arc::new(Gate::default()), provider());
    let upstream = upstream(&gate);
    let sidecar = Sidecar::to(&upstream.url(), &provider, "max_connections = 3");
    let series = |name: &str| {
        format!("attache_upstream_{name}{{upstream=\"{}\"}}", upstream.url().replace("http://", ""))
    };
    // More callers than connections, on both workers.
    let mut callers: Vec<_> = (0..40).map(|_| Caller::connect(sidecar.proxy)).collect();
    for caller in &mut callers {
        caller.send(ASK);
    }
    wait_until("37 requests wait", || (sidecar.metric(&series("requests_waiting")) - 37.0).abs() < 0.5);
    assert!((sidecar.metric(&series("connections_open")) - 3.0).abs() < 0.5);
    gate.open();
    for round in 0..20 {
        for caller in &mut callers {
            let answer = caller.answer();
            assert_eq!((answer.status, answer.text().as_str()), (200, "passed"), "{round}");
            caller.send(ASK);
        }
    }
    for caller in &mut callers {
        assert_eq!(caller.answer().status, 200);
    }
    assert!(gate.most.load(Ordering::Acquire) <= 3);
    assert!(sidecar.metric(&series("requests_waiting")).abs() < 0.5);
}

#[test]
fn a_connection_that_one_worker_keeps_unused_makes_room_for_a_request_on_another() {
    let (gate, provider) = (Arc::new(Gate::default()), provider());
    gate.open();
    let upstream = upstream(&gate);
    // The least loaded worker gets the next caller: the two are on different ones.
    let sidecar = Sidecar::to(&upstream.url(), &provider, "max_connections = 1\nwait_timeout = \"20s\"");
    let (mut one, mut other) = (Caller::connect(sidecar.proxy), Caller::connect(sidecar.proxy));
    let begun = Instant::now();
    for _ in 0..20 {
        for caller in [&mut one, &mut other] {
            caller.send(ASK);
            assert_eq!(caller.answer().status, 200);
        }
    }
    // Sweeps alone would take a second each.
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn a_shared_connection_that_comes_to_rest_makes_room_for_a_request_on_another_worker() {
    let (provider, gate) = (provider(), Arc::new(Semaphore::new(0)));
    let closed = Arc::clone(&gate);
    let upstream = Http2Server::start(move |mut asked: Asked| {
        let gate = Arc::clone(&closed);
        async move {
            gate.acquire().await.unwrap().forget();
            asked.answer(200, b"ok");
        }
    });
    let lines = "protocol = \"h2c\"\nmax_connections = 1\nwait_timeout = \"20s\"";
    let sidecar = Sidecar::to(&upstream.url(), &provider, lines);
    let (mut one, mut other) = (Caller::connect(sidecar.proxy), Caller::connect(sidecar.proxy));
    one.send(ASK);
    upstream.wait_for(1);
    other.send(ASK);
    let waiting =
        format!("attache_upstream_requests_waiting{{upstream=\"localhost:{}\"}}", upstream.address.port());
    wait_until("the other waits", || sidecar.metric(&waiting) > 0.5);
    let begun = Instant::now();
    gate.add_permits(2);
    assert_eq!((one.answer().status, other.answer().status), (200, 200));
    // Until the sweep it would be 15 seconds.
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_request_is_not_turned_away_by_its_own_place_in_the_queue() {
    let (gate, provider) = (Arc::new(Gate::default()), provider());
    let held = Arc::clone(&gate);
    // It closes after its answers without saying so.
    let upstream = FakeServer::start(move |_| {
        held.pass();
        Reply::text(200, "passed").close()
    });
    let sidecar = Sidecar::with_workers(
        "1",
        &format!(
            "{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\nmax_connections = 1\nmax_waiting = 1\n",
            credential(&provider),
            upstream.url()
        ),
    );
    let waiting = format!(
        "attache_upstream_requests_waiting{{upstream=\"{}\"}}",
        upstream.url().replace("http://", "")
    );
    for turn in 0..20 {
        *gate.open.lock().unwrap() = false;
        let (mut first, mut second) = (Caller::connect(sidecar.proxy), Caller::connect(sidecar.proxy));
        first.send(ASK);
        upstream.wait_for(2 * turn + 1);
        second.send(ASK);
        wait_until("one request waits", || sidecar.metric(&waiting) > 0.5);
        gate.open();
        assert_eq!((first.answer().status, second.answer().status), (200, 200), "turn {turn}");
    }
}

#[test]
fn a_request_that_waits_too_long_or_finds_the_queue_full_gets_503() {
    let (gate, provider) = (Arc::new(Gate::default()), provider());
    let upstream = upstream(&gate);
    let limits = "max_connections = 1\nmax_waiting = 1\nwait_timeout = \"300ms\"";
    let sidecar = Sidecar::to(&upstream.url(), &provider, limits);
    let mut first = Caller::connect(sidecar.proxy);
    first.send(ASK);
    upstream.wait_for(1);
    let mut second = Caller::connect(sidecar.proxy);
    second.send(ASK);
    let waiting = format!(
        "attache_upstream_requests_waiting{{upstream=\"{}\"}}",
        upstream.url().replace("http://", "")
    );
    wait_until("one request waits", || sidecar.metric(&waiting) > 0.5);
    let full = get(sidecar.proxy, "/");
    let late = second.answer();
    for answer in [full, late] {
        assert_eq!((answer.status, answer.reason().as_deref()), (503, Some("upstream_busy")));
        assert_eq!(answer.field("retry-after"), Some("1"));
    }
    let counted = sidecar.metric("attache_own_answers_total{reason=\"upstream_busy\",route=\"main\"}");
    assert!((counted - 2.0).abs() < f64::EPSILON);
    gate.open();
    assert_eq!(first.answer().status, 200);
    second.send(ASK);
    assert_eq!(second.answer().status, 200);
}

#[test]
fn a_tunnel_counts_among_the_connections_until_it_ends() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.fields("upgrade").is_empty() {
        true => Reply::text(200, "plain"),
        false => Reply::raw("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").then(
            |reader, writer| {
                std::io::copy(reader, writer).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            },
        ),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "max_connections = 1\nwait_timeout = \"100ms\"");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(caller.answer().status, 101);
    assert_eq!(get(sidecar.proxy, "/").reason().as_deref(), Some("upstream_busy"));
    drop(caller);
    wait_until("the tunnel's place is free", || get(sidecar.proxy, "/").status == 200);
}
