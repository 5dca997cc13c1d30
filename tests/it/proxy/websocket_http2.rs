//! WebSocket where at least one side speaks HTTP/2 (RFC 8441): the same tunnel, the same rules.

use std::{
    io::Read as _,
    sync::{Mutex, mpsc},
};

use attache::shutdown::Stage;
use bytes::Bytes;
use h2::{Reason, server::Builder};

use crate::support::{
    Asked, Authority, FakeServer, Files, Http2Caller, Http2Server, PATIENCE, Reply, Sidecar, get, provider,
    reset_of_stream,
    websocket::{Chat, ChatServer, Http, KEY, PAIRS, connect_request, extended, grant, switch},
};

const MESSAGES: usize = 300_000;

/// Grants a tunnel and keeps it until the caller ends it.
async fn keep(asked: Asked) {
    let (mut recv, _send) = grant(asked);
    while let Some(Ok(_)) = recv.data().await {}
}

#[test]
fn a_websocket_passes_whole_whatever_http_its_sides_speak() {
    for (from, to) in PAIRS {
        let (provider, upstream) = (provider(), ChatServer::start(to));
        let sidecar = Sidecar::to(&upstream.url(), &provider, to.protocol());
        let asked = Chat::ask(
            from,
            sidecar.proxy,
            "/chat?room=1",
            &[("authorization", "Bearer mine"), ("sec-websocket-protocol", "chat")],
        );
        assert_eq!(
            asked.status,
            if from == Http::One { 101 } else { 200 },
            "{from:?} {to:?} {:?}",
            asked.reason
        );
        assert!(!asked.headers.contains_key("x-echo"), "{from:?} {to:?}: it shows the token");
        assert_eq!(asked.headers["x-fine"], "1");
        let mut chat = asked.chat.unwrap();
        assert_eq!(chat.bytes(5), b"hello", "{from:?} {to:?}");
        let big: Vec<u8> = (0..MESSAGES).map(|at| (at % 251) as u8).collect();
        chat.send(&big);
        let back = chat.bytes(big.len());
        assert_eq!(back.len(), big.len(), "{from:?} {to:?}");
        assert!(back == big, "{from:?} {to:?}");
        let in_flight = sidecar.metric("attache_requests_in_flight{route=\"main\"}");
        assert!((in_flight - 1.0).abs() < f64::EPSILON);
        // The caller's end reaches the upstream, and what that says then still comes back.
        chat.finish();
        assert_eq!(chat.bytes(3), b"bye", "{from:?} {to:?}");
        assert!(chat.has_ended(), "{from:?} {to:?}");
        while sidecar.metric("attache_requests_in_flight{route=\"main\"}") > 0.5 {
            std::thread::yield_now();
        }
        if let ChatServer::One(upstream) = &upstream {
            let request = upstream.received()[0].clone();
            assert_eq!(request.line(), "GET /chat?room=1 HTTP/1.1");
            assert_eq!(request.fields("authorization"), ["Bearer token-1"]);
            assert_eq!(request.fields("upgrade"), ["websocket"]);
            assert_eq!(request.fields("connection"), ["upgrade"]);
            assert_eq!(request.fields("sec-websocket-protocol"), ["chat"]);
            assert_eq!(request.fields("sec-websocket-version"), ["13"]);
            let via = request.fields("via")[0].to_owned();
            assert!(via.starts_with(if from == Http::One { "1.1 attache-" } else { "2 attache-" }), "{via}");
        }
    }
}

