//! Upstreams that are broken or mean harm: the caller gets their answer as it is, or a 502, or an answer that looks
//! truncated; never another caller's.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use h2::Reason;
use http::Response;

use crate::support::{
    Asked, Caller, FakeServer, Http2Server, Reply, Sidecar,
    either::{Client, ask},
    provider,
    websocket::Http,
};

/// Heads that can be read in more than one way, or not at all.
const BROKEN: &[(&str, &str)] = &[
    ("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"),
    ("a hexadecimal length", "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok"),
    ("a length of 2^64", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nok"),
    ("an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok"),
    (
        "a length and chunks, other order",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    ("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    (
        "chunked in two lines",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    ("an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\nok"),
    ("a folded line", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok"),
    ("a space before a colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"),
    ("no colon", "HTTP/1.1 200 OK\r\nContent-Length 2\r\n\r\nok"),
    ("an empty name", "HTTP/1.1 200 OK\r\n: 2\r\n\r\nok"),
    ("a bare line feed", "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\r\nok"),
    ("a carriage return within a value", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok"),
    (
        "two answers at once",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
    ),
    ("bytes after a 304", "HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
    ("no status", "HTTP/1.1 OK\r\n\r\n"),
    ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\n"),
    ("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    ("a status of zero", "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"),
    ("HTTP/0.9", "<html>hello</html>"),
    ("HTTP/2", "HTTP/2 200 OK\r\n\r\n"),
    ("HTTP/2 frames", "\0\0\x12\x04\0\0\0\0\0"),
    ("another protocol", "SSH-2.0-OpenSSH_9.6\r\n"),
    (
        "a 101 that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello",
    ),
];

#[test]
fn a_broken_head_of_an_answer_is_a_502_and_its_connection_is_not_used_again() {
    let provider = provider();
    for ((name, answer), from) in BROKEN.iter().flat_map(|row| [(row, Http::One), (row, Http::Two)]) {
        let upstream = FakeServer::start(move |request| match request.number {
            1 => Reply::raw(*answer).close(),
            _ => Reply::text(200, "fine"),
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        let mut client = Client::connect(from, sidecar.proxy);
        let refused = client.ask("POST", "/", &[], Some(b"x"));
        assert_eq!(refused.status, 502, "{name}: {}", refused.text());
        assert!(matches!(refused.reason.as_deref(), Some("upstream_invalid" | "upstream_closed")), "{name}");
        assert_eq!(client.ask("POST", "/", &[], Some(b"x")).text(), "fine", "{name}");
        assert_eq!((upstream.received().len(), upstream.connections()), (2, 2), "{name}");
    }
}

#[test]
fn a_broken_body_of_an_answer_looks_truncated_and_its_connection_is_not_used_again() {
    let provider = provider();
    let rows = [
        ("a size that is no number", "5\r\nhello\r\nzz\r\n"),
        ("a size of 2^64", "5\r\nhello\r\n10000000000000000\r\n"),
        ("a negative size", "5\r\nhello\r\n-1\r\n"),
        ("a chunk longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
        ("a bare line feed after a size", "5\r\nhello\r\n1\nx\r\n0\r\n\r\n"),
        ("nothing after the last chunk", "5\r\nhello\r\n0\r\n"),
        ("no last chunk", "5\r\nhello\r\n"),
    ];
    for ((name, chunks), from) in rows.iter().flat_map(|row| [(row, Http::One), (row, Http::Two)]) {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        let upstream = FakeServer::start(move |request| match request.number {
            1 => Reply::raw(answer.clone()).close(),
            _ => Reply::text(200, "fine"),
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        let broken = ask(from, sidecar.proxy, "GET", "/", None);
        assert!(broken.status == 502 || !broken.complete, "{name}: {}", broken.text());
        assert_eq!(ask(from, sidecar.proxy, "GET", "/", None).text(), "fine", "{name}");
        assert_eq!(upstream.connections(), 2, "{name}");
    }
}

#[test]
fn an_answer_that_nobody_asked_for_reaches_nobody() {
    // The second answer waits on the kept connection for whoever asks next: response queue poisoning.
    let provider = provider();
    let upstream = FakeServer::start(|request| {
        let own = request.line().to_owned();
        let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{own}{poison}", own.len()))
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for number in 0..100 {
        let from = if number % 2 == 0 { Http::One } else { Http::Two };
        let answer = ask(from, sidecar.proxy, "GET", &format!("/{number}"), None);
        let own = answer.status == 200 && answer.text().starts_with(&format!("GET /{number} "));
        assert!(own || answer.status == 502, "{number}: {} {}", answer.status, answer.text());
        assert!(!answer.text().contains("poison"));
    }
}

#[test]
fn the_body_of_an_answer_to_head_reaches_nobody() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.line().starts_with("HEAD") {
        true => Reply::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        ),
        false => Reply::text(200, "fine"),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for from in [Http::One, Http::Two].repeat(25) {
        let mut client = Client::connect(from, sidecar.proxy);
        assert_eq!(client.ask("HEAD", "/", &[], None).body, b"");
        assert_eq!(client.ask("GET", "/", &[], None).text(), "fine");
    }
}

#[test]
fn a_head_of_an_answer_that_is_too_large_is_a_502() {
    let provider = provider();
    for head in [
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1024 * 1024)),
        format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(1024 * 1024)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(200_000)),
        "x".repeat(1024 * 1024),
    ] {
        let upstream = FakeServer::start(move |_| Reply::raw(head.clone()).close());
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        for from in [Http::One, Http::Two] {
            let answer = ask(from, sidecar.proxy, "GET", "/", None);
            assert_eq!(answer.status, 502, "{}", answer.text());
        }
    }
}

#[test]
fn interim_answers_without_end_do_not_hold_a_request_for_ever() {
    let provider = provider();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            // Until the other side has had enough.
            while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
        }
    });
    let sidecar = Sidecar::to(&format!("http://{address}"), &provider, "");
    for from in [Http::One, Http::Two] {
        let answer = ask(from, sidecar.proxy, "GET", "/", None);
        assert_eq!((answer.status, answer.reason.as_deref()), (502, Some("upstream_invalid")));
    }
}

/// Answers some requests, breaks off others at a place that a counter chooses.
fn fickle(mut stream: TcpStream, turn: &AtomicUsize) {
    let mut buffer = [0; 4096];
    let mut request = Vec::new();
    loop {
        let Ok(count) = stream.read(&mut buffer) else { return };
        if count == 0 {
            return;
        }
        request.extend_from_slice(&buffer[..count]);
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let target = String::from_utf8_lossy(&request[4..end]).split(' ').next().unwrap().to_owned();
        request.drain(..end + 4);
        let body = target.repeat(40);
        let answer = match target.len() % 2 {
            0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            _ => format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
        };
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        // Every fifth answer is cut somewhere, the place moving on with each.
        let cut = if turn % 5 == 4 { (turn * 7919) % answer.len() } else { answer.len() };
        if stream.write_all(&answer.as_bytes()[..cut]).is_err() || cut < answer.len() {
            return;
        }
    }
}

#[test]
fn no_caller_ever_gets_an_answer_to_another_while_connections_break() {
    let provider = provider();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let turn = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let turn = Arc::clone(&turn);
            thread::spawn(move || fickle(stream.unwrap(), &turn));
        }
    });
    let sidecar = Sidecar::to(&format!("http://{address}"), &provider, "");
    let whole = ask_by_eight(sidecar.proxy);
    assert!(whole > 1500, "only {whole} of 2400 answers were whole");
}

/// Eight callers, half of them over HTTP/2, that ask 300 things each, and how many answers were whole: none may be of another.
fn ask_by_eight(proxy: SocketAddr) -> usize {
    let callers: Vec<_> = (0..8)
        .map(|who| {
            thread::spawn(move || {
                let mut whole = 0;
                let from = if who % 2 == 0 { Http::One } else { Http::Two };
                let mut client = Client::connect(from, proxy);
                for number in 0..300 {
                    let target = format!("/{who}-{}", "n".repeat(number % 7) + &number.to_string());
                    let answer = client.ask("GET", &target, &[], None);
                    if answer.status == 200 {
                        let (body, text) = (target.repeat(40), answer.text());
                        assert!(
                            text == body || (!answer.complete && body.starts_with(&text)),
                            "{target}: {text}"
                        );
                        whole += usize::from(answer.complete);
                    } else {
                        assert_eq!(answer.status, 502, "{}", answer.text());
                    }
                }
                whole
            })
        })
        .collect();
    callers.into_iter().map(|caller| caller.join().unwrap()).sum()
}

#[test]
fn no_caller_ever_gets_an_answer_to_another_while_streams_break() {
    let provider = provider();
    let upstream = Http2Server::start(|mut asked: Asked| async move {
        let body = asked.head.uri.path().repeat(40);
        if asked.number % 5 != 4 {
            return asked.answer(200, body.as_bytes());
        }
        // Every fifth is cut somewhere, the place moving on with each: before its head, or within its body.
        let cut = (asked.number * 7919) % body.len();
        if cut.is_multiple_of(3) {
            return asked.respond.send_reset(Reason::INTERNAL_ERROR);
        }
        let mut stream = asked.respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::copy_from_slice(&body.as_bytes()[..cut]), false).unwrap();
        stream.send_reset(Reason::INTERNAL_ERROR);
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, Http::Two.protocol());
    let whole = ask_by_eight(sidecar.proxy);
    assert!(whole > 1500, "only {whole} of 2400 answers were whole");
}

#[test]
fn a_connection_whose_request_was_answered_before_its_end_is_not_used_again() {
    let provider = provider();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                // Answers each head at once, and takes whatever follows for another.
                while let Ok(count) = stream.read(&mut [0; 4096]) {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{number:02}");
                    if count == 0 || stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let sidecar = Sidecar::to(&format!("http://{address}"), &provider, "");
    for round in 0..10 {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
        let early = caller.answer();
        assert_eq!((early.status, early.text()), (200, format!("{:02}", 2 * round + 1)));
        drop(caller);
        let mut next = Caller::connect(sidecar.proxy);
        next.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
        assert_eq!(next.answer().text(), format!("{:02}", 2 * round + 2));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 20);
}

#[test]
fn after_an_answer_of_http_1_0_a_chunked_body_still_arrives() {
    let provider = provider();
    let upstream = FakeServer::start(|_| {
        Reply::raw("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    for number in 0..4 {
        caller.send(
            "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        );
        assert_eq!(caller.answer().text(), "ok");
        assert_eq!(upstream.received()[number].body, b"hello", "request {number}");
    }
}
