//! Where the two roads touch.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::support::{
    Authority, Caller, FakeServer, Reply, Sidecar, TlsServer, echo, get, post, provider, token,
};

#[test]
fn promise_2_without_a_token_nothing_reaches_the_upstream_and_the_answer_is_503() {
    let provider = FakeServer::start(|_| Reply::text(503, ""));
    let upstream = echo();
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    provider.wait_for(2);
    for _ in 0..20 {
        let begun = Instant::now();
        let answer = get(sidecar.proxy, "/");
        assert!(begun.elapsed() < Duration::from_millis(500));
        assert_eq!((answer.status, answer.reason().as_deref()), (503, Some("token_unavailable")));
        let after: u64 = answer.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=11).contains(&after));
    }
    assert_eq!(get(sidecar.admin, "/readyz").status, 503);
    assert!(upstream.received().is_empty());
}

#[test]
fn promise_8_a_thousand_first_requests_make_one_token_request_and_get_a_thousand_answers() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let provider = FakeServer::start(move |request| {
        while !gate.load(Ordering::Acquire) {
            thread::yield_now();
        }
        token(request.number, 3600)
    });
    let upstream = echo();
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut callers: Vec<_> = (0..1000).map(|_| Caller::connect(sidecar.proxy)).collect();
    for caller in &mut callers {
        caller.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    provider.wait_for(1);
    open.store(true, Ordering::Release);
    for caller in &mut callers {
        assert_eq!(caller.answer().status, 200);
    }
    assert_eq!(provider.received().len(), 1);
}

#[test]
fn f11_a_thousand_requests_that_get_401_make_one_token_request_and_are_each_replayed_once() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.fields("authorization")[..] {
        ["Bearer token-1"] => Reply::text(401, "old"),
        _ => Reply::text(200, "new"),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut callers: Vec<_> = (0..1000).map(|_| Caller::connect(sidecar.proxy)).collect();
    // At most one token request a second: the first one is some time ago by then.
    sidecar.ready();
    for caller in &mut callers {
        caller.send("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody");
    }
    for caller in &mut callers {
        let answer = caller.answer();
        assert_eq!((answer.status, answer.text().as_str()), (200, "new"));
    }
    assert_eq!(provider.received().len(), 2);
    for request in upstream.received() {
        assert_eq!(request.body, b"body");
    }
}

#[test]
fn f12_a_401_to_a_request_that_must_not_be_repeated_passes_and_heals_the_next() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.fields("authorization")[..] {
        ["Bearer token-1"] => Reply::text(401, "old"),
        _ => Reply::text(200, "new"),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let refused = post(sidecar.proxy, "/", b"once");
    assert_eq!((refused.status, refused.text().as_str()), (401, "old"));
    assert_eq!(post(sidecar.proxy, "/", b"twice").status, 200);
    let bodies: Vec<_> = upstream.received().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [b"once".to_vec(), b"twice".to_vec()]);
}

#[test]
fn a_403_and_a_lack_of_scope_pass_and_refresh_nothing() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.line() {
        "GET /scope HTTP/1.1" => Reply::raw(
            "HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer error=\"insufficient_scope\"\r\nContent-Length: 0\r\n\r\n",
        ),
        _ => Reply::text(403, ""),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    assert_eq!(get(sidecar.proxy, "/scope").status, 401);
    assert_eq!(get(sidecar.proxy, "/").status, 403);
    assert_eq!(upstream.received().len(), 2);
    assert_eq!(provider.received().len(), 1);
}

#[test]
fn a_401_that_a_new_token_does_not_cure_passes_and_is_not_asked_about_again() {
    let provider = provider();
    let upstream = FakeServer::start(|_| Reply::text(401, ""));
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for _ in 0..10 {
        assert_eq!(get(sidecar.proxy, "/").status, 401);
    }
    assert_eq!(provider.received().len(), 2);
    assert_eq!(upstream.received().len(), 11, "one replay, for the first");
}

#[test]
fn promise_2_a_token_that_ends_while_the_connection_is_made_is_not_sent() {
    let provider = Arc::new(FakeServer::start(|request| token(request.number, 2)));
    let authority = Authority::new("the upstream's");
    let upstream = TlsServer::start(&authority, false, |_, _| (200, "{}".into()));
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(authority.pem.as_bytes()).unwrap();
    // In front of the upstream: lets nothing through before the first token has ended.
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", slow.local_addr().unwrap().port());
    let (waited_for, behind) = (Arc::clone(&provider), upstream.address);
    thread::spawn(move || {
        let (mut near, _) = slow.accept().unwrap();
        waited_for.wait_for(3);
        let mut far = TcpStream::connect(behind).unwrap();
        let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut far, &mut near);
    });
    let lines = format!("tls.ca_file = \"{}\"\nconnect_timeout = \"20s\"", ca.path().display());
    let sidecar = Sidecar::to(&url, &provider, &lines);
    assert_eq!(get(sidecar.proxy, "/").status, 200);
    let seen = upstream.wait_for(1);
    assert_ne!(seen[0].authorization.as_deref(), Some("Bearer token-1"));
}