#[test]
fn what_an_http_2_upstream_is_asked_has_one_credential_and_no_key() {
    for from in [Http::One, Http::Two] {
        let provider = provider();
        let (told, tells) = mpsc::channel();
        let told = Mutex::new(told);
        let upstream = Http2Server::with(extended(), None, move |asked| {
            let text = format!("{} {:?}", asked.head.uri, asked.head.headers);
            told.lock().unwrap().send(text).unwrap();
            async move { keep(asked).await }
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, Http::Two.protocol());
        let fields = [
            ("authorization", "Bearer mine"),
            ("authori_zation", "Bearer mine"),
            ("sec-websocket-protocol", "chat"),
        ];
        assert!(Chat::ask(from, sidecar.proxy, "/chat?room=1", &fields).chat.is_some());
        let asked = tells.recv_timeout(PATIENCE).unwrap();
        assert!(
            asked.contains("/chat?room=1") && asked.contains("\"sec-websocket-protocol\": \"chat\""),
            "{asked}"
        );
        assert_eq!(asked.matches("Bearer token-1").count(), 1, "{asked}");
        assert!(!asked.contains("mine") && !asked.contains(KEY), "{asked}");
    }
}

#[test]
fn the_upstream_may_end_its_direction_first_over_any_http() {
    for (from, to) in PAIRS {
        let provider = provider();
        let (told, tells) = mpsc::channel();
        let (server_1, server_2);
        let url = if to == Http::One {
            let told = Mutex::new(told);
            server_1 = FakeServer::start(move |request| {
                let told = told.lock().unwrap().clone();
                Reply::raw(format!("{}last", switch(request))).then(move |reader, writer| {
                    writer.shutdown(std::net::Shutdown::Write).unwrap();
                    let mut rest = Vec::new();
                    reader.read_to_end(&mut rest).unwrap();
                    told.send(rest).unwrap();
                })
            });
            server_1.url()
        } else {
            server_2 = Http2Server::with(extended(), None, move |asked| {
                let told = told.clone();
                async move {
                    let (mut recv, mut send) = grant(asked);
                    send.send_data(Bytes::from_static(b"last"), true).unwrap();
                    let mut rest = Vec::new();
                    while let Some(data) = recv.data().await {
                        rest.extend_from_slice(&data.unwrap());
                    }
                    told.send(rest).unwrap();
                }
            });
            server_2.url()
        };
        let sidecar = Sidecar::to(&url, &provider, to.protocol());
        let mut chat = Chat::ask(from, sidecar.proxy, "/", &[]).chat.unwrap();
        assert_eq!(chat.bytes(5), b"last", "{from:?} {to:?}");
        chat.send(b"still here");
        chat.finish();
        assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), b"still here", "{from:?} {to:?}");
    }
}

#[test]
fn a_tunnel_that_the_caller_breaks_off_breaks_off_for_the_upstream() {
    for (from, to) in PAIRS {
        let provider = provider();
        let (told, tells) = mpsc::channel();
        let (server_1, server_2);
        let url = if to == Http::One {
            let told = Mutex::new(told);
            server_1 = FakeServer::start(move |request| {
                let told = told.lock().unwrap().clone();
                Reply::raw(switch(request)).then(move |reader, _| {
                    // What was said before may be lost.
                    let broken = loop {
                        match reader.read(&mut [0]) {
                            Ok(0) => break "an end".to_owned(),
                            Ok(_) => {}
                            Err(error) => break format!("{:?}", error.kind()),
                        }
                    };
                    told.send(broken).unwrap();
                })
            });
            server_1.url()
        } else {
            server_2 = Http2Server::with(extended(), None, move |asked| {
                let told = told.clone();
                async move {
                    let (_recv, mut send) = grant(asked);
                    told.send(reset_of_stream(&mut send).await).unwrap();
                }
            });
            server_2.url()
        };
        let sidecar = Sidecar::to(&url, &provider, to.protocol());
        let mut chat = Chat::ask(from, sidecar.proxy, "/", &[]).chat.unwrap();
        chat.send(b"x");
        chat.break_off();
        let expected = if to == Http::One { "ConnectionReset" } else { "CANCEL" };
        assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), expected, "{from:?} {to:?}");
    }
}

#[test]
fn a_tunnel_that_the_upstream_breaks_off_breaks_off_for_the_caller() {
    for (from, to) in PAIRS {
        let provider = provider();
        let (server_1, server_2);
        let url = if to == Http::One {
            server_1 = FakeServer::start(|request| {
                Reply::raw(switch(request)).then(|reader, writer| {
                    let _ = reader.read(&mut [0]);
                    // Closing would not: the fake holds the connection too. This resets it (connect(2), AF_UNSPEC).
                    rustix::net::connect_unspec(writer).unwrap();
                })
            });
            server_1.url()
        } else {
            server_2 = Http2Server::with(extended(), None, |asked| async move {
                let (mut recv, mut send) = grant(asked);
                recv.data().await.unwrap().unwrap();
                send.send_reset(Reason::CANCEL);
            });
            server_2.url()
        };
        let sidecar = Sidecar::to(&url, &provider, to.protocol());
        let mut chat = Chat::ask(from, sidecar.proxy, "/", &[]).chat.unwrap();
        chat.send(b"x");
        let expected = if from == Http::One { "ConnectionReset" } else { "CANCEL" };
        assert_eq!(chat.breaks_off(), expected, "{from:?} {to:?}");
    }
}

