//! Upstreams that speak HTTP/2: one connection for many requests, and each request as if it had one of its own.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use h2::{Reason, server::Builder};
use http::Response;
use tokio::{sync::Semaphore, time::Instant};

use crate::support::{
    Asked, Authority, Caller, FakeServer, Files, Http2Caller, Http2Server, PATIENCE, Reply, Sidecar,
    credential, get, http2_request, post, provider, reset_of, token,
    websocket::{connect_request, extended},
};

const H2C: &str = "protocol = \"h2c\"";

/// Answers with what it received: the head as text for GET, the body for everything else.
async fn echo(mut asked: Asked) {
    let (body, _, whole) = asked.whole_body().await;
    if !whole {
        return;
    }
    let head = &asked.head;
    let mut text = format!("{} {}\n", head.method, head.uri);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    match head.method.as_str() {
        "GET" => asked.answer(200, text.as_bytes()),
        _ => asked.answer(200, &body),
    }
}

#[test]
fn a_request_arrives_over_http_2_with_one_credential_and_nothing_of_the_hop() {
    let (provider, upstream) = (provider(), Http2Server::start(echo));
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send(
        "GET /a%20b;v=1/?q=a%2Fb HTTP/1.1\r\nHost: localhost:7080\r\nX-One: 1\r\nX-One: 2\r\nConnection: x-two\r\n\
         X-Two: 2\r\nAuthorization: mine\r\nAuthori_zation: mine\r\nProxy-Authorization: mine\r\nUpgrade: websocket\r\n\
         Keep-Alive: 5\r\nCookie: a=b\r\n\r\n",
    );
    let text = caller.answer().text();
    let (line, fields) = text.split_once('\n').unwrap();
    assert_eq!(line, format!("GET http://localhost:{}/a%20b;v=1/?q=a%2Fb", upstream.address.port()));
    let mut fields: Vec<_> = fields.lines().filter(|field| !field.starts_with("via: 1.1 attache-")).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["authorization: Bearer token-1", "cookie: a=b", "x-one: 1", "x-one: 2"]);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let answer = caller.get("/b");
    assert!(answer.text().contains("via: 2 attache-"), "{}", answer.text());
    assert_eq!(upstream.requests(), 2);
}

#[test]
fn bodies_of_any_framing_pass_whole_both_ways_over_http_2() {
    let (provider, upstream) = (provider(), Http2Server::start(echo));
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let mut http2 = Http2Caller::connect(sidecar.proxy);
    for method in ["POST", "PUT", "DELETE", "PATCH", "QUERY"] {
        for size in [0, 1, 300_000] {
            let body: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
            for chunked in [false, true] {
                let mut caller = Caller::connect(sidecar.proxy);
                let framing = match chunked {
                    true => "Transfer-Encoding: chunked".to_owned(),
                    false => format!("Content-Length: {size}"),
                };
                caller.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n"));
                if chunked {
                    for piece in body.chunks(70_000) {
                        caller.send(format!("{:x}\r\n", piece.len()));
                        caller.send(piece);
                        caller.send("\r\n");
                    }
                    caller.send("0\r\n\r\n");
                } else {
                    caller.send(&body);
                }
                let answer = caller.answer_to(method);
                assert!(answer.complete && answer.body == body, "{method} {size} {chunked}");
            }
            let answer = http2.ask(http2_request(method, "/"), Some(&body));
            assert!(answer.reset.is_none() && answer.body == body, "{method} {size}");
        }
    }
    let workers = 2;
    assert!(upstream.connections() <= workers, "{} connections", upstream.connections());
}

