//! The answer passes as it came, or is refused; and what happens when either side breaks off.

use std::{io::Read as _, net::TcpListener};

use crate::support::{Caller, FakeServer, Reply, Sidecar, echo, get, post, provider};

fn answering(bytes: &'static [u8], close: bool) -> FakeServer {
    FakeServer::start(move |_| if close { Reply::raw(bytes).close() } else { Reply::raw(bytes) })
}

#[test]
fn promise_5_an_answer_passes_as_it_came_less_what_belongs_to_the_hop() {
    let provider = provider();
    let upstream = answering(
        b"HTTP/1.1 302 Found\r\nLocation: http://other.example/x\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Hop: 1\r\n\
          Connection: X-Hop\r\nKeep-Alive: timeout=5\r\nServer: odd\r\nContent-Length: 2\r\n\r\nok",
        false,
    );
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let answer = get(sidecar.proxy, "/");
    assert_eq!((answer.status, answer.text().as_str()), (302, "ok"));
    assert_eq!(answer.field("location"), Some("http://other.example/x"));
    assert_eq!(answer.head.matches("a=1").count() + answer.head.matches("b=2").count(), 2);
    assert_eq!(answer.field("server"), Some("odd"));
    for name in ["x-hop", "keep-alive", "via", "proxy-status"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
}

#[test]
fn bodies_of_every_framing_come_back_whole() {
    let provider = provider();
    for (bytes, close) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", true),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", true),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false),
    ] {
        let upstream =
            FakeServer::start(move |_| if close { Reply::raw(bytes).close() } else { Reply::raw(bytes) });
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        let answer = get(sidecar.proxy, "/");
        assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, "hello", true));
    }
    for bytes in
        [&b"HTTP/1.1 204 No Content\r\n\r\n"[..], b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"]
    {
        let upstream = FakeServer::start(move |_| Reply::raw(bytes));
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        let mut caller = Caller::connect(sidecar.proxy);
        for _ in 0..3 {
            caller.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert!(matches!(caller.answer().status, 204 | 304));
        }
        assert_eq!(upstream.connections(), 1);
    }
}

#[test]
fn the_answer_to_head_keeps_its_length_and_says_none_when_there_is_none() {
    let provider = provider();
    for (bytes, length) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"[..], Some("1234")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    ] {
        let upstream = FakeServer::start(move |_| Reply::raw(bytes));
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        let mut caller = Caller::connect(sidecar.proxy);
        for _ in 0..2 {
            caller.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = caller.answer_to("HEAD");
            assert_eq!((answer.status, answer.field("content-length")), (200, length));
        }
    }
}

#[test]
fn an_upstream_that_sends_what_can_be_read_in_two_ways_is_a_502() {
    let provider = provider();
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"nonsense\r\n\r\n",
        b"\r\n\r\n\x16\x03",
    ] {
        let upstream = FakeServer::start(move |_| Reply::raw(bytes).close());
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        let answer = post(sidecar.proxy, "/", b"x");
        assert_eq!(answer.status, 502, "{:?}", String::from_utf8_lossy(bytes));
        assert!(matches!(answer.reason().as_deref(), Some("upstream_invalid" | "upstream_closed")));
        assert_eq!(upstream.received().len(), 1, "a POST is sent once");
    }
}

#[test]
fn a_truncated_answer_looks_truncated() {
    let provider = provider();
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
    ] {
        let upstream = FakeServer::start(move |_| Reply::raw(bytes).close());
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        for _ in 0..20 {
            let answer = get(sidecar.proxy, "/");
            assert_eq!((answer.status, answer.complete), (200, false));
        }
        assert_eq!(upstream.received().len(), 20, "nothing is sent again once an answer has begun");
    }
}

#[test]
fn a_request_that_breaks_off_is_not_completed_for_the_upstream() {
    let provider = provider();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sidecar = Sidecar::to(&format!("http://{}", listener.local_addr().unwrap()), &provider, "");
    for framing in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\n{framing}"));
        let (mut upstream, mut received) = (listener.accept().unwrap().0, Vec::new());
        while !String::from_utf8_lossy(&received).contains("hello") {
            let mut piece = [0; 4096];
            let count = upstream.read(&mut piece).unwrap();
            received.extend_from_slice(&piece[..count]);
        }
        caller.finish();
        // The end of the connection, or its reset.
        let _ = upstream.read_to_end(&mut received);
        let received = String::from_utf8(received).unwrap();
        assert!(received.ends_with("hello") || received.ends_with("hello\r\n"), "{received}");
        assert_eq!(caller.answer().reason().as_deref(), Some("caller_aborted"));
    }
}

#[test]
fn a_request_that_broke_off_before_anything_was_sent_is_not_sent() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for framing in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\n{framing}"));
        caller.finish();
        assert!(caller.answer().status >= 400);
        assert!(upstream.received().iter().all(|request| !request.complete), "{framing}");
    }
}

#[test]
fn f9_a_kept_connection_that_was_closed_is_no_failure() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for _ in 0..50 {
        for method in ["GET", "PUT", "DELETE"] {
            let mut caller = Caller::connect(sidecar.proxy);
            caller.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"));
            assert_eq!(caller.answer().status, 200);
            upstream.close_connections();
        }
    }
}