#[test]
fn a_tunnel_over_http_2_has_until_the_end_of_the_drain() {
    for to in [Http::One, Http::Two] {
        let (provider, upstream) = (provider(), ChatServer::start(to));
        let lines = format!("{}\n[proxy]\nidle_timeout = \"1ms\"", to.protocol());
        let sidecar = Sidecar::to(&upstream.url(), &provider, &lines);
        let mut chat = Chat::ask(Http::Two, sidecar.proxy, "/", &[]).chat.unwrap();
        assert_eq!(chat.bytes(5), b"hello");
        sidecar.trigger.advance(Stage::Draining);
        // Closed ports tell that the drain has begun.
        while std::net::TcpStream::connect(sidecar.proxy).is_ok() {
            std::thread::yield_now();
        }
        for _ in 0..3 {
            chat.send(b"still");
            assert_eq!(chat.bytes(5), b"still", "{to:?}");
        }
        sidecar.trigger.advance(Stage::Now);
        assert_eq!(chat.bytes(1), b"", "{to:?}");
    }
}

#[test]
fn a_refused_handshake_is_an_ordinary_answer_and_a_success_without_a_tunnel_is_none() {
    let refusing = |status: u16| FakeServer::start(move |_| Reply::text(status, "no"));
    let provider = provider();
    for (status, expected, reason) in [
        (403, 403, None),
        (426, 426, None),
        (302, 302, None),
        (200, 502, Some("upgrade_failed")),
        (201, 502, Some("upgrade_failed")),
    ] {
        let upstream = refusing(status);
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        let told = Chat::ask(Http::Two, sidecar.proxy, "/", &[]);
        assert_eq!((told.status, told.reason.as_deref()), (expected, reason), "{status}");
        let told = Chat::ask(Http::One, sidecar.proxy, "/", &[]);
        assert_eq!((told.status, told.reason), (status, None), "{status}");
    }
    let upstream = Http2Server::with(extended(), None, |mut asked| async move { asked.answer(403, b"no") });
    let sidecar = Sidecar::to(&upstream.url(), &provider, Http::Two.protocol());
    for from in [Http::One, Http::Two] {
        assert_eq!(Chat::ask(from, sidecar.proxy, "/", &[]).status, 403, "{from:?}");
    }
}