#[test]
fn over_tls_http_2_is_spoken_where_it_is_offered_unless_the_route_says_otherwise() {
    let (authority, files, provider) = (Authority::new("an authority"), Files::new(), provider());
    let path = files.write("ca.pem", &authority.pem);
    let upstream = Http2Server::with(Builder::new(), Some(&authority), echo);
    let tls = format!("[routes.main.tls]\nca_file = \"{}\"", path.display());
    let sidecar = Sidecar::to(&upstream.url(), &provider, &tls);
    for _ in 0..3 {
        let answer = get(sidecar.proxy, "/a").text();
        assert!(
            answer.starts_with(&format!("GET https://localhost:{}/a\n", upstream.address.port())),
            "{answer}"
        );
    }
    assert!(upstream.connections() <= 2);
    let sidecar = Sidecar::to(&upstream.url(), &provider, &format!("protocol = \"http1\"\n{tls}"));
    assert_eq!(get(sidecar.proxy, "/a").status, 502);
    assert_eq!(upstream.wait_for_notes(1)[0], "not HTTP/2");
}

#[test]
fn requests_share_a_connection_and_open_another_when_its_limit_is_reached() {
    for (limit, connections) in [(None, 2), (Some(30), 4)] {
        let provider = provider();
        let gate = Arc::new(Semaphore::new(0));
        let mut settings = Builder::new();
        if let Some(limit) = limit {
            settings.max_concurrent_streams(limit);
        }
        let closed = Arc::clone(&gate);
        let upstream = Http2Server::with(settings, None, move |mut asked| {
            let gate = Arc::clone(&closed);
            async move {
                if asked.head.uri.path() == "/wait" {
                    gate.acquire().await.unwrap().forget();
                }
                asked.answer(200, b"ok");
            }
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
        let mut caller = Http2Caller::connect(sidecar.proxy);
        // What the upstream allows is known once it has said so.
        assert_eq!(caller.get("/").status, 200);
        let exchanges: Vec<_> = (0..99).map(|_| caller.begin(http2_request("GET", "/wait"), None)).collect();
        upstream.wait_for(100);
        assert_eq!(upstream.connections(), connections);
        gate.add_permits(99);
        for exchange in exchanges {
            assert_eq!(caller.rest(exchange).status, 200);
        }
    }
}

#[test]
fn with_max_connections_in_use_a_stream_waits_for_another_to_end() {
    let provider = provider();
    let gate = Arc::new(Semaphore::new(0));
    let mut settings = Builder::new();
    settings.max_concurrent_streams(1);
    let closed = Arc::clone(&gate);
    let upstream = Http2Server::with(settings, None, move |mut asked| {
        let gate = Arc::clone(&closed);
        async move {
            if asked.head.uri.path() == "/wait" {
                gate.acquire().await.unwrap().forget();
            }
            asked.answer(200, b"ok");
        }
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, &format!("max_connections = 1\n{H2C}"));
    let mut caller = Http2Caller::connect(sidecar.proxy);
    assert_eq!(caller.get("/").status, 200);
    let exchanges: Vec<_> = (0..3).map(|_| caller.begin(http2_request("GET", "/wait"), None)).collect();
    upstream.wait_for(2);
    gate.add_permits(3);
    for exchange in exchanges {
        assert_eq!(caller.rest(exchange).status, 200);
    }
    assert_eq!((upstream.requests(), upstream.connections()), (4, 1));
}

#[test]
fn a_stream_that_was_refused_is_sent_once_more_whatever_the_method_and_no_other_is() {
    for (code, again) in
        [(Reason::REFUSED_STREAM, true), (Reason::CANCEL, false), (Reason::INTERNAL_ERROR, false)]
    {
        let provider = provider();
        let upstream = Http2Server::start(move |mut asked: Asked| async move {
            if asked.number == 1 {
                // Some of the body is there already.
                asked.body.data().await.unwrap().unwrap();
                asked.respond.send_reset(code);
            } else {
                echo(asked).await;
            }
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
        let answer = post(sidecar.proxy, "/", b"hello");
        if again {
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
            assert_eq!(upstream.requests(), 2);
        } else {
            assert_eq!(
                (answer.status, answer.reason().as_deref()),
                (502, Some("upstream_closed")),
                "{code:?}"
            );
            assert_eq!(upstream.requests(), 1);
        }
    }
    // On a connection that was used before, too: the upstream has seen the request.
    let provider = provider();
    let upstream = Http2Server::start(|mut asked: Asked| async move {
        match asked.number {
            1 => asked.answer(200, b"ok"),
            _ => asked.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    });
    let sidecar = Sidecar::with_workers(
        "1",
        &format!(
            "{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n{H2C}\n",
            credential(&provider),
            upstream.url()
        ),
    );
    assert_eq!(get(sidecar.proxy, "/").status, 200);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    assert_eq!(caller.ask(http2_request("DELETE", "/"), None).status, 502);
    assert_eq!((upstream.requests(), upstream.connections()), (2, 1));

    let provider = crate::support::provider();
    let upstream = Http2Server::start(|mut asked: Asked| async move {
        asked.respond.send_reset(Reason::REFUSED_STREAM);
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    assert_eq!(get(sidecar.proxy, "/").status, 502);
    assert_eq!(upstream.requests(), 3);
}

#[test]
fn a_truncated_answer_over_http_2_looks_truncated_and_keeps_its_code() {
    for code in [Reason::NO_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM] {
        let provider = provider();
        let gate = Arc::new(Semaphore::new(0));
        let closed = Arc::clone(&gate);
        let upstream = Http2Server::start(move |mut asked: Asked| {
            let gate = Arc::clone(&closed);
            async move {
                let mut stream = asked.respond.send_response(Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"half"), false).unwrap();
                gate.acquire().await.unwrap().forget();
                stream.send_reset(code);
            }
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        caller.head();
        assert_eq!(caller.chunk().unwrap(), b"half");
        gate.add_permits(1);
        assert_eq!(caller.rest(), "", "{code:?}");
        let mut caller = Http2Caller::connect(sidecar.proxy);
        let exchange = caller.begin(http2_request("GET", "/"), None);
        let mut body = caller.head(exchange).0.into_body();
        assert_eq!(caller.runtime.block_on(body.data()).unwrap().unwrap(), "half");
        gate.add_permits(1);
        let broken = caller.runtime.block_on(body.data()).unwrap().unwrap_err();
        let expected = if code == Reason::NO_ERROR { Reason::INTERNAL_ERROR } else { code };
        assert_eq!(broken.reason(), Some(expected));
    }
}

#[test]
fn a_caller_that_goes_away_resets_its_stream_at_the_upstream() {
    let provider = provider();
    let notes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&notes);
    let upstream = Http2Server::start(move |mut asked: Asked| {
        let noted = Arc::clone(&noted);
        async move {
            if asked.head.method == "POST" {
                let (_, _, whole) = asked.whole_body().await;
                assert!(!whole);
                noted.lock().unwrap().push("a broken body".to_owned());
                return;
            }
            let early = asked.head.uri.path() == "/early";
            let _stream = early.then(|| asked.respond.send_response(Response::new(()), false).unwrap());
            let reason = reset_of(&mut asked.respond).await;
            noted.lock().unwrap().push(reason);
        }
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let wait = |count: usize| while notes.lock().unwrap().len() < count {};
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for(1);
    drop(caller);
    wait(1);
    let mut http2 = Http2Caller::connect(sidecar.proxy);
    let exchange = http2.begin(http2_request("GET", "/late"), None);
    upstream.wait_for(2);
    drop(exchange);
    wait(2);
    let exchange = http2.open(http2_request("POST", "/"), false);
    let mut body = exchange.body;
    body.send_data(Bytes::from_static(b"half"), false).unwrap();
    upstream.wait_for(3);
    body.send_reset(Reason::NO_ERROR);
    wait(3);
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    upstream.wait_for(4);
    drop(caller);
    wait(4);
    assert_eq!(*notes.lock().unwrap(), ["CANCEL", "CANCEL", "a broken body", "a broken body"]);
}

#[test]
fn a_401_over_http_2_is_replayed_with_the_new_token() {
    let provider = provider();
    let upstream = Http2Server::start(|mut asked: Asked| async move {
        let (body, ..) = asked.whole_body().await;
        match asked.field("authorization") {
            Some("Bearer token-1") => asked.answer(401, b"old"),
            _ => asked.answer(200, &body),
        }
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let answer = caller.ask(http2_request("PUT", "/"), Some(b"hello"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert_eq!((provider.received().len(), upstream.requests()), (2, 2));
}

#[test]
fn a_401_over_http_2_is_passed_on_when_more_of_the_body_has_come_meanwhile_than_is_held() {
    let (open, opened) = std::sync::mpsc::channel();
    let opened = Mutex::new(opened);
    let provider = FakeServer::start(move |request| {
        if request.number > 1 {
            opened.lock().unwrap().recv().unwrap();
        }
        token(request.number, 3600)
    });
    let came = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&came);
    let upstream = Http2Server::start(move |mut asked: Asked| {
        let came = Arc::clone(&counted);
        async move {
            asked.answer(if asked.number == 1 { 401 } else { 200 }, b"old");
            while let Some(Ok(data)) = asked.body.data().await {
                asked.body.flow_control().release_capacity(data.len()).unwrap();
                came.fetch_add(data.len(), Ordering::AcqRel);
            }
        }
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("PUT / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    provider.wait_for(2);
    caller.send("186a0\r\n");
    caller.send(vec![b'x'; 100_000]);
    let begun = Instant::now();
    while came.load(Ordering::Acquire) < 100_005 {
        assert!(begun.elapsed() < PATIENCE, "{}", came.load(Ordering::Acquire));
        std::thread::yield_now();
    }
    open.send(()).unwrap();
    let answer = caller.answer();
    assert_eq!((answer.status, answer.text().as_str()), (401, "old"));
    assert_eq!(upstream.requests(), 1, "what is left of the body was sent as all of it");
    let series = "attache_token_replays_total{outcome=\"not_held\",route=\"main\"}";
    assert!((sidecar.metric(series) - 1.0).abs() < 0.5);
}

#[test]
fn a_stream_that_waited_for_its_place_carries_the_token_of_then() {
    let (provider, gate) = (provider(), Arc::new(Semaphore::new(0)));
    let mut settings = Builder::new();
    settings.max_concurrent_streams(1);
    let (closed, old) = (Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&old);
    let upstream = Http2Server::with(settings, None, move |mut asked: Asked| {
        let (gate, seen) = (Arc::clone(&closed), Arc::clone(&seen));
        async move {
            if asked.field("authorization") != Some("Bearer token-1") {
                return asked.answer(200, b"new");
            }
            seen.fetch_add(1, Ordering::AcqRel);
            gate.acquire().await.unwrap().forget();
            asked.answer(401, b"old");
        }
    });
    let lines = format!("max_connections = 1\nwait_timeout = \"20s\"\n{H2C}");
    let sidecar = Sidecar::to(&upstream.url(), &provider, &lines);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let first = caller.begin(http2_request("GET", "/"), None);
    upstream.wait_for(1);
    let second = caller.begin(http2_request("GET", "/"), None);
    let waiting =
        format!("attache_upstream_requests_waiting{{upstream=\"localhost:{}\"}}", upstream.address.port());
    let begun = Instant::now();
    while sidecar.metric(&waiting) < 0.5 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    gate.add_permits(9);
    for exchange in [first, second] {
        assert_eq!(caller.rest(exchange).text(), "new");
    }
    assert_eq!(old.load(Ordering::Acquire), 1, "the second was sent with the token that the first lost");
}

#[test]
fn a_stream_that_is_asked_for_once_more_carries_the_token_of_then() {
    let request = |method| match method {
        "CONNECT" => connect_request("http://localhost/", "websocket"),
        _ => http2_request(method, "/"),
    };
    for method in ["POST", "CONNECT"] {
        let (provider, gate) = (provider(), Arc::new(Semaphore::new(0)));
        let closed = Arc::clone(&gate);
        let upstream = Http2Server::with(extended(), None, move |mut asked: Asked| {
            let gate = Arc::clone(&closed);
            async move {
                let token = asked.field("authorization").unwrap().to_owned();
                match asked.number {
                    1 => {
                        gate.acquire().await.unwrap().forget();
                        asked.respond.send_reset(Reason::REFUSED_STREAM);
                    }
                    2 => asked.answer(401, b"old"),
                    _ => asked.answer(403, token.as_bytes()),
                }
            }
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
        let mut caller = Http2Caller::connect(sidecar.proxy);
        caller.wait_for_extended_connect();
        let refused = caller.open(request(method), method != "CONNECT");
        upstream.wait_for(1);
        // Its token ends meanwhile.
        assert_eq!(caller.get("/").text(), "Bearer token-2");
        gate.add_permits(1);
        assert_eq!(caller.rest(refused).text(), "Bearer token-2", "{method}");
        assert_eq!(upstream.requests(), 4);
    }
}

#[test]
fn an_answer_without_a_body_is_not_waited_for_although_its_stream_stays_open() {
    let provider = provider();
    let upstream = Http2Server::start(|mut asked: Asked| async move {
        let status = if asked.head.method == "HEAD" { 200 } else { 204 };
        let response = Response::builder().status(status).header("content-length", "0").body(()).unwrap();
        let mut stream = asked.respond.send_response(response, false).unwrap();
        let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let (mut one, mut two) = (Caller::connect(sidecar.proxy), Http2Caller::connect(sidecar.proxy));
    for _ in 0..2 {
        for method in ["GET", "HEAD"] {
            one.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            // RFC 9110 §8.6: a 204 has no length, whatever the upstream says.
            let expected = if method == "HEAD" { (200, Some("0")) } else { (204, None) };
            let answer = one.answer_to(method);
            assert_eq!((answer.status, answer.field("content-length")), expected);
            let answer = two.ask(http2_request(method, "/"), None);
            assert_eq!((answer.status, answer.field("content-length")), expected);
        }
    }
}

#[test]
fn an_upstream_that_is_late_over_http_2_is_a_504_and_its_stream_is_reset() {
    let provider = provider();
    let (told, tells) = std::sync::mpsc::channel();
    let upstream = Http2Server::start(move |mut asked: Asked| {
        let told = told.clone();
        async move { told.send(reset_of(&mut asked.respond).await).unwrap() }
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, &format!("response_timeout = \"200ms\"\n{H2C}"));
    let answer = get(sidecar.proxy, "/");
    assert_eq!((answer.status, answer.reason().as_deref()), (504, Some("upstream_timeout")));
    assert_eq!(tells.recv().unwrap(), "CANCEL");
}

#[test]
fn a_slow_reader_holds_up_nobody_else_on_its_connection() {
    let provider = provider();
    let upstream = Http2Server::start(|mut asked: Asked| async move {
        if asked.head.uri.path() != "/large" {
            return asked.answer(200, b"ok");
        }
        let mut stream = asked.respond.send_response(Response::new(()), false).unwrap();
        while stream.send_data(Bytes::from(vec![b'x'; 16 * 1024]), false).is_ok() {
            stream.reserve_capacity(1);
            while stream.capacity() == 0 {
                if std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.is_none_or(|room| room.is_err())
                {
                    return;
                }
            }
        }
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    let slow: Vec<_> = (0..40)
        .map(|_| {
            let mut caller = Caller::connect(sidecar.proxy);
            caller.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
            caller.head();
            caller
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(get(sidecar.proxy, "/").status, 200);
    }
    let workers = 2;
    assert!(upstream.connections() <= workers, "{} connections", upstream.connections());
    drop(slow);
}

#[test]
fn an_upstream_that_does_not_speak_http_2_where_the_route_says_so_is_a_502_and_heals() {
    let (provider, upstream) = (provider(), FakeServer::start(|_| Reply::text(400, "what?").close()));
    let sidecar = Sidecar::to(&upstream.url(), &provider, H2C);
    for _ in 0..3 {
        let answer = get(sidecar.proxy, "/");
        assert_eq!((answer.status, answer.reason().as_deref()), (502, Some("upstream_invalid")));
    }
    assert_eq!(upstream.connections(), 3);
}