/// Refuses the first token.
fn refusing_the_first() -> FakeServer {
    FakeServer::start(|request| match request.fields("authorization")[..] {
        ["Bearer token-1"] => Reply::text(401, "old"),
        _ => Reply::text(200, "new"),
    })
}

fn replays(sidecar: &Sidecar) -> [f64; 5] {
    ["accepted", "refused", "failed", "not_held", "no_token"].map(|outcome| {
        sidecar.metric(&format!("attache_token_replays_total{{outcome=\"{outcome}\",route=\"main\"}}"))
    })
}

#[test]
fn with_replay_all_a_post_that_was_refused_is_sent_once_more_with_its_whole_body() {
    for (length, status, sent) in [(64 * 1024, 200, 2), (64 * 1024 + 1, 401, 1)] {
        let (provider, upstream) = (provider(), refusing_the_first());
        let sidecar = Sidecar::to(&upstream.url(), &provider, "replay = \"all\"");
        let body = vec![b'x'; length];
        assert_eq!(post(sidecar.proxy, "/", &body).status, status, "{length}");
        let received = upstream.received();
        assert_eq!(received.len(), sent, "{length}");
        assert!(received.iter().all(|request| request.body == body && request.complete));
        assert_eq!(received[sent - 1].fields("authorization"), [format!("Bearer token-{sent}")]);
        let [accepted, .., not_held, _] = replays(&sidecar);
        assert_eq!([accepted, not_held], if sent == 2 { [1.0, 0.0] } else { [0.0, 1.0] });
    }
}

#[test]
fn f9_with_replay_all_a_post_that_meets_a_closing_connection_is_still_sent_once() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.line().contains("/second") {
        true => Reply::nothing(),
        false => Reply::text(200, "first"),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "replay = \"all\"");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(caller.answer().status, 200);
    caller.send("POST /second HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody");
    let answer = caller.answer_to("POST");
    assert_eq!((answer.status, answer.reason().as_deref()), (502, Some("upstream_closed")));
    assert_eq!((upstream.received().len(), upstream.connections()), (2, 1), "the second came once");
}

#[test]
fn every_401_is_counted_by_what_it_led_to() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.line().contains("/scope") {
        true => Reply::raw(
            "HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer error=\"insufficient_scope\"\r\nContent-Length: 0\r\n\r\n",
        ),
        false => Reply::text(401, ""),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let rejections = || {
        ["refresh", "superseded", "suppressed", "insufficient_scope"].map(|outcome| {
            let labels = format!("{{outcome=\"{outcome}\",route=\"main\"}}");
            sidecar.metric(&format!("attache_token_rejections_total{labels}"))
        })
    };
    sidecar.ready();
    assert_eq!(get(sidecar.proxy, "/scope").status, 401);
    assert_eq!((rejections(), replays(&sidecar)), ([0.0, 0.0, 0.0, 1.0], [0.0; 5]));
    // A refresh, which this one does not wait for.
    assert_eq!(post(sidecar.proxy, "/", b"x").status, 401);
    assert_eq!((rejections(), replays(&sidecar)), ([1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0, 0.0]));
    // This one waits for the new token, which is refused too: nothing is asked for less than 30 s later.
    assert_eq!(get(sidecar.proxy, "/").status, 401);
    assert_eq!(provider.received().len(), 2);
    assert_eq!((rejections(), replays(&sidecar)), ([1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0, 0.0]));
}

#[test]
fn a_replay_that_is_refused_or_not_answered_is_counted_and_passes_as_it_came() {
    for (target, outcome, status) in [("/", 1, 401), ("/gone", 2, 502)] {
        let provider = provider();
        let upstream = FakeServer::start(|request| match request.fields("authorization")[..] {
            ["Bearer token-2"] if request.line().contains("/gone") => Reply::nothing(),
            _ => Reply::text(401, ""),
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        assert_eq!(get(sidecar.proxy, target).status, status, "{target}");
        let mut expected = [0.0; 5];
        expected[outcome] = 1.0;
        assert_eq!(replays(&sidecar), expected, "{target}");
    }
}
