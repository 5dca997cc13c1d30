//! Streams of HTTP/2 callers: what one does holds up no other, and each ends as its request does.

use std::{
    io::Read as _,
    sync::{Mutex, mpsc},
    time::Duration,
};

use attache::shutdown::Stage;
use bytes::Bytes;
use h2::Reason;

use crate::support::{
    Caller, FakeServer, Http2Caller, OPENING, Reply, Sidecar, block, credential, echo, frame, http2_request,
    provider,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// An upstream that sends these bytes and then tells when its connection is closed.
fn watched(bytes: &'static str) -> (FakeServer, mpsc::Receiver<()>) {
    let (closed, closes) = mpsc::channel();
    let closed = Mutex::new(closed);
    let upstream = FakeServer::start(move |_| {
        let closed = closed.lock().unwrap().clone();
        Reply::raw(bytes).then(move |reader, _| {
            let _ = reader.read_to_end(&mut Vec::new());
            closed.send(()).unwrap();
        })
    });
    (upstream, closes)
}

#[test]
fn a_caller_that_resets_a_stream_ends_its_request_at_the_upstream_too() {
    let provider = provider();
    for bytes in ["", "HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nhalf"] {
        let (upstream, closes) = watched(bytes);
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        let mut caller = Http2Caller::connect(sidecar.proxy);
        let mut exchange = caller.begin(http2_request("GET", "/"), None);
        upstream.wait_for(1);
        if bytes.is_empty() {
            exchange.body.send_reset(Reason::CANCEL);
        } else {
            let (answer, _) = caller.head(exchange);
            assert_eq!(answer.status(), 200);
            drop(answer);
        }
        closes.recv_timeout(PATIENCE).unwrap();
        // The connection goes on.
        let hurried = caller.begin(http2_request("GET", "/"), None);
        upstream.wait_for(2);
        drop(hurried);
        closes.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn a_body_that_a_caller_breaks_off_is_not_completed_for_the_upstream_whatever_the_code() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    for (number, code) in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR].into_iter().enumerate() {
        let mut exchange = caller.open(http2_request("POST", "/"), false);
        exchange.body.send_data(Bytes::from_static(b"half"), false).unwrap();
        // Sent on before the reset comes: the next request overtakes nothing.
        assert_eq!(caller.get("/").status, 200);
        exchange.body.send_reset(code);
        let received = upstream.wait_for(2 * number + 2);
        assert_eq!(received.iter().filter(|request| request.complete).count(), number + 1, "{code:?}");
    }
}

#[test]
fn as_many_streams_as_are_allowed_share_one_connection() {
    let provider = provider();
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = FakeServer::start(move |_| {
        let _ = gate.lock().unwrap().recv();
        Reply::text(200, "ok")
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let exchanges: Vec<_> = (0..100).map(|_| caller.begin(http2_request("GET", "/"), None)).collect();
    upstream.wait_for(100);
    assert_eq!(sidecar.metric("attache_requests_in_flight{route=\"main\"}"), 100.0);
    assert_eq!(sidecar.metric("attache_caller_connections"), 1.0);
    drop(open);
    for exchange in exchanges {
        assert_eq!(caller.rest(exchange).status, 200);
    }
    assert_eq!(caller.get("/").status, 200);
}

#[test]
fn a_stream_whose_upstream_is_late_is_a_504_and_the_others_go_on() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.line().contains("/late") {
        true => Reply::raw("").then(|reader, _| drop(reader.read_to_end(&mut Vec::new()))),
        false => Reply::text(200, "ok"),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "response_timeout = \"200ms\"");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    for _ in 0..2 {
        let late = caller.begin(http2_request("GET", "/late"), None);
        assert_eq!(caller.get("/").status, 200);
        let late = caller.rest(late);
        assert_eq!((late.status, late.reason().as_deref()), (504, Some("upstream_timeout")));
    }
}

#[test]
fn a_drain_lets_streams_finish_and_tells_the_caller_to_go_elsewhere() {
    let provider = provider();
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let upstream = FakeServer::start(move |_| {
        let _ = gate.lock().unwrap().recv();
        Reply::text(200, "ok")
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let quiet = Http2Caller::connect(sidecar.proxy);
    let exchange = caller.begin(http2_request("GET", "/"), None);
    upstream.wait_for(1);
    sidecar.trigger.advance(Stage::Draining);
    quiet.ended().unwrap();
    drop(open);
    let answer = caller.rest(exchange);
    assert_eq!((answer.status, answer.text().as_str(), answer.reset), (200, "ok", None));
    caller.ended().unwrap();
}

#[test]
fn slow_prefaces_and_heads_and_idle_connections_are_closed_in_time() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::run(&format!(
        "[proxy]\nheader_timeout = \"300ms\"\nidle_timeout = \"600ms\"\n{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        credential(&provider),
        upstream.url()
    ));
    let slow_head = frame(1, 1, 1, &block(&[(":method", "GET")]));
    for bytes in [&OPENING[..1], &OPENING[..20], &OPENING[..24], &[OPENING, &slow_head].concat(), OPENING] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send(bytes);
        caller.rest();
    }
    let mut idle = Http2Caller::connect(sidecar.proxy);
    assert_eq!(idle.get("/").status, 200);
    idle.ended().unwrap();
}

#[test]
fn a_stream_whose_caller_takes_nothing_of_the_answer_ends_and_the_others_go_on() {
    let provider = provider();
    let upstream = FakeServer::start(|_| Reply::text(200, &"x".repeat(100_000)));
    let sidecar = Sidecar::run(&format!(
        "[proxy]\nidle_timeout = \"600ms\"\n{}[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n",
        credential(&provider),
        upstream.url()
    ));
    // SETTINGS_INITIAL_WINDOW_SIZE of 0 (RFC 9113 §6.5.2).
    let mut opening = OPENING[..24].to_vec();
    opening.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let head = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/")]);
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send([opening, frame(1, 5, 1, &head)].concat());
    // Until the stream is reset, with CANCEL.
    loop {
        let header = caller.bytes(9);
        let length = usize::from(header[1]) << 8 | usize::from(header[2]);
        let payload = caller.bytes(length);
        assert_ne!(header[3], 0, "DATA without a window");
        if header[3] == 3 {
            assert_eq!(payload, [0, 0, 0, 8]);
            break;
        }
    }
    // And the connection carries others, each with all of its time.
    for stream in [3, 5] {
        caller.send(frame(1, 5, stream, &head));
        loop {
            let header = caller.bytes(9);
            let length = usize::from(header[1]) << 8 | usize::from(header[2]);
            caller.bytes(length);
            if header[8] == stream as u8 {
                assert_eq!(header[3], 1, "its answer begins");
                break;
            }
        }
    }
}

#[test]
fn an_answer_of_204_has_no_length() {
    let provider = provider();
    let upstream = FakeServer::start(|_| Reply::raw("HTTP/1.1 204 X\r\nContent-Length: 7\r\n\r\n"));
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let answer = Http2Caller::connect(sidecar.proxy).get("/");
    assert_eq!((answer.status, answer.field("content-length")), (204, None));
}

#[test]
fn a_preface_may_come_in_pieces() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    for byte in OPENING {
        caller.send([*byte]);
        std::thread::yield_now();
    }
    // SETTINGS, of which there is one with our limits first of all.
    assert_eq!(caller.bytes(9)[3], 4);
    let mut other = Caller::connect(sidecar.proxy);
    for byte in b"PRINT / HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        other.send([*byte]);
    }
    assert_eq!(other.answer().status, 200);
    let mut wrong = Caller::connect(sidecar.proxy);
    wrong.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert!(wrong.rest().starts_with("HTTP/1.1 400 "));
}

#[test]
fn floods_of_frames_end_the_connection() {
    let (provider, upstream) = (provider(), echo());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let head = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/")]);
    let resets = (0..2_000).flat_map(|number| {
        [frame(1, 5, 2 * number + 1, &head), frame(3, 0, 2 * number + 1, b"\0\0\0\x08")].concat()
    });
    let field = block(&[("x-a", "y")]).repeat(1_000);
    let continuations: Vec<u8> = [frame(1, 1, 1, &head), frame(9, 0, 1, &field).repeat(2_000)].concat();
    for (name, flood) in [("resets", resets.collect::<Vec<u8>>()), ("continuations", continuations)] {
        let mut caller = Caller::connect(sidecar.proxy);
        caller.send([OPENING, &flood].concat());
        caller.rest();
        assert!(sidecar.metric("attache_requests_in_flight{route=\"main\"}") <= 100.0, "{name}");
        assert_eq!(Http2Caller::connect(sidecar.proxy).get("/").status, 200, "{name}");
    }
}
