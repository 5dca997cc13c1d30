//! WebSocket: what switches, what does not, and that no byte is lost on the way.

use std::io::{Read as _, Write as _};

use attache::shutdown::Stage;

use crate::support::{Caller, FakeServer, PATIENCE, Reply, Sidecar, echo, provider};

const ASK: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: chat\r\nAuthorization: mine\r\n\r\n";

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Echo: Bearer token-1\r\n\r\n";

/// An upstream that switches, says something at once, and then sends back what it receives until the end of it.
fn switching() -> FakeServer {
    FakeServer::start(|_| {
        Reply::raw(format!("{SWITCH}hello")).then(|reader, writer| {
            std::io::copy(reader, writer).unwrap();
            writer.write_all(b"bye").unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        })
    })
}

#[test]
fn a_websocket_passes_with_the_token_and_no_byte_is_lost() {
    let (provider, upstream) = (provider(), switching());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    // What follows looks like a request and is none; it comes in one piece with the one that asks.
    let early = "GET /no-request HTTP/1.1\r\nHost: x\r\nContent-Length: 9";
    caller.send(format!("{ASK}{early}"));
    let answer = caller.answer();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.field("upgrade"), Some("websocket"));
    assert_eq!(answer.field("connection"), Some("upgrade"));
    assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for name in ["x-echo", "content-length", "transfer-encoding"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    let big = "x".repeat(300_000);
    let expected = format!("hello{early}");
    assert_eq!(caller.bytes(expected.len()), expected.as_bytes());
    caller.send(&big);
    assert_eq!(caller.bytes(big.len()), big.as_bytes());
    // The caller's end reaches the upstream, and what that says then still comes back.
    caller.finish();
    assert_eq!(caller.bytes(4), b"bye");

    let requests = upstream.received();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(request.line(), "GET /chat?room=1 HTTP/1.1");
    assert_eq!(request.fields("authorization"), ["Bearer token-1"]);
    assert_eq!(request.fields("upgrade"), ["websocket"]);
    assert_eq!(request.fields("connection"), ["upgrade"]);
    assert_eq!(request.fields("sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    assert_eq!(request.fields("sec-websocket-protocol"), ["chat"]);
}

#[test]
fn the_upstream_may_end_its_direction_first() {
    let (sender, heard) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let upstream = FakeServer::start(move |_| {
        let sender = sender.lock().unwrap().clone();
        Reply::raw(SWITCH).then(move |reader, writer| {
            writer.write_all(b"last").unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
            let mut rest = String::new();
            reader.read_to_string(&mut rest).unwrap();
            sender.send(rest).unwrap();
        })
    });
    let provider = provider();
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send(ASK);
    assert_eq!(caller.answer().status, 101);
    assert_eq!(caller.bytes(5), b"last");
    caller.send("still here");
    caller.finish();
    assert_eq!(heard.recv().unwrap(), "still here");
}

#[test]
fn an_answer_that_does_not_switch_is_an_ordinary_one() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send(format!("{ASK}GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let first = caller.answer();
    assert_eq!((first.status, first.text().contains("upgrade: websocket")), (200, true));
    assert_eq!(first.field("upgrade"), None);
    assert!(caller.answer().text().starts_with("GET /next "));
    // A connection that carried an ordinary answer can carry another.
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn nothing_but_a_get_without_a_body_that_asks_for_websocket_is_an_upgrade() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.fields("x-switch").is_empty() {
        true => Reply::text(200, &request.head),
        false => Reply::raw(SWITCH),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for request in [
        "GET / HTTP/1.1\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\n",
        "GET / HTTP/1.1\r\nConnection: upgrade\r\n",
        "POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
        "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n",
        "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
        "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
        "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: tls/1.2, websocket2\r\n",
    ] {
        let body = match () {
            () if request.contains("Length: 1") => "x",
            () if request.contains("chunked") => "0\r\n\r\n",
            () => "",
        };
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!("{request}Host: localhost\r\n\r\n{body}"));
        let answer = caller.answer();
        let head = answer.text().to_lowercase();
        assert_eq!(answer.status, 200, "{request}");
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{request}: {head}");

        // Nor does it become one because the upstream thinks so.
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(format!("{request}Host: localhost\r\nX-Switch: 1\r\n\r\n{body}"));
        assert_eq!(caller.answer().reason().as_deref(), Some("upstream_invalid"), "{request}");
    }
}

#[test]
fn an_upstream_that_switches_to_something_else_is_a_502() {
    for upgrade in
        ["", "Upgrade: h2c\r\n", "Upgrade: websocket, h2c\r\n", "Upgrade: websocket\r\nUpgrade: h2c\r\n"]
    {
        let provider = provider();
        let upstream = FakeServer::start(move |_| {
            Reply::raw(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{upgrade}\r\n"))
        });
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(ASK);
        let answer = caller.answer();
        assert_eq!((answer.status, answer.reason().as_deref()), (502, Some("upstream_invalid")), "{upgrade}");
    }
}

#[test]
fn an_upgrade_is_not_replayed_after_a_401_but_the_next_one_has_the_new_token() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.fields("authorization") == ["Bearer token-1"] {
        true => Reply::text(401, ""),
        false => Reply::raw(SWITCH),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send(ASK);
    assert_eq!(caller.answer().status, 401);
    assert_eq!(upstream.received().len(), 1);
    provider.wait_for(2);
    caller.send(ASK);
    assert_eq!(caller.answer().status, 101);
}

#[test]
fn a_tunnel_is_in_flight_and_has_until_the_end_of_the_drain() {
    let (provider, upstream) = (provider(), switching());
    // The idle timeout is not for tunnels: they may be quiet.
    let sidecar = Sidecar::to(&upstream.url(), &provider, "[proxy]\nidle_timeout = \"1ms\"");
    let in_flight = "attache_requests_in_flight{route=\"main\"}";
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send(ASK);
    assert_eq!(caller.answer().status, 101);
    assert_eq!(caller.bytes(5), b"hello");
    assert!((sidecar.metric(in_flight) - 1.0).abs() < f64::EPSILON);
    sidecar.trigger.advance(Stage::Draining);
    // Closed ports tell that the drain has begun.
    while std::net::TcpStream::connect(sidecar.proxy).is_ok() {
        std::thread::yield_now();
    }
    for _ in 0..3 {
        caller.send("still");
        assert_eq!(caller.bytes(5), b"still");
    }
    sidecar.trigger.advance(Stage::Now);
    assert!(caller.is_closed());
}

#[test]
fn a_tunnel_that_breaks_off_on_one_side_breaks_off_on_the_other() {
    let reset = |stream: &std::net::TcpStream| {
        socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    };
    let (sender, seen) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let upstream = FakeServer::start(move |request| {
        let sender = sender.lock().unwrap().clone();
        let breaks = request.line().contains("/breaks");
        Reply::raw(SWITCH).then(move |reader, writer| {
            let mut byte = [0];
            let read = reader.read(&mut byte);
            if breaks {
                // Closing would not: the fake holds the connection too. This resets it (connect(2), AF_UNSPEC).
                return rustix::net::connect_unspec(writer).unwrap();
            }
            assert!(matches!(read, Ok(1)));
            sender.send(reader.read(&mut byte).map_err(|error| error.kind())).unwrap();
        })
    });
    let provider = provider();
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let switched = |target: &str| {
        let mut stream = std::net::TcpStream::connect(sidecar.proxy).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(ASK.replace("/chat?room=1", target).as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(b"x").unwrap();
        stream
    };
    let stream = switched("/caller");
    reset(&stream);
    drop(stream);
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), Err(std::io::ErrorKind::ConnectionReset));
    let mut stream = switched("/breaks");
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