#[test]
fn an_upstream_that_closes_instead_of_answering_is_a_502_and_is_asked_once() {
    let provider = provider();
    let upstream = FakeServer::start(|_| Reply::raw("").close());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let answer = get(sidecar.proxy, "/");
    assert_eq!((answer.status, answer.reason().as_deref()), (502, Some("upstream_closed")));
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn an_upstream_that_is_not_there_is_a_502_with_its_reason() {
    let provider = provider();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, reason) in [
        (format!("http://{nobody}"), "upstream_unreachable"),
        ("https://does-not-exist.invalid".to_owned(), "upstream_unresolved"),
    ] {
        let sidecar = Sidecar::to(&url, &provider, "");
        let answer = get(sidecar.proxy, "/");
        assert_eq!((answer.status, answer.reason().as_deref()), (502, Some(reason)));
    }
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in plain.incoming() {
            let _ = std::io::Write::write_all(&mut stream.unwrap(), b"HTTP/1.1 400 this is no TLS\r\n\r\n");
        }
    });
    let sidecar = Sidecar::to(&format!("https://{address}"), &provider, "");
    assert_eq!(get(sidecar.proxy, "/").reason().as_deref(), Some("upstream_tls"));
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_a_504() {
    let provider = provider();
    let silent = FakeServer::start(|_| Reply::raw(""));
    let sidecar = Sidecar::to(&silent.url(), &provider, "response_timeout = \"200ms\"");
    let answer = get(sidecar.proxy, "/");
    assert_eq!((answer.status, answer.reason().as_deref()), (504, Some("upstream_timeout")));
}

#[test]
fn a_header_that_shows_the_live_token_is_dropped() {
    let provider = provider();
    let upstream = FakeServer::start(|request| {
        let token = request.fields("authorization")[0].to_owned();
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nX-Echo: got {token}\r\nX-Fine: 1\r\nContent-Length: 0\r\n\r\n"
        ))
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let answer = get(sidecar.proxy, "/");
    assert_eq!((answer.field("x-echo"), answer.field("x-fine")), (None, Some("1")));
}

#[test]
fn slow_heads_and_idle_connections_are_closed_in_time() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&format!(
        "[proxy]\nheader_timeout = \"300ms\"\nidle_timeout = \"600ms\"\n{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        crate::support::credential(&provider),
        upstream.url()
    ));
    let mut slow = Caller::connect(sidecar.proxy);
    slow.send("GET / HTTP/1.1\r\nHo");
    let mut fresh = Caller::connect(sidecar.proxy);
    let mut kept = Caller::connect(sidecar.proxy);
    kept.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(kept.answer().status, 200);
    for caller in [&mut slow, &mut fresh, &mut kept] {
        assert!(caller.is_closed());
    }
}

#[test]
fn connections_above_the_limit_are_told_so() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&format!(
        "[proxy]\nmax_connections = 3\n{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        crate::support::credential(&provider),
        upstream.url()
    ));
    let mut kept: Vec<_> = (0..3)
        .map(|_| {
            let mut caller = Caller::connect(sidecar.proxy);
            caller.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(caller.answer().status, 200);
            caller
        })
        .collect();
    let mut refused = Caller::connect(sidecar.proxy);
    refused.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = refused.answer();
    assert_eq!((answer.status, answer.reason().as_deref()), (503, Some("too_many_connections")));
    assert!(refused.is_closed());
    for caller in &mut kept {
        caller.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(caller.answer().status, 200);
    }
    assert_eq!(sidecar.metric("attache_caller_connections_refused_total"), 1.0);
}

#[test]
fn interim_answers_pass_less_what_belongs_to_the_hop_and_not_to_http_1_0() {
    let provider = provider();
    let upstream = FakeServer::start(|_| {
        Reply::raw(
            "HTTP/1.1 100 Continue\r\n\r\n\
             HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Echo: token-1\r\n\r\n\
             HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = caller.rest();
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(answer.starts_with(early), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let answer = caller.rest();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[test]
fn f8_a_request_whose_answer_had_begun_is_not_sent_again() {
    let provider = provider();
    for cut in ["HTTP/1.1 200 O", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"] {
        let upstream = FakeServer::start(move |request| match request.number {
            1 => Reply::text(200, "fine"),
            _ => Reply::raw(cut).close(),
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        assert_eq!(get(sidecar.proxy, "/").text(), "fine");
        let broken = get(sidecar.proxy, "/");
        assert_eq!((broken.status, broken.reason().as_deref()), (502, Some("upstream_closed")), "{cut}");
        assert_eq!(upstream.received().len(), 2, "{cut}");
    }
}

#[test]
fn f9_a_kept_connection_that_ends_with_a_408_is_no_failure() {
    let provider = provider();
    let timeout = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let upstream = FakeServer::start(move |request| match request.number {
        2 => Reply::raw(timeout).close(),
        _ => Reply::text(200, "fine"),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for _ in 0..2 {
        assert_eq!(get(sidecar.proxy, "/").text(), "fine");
    }
    assert_eq!(upstream.received().len(), 3);
}

#[test]
fn a_token_in_a_reason_phrase_does_not_come_back() {
    let provider = provider();
    let upstream = FakeServer::start(|_| {
        Reply::raw("HTTP/1.1 400 What is token-1\r\nX: token-1\r\nContent-Length: 2\r\n\r\nno")
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let answer = get(sidecar.proxy, "/");
    assert!(answer.head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{}", answer.head);
    assert!(!answer.head.contains("token-1"), "{}", answer.head);
}