#[test]
fn an_upstream_that_answers_another_key_has_not_switched() {
    let provider = provider();
    for accept in ["", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"] {
        let upstream = FakeServer::start(move |_| {
            Reply::raw(format!("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\n"))
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        let told = Chat::ask(Http::Two, sidecar.proxy, "/", &[("sec-websocket-key", KEY)]);
        assert_eq!((told.status, told.reason.as_deref()), (502, Some("upgrade_failed")), "{accept}");
        let series = "attache_own_answers_total{reason=\"upgrade_failed\",route=\"main\"}";
        assert!((sidecar.metric(series) - 1.0).abs() < f64::EPSILON);
    }
}

#[test]
fn an_http_2_upstream_without_tunnels_is_told_apart() {
    let provider = provider();
    let upstream = Http2Server::start(|mut asked| async move {
        assert_eq!(asked.head.method, "GET");
        asked.answer(426, b"over HTTP/1.1 only");
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, Http::Two.protocol());
    // Of HTTP/1.1 it is an ordinary request, as to any server that does not understand `Upgrade`.
    assert_eq!(Chat::ask(Http::One, sidecar.proxy, "/", &[]).status, 426);
    let told = Chat::ask(Http::Two, sidecar.proxy, "/", &[]);
    assert_eq!((told.status, told.reason.as_deref()), (502, Some("upgrade_failed")));
}

#[test]
fn over_tls_a_stream_is_asked_for_where_it_is_offered_and_a_connection_otherwise() {
    let (authority, files, provider) = (Authority::new("an authority"), Files::new(), provider());
    let path = files.write("ca.pem", &authority.pem);
    let tls = format!("[routes.main.tls]\nca_file = \"{}\"", path.display());
    for (settings, streams) in [(extended(), true), (Builder::new(), false)] {
        let upstream = Http2Server::with(settings, Some(&authority), |asked| async move {
            keep(asked).await;
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, &tls);
        // One of HTTP/1.1 gets what every server of WebSocket speaks.
        assert_eq!(Chat::ask(Http::One, sidecar.proxy, "/", &[]).status, 502);
        assert_eq!(upstream.wait_for_notes(1), ["not HTTP/2"]);
        let told = Chat::ask(Http::Two, sidecar.proxy, "/", &[]);
        assert_eq!(told.status, if streams { 200 } else { 502 });
        assert_eq!(upstream.wait_for_notes(if streams { 1 } else { 2 }).len(), if streams { 1 } else { 2 });
    }
}

#[test]
fn a_handshake_over_http_2_meets_every_rule() {
    let (provider, upstream) = (provider(), ChatServer::start(Http::Two));
    let sidecar =
        Sidecar::to(&upstream.url(), &provider, &format!("path = \"/in\"\n{}", Http::Two.protocol()));
    let (ours, page) = ("http://localhost/in", Some(("origin", "http://localhost")));
    for (name, uri, protocol, field, status, reason) in [
        ("a foreign host", "http://evil.example/in", "websocket", None, 421, "foreign_host"),
        ("another host field", ours, "websocket", Some(("host", "evil.example")), 400, "malformed_host"),
        ("a page", ours, "websocket", page, 403, "foreign_origin"),
        ("no route", "http://localhost/out", "websocket", None, 404, "no_route"),
        ("dots", "http://localhost/in/../out", "websocket", None, 400, "path_refused"),
        ("a user", "http://a@localhost/in", "websocket", None, 400, "malformed_host"),
        ("another scheme", "ftp://localhost/in", "websocket", None, 400, "malformed_target"),
        ("another protocol", ours, "connect-udp", None, 405, "method_not_allowed"),
        ("another case", ours, "WebSocket", None, 405, "method_not_allowed"),
        ("two protocols", ours, "websocket, h2c", None, 405, "method_not_allowed"),
    ] {
        let mut request = connect_request(uri, protocol);
        if let Some((name, value)) = field {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let told = Chat::ask_http_2(Http2Caller::connect(sidecar.proxy), request);
        assert_eq!((told.status, told.reason.as_deref()), (status, Some(reason)), "{name}");
    }
    let ChatServer::Two(upstream) = &upstream else { unreachable!() };
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_handshake_over_http_2_is_not_replayed_after_a_401_but_the_next_one_has_the_new_token() {
    for from in [Http::One, Http::Two] {
        let provider = provider();
        let upstream = Http2Server::with(extended(), None, |mut asked| async move {
            match asked.field("authorization") {
                Some("Bearer token-1") => asked.answer(401, b""),
                _ => keep(asked).await,
            }
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, Http::Two.protocol());
        assert_eq!(Chat::ask(from, sidecar.proxy, "/", &[]).status, 401);
        assert_eq!(upstream.requests(), 1);
        provider.wait_for(2);
        while get(sidecar.admin, "/readyz").status != 200 {}
        assert!(Chat::ask(from, sidecar.proxy, "/", &[]).chat.is_some());
    }
}

#[test]
fn a_tunnel_over_http_2_takes_a_stream_and_not_a_connection() {
    let (provider, upstream) = (provider(), ChatServer::start(Http::Two));
    let sidecar =
        Sidecar::to(&upstream.url(), &provider, &format!("{}\n[proxy]\nworkers = 1", Http::Two.protocol()));
    let mut chats: Vec<_> =
        (0..50).map(|_| Chat::ask(Http::Two, sidecar.proxy, "/", &[]).chat.unwrap()).collect();
    for (number, chat) in chats.iter_mut().enumerate() {
        let said = format!("{number:03}");
        chat.send(said.as_bytes());
        assert_eq!(chat.bytes(8), format!("hello{said}").as_bytes());
    }
    let ChatServer::Two(upstream) = &upstream else { unreachable!() };
    assert!(upstream.connections() <= 2, "{}", upstream.connections());
}
